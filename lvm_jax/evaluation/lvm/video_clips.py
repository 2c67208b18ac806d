"""Turns clips of videos into visual sentences, to evaluate frame prediction.

H, W: pixels of a frame.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from lvm_jax.data.sentences.sentence_record import schema_of
from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.resize import resize

Frame = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of videos, and how many videos did not give one.

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
    """Encodes a clip of `count` frames from each video that is long enough.

    Args:
      vqgan: the tokenizer.
      videos: (key, index, frames); frames are None if they could not be decoded. (seed, index) draws where the clip
        starts, so it does not depend on the other videos.
      count: frames of a clip.
      seed: draws the first frames.
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
    """`count` consecutive frames from a random start; None if there are fewer."""
    if len(frames) < count:
        return None
    start = int(np.random.default_rng(seed).integers(len(frames) - count + 1))
    return list(frames[start : start + count])


def tokenize_clip(vqgan: VQGAN, frames: Sequence[Frame], key: str) -> VisualSentence:
    """Encodes frames of any size, squashed to the tokenizer's square as in training."""
    squares = np.stack([resize(frame, vqgan.config.resolution) for frame in frames])
    # As a record of this codebook stores them: a fixed uint16 would wrap the codes of a larger one.
    codes = encode_images(vqgan, squares).astype(schema_of(vqgan.codebook_size).id_type)
    return VisualSentence(codes, "videos", Category.UNLABELLED_VIDEO, key, f"frame*{len(frames)}")
