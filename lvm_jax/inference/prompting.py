"""Visual prompts: images in, images out.

A sequential prompt shows frames and asks for the next ones; an analogy prompt shows (image, answer) pairs and a
query, and asks for the query's answer (LVM, arXiv 2312.00785, section 4.3). Both are only an order of images: no word
names the task.

P: images of the prompt, B: candidates, I: images made, N: tokens an image, H, W: pixels, C: the channels R, G, B.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from lvm_jax.data.images import BadImage, load_image, resize
from lvm_jax.data.visual_sentence import SpecialTokens
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.inference.engine import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.llama import Llama
from lvm_jax.models.vqgan import VQGAN

Image = np.ndarray | str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class VisualPrompt:
    """Images in the order in which the model reads them, uint8 HWC RGB of any sizes.

    Attributes:
      images: the prompt; none asks for an unconditional image.
      roles: what each image is: "frame", "input" or "answer".
    """

    images: tuple[np.ndarray, ...]
    roles: tuple[str, ...]

    @classmethod
    def sequential(cls, frames: Iterable[Image]) -> "VisualPrompt":
        """A prompt of frames, oldest first.

        Args:
          frames: paths, uint8 arrays (H, W, 3), or float arrays in [0, 1].
        """
        images = tuple(_as_uint8(frame) for frame in frames)
        return cls(images, ("frame",) * len(images))

    @classmethod
    def analogy(cls, pairs: Iterable[Sequence[Image]], query: Image) -> "VisualPrompt":
        """A prompt of (image, answer) pairs and an image whose answer is wanted; images as in `sequential`.

        Raises:
          UserError: no pair to learn the task from, or something that is not a pair.
        """
        pairs = list(pairs)
        if not pairs:
            raise UserError(
                "the analogy prompt has 0 pairs: at least 1 pair must show the task before the query"
            )
        for number, pair in enumerate(pairs):
            if len(pair) != 2:
                raise UserError(f"pair {number} has {len(pair)} images: it must be (image, answer)")
        images = [_as_uint8(image) for pair in pairs for image in pair]
        return cls((*images, _as_uint8(query)), ("input", "answer") * len(pairs) + ("input",))


def check_pair(model: Llama, vqgan: VQGAN) -> None:
    """Requires that the decoder's vocabulary is the tokenizer's codes and the reserved ids.

    Raises:
      UserError: it is not.
    """
    expected = SpecialTokens(vqgan.codebook_size).vocab_size
    if model.config.vocab_size != expected:
        raise UserError(
            f"the model has {model.config.vocab_size} ids and the tokenizer {vqgan.codebook_size} codes, which makes "
            f"{expected}: use the tokenizer that the model's shards were made with"
        )


def encode_prompt(vqgan: VQGAN, prompt: VisualPrompt) -> Int[np.ndarray, "p n"]:
    """The prompt's codes; images are squashed to the tokenizer's square, as in training."""
    if not prompt.images:
        return np.zeros((0, vqgan.tokens_per_image), np.int32)
    size = vqgan.config.resolution
    return encode_images(vqgan, np.stack([resize(image, size) for image in prompt.images]))


def generate_images(
    model: Llama,
    vqgan: VQGAN,
    prompt: VisualPrompt,
    n_images: int = 1,
    n_candidates: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    context_images: int | None = None,
) -> Float[np.ndarray, "b i h w c"]:
    """Answers a visual prompt.

    Args:
      model: the decoder.
      vqgan: the tokenizer it was trained with.
      prompt: see `VisualPrompt`.
      n_images: images each candidate adds to the prompt.
      n_candidates: independent answers.
      temperature: of the sampling; 0 is greedy, and all candidates are then equal.
      top_k: draw from the k most likely codes only; 0 means all.
      top_p: draw from the most likely codes that together reach this probability; 1 means all.
      seed: of all random draws.
      context_images: images the model sees at once; by default all that fit its context.

    Returns:
      RGB images, float32 in [0, 1].

    Raises:
      UserError: model and tokenizer of different codebooks, a prompt too long for the context, or an option out of
        range.
    """
    check_pair(model, vqgan)
    engine = Engine(
        model, vqgan.tokens_per_image, vqgan.codebook_size, context_images=context_images
    )
    engine.check_request(len(prompt.images), n_images, n_candidates)
    codes_BIN = engine.generate(
        encode_prompt(vqgan, prompt),
        n_images,
        n_candidates=n_candidates,
        sampling=Sampling(temperature, top_k, top_p),
        seed=seed,
    )
    images = decode_codes(vqgan, codes_BIN.reshape(-1, codes_BIN.shape[-1]))
    return images.reshape(*codes_BIN.shape[:2], *images.shape[1:])


def _as_uint8(image: Image) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        try:
            return load_image(image)
        except BadImage as error:
            raise UserError(
                f"the prompt image {error}: give a readable jpg, png or webp file"
            ) from error
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise UserError(f"an image has shape {array.shape}: it must be (height, width, 3)")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"an image has type {array.dtype}: it must be uint8, or float in [0, 1]")
    if not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"an image has values from {array.min()} to {array.max()}: floats must be in [0, 1]"
        )
    return np.round(array * 255).astype(np.uint8)
