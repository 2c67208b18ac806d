"""Generates images as tokens: prefill the prompt once, then one dispatch for each image.

B: candidates, P: images in the context, I: images made, N: tokens an image, T: tokens.

The KV cache holds `context_images * N` positions: BOS, then all codes but the newest, which is the next input. A prompt
is prefilled at batch 1 and its cache is then shared out to all candidates. `jax.lax.scan` draws the N codes of an image
inside one compiled call; prompts with the same number of images, and all images after the prompt, share one executable.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, Key

from lvm_jax.errors import UserError
from lvm_jax.inference.sampling import Sampling, draw
from lvm_jax.models.llama import Llama


class Engine:
    """Continues visual sentences, image by image.

    Args:
      model: the decoder; its BOS is id `codebook_size`, whatever the ids in a converted config.json.
      tokens_per_image: N.
      codebook_size: ids 0..codebook_size-1 are codes.
      context_images: how many images the model sees at once, the one being made included; by default as many as fit
        the model's `max_position_embeddings`. Beyond it the context slides by whole images: BOS and the last
        `context_images - 1` images are prefilled again.

    Raises:
      UserError: a vocabulary without room for the codes and BOS, or a context shorter than an image.
    """

    def __init__(
        self,
        model: Llama,
        tokens_per_image: int,
        codebook_size: int,
        *,
        context_images: int | None = None,
    ) -> None:
        vocab_size = model.config.vocab_size
        if vocab_size <= codebook_size:
            raise UserError(
                f"the model has {vocab_size} ids and the tokenizer {codebook_size} codes and BOS: "
                "use the tokenizer that its shards were made with"
            )
        if context_images is None:
            context_images = model.config.max_position_embeddings // tokens_per_image
        if context_images < 1:
            raise UserError(
                f"a context of {context_images} images of {tokens_per_image} tokens holds none: "
                f"the model reads {model.config.max_position_embeddings} tokens"
            )
        self.tokens_per_image = tokens_per_image
        self.codebook_size = codebook_size
        self.context_images = context_images
        self._graphdef, self._state = nnx.split(model)

    def generate(
        self,
        prompt_PN: Int[np.ndarray, "p n"],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "b i n"]:
        """Continues one prompt with images, several times independently.

        Args:
          prompt_PN: the codes of P images in order; P may be 0, and the first image is then unconditional.
          n_images: images to add to the prompt.
          n_candidates: independent continuations; candidate b draws from a seed of its own, so it is the same
            whatever the number of candidates.
          sampling: see `Sampling`; by default the model's own distribution.
          seed: of all random draws.

        Returns:
          codes in [0, codebook_size), int32.

        Raises:
          UserError: a prompt that leaves no room for an image, is not made of whole images, or holds ids that are not
            codes; no image or no candidate asked for.
        """
        self.check_request(len(prompt_PN), n_images, n_candidates)
        self._check_codes(prompt_PN)
        sampling = (sampling or Sampling()).check()
        root = jax.random.key(seed)
        keys_B = jax.vmap(lambda b: jax.random.fold_in(root, b))(jnp.arange(n_candidates))

        context_BPN = jnp.asarray(prompt_PN, jnp.int32)[None]  # batch 1 until the candidates differ
        cache, token_B = self._prefill(context_BPN, n_candidates)
        context_BPN = jnp.broadcast_to(context_BPN, (n_candidates, *prompt_PN.shape))
        made = []
        for i in range(n_images):
            if context_BPN.shape[1] == self.context_images:
                context_BPN = context_BPN[:, 1:]
                cache, token_B = self._prefill(context_BPN, n_candidates)
            ids_BN, token_B, cache = _decode_image(
                self._graphdef, self._state, cache, token_B, keys_B, i, sampling, self.tokens_per_image,
                self.codebook_size,
            )  # fmt: skip
            made.append(ids_BN)
            context_BPN = jnp.concatenate([context_BPN, ids_BN[:, None]], axis=1)
        return np.stack(jax.device_get(made), axis=1)

    def _prefill(self, context_BPN: Int[Array, "b p n"], batch: int) -> tuple[Any, Int[Array, "b"]]:
        """The cache of BOS and the context, shared out to `batch` rows, and the next input."""
        bos_B1 = jnp.full((len(context_BPN), 1), self.codebook_size, jnp.int32)
        tokens_BT = jnp.concatenate([bos_B1, context_BPN.reshape(len(context_BPN), -1)], axis=1)
        max_len = self.context_images * self.tokens_per_image
        cache = _prefill(self._graphdef, self._state, tokens_BT[:, :-1], batch, max_len)
        return cache, jnp.broadcast_to(tokens_BT[:, -1], (batch,))

    def check_request(self, prompt_images: int, n_images: int, n_candidates: int) -> None:
        """Requires a prompt that leaves room for an image, and at least one image and one candidate.

        Raises:
          UserError: otherwise. `generate` calls this too; calling it earlier saves encoding a prompt in vain.
        """
        if n_images < 1 or n_candidates < 1:
            raise UserError(
                f"asked for {n_candidates} candidates of {n_images} images: both must be at least 1"
            )
        if prompt_images >= self.context_images:
            raise UserError(
                f"the prompt has {prompt_images} images: at most {self.context_images - 1} leave room for a prediction "
                f"in the context of {self.context_images} images; drop the oldest ones"
            )

    def _check_codes(self, prompt_PN: np.ndarray) -> None:
        if prompt_PN.ndim != 2 or prompt_PN.shape[1] != self.tokens_per_image:
            raise UserError(
                f"the prompt has shape {prompt_PN.shape}: it must be (images, {self.tokens_per_image})"
            )
        if prompt_PN.size and not 0 <= prompt_PN.min() <= prompt_PN.max() < self.codebook_size:
            raise UserError(
                f"the prompt has ids from {prompt_PN.min()} to {prompt_PN.max()}: codes are 0..{self.codebook_size - 1}"
            )


@functools.partial(jax.jit, static_argnames=("graphdef", "batch", "max_len"))
def _prefill(
    graphdef: Any, state: Any, tokens_BT: Int[Array, "b t"], batch: int, max_len: int
) -> Any:
    model = nnx.merge(graphdef, state)
    cache = model.init_cache(len(tokens_BT), max_len)
    if tokens_BT.shape[1]:  # not for an empty prompt: BOS is then the next input
        _, cache = model.extend(tokens_BT, cache)
    shared = jax.eval_shape(lambda: model.init_cache(batch, max_len))
    return jax.tree.map(lambda x, whole: jnp.broadcast_to(x, whole.shape), cache, shared)


@functools.partial(
    jax.jit,
    static_argnames=("graphdef", "tokens_per_image", "codebook_size"),
    donate_argnames=("cache",),
)
def _decode_image(
    graphdef: Any,
    state: Any,
    cache: Any,
    token_B: Int[Array, "b"],
    keys_B: Key[Array, "b"],
    image: Int[Array, ""] | int,
    sampling: Sampling,
    tokens_per_image: int,
    codebook_size: int,
) -> tuple[Int[Array, "b n"], Int[Array, "b"], Any]:
    """Draws one image: its ids, the next input (its last id, not in the cache yet), and the cache."""
    model = nnx.merge(graphdef, state)

    def step(carry: tuple[Int[Array, "b"], Any], n: Int[Array, ""]) -> tuple[tuple[Any, Any], Any]:
        token_B, cache = carry
        logits_B1V, cache = model.extend(token_B[:, None], cache)
        step_keys_B = jax.vmap(lambda key: jax.random.fold_in(key, image * tokens_per_image + n))(
            keys_B
        )
        token_B = draw(step_keys_B, logits_B1V[:, -1], sampling, codebook_size)
        return (token_B, cache), token_B

    (token_B, cache), ids_NB = jax.lax.scan(step, (token_B, cache), jnp.arange(tokens_per_image))
    return ids_NB.T, token_B, cache
