"""Sentences of clips, with and without annotations."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from data_pipelines.items import Item, Picture
from data_pipelines.sentences.base import OneItem, Unfit, check_positive, images_of
from lvm_jax.data.sentences.visual_sentence import compact_layout
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Video(OneItem):
    """Frames of one clip at a random stride from a random start; the paper has 16 frames at strides 10, 20, 30.

    If the clip is too short for the stride, the largest stride that fits is used.
    """

    n_frames: int = 16
    strides: tuple[int, ...] = (10, 20, 30)

    def __post_init__(self):
        check_positive("n_frames", self.n_frames)
        _check_strides(self.strides)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return self.n_frames

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        frames = images_of(items, 0, "frame")
        chosen = _window(len(frames), self.n_frames, self.strides, rng)
        return [frames[i] for i in chosen], compact_layout(["frame"] * self.n_frames)


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo(OneItem):
    """Frames of one clip, each with an annotation: {f1, a1, f2, a2, ...} or {f1, f2, ..., a1, a2, ...}.

    Attributes:
      n_frames: frames, with as many annotations.
      annotation: the role beside `frame`.
      order: "interleaved", "grouped", or "either" (drawn for each sentence; the paper has both).
      strides: as in `Video`.
    """

    n_frames: int
    annotation: str
    order: Literal["interleaved", "grouped", "either"] = "interleaved"
    strides: tuple[int, ...] = (1,)

    def __post_init__(self):
        check_positive("n_frames", self.n_frames)
        _check_strides(self.strides)

    @property
    def max_images(self) -> int:
        """See `Composer`."""
        return 2 * self.n_frames

    def compose(self, items: Sequence[Item], rng: np.random.Generator) -> tuple[list[Picture], str]:
        """See `Composer`."""
        frames, marks = images_of(items, 0, "frame"), images_of(items, 0, self.annotation)
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


def _window(
    length: int, n_frames: int, strides: Sequence[int], rng: np.random.Generator
) -> list[int]:
    if length < n_frames:
        raise Unfit(0, f"it has {length} frames, {n_frames} are needed")
    # n_frames at stride s span s (n_frames - 1) + 1 frames of the clip.
    longest = (length - 1) // (n_frames - 1) if n_frames > 1 else 1
    stride = min(int(rng.choice(strides)), longest)
    start = int(rng.integers(length - stride * (n_frames - 1)))
    return [start + stride * i for i in range(n_frames)]


def _check_strides(strides: Sequence[int]) -> None:
    if not strides or min(strides) < 1:
        raise UserError(f"strides is {strides}: it must hold at least one stride, each at least 1")
