"""Generates images as codes of a tokenizer, on top of `lvm_jax.inference.generate`, which knows only ids.

R: prompts, B: candidates of a prompt (in private helpers: rows, the candidates of all prompts), P: images of a prompt,
I: images made, N: tokens per image.

A sentence is BOS and then the codes of its images in order; an empty prompt is BOS alone. Each image takes one call of
`Continuation.draw`, which draws its N codes.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from lvm_jax.errors import UserError
from lvm_jax.inference.generate import Continuation, Generator, candidate_keys
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.kv_cache import check_dtype
from lvm_jax.vocabulary import Vocabulary
from lvm_jax.weights.model_folder import check_finite


class Engine:
    """Continues visual sentences image by image, on the mesh set by `jax.set_mesh` if there is one.

    Args:
      model: the decoder. BOS comes from `Vocabulary.lvm`; the ids in a converted config.json are ignored.
      tokens_per_image: N.
      codebook_size: ids 0..codebook_size-1 are codes.
      context_images: how many images the model sees at once, including the one being made; by default as many as fit
        its `max_position_embeddings`. When they are used up the context slides by whole images: the model reads BOS
        and the last `context_images - 1` images anew.
      cache_dtype: how the KV cache is stored, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default
        the model's compute dtype. "int8" and "float8_e4m3fn" take half the memory of bfloat16.

    Raises:
      UserError: the vocabulary is not the codes and the reserved ids, the context is shorter than an image, the cache
        dtype is unknown, or weights are not finite.
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
        prompt_PN: Int[np.ndarray, "P N"],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "B I N"]:
        """Continues one prompt with images, `n_candidates` times independently; see `generate_batch`."""
        return self.generate_batch(
            [prompt_PN], n_images, n_candidates=n_candidates, sampling=sampling, seed=seed
        )[0]

    def generate_batch(
        self,
        prompts: Sequence[Int[np.ndarray, "_ N"]],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "R B I N"]:
        """The codes of `generate_scored`, without their likelihoods."""
        made_RBIN, _ = self.generate_scored(
            prompts, n_images, n_candidates=n_candidates, sampling=sampling, seed=seed
        )
        return made_RBIN

    def generate_scored(
        self,
        prompts: Sequence[Int[np.ndarray, "_ N"]],
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> tuple[Int[np.ndarray, "R B I N"], Float[np.ndarray, "R B"]]:
        """Continues prompts of any lengths with images, each of them `n_candidates` times independently.

        Args:
          prompts: codes of each prompt's images in order, (P, N); with P = 0 the first image is unconditional.
          n_images: images to add to every prompt.
          n_candidates: independent continuations of each. Candidate b has a key of its own, so it does not depend on
            the number of candidates or on the rest of the batch (up to rounding in matrix products of another size).
          sampling: see `Sampling`; by default the model's own distribution.
          seed: of all random draws.

        Returns:
          codes in [0, codebook_size), int32; and the log-likelihood of each candidate in nats, the sum over its codes,
          under the model's own distribution of codes whatever `sampling` is.

        Raises:
          UserError: there is no prompt; a prompt leaves no room for an image, is not made of whole images, or has ids
            that are not codes; no image or no candidate is asked for.
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
        likelihood_B = np.zeros(len(made), np.float32)
        while True:
            # The longest prompt decides for all: one batch has one number of slots, and slides together.
            room = self.context_images - max(map(len, contexts))
            count = min(room, n_images - made.shape[1])
            started = self.start(contexts, len(keys_B), count, first=made.shape[1])
            # Dispatch every image before fetching the first, so that the device never waits for the host.
            more = [
                started.draw(self.tokens_per_image, keys_B, filters, allowed_V)
                for _ in range(count)
            ]
            made = np.concatenate([made, np.stack(jax.device_get(more), axis=1)], axis=1)
            likelihood_B = likelihood_B + jax.device_get(started.rows.log_likelihood_B)
            if made.shape[1] == n_images:
                shape = len(prompts), n_candidates
                return made.reshape(*shape, *made.shape[1:]), likelihood_B.reshape(shape)
            contexts = self._slid(prompts, made)

    def start(
        self,
        contexts: Sequence[Int[np.ndarray, "_ N"]],
        rows: int,
        images: int,
        first: int = 0,
    ) -> Continuation:
        """Reads the prompts, and returns the state before the first draw.

        Args:
          contexts: the codes of each prompt.
          rows: continuations of all prompts together, the same number for each; those of one prompt are adjacent.
          images: how many images each row may add.
          first: images that the rows have made before; the key of a draw depends on it.
        """
        N = self.tokens_per_image
        longest = max(map(len, contexts)) * N
        # BOS first; what stays behind a shorter prompt is padding, which `lengths_R` hides, so any id will do there.
        tokens_RT = np.full((len(contexts), 1 + longest), self._vocabulary.bos, np.int32)
        for tokens_T, codes_PN in zip(tokens_RT, contexts):
            tokens_T[1 : 1 + codes_PN.size] = codes_PN.reshape(-1)
        # BOS adds one token, and the last token is left to the first draw: the length is the number of codes.
        lengths_R = np.array([codes_PN.size for codes_PN in contexts], np.int32)
        next_R = np.take_along_axis(tokens_RT, lengths_R[:, None], axis=1)[:, 0]
        return self._generator.start(
            tokens_RT[:, :-1], lengths_R, next_R, rows=rows, slots=images * N, made=first * N
        )

    def _slid(
        self, prompts: Sequence[Int[np.ndarray, "_ N"]], made_BIN: Int[np.ndarray, "B I N"]
    ) -> list[Int[np.ndarray, "P N"]]:
        """The contexts when the longest row is full: each row starts again from its own last images.

        From here on candidates have different contexts, so each row becomes a prompt of its own.
        """
        kept, candidates = self.context_images - 1, len(made_BIN) // len(prompts)
        rows = [
            np.concatenate([prompts[b // candidates], made_IN])
            for b, made_IN in enumerate(made_BIN)
        ]
        return [row[max(0, len(row) - kept) :] for row in rows]

    def check_request(self, prompt_images: int, n_images: int, n_candidates: int) -> None:
        """Requires a prompt that leaves room for an image, and at least one image and one candidate.

        Raises:
          UserError: otherwise. `generate` calls this as well; call it first to avoid encoding a prompt for nothing.
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
    """The vocabulary of an image decoder.

    Raises:
      UserError: the decoder's number of ids does not match this codebook.
    """
    vocabulary = Vocabulary.lvm(codebook_size)
    if model.config.vocab_size != vocabulary.size:
        raise UserError(
            f"the model has {model.config.vocab_size} ids and the tokenizer {codebook_size} codes, which makes "
            f"{vocabulary.size}: use the tokenizer that the model's shards were made with"
        )
    return vocabulary
