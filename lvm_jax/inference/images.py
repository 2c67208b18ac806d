"""Generates images as ids of a tokenizer: the face of `lvm_jax.inference.generate` that knows what an image is.

R: prompts, B: candidates of a prompt, P: images of a prompt, I: images made, N: tokens an image.

A sentence is BOS and the codes of its images in order, so the first input of an empty prompt is BOS. Each image is one
call of the core, which draws its N codes.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from lvm_jax.errors import UserError
from lvm_jax.inference.generate import Continuation, Generator, candidate_keys
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.kv_cache import check_dtype
from lvm_jax.vocabulary import Vocabulary
from lvm_jax.weights.model_folder import check_finite


class Engine:
    """Continues visual sentences, image by image; on the mesh set by `jax.set_mesh`, if any.

    Args:
      model: the decoder. Its BOS is that of `Vocabulary.lvm`, whatever the ids in a converted config.json.
      tokens_per_image: N.
      codebook_size: ids 0..codebook_size-1 are codes.
      context_images: how many images the model sees at once, the one being made included; by default as many as fit
        the model's `max_position_embeddings`. Beyond it the context slides by whole images: BOS and the last
        `context_images - 1` images are read again.
      cache_dtype: what the KV cache is stored in, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default
        the model's compute dtype. "int8" and "float8_e4m3fn" take half the memory of bfloat16.

    Raises:
      UserError: a vocabulary that is not the codes and the reserved ids, a context shorter than an image, an unknown
        cache dtype, or weights that are not finite.
    """

    def __init__(
        self,
        model: Decoder,
        tokens_per_image: int,
        codebook_size: int,
        *,
        context_images: int | None = None,
        cache_dtype: str | None = None,
    ) -> None:
        self._vocabulary = vocabulary_of(model, codebook_size)
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
        self._generator = Generator(model.unstacked(), cache_dtype=self.cache_dtype)

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
        filters = (sampling or Sampling()).filters()
        keys_B = candidate_keys(seed, len(prompts), n_candidates)
        allowed_V = self._vocabulary.mask("codes")

        contexts = list(prompts)
        made = np.zeros((len(prompts) * n_candidates, 0, self.tokens_per_image), np.int32)
        while True:
            room = self.context_images - max(map(len, contexts))
            count = min(room, n_images - made.shape[1])
            started = self.start(contexts, len(keys_B), count, first=made.shape[1])
            # All images are dispatched before the first is fetched: the device never waits for the host.
            more = [
                started.draw(self.tokens_per_image, keys_B, filters, allowed_V)
                for _ in range(count)
            ]
            made = np.concatenate([made, np.stack(jax.device_get(more), axis=1)], axis=1)
            if made.shape[1] == n_images:
                return made.reshape(len(prompts), n_candidates, *made.shape[1:])
            contexts = self._slid(prompts, made)

    def start(
        self,
        contexts: Sequence[Int[np.ndarray, "_ n"]],
        rows: int,
        images: int,
        first: int = 0,
    ) -> Continuation:
        """Reads the prompts: the state before the first draw.

        Args:
          contexts: the codes of each prompt.
          rows: continuations in all, equally many of each prompt; those of one prompt are neighbours.
          images: how many images each may add.
          first: how many images the rows have made before; a draw's key depends on it.
        """
        N = self.tokens_per_image
        longest = max(map(len, contexts)) * N
        tokens_RT = np.full((len(contexts), 1 + longest), self._vocabulary.bos, np.int32)
        for tokens_T, codes_PN in zip(tokens_RT, contexts):
            tokens_T[1 : 1 + codes_PN.size] = codes_PN.reshape(-1)
        lengths_R = np.array(
            [codes_PN.size for codes_PN in contexts], np.int32
        )  # BOS, less the last code
        next_R = np.take_along_axis(tokens_RT, lengths_R[:, None], axis=1)[:, 0]
        return self._generator.start(
            tokens_RT[:, :-1], lengths_R, next_R, rows=rows, slots=images * N, made=first * N
        )

    def _slid(
        self, prompts: Sequence[Int[np.ndarray, "_ n"]], made_BIN: Int[np.ndarray, "b i n"]
    ) -> list[Int[np.ndarray, "p n"]]:
        """The contexts once the longest rows are full: every row begins anew from its own last images."""
        kept, candidates = self.context_images - 1, len(made_BIN) // len(prompts)
        rows = [
            np.concatenate([prompts[b // candidates], made_IN])
            for b, made_IN in enumerate(made_BIN)
        ]
        return [row[max(0, len(row) - kept) :] for row in rows]

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


def vocabulary_of(model: Decoder, codebook_size: int) -> Vocabulary:
    """The ids of a decoder of images.

    Raises:
      UserError: the decoder has another number of ids than a tokenizer of this codebook gives.
    """
    vocabulary = Vocabulary.lvm(codebook_size)
    if model.config.vocab_size != vocabulary.size:
        raise UserError(
            f"the model has {model.config.vocab_size} ids and the tokenizer {codebook_size} codes, which makes "
            f"{vocabulary.size}: use the tokenizer that the model's shards were made with"
        )
    return vocabulary
