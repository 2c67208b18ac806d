"""HTML of the strip and of its answers, from templates/."""

from collections.abc import Sequence

from lvm_jax.demo.codes import Strip
from lvm_jax.demo.lvm.studio import (
    Example,
    Reply,
    Studio,
    how_much_changed,
    likeliest_of,
    mean_of,
)
from lvm_jax.demo.view import ExampleButton, example_buttons, render


def examples_row(examples: Sequence[Example]) -> str:
    """A button for each example, with the last images of its prompt and its name."""
    buttons = [
        ExampleButton(example.name, [item.seen_HWC for item in example.strip[-3:]])
        for example in examples
    ]
    return example_buttons(buttons, "held-out sentences; their last image is hidden")


def strip_table(strip: Strip, studio: Studio) -> str:
    """The strip, one column per image: the given picture above what the decoder reads, and space for more."""
    return render(
        "strip.html",
        strip=strip,
        given=any(item.given_HWC is not None for item in strip),
        code_maps=[studio.code_map(item) for item in strip],
        max_prompt=studio.max_prompt,
        tokens_per_image=studio.coder.vqgan.tokens_per_image,
        codes=len(studio.colours_K3),
    )


def candidates_row(candidates: Strip, truth: Strip) -> str:
    """The candidates, each with a button that appends it, their mean, and the truth if it is known."""
    if not candidates:
        return ""
    several = len(candidates) > 1
    return render(
        "candidates.html",
        candidates=candidates,
        likeliest=likeliest_of(candidates) if several else None,
        mean=mean_of(candidates) if several else None,
        truth=truth,
    )


def swapped_rows(replies: tuple[Reply, Reply] | None) -> str:
    """The answers to two queries after the same pairs, and how much they differ; nothing before somebody asks."""
    if replies is None:
        return ""
    rows = [(reply, mean_of(reply.candidates)) for reply in replies]
    return render("swapped.html", rows=rows, words=how_much_changed(*replies))
