"""Questions about pictures from examples, as pictures: masks come back as masks, words as words.

H, W: pixels, h, w: pixels of the tokenizer's square, N: codes of a picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Bool, Int, UInt8

from lvm_jax.data.in_context.format_folder import read_format
from lvm_jax.data.in_context.sequences import Pair, Question, SequenceFormat
from lvm_jax.data.in_context.words import Words
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import check_trained_with, decode_codes, encode_images
from lvm_jax.inference.in_context import DrawnWords, InContextEngine, InContextPrompt
from lvm_jax.inference.prompting import Image, as_rgb
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.annotation_maps import mask_to_rgb, rgb_to_mask
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import resize
from lvm_jax.weights.model_folder import check_finite

GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A picture with its answer.

    Attributes:
      picture: as `VisualPrompt.sequential` takes them.
      answer: a mask, white on black (or an array of bool), or words.
      category: the name of what is meant; only formats with room for it take one.
    """

    picture: Image
    answer: Image | Words
    category: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnMask:
    """A mask that was drawn.

    Attributes:
      codes: as the decoder drew them.
      picture: decoded.
      mask: where it is nearer to white than to black.
    """

    codes: Int[np.ndarray, " N"]
    picture: UInt8[np.ndarray, "h w 3"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """See the class."""
        return rgb_to_mask(self.picture)


class MaskAnswerer(Protocol):
    """Answers questions about pictures by masks.

    Attributes:
      vqgan: the image tokenizer of the prompts.
    """

    vqgan: VQGAN

    @property
    def model(self) -> nnx.Module:
        """The network."""
        ...

    @property
    def names_classes(self) -> bool:
        """Whether a prompt may name the class of its query."""
        ...

    def draw_masks(self, prompts: Sequence[InContextPrompt]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The mask of each prompt's query, as a picture.

        Raises:
          UserError: a prompt that cannot be answered.
        """
        ...


class InContextGenerator:
    """A decoder with its tokenizers.

    Args:
      model: the decoder.
      vqgan: the image tokenizer it was trained with.
      form: how its rows are made, with its text tokenizer.
      cache_dtype: see `InContextEngine`.

    Attributes:
      engine: continues codes.
      model: the decoder.
      vqgan: the image tokenizer.

    Raises:
      UserError: decoder, tokenizer and format do not belong together, or see `InContextEngine`.
    """

    def __init__(
        self,
        model: Decoder,
        vqgan: VQGAN,
        form: SequenceFormat,
        *,
        cache_dtype: str | None = None,
    ) -> None:
        codes = len(form.words.vocabulary["image"])
        if (codes, form.tokens_per_image) != (vqgan.codebook_size, vqgan.tokens_per_image):
            raise UserError(
                f"the tokenizer has {vqgan.codebook_size} codes and {vqgan.tokens_per_image} of them a picture, the "
                f"decoder's rows {codes} and {form.tokens_per_image}: use the tokenizer that it was trained with"
            )
        check_trained_with(model.tokenizer_fingerprint, vqgan, "the decoder")
        check_finite(vqgan, "the tokenizer")
        self.engine = InContextEngine(model, form, cache_dtype=cache_dtype)
        self.model, self.vqgan = model, vqgan

    @classmethod
    def from_pretrained(
        cls,
        model: epath.PathLike,
        tokenizer: epath.PathLike,
        *,
        cache_dtype: str | None = None,
    ) -> "InContextGenerator":
        """Reads the folder of a decoder, as the recipe "unified" exports it, and that of its image tokenizer."""
        return cls(
            Decoder.from_pretrained(model),
            VQGAN.from_pretrained(tokenizer),
            read_format(model),
            cache_dtype=cache_dtype,
        )

    def segment(
        self,
        examples: Sequence[Example],
        queries: Sequence[Image],
        *,
        category: str = "",
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[DrawnMask]]:
        """The candidates of each query's mask.

        Args:
          examples: (picture, mask) pairs that all queries share; may be empty.
          queries: pictures.
          category: what is meant in the queries, where the format has room for it.
          n_candidates: masks of each query.
          sampling: see `Sampling`; by default the model's own distribution.
          seed: of all random draws.

        Raises:
          UserError: an unreadable picture, or see `InContextEngine.masks`.
        """
        prompts = self.prompts(examples, queries, Question.SEGMENTATION, category)
        codes_RBN = self.engine.masks(
            prompts, n_candidates=n_candidates, sampling=sampling, seed=seed
        )
        flat = codes_RBN.reshape(-1, codes_RBN.shape[-1])
        pictures = to_uint8(decode_codes(self.vqgan, flat))
        drawn = [DrawnMask(codes, picture) for codes, picture in zip(flat, pictures, strict=True)]
        return [drawn[at : at + n_candidates] for at in range(0, len(drawn), n_candidates)]

    @property
    def names_classes(self) -> bool:
        """Whether the decoder's rows have room for a class before a pair."""
        return self.engine.form.category_room > 0

    def draw_masks(self, prompts: Sequence[InContextPrompt]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The mask of each prompt's query, as a picture: of each code the likeliest.

        Raises:
          UserError: see `InContextEngine.masks`.
        """
        codes_RBN = self.engine.masks(prompts, sampling=GREEDY)
        return list(to_uint8(decode_codes(self.vqgan, codes_RBN[:, 0])))

    def describe(
        self,
        examples: Sequence[Example],
        queries: Sequence[Image],
        *,
        category: str = "",
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[DrawnWords]]:
        """The candidates of what is said about each query; arguments and errors as in `segment`."""
        prompts = self.prompts(examples, queries, Question.CAPTIONING, category)
        return self.engine.words(prompts, n_candidates=n_candidates, sampling=sampling, seed=seed)

    def prompts(
        self,
        examples: Sequence[Example],
        queries: Sequence[Image],
        question: Question,
        category: str = "",
    ) -> list[InContextPrompt]:
        """Prompts that share their examples, all pictures encoded.

        Raises:
          UserError: an unreadable picture, or a mask of another size than its picture.
        """
        pictures = [as_rgb(e.picture) for e in examples] + [as_rgb(query) for query in queries]
        masks = [
            _mask_of(picture, e.answer)
            for picture, e in zip(pictures, examples)
            if not isinstance(e.answer, Words)
        ]
        codes = self._encoded([*pictures, *masks])
        answers = iter(codes[len(pictures) :])
        pairs = tuple(
            Pair(
                codes[number],
                e.answer if isinstance(e.answer, Words) else next(answers),
                e.category,
            )
            for number, e in enumerate(examples)
        )
        asked = codes[len(pairs) : len(pictures)]
        return [InContextPrompt(pairs, picture, question, category) for picture in asked]

    def _encoded(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Int[np.ndarray, "M N"]:
        size = self.vqgan.config.resolution
        return encode_images(self.vqgan, [resize(picture, size) for picture in pictures])


def _mask_of(picture: UInt8[np.ndarray, "_ _ 3"], answer: Image) -> UInt8[np.ndarray, "_ _ 3"]:
    """The mask of a picture in pure white and black."""
    mask = as_rgb(answer)
    if mask.shape != picture.shape:
        (height, width), (rows, columns) = picture.shape[:2], mask.shape[:2]
        raise UserError(
            f"a mask has {columns} x {rows} pixels and its picture {width} x {height}: give masks the size of their "
            "pictures"
        )
    return mask_to_rgb(rgb_to_mask(mask))
