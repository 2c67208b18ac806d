"""Arranges images in contact sheets and labelled strips. Pixels are uint8 RGB.

H, W: height and width of an image, H2, W2: of a strip or sheet, C: the channels R, G, B, M: images.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.pictures.pixels import to_uint8

PAPER = (255, 255, 255)
INK = (60, 64, 67)
PREDICTION = (230, 126, 34)
TRUTH = (39, 146, 96)
_GAP, _FRAME, _TEXT = 6, 4, 14


@dataclasses.dataclass(frozen=True)
class Group:
    """Images under one label.

    Attributes:
      label: short text above them.
      images: uint8 HWC, of any sizes.
      colour: of a frame around each image; None for no frame.
    """

    label: str
    images: Sequence[UInt8[np.ndarray, "H W C"]]
    colour: tuple[int, int, int] | None = None


def strip(groups: Sequence[Group], cell: int = 128) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Draws the groups in one row, a label above each; every image fills a square of `cell` pixels."""
    groups = [group for group in groups if len(group.images)]
    if not groups:
        raise UserError("0 images to draw a strip of: at least 1 is needed")
    font = ImageFont.load_default(_TEXT)
    pitch = cell + 2 * _FRAME + _GAP
    widths = [max(len(g.images) * pitch - _GAP, int(font.getlength(g.label)) + 1) for g in groups]
    header = _TEXT + 2 * _GAP if any(group.label for group in groups) else 0
    width = sum(widths) + 3 * _GAP * (len(groups) - 1) + 2 * _GAP
    canvas = Image.new("RGB", (width, header + cell + 2 * _FRAME + _GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    left = _GAP
    for group, group_width in zip(groups, widths):
        draw.text((left + _FRAME, _GAP // 2), group.label, fill=group.colour or INK, font=font)
        for i, image in enumerate(group.images):
            x = left + i * pitch
            if group.colour:
                draw.rectangle(
                    (x, header, x + cell + 2 * _FRAME - 1, header + cell + 2 * _FRAME - 1),
                    group.colour,
                )
            canvas.paste(_fit(image, cell), (x + _FRAME, header + _FRAME))
        left += group_width + 3 * _GAP
    return np.asarray(canvas)


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "H W C"]]]],
    *,
    columns: int = 8,
    cell: int = 128,
) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Stacks rows that show the same images in several states, such as originals and reconstructions.

    Args:
      rows: (label, images), with the same number of images; after `columns` images all rows continue below.
      columns: images side by side.
      cell: height and width of each image in pixels.
    """
    counts = {len(images) for _, images in rows}
    if len(counts) != 1 or 0 in counts:
        raise UserError(
            f"rows of {sorted(counts)} images: a contact sheet needs equally many in each, at least 1"
        )
    total = counts.pop()
    bands = []
    for start in range(0, total, columns):
        for label, images in rows:
            bands.append(
                strip([Group(label if start == 0 else "", images[start : start + columns])], cell)
            )
    width = max(band.shape[1] for band in bands)
    padded = [
        np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands
    ]
    return np.concatenate(padded)


def save_comparison(
    originals: Float[np.ndarray, "M H W C"],
    reconstructions: Float[np.ndarray, "M H W C"],
    path: epath.PathLike,
) -> None:
    """Writes a PNG of images above their reconstructions; floats in [0, 1]."""
    rows = [
        (label, list(to_uint8(images)))
        for label, images in (
            ("original, and below it the reconstruction", originals),
            ("", reconstructions),
        )
    ]
    save_png(path, contact_sheet(rows))


def save_png(path: epath.PathLike, image: UInt8[np.ndarray, "H W C"]) -> None:
    """Writes a PNG, local or remote; a half-written file never has the final name."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    files.write(path, buffer.getvalue())


def _fit(image: np.ndarray, cell: int) -> Image.Image:
    """Fits an image into a square cell and keeps its aspect ratio."""
    height, width = image.shape[:2]
    scale = cell / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Enlarged, the model's own pixels stay visible; reduced, the image is filtered so that it does not alias.
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (cell, cell), PAPER)
    square.paste(
        Image.fromarray(image).resize(size, how), ((cell - size[0]) // 2, (cell - size[1]) // 2)
    )
    return square
