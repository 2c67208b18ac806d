"""Masks by networks that fill a canvas: pictures and masks of a prompt are decoded, put together and completed.

R: prompts, M: codes rows of a prompt: its examples' pictures and masks in turn, then the query; N: codes of a picture;
H, W: pixels, C: channels.
"""

import abc
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from lvm_jax.data.in_context.sequences import Question
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import batched, check_trained_with
from lvm_jax.inference.in_context import InContextPrompt
from lvm_jax.models.canvas.compose import cells, column, in_colours, square
from lvm_jax.models.canvas.mae_vqgan import MaeVqgan
from lvm_jax.models.canvas.seggpt import SegGpt
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import IMAGENET_MEAN, to_uint8
from lvm_jax.weights.model_folder import check_finite

Picture = UInt8[np.ndarray, "H W 3"]


class _CanvasAnswerer(abc.ABC):
    """What both share: they are deterministic, and know no classes.

    Attributes:
      vqgan: the image tokenizer of the prompts.
    """

    names_classes = False
    most_examples = math.inf
    vqgan: VQGAN

    @abc.abstractmethod
    def complete(self, codes_RMN: Int[np.ndarray, "R M N"]) -> Float[Array, "R H W C"]:
        """The answers' pixels in [0, 1]."""

    def draw_masks(self, prompts: Sequence[InContextPrompt]) -> list[Picture]:
        """See `MaskAnswerer`. Without examples their place is left empty, which no training has shown."""
        self._check(prompts)
        found: dict[int, Picture] = {}
        for count in sorted({len(prompt.examples) for prompt in prompts}):
            places = [i for i, prompt in enumerate(prompts) if len(prompt.examples) == count]
            codes_RMN = np.stack([_codes(prompts[i]) for i in places])
            drawn = to_uint8(batched(self.complete, codes_RMN, len(places)))
            found |= dict(zip(places, drawn, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _check(self, prompts: Sequence[InContextPrompt]) -> None:
        for prompt in prompts:
            if prompt.question is not Question.SEGMENTATION:
                raise UserError(
                    f"a prompt asks for {prompt.question.name.lower()}: this network draws masks only"
                )
            if len(prompt.examples) > self.most_examples:
                raise UserError(
                    f"a prompt has {len(prompt.examples)} examples, and the canvas room for {self.most_examples}: give "
                    "fewer, as with --examples=1"
                )


class MaeVqganAnswerer(_CanvasAnswerer):
    """MAE-VQGAN: the likeliest code of each patch of the answer, decoded.

    Args:
      model: the network.
      vqgan: the image tokenizer that it was trained with.

    Raises:
      UserError: it was trained with another, or weights are not finite.
    """

    most_examples = 1

    def __init__(self, model: MaeVqgan, vqgan: VQGAN) -> None:
        check_trained_with(model.tokenizer_fingerprint, vqgan, "the MAE-VQGAN")
        check_finite(model, "the MAE-VQGAN")
        self.model, self.vqgan = model, vqgan

    def complete(self, codes_RMN: Int[np.ndarray, "R M N"]) -> Float[Array, "R H W C"]:
        """The answers' pixels in [0, 1]."""
        return _filled(self.model, self.vqgan, jnp.asarray(codes_RMN))


class SegGptAnswerer(_CanvasAnswerer):
    """SegGPT: the painted half of the column; any number of examples is read together.

    Args:
      model: the network.
      vqgan: decodes the prompts' codes.

    Raises:
      UserError: weights are not finite.
    """

    def __init__(self, model: SegGpt, vqgan: VQGAN) -> None:
        check_finite(model, "the SegGPT")
        self.model, self.vqgan = model, vqgan

    def complete(self, codes_RMN: Int[np.ndarray, "R M N"]) -> Float[Array, "R H W C"]:
        """The answers' pixels in [0, 1]."""
        return _painted(self.model, self.vqgan, jnp.asarray(codes_RMN))


def _codes(prompt: InContextPrompt) -> Int[np.ndarray, "M N"]:
    shown = [codes for pair in prompt.examples for codes in (pair.picture, np.asarray(pair.answer))]
    return np.stack([*shown, prompt.picture]).astype(np.int32)


def _decoded(vqgan: VQGAN, codes_RMN: jax.Array) -> jax.Array:
    """Pixels (R, M, H, W, C)."""
    R, M, N = codes_RMN.shape
    pixels = vqgan.decode(codes_RMN.reshape(R * M, N))
    return pixels.reshape(R, M, *pixels.shape[1:])


@nnx.jit
def _filled(
    model: MaeVqgan, vqgan: VQGAN, codes_RMN: Int[Array, "R M N"]
) -> Float[Array, "R H W C"]:
    """The answer's cell of each canvas; without an example the upper cells are hidden too."""
    pixels, (R, M, _) = _decoded(vqgan, codes_RMN), codes_RMN.shape
    query, blank = pixels[:, -1], jnp.zeros_like(pixels[:, -1])
    support, mask = (pixels[:, 0], pixels[:, 1]) if M > 1 else (blank, blank)
    of_cell_4N = cells(model.config.grid)
    shown_K = of_cell_4N[[0, 1, 2] if M > 1 else [2]].reshape(-1)
    shown_RK = jnp.broadcast_to(jnp.asarray(shown_K), (R, len(shown_K)))
    logits_RTV = model(square(support, mask, query, blank), shown_RK)
    return vqgan.decode(jnp.argmax(logits_RTV[:, of_cell_4N[3]], axis=-1).astype(jnp.int32))


@nnx.jit
def _painted(
    model: SegGpt, vqgan: VQGAN, codes_RMN: Int[Array, "R M N"]
) -> Float[Array, "R H W C"]:
    """The lower half of each column of masks; without an example the upper half is of ImageNet's mean colour."""
    pixels, M = _decoded(vqgan, codes_RMN), codes_RMN.shape[1]
    query = pixels[:, -1:]
    mean = jnp.broadcast_to(jnp.asarray(IMAGENET_MEAN, jnp.float32), query.shape)
    prompts, masks = (pixels[:, 0:-1:2], pixels[:, 1:-1:2]) if M > 1 else (mean, mean)
    rows, columns = model.config.grid
    answer_RT = jnp.broadcast_to(
        jnp.arange(rows * columns) >= rows * columns // 2, (len(query), rows * columns)
    )
    queries = jnp.broadcast_to(query, prompts.shape)
    painted = model(column(prompts, queries), column(masks, queries), answer_RT, semantic=True)
    return in_colours(painted[:, 0, painted.shape[2] // 2 :])
