"""Generates images as tokens: prefill the prompts once, then one dispatch for each image.

R: prompts, B: candidates of a prompt, P: images of a prompt, I: images made, N: tokens an image, T: tokens.

The KV cache of a prompt holds BOS and all codes but the last, which is the next input. All candidates of a prompt read
that one cache, and each has slots for the codes it makes itself (`lvm_jax/models/decoder/kv_cache.py`). `jax.lax.scan`
draws the N codes of an image inside one compiled call.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, Key

from lvm_jax.errors import UserError
from lvm_jax.inference.sampling import Plan, Sampling, draw
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix, check_dtype
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.parallel.sharding import constrain
from lvm_jax.weights.model_folder import check_finite


class Engine:
    """Continues visual sentences, image by image; on the mesh set by `jax.set_mesh`, if any.

    Args:
      model: the decoder; its BOS is id `codebook_size`, whatever the ids in a converted config.json.
      tokens_per_image: N.
      codebook_size: ids 0..codebook_size-1 are codes.
      context_images: how many images the model sees at once, the one being made included; by default as many as fit
        the model's `max_position_embeddings`. Beyond it the context slides by whole images: BOS and the last
        `context_images - 1` images are prefilled again.
      cache_dtype: what the KV cache is stored in, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default
        the model's compute dtype. "int8" and "float8_e4m3fn" take half the memory of bfloat16.

    Raises:
      UserError: a vocabulary without room for the codes and BOS, a context shorter than an image, an unknown cache
        dtype, or weights that are not finite.
    """

    def __init__(
        self,
        model: Llama,
        tokens_per_image: int,
        codebook_size: int,
        *,
        context_images: int | None = None,
        cache_dtype: str | None = None,
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
        self.cache_dtype = cache_dtype or model.config.dtype
        check_dtype(self.cache_dtype)
        check_finite(model, "the decoder")
        self.tokens_per_image = tokens_per_image
        self.codebook_size = codebook_size
        self.context_images = context_images
        self._graphdef, self._state = nnx.split(model.unstacked())

    def generate(
        self,
        prompt_PN: Int[np.ndarray, "p n"],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "b i n"]:
        """Continues one prompt with images, several times independently; see `generate_batch`."""
        return self.generate_batch(
            [prompt_PN], n_images, n_candidates=n_candidates, sampling=sampling, seed=seed
        )[0]

    def generate_batch(
        self,
        prompts: Sequence[Int[np.ndarray, "_ n"]],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "r b i n"]:
        """Continues prompts of any lengths with images, each several times independently.

        Args:
          prompts: the codes of each prompt's images in order, (P, N); P may be 0, and the first image is then
            unconditional.
          n_images: images to add to every prompt.
          n_candidates: independent continuations of each; candidate b draws from a seed of its own, so it is the same
            whatever the number of candidates and whatever else is in the batch (up to the rounding of matrix products
            of another size).
          sampling: see `Sampling`; by default the model's own distribution.
          seed: of all random draws.

        Returns:
          codes in [0, codebook_size), int32.

        Raises:
          UserError: no prompt; a prompt that leaves no room for an image, is not made of whole images, or holds ids
            that are not codes; no image or no candidate asked for.
        """
        if not len(prompts):
            raise UserError("0 prompts to continue: give at least 1")
        for prompt_PN in prompts:
            self.check_request(len(prompt_PN), n_images, n_candidates)
            self._check_codes(prompt_PN)
        plan = (sampling or Sampling()).plan()
        root = jax.random.key(seed)
        keys_B = jax.vmap(lambda b: jax.random.fold_in(root, b))(jnp.arange(n_candidates))
        keys_RB = jnp.tile(keys_B, len(prompts))

        contexts = list(prompts)
        made = np.zeros((len(prompts) * n_candidates, 0, self.tokens_per_image), np.int32)
        while True:
            room = self.context_images - max(map(len, contexts))
            count = min(room, n_images - made.shape[1])
            more = self._continue(contexts, keys_RB, made.shape[1], count, plan)
            made = np.concatenate([made, more], axis=1)
            if made.shape[1] == n_images:
                return made.reshape(len(prompts), n_candidates, *made.shape[1:])
            # The longest rows are full: every row begins anew from its own last images.
            contexts = [
                np.concatenate([prompts[i // n_candidates], made_IN])[-(self.context_images - 1) :]
                if self.context_images > 1
                else made_IN[:0]
                for i, made_IN in enumerate(made)
            ]

    def start(
        self, contexts: Sequence[Int[np.ndarray, "_ n"]], rows: int, images: int
    ) -> tuple[Prefix | None, KVCache, Int[Array, "b"]]:
        """The caches before the first draw.

        Args:
          contexts: the codes of each prompt.
          rows: continuations in all, equally many of each prompt; those of one prompt are neighbours.
          images: how many images each may add.

        Returns:
          the prompts' cache (None where all are empty), the rows' own free slots, and the rows' next inputs.
        """
        longest = max(map(len, contexts)) * self.tokens_per_image
        tokens_RT = np.full((len(contexts), longest + 1), self.codebook_size, np.int32)
        for tokens_T, codes_PN in zip(tokens_RT, contexts):
            tokens_T[1 : 1 + codes_PN.size] = codes_PN.reshape(-1)
        lengths_R = np.array([codes_PN.size for codes_PN in contexts], np.int32)
        prefix, own = _start(
            self._graphdef, self._state, tokens_RT[:, :-1], lengths_R, rows, images * self.tokens_per_image,
            self.cache_dtype,
        )  # fmt: skip
        next_R = np.take_along_axis(tokens_RT, lengths_R[:, None], axis=1)[:, 0]
        return prefix, own, jnp.asarray(np.repeat(next_R, rows // len(contexts)))

    def _continue(
        self,
        contexts: Sequence[Int[np.ndarray, "_ n"]],
        keys_B: Key[Array, "b"],
        first: int,
        count: int,
        plan: Plan,
    ) -> Int[np.ndarray, "b i n"]:
        """`count` more images of each row, of which `first` are made already."""
        prefix, own, token_B = self.start(contexts, len(keys_B), count)
        made = []
        for image in range(first, first + count):
            ids_BN, token_B, own = _decode_image(
                self._graphdef, self._state, prefix, own, token_B, keys_B, image, plan, self.tokens_per_image,
                self.codebook_size,
            )  # fmt: skip
            made.append(ids_BN)
        return np.stack(jax.device_get(made), axis=1)

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


@functools.partial(jax.jit, static_argnames=("graphdef", "rows", "slots", "dtype"))
def _start(
    graphdef: Any,
    state: Any,
    tokens_RT: Int[Array, "r t"],
    lengths_R: Int[Array, "r"],
    rows: int,
    slots: int,
    dtype: str,
) -> tuple[Prefix | None, KVCache]:
    model = nnx.merge(graphdef, state)
    prefix = None
    if tokens_RT.shape[1]:  # not for empty prompts: BOS is then the next input
        prefix = model.prefill(tokens_RT, lengths_R, dtype=dtype)
    return prefix, model.init_cache(rows, slots, dtype=dtype)


@functools.partial(
    jax.jit,
    static_argnames=("graphdef", "tokens_per_image", "codebook_size"),
    donate_argnames=("own",),
)
def _decode_image(
    graphdef: Any,
    state: Any,
    prefix: Prefix | None,
    own: KVCache,
    token_B: Int[Array, "b"],
    keys_B: Key[Array, "b"],
    image: Int[Array, ""] | int,
    plan: Plan,
    tokens_per_image: int,
    codebook_size: int,
) -> tuple[Int[Array, "b n"], Int[Array, "b"], KVCache]:
    """Draws one image: its ids, the next input (its last id, not in the cache yet), and the longer cache."""
    model = nnx.merge(graphdef, state)

    def step(
        carry: tuple[Int[Array, "b"], KVCache], n: Int[Array, ""]
    ) -> tuple[tuple[Int[Array, "b"], KVCache], Int[Array, "b"]]:
        token_B, own = carry
        cache = dataclasses.replace(own, prefix=prefix)
        logits_B1V, cache = model.extend(token_B[:, None], cache)
        step_keys_B = jax.vmap(lambda key: jax.random.fold_in(key, image * tokens_per_image + n))(
            keys_B
        )
        token_B = draw(step_keys_B, logits_B1V[:, -1], plan, codebook_size)
        return (token_B, dataclasses.replace(cache, prefix=None)), token_B

    (token_B, own), ids_NB = jax.lax.scan(step, (token_B, own), jnp.arange(tokens_per_image))
    return constrain(ids_NB.T, None, None), token_B, own
