"""Clips of videos as visual sentences, for the evaluation of frame prediction."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.resize import resize

Frame = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of videos, and how many videos gave none.

    Attributes:
      sentences: the codes of each clip.
      unreadable: videos that could not be decoded.
      too_short: videos with fewer frames than a clip.
    """

    sentences: Sequence[VisualSentence]
    unreadable: int
    too_short: int


def tokenize_clips(
    vqgan: VQGAN, videos: Iterable[tuple[str, int, Sequence[Frame] | None]], count: int, seed: int
) -> Clips:
    """A clip of `count` frames from each video that has one.

    Args:
      vqgan: the tokenizer.
      videos: (key, index, frames); None for frames that could not be decoded. A clip begins where (seed, index) says,
        so that it does not depend on the other videos.
      count: frames of a clip.
      seed: of the first frames.
    """
    sentences, unreadable, too_short = [], 0, 0
    for key, index, frames in videos:
        clip = None if frames is None else clip_of(frames, count, seed=(seed, index))
        if frames is None:
            unreadable += 1
        elif clip is None:
            too_short += 1
        else:
            sentences.append(tokenize_clip(vqgan, clip, key))
    return Clips(sentences, unreadable, too_short)


def clip_of(frames: Sequence[Frame], count: int, *, seed: tuple[int, int]) -> list[Frame] | None:
    """`count` successive frames, from a random one on; None where there are fewer."""
    if len(frames) < count:
        return None
    start = int(np.random.default_rng(seed).integers(len(frames) - count + 1))
    return list(frames[start : start + count])


def tokenize_clip(vqgan: VQGAN, frames: Sequence[Frame], key: str) -> VisualSentence:
    """The codes of frames of any size, squashed to the tokenizer's square as in training."""
    squares = np.stack([resize(frame, vqgan.config.resolution) for frame in frames])
    codes = encode_images(vqgan, squares).astype(np.uint16)
    return VisualSentence(codes, "videos", Category.UNLABELLED_VIDEO, key, f"frame*{len(frames)}")
