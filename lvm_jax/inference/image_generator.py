"""A decoder with its tokenizer: checked and prepared once, then asked as often as you like.

B: candidates, I: images made, H, W: pixels, C: the channels R, G, B.
"""

import numpy as np
from jaxtyping import Float

from lvm_jax.inference.codec import check_trained_with, decode_codes
from lvm_jax.inference.images import Engine, vocabulary_of
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.weights.memo import WeightsMemo
from lvm_jax.weights.model_folder import check_finite

# An engine holds an unstacked copy of the decoder, rounded to the compute dtype. Building it takes longer than drawing
# an image, so it is kept as long as its model lives.
_ENGINES: WeightsMemo[Engine] = WeightsMemo()


class ImageGenerator:
    """Answers visual prompts.

    Args:
      model: the decoder. Its engine is built once and kept until the model or its weights change.
      vqgan: the tokenizer it was trained with.
      context_images, cache_dtype: see `Engine`.

    Attributes:
      engine: continues codes.
      vqgan: the tokenizer.

    Raises:
      UserError: see `check_pair` and `Engine`.
    """

    def __init__(
        self,
        model: Decoder,
        vqgan: VQGAN,
        *,
        context_images: int | None = None,
        cache_dtype: str | None = None,
    ) -> None:
        check_pair(model, vqgan)
        shape = vqgan.tokens_per_image, vqgan.codebook_size
        self.vqgan = vqgan
        self.engine = _ENGINES.of(
            model,
            lambda: Engine(model, *shape, context_images=context_images, cache_dtype=cache_dtype),
            key=(*shape, model.config, context_images, cache_dtype),
        )

    def __call__(
        self,
        prompt: VisualPrompt,
        n_images: int = 1,
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Float[np.ndarray, "B I H W C"]:
        """Answers a prompt; see `generate_images`."""
        self.engine.check_request(len(prompt.images), n_images, n_candidates)
        codes_BIN = self.engine.generate(
            encode_prompt(self.vqgan, prompt),
            n_images,
            n_candidates=n_candidates,
            sampling=sampling,
            seed=seed,
        )
        images = decode_codes(self.vqgan, codes_BIN.reshape(-1, codes_BIN.shape[-1]))
        return images.reshape(*codes_BIN.shape[:2], *images.shape[1:])


def generate_images(
    model: Decoder,
    vqgan: VQGAN,
    prompt: VisualPrompt,
    n_images: int = 1,
    n_candidates: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    context_images: int | None = None,
) -> Float[np.ndarray, "B I H W C"]:
    """Answers a visual prompt.

    The first call checks and prepares the model. Later calls start at once, unless its weights have changed.

    Args:
      model: the decoder.
      vqgan: the tokenizer it was trained with.
      prompt: see `VisualPrompt`.
      n_images: images that each candidate adds to the prompt.
      n_candidates: independent answers.
      temperature: of the sampling; 0 is greedy, which makes all candidates equal.
      top_k: draw only from the k most likely codes; 0 means all.
      top_p: draw only from the most likely codes that together reach this probability; 1 means all.
      min_p: draw only from codes at least this fraction as likely as the likeliest; 0 means all.
      seed: of all random draws; a candidate does not depend on how many others you ask for.
      context_images: images that the model sees at once; by default as many as fit its context.

    Returns:
      RGB images, float32 in [0, 1].

    Raises:
      UserError: model and tokenizer have different codebooks, weights are NaN, the prompt is too long for the context,
        or an option is out of range.
    """
    generator = ImageGenerator(model, vqgan, context_images=context_images)
    sampling = Sampling(temperature, top_k, top_p, min_p)
    return generator(prompt, n_images, n_candidates=n_candidates, sampling=sampling, seed=seed)


def check_pair(model: Decoder, vqgan: VQGAN) -> None:
    """Requires a decoder and a tokenizer that belong together, and a tokenizer with finite weights.

    The decoder's vocabulary must match the codebook. If the decoder's folder names the tokenizer it was trained with,
    it must be this one. `Engine` and `Scorer` check the decoder's weights.

    Raises:
      UserError: otherwise.
    """
    vocabulary_of(model, vqgan.codebook_size)
    check_trained_with(model.tokenizer_fingerprint, vqgan, "the model")
    check_finite(vqgan, "the tokenizer")
