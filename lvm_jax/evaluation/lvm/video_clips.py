"""Clips of videos as visual sentences, for the evaluation of frame prediction."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.resize import resize

Frame = UInt8[np.ndarray, "h w 3"]


def clip_of(frames: Sequence[Frame], count: int, *, seed: tuple[int, int]) -> list[Frame] | None:
    """`count` frames in a row from a random one on; None where there are fewer."""
    if len(frames) < count:
        return None
    start = int(np.random.default_rng(seed).integers(len(frames) - count + 1))
    return list(frames[start : start + count])


def tokenize_clip(vqgan: VQGAN, frames: Sequence[Frame], key: str) -> VisualSentence:
    """The codes of frames of any size, squashed to the tokenizer's square as in training."""
    squares = np.stack([resize(frame, vqgan.config.resolution) for frame in frames])
    codes = encode_images(vqgan, squares).astype(np.uint16)
    return VisualSentence(codes, "videos", Category.UNLABELLED_VIDEO, key, f"frame*{len(frames)}")
