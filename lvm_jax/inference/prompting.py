"""Visual prompts: which images the model sees, in which order.

A sequential prompt shows frames and asks for the next ones. An analogy prompt shows (image, answer) pairs and a query,
and asks for the query's answer (LVM, arXiv 2312.00785, section 4.3). If images have several annotations, an example is
longer than a pair. Prompts can be joined. In the end all are images in an order; no word says what to do.

P: images of the prompt, N: tokens per image, H, W: pixels.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from lvm_jax.errors import UserError
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.decode import BadImage, load_image, to_rgb
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import resize

Image = np.ndarray | PIL.Image.Image | str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class VisualPrompt:
    """Images in the order the model reads them, uint8 HWC RGB of any sizes.

    Attributes:
      images: the prompt; an empty one asks for an unconditional image.
      roles: what each image is: "frame", "input", "answer", or "annotation_1", "annotation_2", ...
    """

    images: tuple[np.ndarray, ...]
    roles: tuple[str, ...]

    @classmethod
    def sequential(cls, frames: Iterable[Image]) -> "VisualPrompt":
        """A prompt of frames, oldest first.

        Args:
          frames: files, Pillow images of any mode, or arrays: (H, W) or (H, W, 1, 3 or 4), of bool, uint8, uint16, or
            floats in [0, 1]. Transparent pixels become white.

        Raises:
          UserError: a frame is not an image.
        """
        images = tuple(as_rgb(frame) for frame in frames)
        return cls(images, ("frame",) * len(images))

    @classmethod
    def analogy(cls, pairs: Iterable[Sequence[Image]], query: Image) -> "VisualPrompt":
        """A prompt of (image, answer) pairs and a query whose answer is wanted; images as in `sequential`.

        Raises:
          UserError: there is no pair to learn from, or a pair does not have two images.
        """
        pairs = list(pairs)
        if not pairs:
            raise UserError(
                "the analogy prompt has 0 pairs: at least 1 pair must show the task before the query"
            )
        for number, pair in enumerate(pairs):
            if len(pair) != 2:
                raise UserError(f"pair {number} has {len(pair)} images: it must be (image, answer)")
        images = [as_rgb(image) for pair in pairs for image in pair]
        return cls((*images, as_rgb(query)), ("input", "answer") * len(pairs) + ("input",))

    @classmethod
    def annotations(
        cls, examples: Iterable[Sequence[Image]], query: Sequence[Image] = ()
    ) -> "VisualPrompt":
        """A prompt of images with several annotations each; images as in `sequential`.

        Args:
          examples: (image, annotation 1, ..., annotation k), with the same k for all.
          query: the image, perhaps with its first annotations; the next ones are wanted. An empty query asks for
            another image, or leaves the prompt open for `composed`.

        Raises:
          UserError: no example, examples of different lengths, or a query with all its annotations.
        """
        rows = [[as_rgb(image) for image in example] for example in examples]
        lengths = {len(row) for row in rows}
        if len(lengths) != 1 or min(lengths) < 2:
            raise UserError(
                f"the examples have {sorted(lengths)} images: give at least 1 example, each of an image and its k "
                "annotations"
            )
        length = lengths.pop()
        if len(query) >= length:
            raise UserError(
                f"the query has {len(query)} images: give at most {length - 1}, so that an annotation is missing"
            )
        roles = ("input", *(f"annotation_{i}" for i in range(1, length)))
        images = [image for row in rows for image in row] + [as_rgb(image) for image in query]
        return cls(tuple(images), roles * len(rows) + roles[: len(query)])

    @classmethod
    def composed(cls, prompts: Iterable["VisualPrompt"]) -> "VisualPrompt":
        """Joins prompts, such as examples of two benchmarks; the model continues the last one.

        All but the last must be complete: frames, or `annotations` without a query.
        """
        prompts = list(prompts)
        return cls(
            tuple(image for prompt in prompts for image in prompt.images),
            tuple(role for prompt in prompts for role in prompt.roles),
        )


def encode_prompt(vqgan: VQGAN, prompt: VisualPrompt) -> Int[np.ndarray, "P N"]:
    """The prompt's codes; squashes images to the tokenizer's square, as in training."""
    if not prompt.images:
        return np.zeros((0, vqgan.tokens_per_image), np.int32)
    size = vqgan.config.resolution
    return encode_images(vqgan, np.stack([resize(image, size) for image in prompt.images]))


def as_rgb(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    """Converts any picture to uint8 RGB; `VisualPrompt.sequential` lists what it takes.

    Raises:
      UserError: the file is unreadable, or the array is not a picture.
    """
    if isinstance(image, str | os.PathLike | PIL.Image.Image):
        try:
            if isinstance(image, PIL.Image.Image):
                return to_rgb(image)
            return load_image(image, fit=True)  # the tokenizer's square is smaller still
        except BadImage as error:
            raise UserError(
                f"the prompt image {error}: give a readable jpg, png or webp file"
            ) from error
    array = _as_bytes(np.asarray(image))
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"an image has shape {np.shape(image)}: it must be (height, width) or (height, width, 1, 3 or 4)"
        )
    if array.shape[-1] == 4:
        return to_rgb(PIL.Image.fromarray(array, "RGBA"))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _as_bytes(array: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8)
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if array.dtype == np.uint16:  # 65535 / 255 = 257: full scale maps to full scale
        return np.rint(array / 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"an image has type {array.dtype}: it must be bool, uint8, uint16, or float in [0, 1]"
        )
    if not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"an image has values from {array.min()} to {array.max()}: floats must be in [0, 1]"
        )
    return to_uint8(array)
