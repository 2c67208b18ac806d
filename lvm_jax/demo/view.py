"""The parts of the page as HTML; every picture is inside it, so that none is written to disk to be shown."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lvm_jax.demo.studio import Example, Strip, Studio
from lvm_jax.reporting.html import text

_SHOWN = 128  # enlarge to at least this many pixels, with hard edges, as browsers do it differently


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
    columns = "".join(_column(strip, i, studio) for i in range(len(strip)))
    room = studio.max_prompt - len(strip)
    drop = (
        "<label class=drop data-focus=drop>"
        "<input type=file multiple accept='image/*' aria-label='add pictures'>"
        f"<b aria-hidden=true>+</b><span>Drop pictures, or choose</span><small>room for {room}</small></label>"
        if room
        else ""
    )
    clear = (
        "<button type=button data-do=clear data-focus=clear>Remove all</button>" if strip else ""
    )
    grid = f"{len(studio.colours_K3):,} codes, {studio.vqgan.tokens_per_image} an image"
    rows = (
        "<div class=rows aria-hidden=true><span>given</span><span>as the model sees it</span>"
        "<span>its codes</span></div>"
        if strip
        else ""
    )
    return (
        f"<h2>Prompt <small>{len(strip)} of {studio.max_prompt} images, oldest first; {grid}</small>{clear}</h2>"
        f"<div class='strip{'' if strip else ' empty'}'>{rows}<ol>{columns}</ol>{drop}</div>"
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


def heading(model: str, data: str) -> str:
    """The title, and the label that says what answers and where."""
    return (
        "<header><h1>Visual prompts</h1>"
        "<p>Show the model some images; it draws the one that comes next. Frames continue, pairs of (image, answer) "
        "set a task for the last image.</p>"
        f"<dl><dt>Model</dt><dd>{text(model)}</dd><dt>Data</dt><dd>{text(data)}</dd>"
        "<dt>Privacy</dt><dd>Everything stays on this machine. Pictures are kept in memory while the page is open, "
        "and written nowhere.</dd></dl></header>"
    )


def _column(strip: Strip, i: int, studio: Studio) -> str:
    item = strip[i]
    given = (
        _picture(item.given_HWC, f"image {i + 1} as given")
        if item.given_HWC is not None
        else "<span class=none title='it began as codes'>–</span>"
    )
    last = len(strip) - 1

    def button(do: str, sign: str, words: str, off: bool = False) -> str:
        return (
            f'<button type=button data-do={do} data-index={i} data-focus="{do}{i}" '
            f'aria-label="{words} image {i + 1}" title="{words}"{" disabled" if off else ""}>{sign}</button>'
        )

    return (
        f"<li>{given}{_picture(item.seen_HWC, f'image {i + 1} as the model sees it')}"
        f"{_picture(studio.code_map(item), f'the codes of image {i + 1}')}"
        f"<div>{button('left', '←', 'move left', i == 0)}<span>{i + 1}</span>"
        f"{button('right', '→', 'move right', i == last)}{button('remove', '×', 'remove')}</div></li>"
    )


def _picture(image: np.ndarray, words: str) -> str:
    scale = max(1, _SHOWN // image.shape[0])
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(scale, 0).repeat(scale, 1)).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{text(words)}" src="data:image/png;base64,{data}">'
