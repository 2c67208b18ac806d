"""Composers: how the images of one or several items become one visual sentence.

A composer is a frozen dataclass with two pure methods. `plan` decides from their keys alone which items stand together;
`compose` picks and orders their images. All chance comes from the `np.random.Generator` of the call, so the same seed
gives the same sentence anywhere. The kinds of sentence are those of Bai et al., arXiv 2312.00785, section 3.

An item is what a source loads: role -> images, uint8 (height, width, 3), of any size; resizing comes later.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import UInt8

from lvm_jax.data.visual_sentence import compact_layout
from lvm_jax.errors import UserError

Image = UInt8[np.ndarray, "height width 3"]
Item = Mapping[str, Sequence[Image]]
Groups = list[tuple[str, ...]]


class Unfit(Exception):
    """Item number `position` of a group cannot give its images: a role is absent, or a clip is too short."""

    def __init__(self, position: int, why: str):
        super().__init__(why)
        self.position = position
        self.why = why


class Composer(Protocol):
    """What the pipeline asks of every kind of sentence."""

    @property
    def max_images(self) -> int:
        """The most images that a sentence can hold."""
        ...

    @property
    def max_items(self) -> int:
        """The most items that a sentence can need; with as many there is at least one sentence."""
        ...

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """One pass over `keys`: groups of item keys, a sentence each; every key occurs if there are enough for one."""
        ...

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """The images of one sentence, in order, and their layout, such as `image,depth,image,depth`.

        Raises:
          Unfit: an item lacks what this sentence needs.
        """
        ...


@dataclasses.dataclass(frozen=True)
class SingleImage:
    """One image by itself: 92 % of the paper's tokens.

    Attributes:
      crop: the smallest side of a random square crop, as a fraction of the short side; None takes the whole image.
    """

    crop: float | None = None

    def __post_init__(self):
        _check_crop(self.crop)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 1

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return _permuted_groups(keys, 1, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        return _random_crop(_aligned(items, 0, ("image",)), self.crop, rng), "image"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Items with one kind of annotation: `image,depth,image,depth`; the paper has 8 pairs.

    Attributes:
      annotation: the role beside `image`.
      n_pairs: items in a sentence.
      annotation_first: the annotation is the question and the image its answer: colorization (`grey,image`) and
        inpainting (`masked,image`).
      crop: as in `SingleImage`, one window for both images of a pair.
    """

    annotation: str
    n_pairs: int = 8
    annotation_first: bool = False
    crop: float | None = None

    def __post_init__(self):
        _check_positive("n_pairs", self.n_pairs)
        _check_crop(self.crop)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 2 * self.n_pairs

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return self.n_pairs

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return _permuted_groups(keys, self.n_pairs, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        roles = (self.annotation, "image") if self.annotation_first else ("image", self.annotation)
        images = []
        for position in range(len(items)):
            images += _random_crop(_aligned(items, position, roles), self.crop, rng)
        return images, compact_layout(roles * len(items))


@dataclasses.dataclass(frozen=True)
class MultiAnnotation:
    """Several annotations of each item: m of {image, annotations} are drawn; all items show these m in one order.

    m is uniform over 2 .. 1 + the number of annotations, at most `images_per_sentence`; a sentence holds as many whole
    m-tuples as fit (paper section 3, "images with multiple annotations").
    """

    annotations: tuple[str, ...]
    images_per_sentence: int = 16

    def __post_init__(self):
        if not self.annotations or self.images_per_sentence < 2:
            raise UserError(
                f"multi_annotation has annotations {self.annotations} and images_per_sentence "
                f"{self.images_per_sentence}: it needs at least 1 annotation and 2 images"
            )

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.images_per_sentence

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return self.images_per_sentence // 2

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        order = _shuffled(keys, rng)
        groups = []
        while order:
            size = self.images_per_sentence // int(rng.choice(self._subset_sizes()))
            if size > len(keys):
                break
            group, order = order[:size], order[size:]
            groups.append(_filled(group, size, keys, rng))
        return groups

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        # `plan` sees keys only, so a group carries its m as its size; sizes that give equal groups are drawn between.
        fitting = [m for m in self._subset_sizes() if self.images_per_sentence // m == len(items)]
        if not fitting:
            raise ValueError(f"{len(items)} items were not grouped by this composer's plan")
        roles = ("image", *self.annotations)
        roles = tuple(rng.permutation(roles)[: int(rng.choice(fitting))].tolist())
        images = []
        for position in range(len(items)):
            images += _aligned(items, position, roles)
        return images, compact_layout(roles * len(items))

    def _subset_sizes(self) -> list[int]:
        return list(range(2, min(1 + len(self.annotations), self.images_per_sentence) + 1))


@dataclasses.dataclass(frozen=True)
class Video:
    """Frames of one clip at a random stride from a random start; the paper: 16 frames, strides 10, 20, 30.

    A stride that the clip is too short for shrinks to the largest that fits.
    """

    n_frames: int = 16
    strides: tuple[int, ...] = (10, 20, 30)

    def __post_init__(self):
        _check_positive("n_frames", self.n_frames)
        _check_strides(self.strides)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.n_frames

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return _permuted_groups(keys, 1, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        frames = _role(items, 0, "frame")
        chosen = _window(len(frames), self.n_frames, self.strides, rng)
        return [frames[i] for i in chosen], compact_layout(["frame"] * self.n_frames)


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo:
    """Frames of one clip and an annotation of each: {f1, a1, f2, a2, ...} or {f1, f2, ..., a1, a2, ...}.

    Attributes:
      n_frames: frames, and as many annotations.
      annotation: the role beside `frame`.
      order: "interleaved", "grouped", or "either" (drawn for each sentence, as the paper has both).
      strides: as in `Video`.
    """

    n_frames: int
    annotation: str
    order: Literal["interleaved", "grouped", "either"] = "interleaved"
    strides: tuple[int, ...] = (1,)

    def __post_init__(self):
        _check_positive("n_frames", self.n_frames)
        _check_strides(self.strides)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 2 * self.n_frames

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return _permuted_groups(keys, 1, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        frames, marks = _role(items, 0, "frame"), _role(items, 0, self.annotation)
        if len(frames) != len(marks):
            raise Unfit(0, f"it has {len(frames)} frames but {len(marks)} of {self.annotation!r}")
        chosen = _window(len(frames), self.n_frames, self.strides, rng)
        grouped = self.order == "grouped" or (self.order == "either" and bool(rng.integers(2)))
        if grouped:
            images = [frames[i] for i in chosen] + [marks[i] for i in chosen]
            roles = ["frame"] * self.n_frames + [self.annotation] * self.n_frames
        else:
            images = [image for i in chosen for image in (frames[i], marks[i])]
            roles = ["frame", self.annotation] * self.n_frames
        return images, compact_layout(roles)


@dataclasses.dataclass(frozen=True)
class Turntable:
    """Consecutive views of one object from a random start, once around at most; the paper: 24 views at 15 degrees."""

    n_views: int = 16

    def __post_init__(self):
        _check_positive("n_views", self.n_views)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.n_views

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def plan(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return _permuted_groups(keys, 1, rng)

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Image], str]:
        """See `Composer`."""
        views = _role(items, 0, "view")
        if len(views) < self.n_views:
            raise Unfit(0, f"it has {len(views)} views, {self.n_views} are needed")
        start = int(rng.integers(len(views)))
        images = [views[(start + i) % len(views)] for i in range(self.n_views)]
        return images, compact_layout(["view"] * self.n_views)


def _permuted_groups(keys: Sequence[str], size: int, rng: np.random.Generator) -> Groups:
    if len(keys) < size:
        return []
    order = _shuffled(keys, rng)
    return [_filled(order[i : i + size], size, keys, rng) for i in range(0, len(order), size)]


def _shuffled(keys: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [keys[int(i)] for i in rng.permutation(len(keys))]


def _filled(
    group: list[str], size: int, keys: Sequence[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """Completes a last, short group with other keys: a pass sees every item, and no sentence an item twice."""
    if len(group) == size:
        return tuple(group)
    others = sorted(set(keys) - set(group))
    return (*group, *_shuffled(others, rng)[: size - len(group)])


def _role(items: Sequence[Item], position: int, role: str) -> Sequence[Image]:
    item = items[position]
    if role not in item:
        raise Unfit(position, f"it has no {role!r}; it has {', '.join(sorted(item))}")
    return item[role]


def _aligned(items: Sequence[Item], position: int, roles: Sequence[str]) -> list[Image]:
    """The first image of each role of one item."""
    return [_role(items, position, role)[0] for role in roles]


def _window(
    length: int, n_frames: int, strides: Sequence[int], rng: np.random.Generator
) -> list[int]:
    if length < n_frames:
        raise Unfit(0, f"it has {length} frames, {n_frames} are needed")
    longest = (length - 1) // (n_frames - 1) if n_frames > 1 else 1
    stride = min(int(rng.choice(strides)), longest)
    start = int(rng.integers(length - stride * (n_frames - 1)))
    return [start + stride * i for i in range(n_frames)]


def _random_crop(
    images: list[Image], smallest: float | None, rng: np.random.Generator
) -> list[Image]:
    """One square window, in relative coordinates, out of each image."""
    if smallest is None:
        return images
    fraction, top, left = rng.uniform(smallest, 1.0), rng.random(), rng.random()
    return [_square(image, fraction, top, left) for image in images]


def _square(image: Image, fraction: float, top: float, left: float) -> Image:
    height, width = image.shape[:2]
    side = max(1, round(fraction * min(height, width)))
    y, x = round(top * (height - side)), round(left * (width - side))
    return image[y : y + side, x : x + side]


def _check_crop(crop: float | None) -> None:
    if crop is not None and not 0 < crop <= 1:
        raise UserError(
            f"crop is {crop}: it is a fraction of the short side, above 0 and at most 1"
        )


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} is {value}: it must be at least 1")


def _check_strides(strides: Sequence[int]) -> None:
    if not strides or min(strides) < 1:
        raise UserError(f"strides is {strides}: it must hold at least one stride, each at least 1")
