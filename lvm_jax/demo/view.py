"""The parts of the page as HTML; every picture is inside it, so that none is written to disk to be shown."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lvm_jax.demo.studio import Example, Strip, Studio
from lvm_jax.reporting.html import text

_SHOWN = 128  # small pictures are enlarged to about this side, with hard edges


def examples_row(examples: Sequence[Example]) -> str:
    """A button for each example: the last images of its prompt, and its name."""
    if not examples:
        return ""
    buttons = "".join(
        f'<button type=button class=example data-index={i} aria-label="example: {text(example.name)}">'
        f"<span>{''.join(_picture(item.seen_HWC, '') for item in example.strip[-3:])}</span>"
        f"{text(example.name)}</button>"
        for i, example in enumerate(examples)
    )
    words = "held-out sentences; their last image is hidden"
    return f"<h2>Examples <small>{words}</small></h2><div class=examples>{buttons}</div>"


def strip_table(strip: Strip, studio: Studio) -> str:
    """The strip: a column an image, what was given above what the decoder reads, and room for more at the end."""
    given = any(item.given_HWC is not None for item in strip)
    columns = "".join(_column(strip, i, studio, given) for i in range(len(strip)))
    room = studio.max_prompt - len(strip)
    drop = (
        "<label class=drop><input type=file multiple accept='image/*' aria-label='add pictures'>"
        "<b aria-hidden=true>+</b><span>Drop pictures, or choose</span>"
        f"<small>room for {room}</small></label>"
        if room
        else ""
    )
    clear = (
        "<button type=button data-do=clear data-focus=clear>Remove all</button>" if strip else ""
    )
    words = f"{studio.vqgan.tokens_per_image} of {len(studio.colours_K3):,} codes an image"
    rows = (["given"] if given else []) + ["as the model sees it", "its codes"]
    labels = "".join(f"<span>{row}</span>" for row in rows) if strip else ""
    kind = "strip" if given else "strip made" if strip else "strip empty"
    return (
        f"<h2>Prompt <small>{len(strip)} of {studio.max_prompt} images, oldest first; {words}</small>{clear}</h2>"
        f"<div class='{kind}'><div class=rows aria-hidden=true>{labels}</div><ol>{columns}</ol>{drop}</div>"
    )


def candidates_row(candidates: Strip, truth: Strip) -> str:
    """The candidates, each with a button that appends it; behind them what the corpus has, where that is known."""
    if not candidates:
        return ""
    figures = "".join(
        f"<figure>{_picture(item.seen_HWC, f'candidate {i + 1}')}<figcaption>{i + 1}"
        f'<button type=button data-index={i} data-focus="append{i}" aria-label="append candidate {i + 1}">'
        "Append</button></figcaption></figure>"
        for i, item in enumerate(candidates)
    )
    if truth:
        figures += (
            f"<figure class=truth>{_picture(truth[0].seen_HWC, 'the truth')}"
            "<figcaption>what the corpus has</figcaption></figure>"
        )
    return f"<h2>Next image <small>append one to go on from it</small></h2><div class=candidates>{figures}</div>"


def notice(message: str, kind: str = "error") -> str:
    """One line for the user; an empty one takes no room."""
    return f"<p class={kind} role=alert>{text(message)}</p>" if message else ""


HEADING = (
    "<header><h1>Visual prompts</h1>"
    "<p>Show the model some images; it draws the one that comes next. Frames continue, pairs of (image, answer) "
    "set a task for the last image. Everything stays on this machine: pictures are kept in memory while the page is "
    "open, and written nowhere.</p></header>"
)


def label(model: str, data: str) -> str:
    """What answers, and what it has learned from."""
    return f"<dl class=label><dt>Model</dt><dd>{text(model)}</dd><dt>Data</dt><dd>{text(data)}</dd></dl>"


def _column(strip: Strip, i: int, studio: Studio, given: bool) -> str:
    """One image of the strip; `given`: there is a row of given pictures."""
    item, last = strip[i], len(strip) - 1
    pictures = [
        _picture(item.seen_HWC, f"image {i + 1} as the model sees it"),
        _picture(studio.code_map(item), f"the codes of image {i + 1}"),
    ]
    if item.given_HWC is not None:
        pictures.insert(0, _picture(item.given_HWC, f"image {i + 1} as given"))
    elif given:
        pictures.insert(0, "<span class=none title='it began as codes'>–</span>")

    def button(do: str, sign: str, words: str, off: bool = False) -> str:
        return (
            f'<button type=button data-do={do} data-index={i} data-focus="{do}{i}" '
            f'aria-label="{words} image {i + 1}" title="{words}"{" disabled" if off else ""}>{sign}</button>'
        )

    return (
        f"<li>{''.join(pictures)}<div>{button('left', '←', 'move left', i == 0)}<span>{i + 1}</span>"
        f"{button('right', '→', 'move right', i == last)}{button('remove', '×', 'remove')}</div></li>"
    )


def _picture(image: np.ndarray, words: str) -> str:
    scale = max(1, _SHOWN // image.shape[0])
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(scale, 0).repeat(scale, 1)).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{text(words)}" src="data:image/png;base64,{data}">'
