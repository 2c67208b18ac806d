"""HTML of examples, query and answers, from templates/.

H, W: pixels.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from lvm_jax.data.in_context.words import Words
from lvm_jax.demo.codes import Item
from lvm_jax.demo.drops import Picture
from lvm_jax.demo.unified.studio import (
    MASKS,
    Answer,
    Example,
    Prompt,
    Shot,
    Studio,
    Where,
    agreement,
    how_much_changed,
    mask_in,
    painted,
)
from lvm_jax.demo.view import ExampleButton, example_buttons, render
from lvm_jax.evaluation.in_context.shown import as_text
from lvm_jax.pictures.boxes import draw_boxes
from lvm_jax.pictures.resize import resize

_BOX_COLOUR = 4  # yellow in the palette
_THICK = 48  # pixels of a picture's side for one of a box's outline


def examples_row(examples: Sequence[Example]) -> str:
    """A button for each held-out episode: its last example with the answer, and the query."""
    return example_buttons(
        [_button(example) for example in examples],
        "held-out pictures; the last one's answer is hidden",
    )


def _button(example: Example) -> ExampleButton:
    prompt = example.prompt
    assert prompt.query is not None  # an episode has one
    shot = prompt.shots[-1]
    if prompt.question is MASKS and shot.mask is not None:
        pictures = [shot.picture.seen_HWC, shot.mask.seen_HWC, prompt.query.seen_HWC]
        return ExampleButton(f"{prompt.category}: mask", pictures)
    return ExampleButton(f"{prompt.category}: words", [_marked(shot), prompt.query.seen_HWC])


def prompt(asked: Prompt, studio: Studio, tool: str) -> str:
    """Question, category, examples and query, with space for more."""
    masks = asked.question is MASKS
    return render(
        "episode.html",
        asked=asked,
        masks=masks,
        shown=[_shown(shot, masks) for shot in asked.shots],
        query=None if asked.query is None else _given(asked.query),
        most=studio.most_examples,
        wheres=get_args(Where) if studio.has_room else (),
        tool=tool if masks else "box",
    )


def answer(found: Answer | None, query: Item, example: Example | None) -> str:
    """The answer beside the truth, if that is known."""
    if found is None:
        return ""
    truth = example.truth if example else None
    figures = [_figure(found, query, truth)]
    if truth is not None:
        figures.append(_true(truth, query))
    return render("answered.html", title="Answer", note="the likeliest", words="", figures=figures)


def swapped(answers: Sequence[Answer], query: Item, example: Example | None) -> str:
    """The answers after other examples and without any, and how much they differ."""
    if not answers:
        return ""
    own, *others = answers
    figures = [_figure(each, query, example.truth if example else None) for each in answers]
    if example and example.rival is not None and others:
        figures[1] = _figure(others[0], query, example.rival, f" about {example.other}")
    return render(
        "answered.html",
        title="The same query, other examples",
        note="nothing but the examples differs",
        words=how_much_changed(own, others) if others else "",
        figures=figures,
    )


def _figure(
    found: Answer, query: Item, truth: Item | Words | None, about: str = ""
) -> dict[str, Any]:
    facts = [f"{found.seconds:.1f} s"]
    if truth is not None:
        facts.insert(0, agreement(found, truth) + about)
    if found.broken:
        facts.append(f"{found.broken} ids could not be read")
    if found.drawn is not None:
        pictures = [painted(query.seen_HWC, mask_in(found.drawn)), found.drawn.seen_HWC]
        return {"what": found.what, "pictures": pictures, "text": "", "facts": facts, "true": False}
    assert found.words is not None
    pictures = [_with_boxes(query.seen_HWC, found.words)]
    text = as_text(found.words) or "nothing"
    return {"what": found.what, "pictures": pictures, "text": text, "facts": facts, "true": False}


def _true(truth: Item | Words, query: Item) -> dict[str, Any]:
    if isinstance(truth, Words):
        pictures, text = [_with_boxes(query.seen_HWC, truth)], as_text(truth)
    else:
        pictures, text = [painted(query.seen_HWC, mask_in(truth)), truth.seen_HWC], ""
    return {"what": "the truth", "pictures": pictures, "text": text, "facts": [], "true": True}


def _shown(shot: Shot, masks: bool) -> dict[str, Any]:
    """An example as its card shows it."""
    picture = _given(shot.picture)
    if masks and shot.mask is not None:
        side = picture.shape[0]
        picture = painted(picture, mask_in_size(shot.mask, side))
    elif not masks:
        picture = _with_boxes(picture, Words("", boxes=shot.boxes))
    return {
        "picture": picture,
        "seen": None if shot.picture.given_HWC is None else shot.picture.seen_HWC,
        "mask": None if shot.mask is None else shot.mask.seen_HWC,
        "caption": shot.caption,
        "boxes": shot.boxes,
    }


def mask_in_size(mask: Item, side: int) -> np.ndarray:
    """The mask as it was given, or else as it is drawn, at another size."""
    picture = mask.seen_HWC if mask.given_HWC is None else mask.given_HWC
    return resize(picture, side).sum(-1, dtype=np.int32) * 2 > 3 * 255


def _given(item: Item) -> Picture:
    return item.seen_HWC if item.given_HWC is None else item.given_HWC


def _marked(shot: Shot) -> Picture:
    return _with_boxes(shot.picture.seen_HWC, Words("", boxes=shot.boxes))


def _with_boxes(picture: Picture, words: Words) -> Picture:
    """The picture with the boxes that words have."""
    if not words.boxes:
        return picture
    height, width = picture.shape[:2]
    boxes = np.array(words.boxes, np.float64) * np.array([width, height, width, height])
    ids = np.full(len(boxes), _BOX_COLOUR)
    return draw_boxes(boxes, ids, 0, picture, thickness=max(1, height // _THICK))
