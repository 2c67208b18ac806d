"""A visual sentence: the codes of a sequence of images, one image after the other, and where they came from.

Its layout gives the role of each image, in order: `image,depth,image,depth`, or `frame*16`.

Shape legend: N images, C codes of an image.
"""

import dataclasses
import enum
import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16, UInt32

from lvm_jax.errors import UserError

MAX_IMAGES = 1 << 16
_LAYOUT_PART = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\*([1-9][0-9]{0,5}))?")


class Category(enum.IntEnum):
    """The five kinds of data in UVD (LVM paper, section 3.1)."""

    UNLABELLED_IMAGE = 1
    ANNOTATED_IMAGE = 2
    UNLABELLED_VIDEO = 3
    ANNOTATED_VIDEO = 4
    OBJECT_3D = 5


CATEGORIES = frozenset(Category)


@dataclasses.dataclass(frozen=True, eq=False)
class VisualSentence:
    """The codes of a sequence of images, and where they came from.

    Attributes:
      codes: one image a row; uint32 if the codebook is too large for uint16.
      source: name of the data set.
      category: see `Category`.
      key: names the sentence, stable and unique.
      layout: see the module.
    """

    codes: UInt16[np.ndarray, "N C"] | UInt32[np.ndarray, "N C"]
    source: str
    category: int
    key: str
    layout: str

    @property
    def roles(self) -> list[str]:
        """The role of each image."""
        return expand_layout(self.layout)


def expand_layout(layout: str) -> list[str]:
    """The role of each image: `"frame*3,mask"` gives `["frame", "frame", "frame", "mask"]`.

    Raises:
      UserError: a part that is not `role` or `role*N`, or more than `MAX_IMAGES` images.
    """
    return list(_expand(layout))


def compact_layout(roles: Sequence[str]) -> str:
    """The inverse of `expand_layout`: runs of a role become `role*N`.

    Raises:
      UserError: no role, or a role with characters other than letters, digits, `_` and `-`.
    """
    runs = [(role, len(list(group))) for role, group in itertools.groupby(roles)]
    layout = ",".join(role if count == 1 else f"{role}*{count}" for role, count in runs)
    if len(_expand(layout)) != len(roles):
        raise UserError(
            f"roles {list(roles)!r} do not survive in a layout: name them with letters, digits, _ and -"
        )
    return layout


def period_of(roles: Sequence[str]) -> int:
    """The length of the shortest repeating group of roles: 2 for pairs, 1 for frames."""
    return next(
        period
        for period in range(1, len(roles) + 1)
        if len(roles) % period == 0 and all(r == roles[i % period] for i, r in enumerate(roles))
    )


@functools.lru_cache(maxsize=4096)
def layout_period(layout: str) -> int:
    """`period_of` the roles of a layout.

    Raises:
      UserError: as in `expand_layout`.
    """
    return period_of(_expand(layout))


@functools.lru_cache(maxsize=4096)  # a corpus has few layouts and many records
def _expand(layout: str) -> tuple[str, ...]:
    roles: list[str] = []
    for part in layout.split(","):
        match = _LAYOUT_PART.fullmatch(part)
        if not match:
            raise UserError(
                f"layout {layout!r} has the part {part!r}: write role or role*N, such as frame*16,mask"
            )
        count = int(match[2] or 1)
        if len(roles) + count > MAX_IMAGES:
            raise UserError(
                f"layout {layout!r} has more than {MAX_IMAGES} images: shorten the sentence"
            )
        roles += [match[1]] * count
    return tuple(roles)


def problem_of(category: int, layout: str, n_images: int) -> str | None:
    """Says what is wrong with the category or layout of a sentence of `n_images` images; None if nothing is."""
    if category not in CATEGORIES:
        return f"category {category} is not one of {', '.join(f'{c.value} {c.name.lower()}' for c in Category)}"
    try:
        described = len(_expand(layout))
    except UserError as error:
        return str(error)
    if described != n_images:
        return f"layout {layout!r} describes {described} images, its codes are {n_images}"
    return None
