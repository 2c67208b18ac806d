"""What the tab does, without the page: codes to the next images.

P: images of the prompt, B: candidates, N: tokens per image, G: sqrt(N), K: codes, D: dimensions of a code, H, W:
pixels.
"""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from lvm_jax.demo.codes import Coder, Item, Strip
from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case
from lvm_jax.inference.image_generator import ImageGenerator
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN

MAX_CANDIDATES = 8
_SEEDS = 2**32
_GREEDY = Sampling(temperature=0.0)
_HARDLY = 0.02  # of full scale: five levels, which one hardly sees


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt to start from.

    Attributes:
      name: for people.
      strip: its images.
      truth: the known answers.
      other: another query of the same task and its answer; empty if there is none.
    """

    name: str
    strip: Strip
    truth: Strip
    other: Strip = ()


@dataclasses.dataclass(frozen=True)
class Reply:
    """What the decoder answers to one query.

    Attributes:
      query, truth: the query and its true answer.
      likeliest: the answer drawn greedily.
      candidates: answers drawn with the page's settings.
    """

    query: Item
    truth: Item
    likeliest: Item
    candidates: Strip


class Studio:
    """A tokenizer and a decoder, ready to be asked.

    Args:
      vqgan: the tokenizer.
      model: the decoder that was trained with it.

    Attributes:
      coder: turns pictures into codes.
      max_prompt: images that a prompt may have, so that one more fits the context.
      colours_K3: uint8, a colour for each code; similar codes have similar colours.

    Raises:
      UserError: the two do not match, or have weights that are not finite.
    """

    def __init__(self, vqgan: VQGAN, model: Decoder) -> None:
        self.coder = Coder(vqgan)
        self._engine = ImageGenerator(model, vqgan).engine
        self.max_prompt = self._engine.context_images - 1
        self.colours_K3 = code_colours(np.asarray(vqgan.quantizer.codebook[...]))

    def example(self, case: Case, other: Case | None = None) -> Example:
        """Turns a case into an example; `other` lends its query and its answer."""
        # Pictures from files all have the source "files"; the folder's name says more.
        source = case.source.replace("_", " ")
        name = (
            source if case.source != "files" else case.name.replace("-", " ").lstrip("0123456789 ")
        )
        lent = () if other is None else self.coder.of_codes(_query_and_answer(other))
        return Example(
            name, self.coder.of_codes(case.prompt_PN), self.coder.of_codes(case.truth_IN), lent
        )

    def add(self, strip: Strip, items: Strip) -> Strip:
        """The strip with more images at its end.

        Raises:
          UserError: there is no room for them; the strip does not change.
        """
        if len(strip) + len(items) > self.max_prompt:
            raise UserError(
                f"{len(strip)} + {len(items)} images: a prompt holds at most {self.max_prompt}, so that the next one "
                "fits the context; remove some"
            )
        return strip + items

    def next_images(self, strip: Strip, candidates: int, sampling: Sampling, seed: int) -> Strip:
        """Draws independent candidates for the image after the strip.

        Raises:
          UserError: the strip is empty or too long, or an option is out of range.
        """
        if not strip:
            raise UserError("the strip has 0 images: drop at least 1, or start from an example")
        if not 1 <= candidates <= MAX_CANDIDATES:
            raise UserError(f"{candidates} candidates: ask for 1 to {MAX_CANDIDATES}")
        if not 0 <= seed < _SEEDS:
            raise UserError(f"seed is {seed}: it must be from 0 to {_SEEDS - 1}")
        (codes_BIN,), (log_likelihood_B,) = self._engine.generate_scored(
            [np.stack([item.codes_N for item in strip])],
            n_candidates=candidates,
            sampling=sampling,
            seed=seed,
        )
        return tuple(
            dataclasses.replace(item, log_likelihood=float(value))
            for item, value in zip(self.coder.of_codes(codes_BIN[:, 0]), log_likelihood_B)
        )

    def swapped(
        self, example: Example, candidates: int, sampling: Sampling, seed: int
    ) -> tuple[Reply, Reply]:
        """Answers an example's own query, and the other one after the same pairs.

        Raises:
          UserError: the example has no other query, or an option is out of range.
        """
        if not example.other:
            raise UserError(
                f"{example.name} has no second query: start from an example of (image, answer) pairs"
            )

        def reply(query: Item, truth: Item) -> Reply:
            strip = (*example.strip[:-1], query)
            (likeliest,) = self.next_images(strip, 1, _GREEDY, 0)
            return Reply(
                query, truth, likeliest, self.next_images(strip, candidates, sampling, seed)
            )

        own = reply(example.strip[-1], example.truth[0])
        return own, reply(*example.other)

    def code_map(self, item: Item) -> UInt8[np.ndarray, "G G 3"]:
        """The codes at their places in the image, each in its colour."""
        side = int(np.sqrt(len(item.codes_N)))
        return self.colours_K3[item.codes_N.reshape(side, side)]


def likeliest_of(candidates: Strip) -> int:
    """The number of the candidate that is the likeliest to the model."""
    return int(np.argmax([item.log_likelihood for item in candidates]))


def mean_of(strip: Strip) -> UInt8[np.ndarray, "H W 3"]:
    """The mean of several images, pixel by pixel."""
    pictures = np.stack([item.seen_HWC for item in strip]).astype(np.float64)
    return np.round(pictures.mean(axis=0)).astype(np.uint8)


def how_much_changed(own: Reply, other: Reply) -> str:
    """Says in words what another query did to the greedily drawn answer."""
    codes = float(np.mean(own.likeliest.codes_N != other.likeliest.codes_N))
    answers = _apart(own.likeliest, other.likeliest)
    if not codes:
        verdict = "The answer is the same to both queries: it does not depend on the query."
    elif answers < _HARDLY:
        verdict = "The answer hardly changes with the query."
    else:
        verdict = "The answer changes with the query."
    pairs = ((own, other), (other, own))
    right = sum(_apart(a.likeliest, a.truth) < _apart(a.likeliest, b.truth) for a, b in pairs)
    nearer = (
        "Neither answer is nearer to its own truth",
        "One of the two answers is nearer to its own truth",
        "Both answers are nearer to their own truth",
    )[right]
    return (
        f"{verdict} The queries differ by {_apart(own.query, other.query):.0%} of full scale, the answers by "
        f"{answers:.0%} and in {codes:.0%} of their codes; the true answers differ by "
        f"{_apart(own.truth, other.truth):.0%}. {nearer} than to the other's."
    )


def moved(strip: Strip, index: int, by: int) -> Strip:
    """The strip with image `index` moved by `by` places, but not beyond the ends.

    Raises:
      UserError: there is no such image.
    """
    _check_index(strip, index)
    rest = strip[:index] + strip[index + 1 :]
    place = min(max(index + by, 0), len(rest))
    return (*rest[:place], strip[index], *rest[place:])


def removed(strip: Strip, index: int) -> Strip:
    """The strip without image `index`.

    Raises:
      UserError: there is no such image.
    """
    _check_index(strip, index)
    return strip[:index] + strip[index + 1 :]


def code_colours(codebook_KD: np.ndarray) -> UInt8[np.ndarray, "K 3"]:
    """A colour for each code: the ranks of its three principal components are red, green and blue."""
    centred_KD = codebook_KD.astype(np.float64) - codebook_KD.mean(axis=0)
    _, _, axes_DD = np.linalg.svd(centred_KD, full_matrices=False)
    shown_K3 = np.zeros((len(codebook_KD), 3))
    used = min(3, len(axes_DD))
    shown_K3[:, :used] = centred_KD @ axes_DD[:used].T
    # Ranks and not values, so that an outlier does not squeeze all other colours together.
    ranks_K3 = shown_K3.argsort(axis=0).argsort(axis=0)
    return np.round(40 + 200 * ranks_K3 / max(1, len(codebook_KD) - 1)).astype(np.uint8)


def _apart(a: Item, b: Item) -> float:
    """The mean difference of two images over pixels and channels, as a fraction of full scale."""
    return float(np.abs(a.seen_HWC.astype(np.float64) - b.seen_HWC).mean() / 255)


def _query_and_answer(case: Case) -> Int[np.ndarray, "P N"]:
    return np.concatenate([case.prompt_PN[-1:], case.truth_IN[:1]])


def _check_index(strip: Strip, index: int) -> None:
    if not 0 <= index < len(strip):
        raise UserError(f"the strip has no image {index + 1}: it has {len(strip)}")
