"""Continues sequences of ids until a stop id: text generation for a caller that brings its own text tokenizer.

R: prompts, B: candidates of a prompt, T: tokens of a prompt, T2: tokens of a continuation, D: hidden size,
V: vocabulary.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.inference.beam import Beams, search
from lvm_jax.inference.generate import Generator, Stop, candidate_keys
from lvm_jax.inference.sampling import Sampling

# Slots of the cache that a text begins with; they double as it grows. Every draw reads all of them, and most answers
# are far shorter than the context.
FIRST_SLOTS = 128

Texts = list[list[Int[np.ndarray, " T2"]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of any lengths as arrays; see `Generator.start`.

    Attributes:
      inputs: all tokens but the last of each prompt, right-padded, as ids or embeddings.
      lengths_R: how many of them are real.
      next_R: the last token of each.
    """

    inputs: Int[np.ndarray, "R T"] | Float[Array, "R T D"]
    lengths_R: Int[np.ndarray, " R"]
    next_R: Int[np.ndarray, " R"]

    @classmethod
    def of(
        cls, prompts: Sequence[Int[np.ndarray, "_"]], pad: int, *, longest: int | None = None
    ) -> "Prompts":
        """Prompts of ids, padded to one of few lengths, so that texts of many lengths compile few programs.

        Args:
          prompts: at least one id each.
          pad: fills what stays behind a shorter one.
          longest: what the model can read, if it has learned positions.

        Raises:
          UserError: no prompt, or an empty one.
        """
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise UserError(
                f"{len(prompts)} prompts, one of them empty: give at least 1 id to each"
            )
        # The last id of a prompt is not prefilled: it is the input of the first draw.
        lengths_R = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
        filled = _filled(int(lengths_R.max()))
        filled = filled if longest is None else min(filled, longest)
        # Padding on the right: positions then count from the first real token, and `lengths_R` hides the rest.
        inputs_RT = np.full((len(prompts), filled), pad, np.int32)
        for row, prompt in zip(inputs_RT, prompts):
            row[: len(prompt) - 1] = prompt[:-1]
        return cls(inputs_RT, lengths_R, np.array([prompt[-1] for prompt in prompts], np.int32))


def _filled(length: int) -> int:
    """The next multiple of a quarter of the power of two below, and of 8: at most a quarter too much."""
    step = max(8, 1 << max(0, length.bit_length() - 3))
    return -(-length // step) * step


def continue_prompts(
    generator: Generator,
    prompts: Prompts,
    max_new: int,
    *,
    allowed_V: Bool[np.ndarray, " V"],
    stop: Stop,
    n_candidates: int = 1,
    sampling: Sampling | None = None,
    no_repeat: int = 0,
    seed: int = 0,
) -> Texts:
    """Continues prompts of any lengths, each of them `n_candidates` times independently.

    Args:
      generator: of the decoder; the context must hold the longest prompt and `max_new` ids.
      prompts: with BOS if the decoder wants one.
      max_new: ids to draw at most.
      allowed_V: the ids that may be drawn, including those of `stop`.
      stop: what ends a text.
      n_candidates: continuations of each prompt; candidate b does not depend on their number.
      sampling: see `Sampling`; by default the model's own distribution.
      no_repeat: no text has the same n ids in a row twice, n of this many; 0 lets it. Tables repeat themselves rightly.
      seed: of all random draws.

    Returns:
      the candidates of each prompt: the new ids before the stop id, `max_new` of them if there was none.
    """
    rows = len(prompts.next_R) * n_candidates
    slots = min(FIRST_SLOTS, max_new)
    started = generator.start(
        prompts.inputs, prompts.lengths_R, prompts.next_R, rows=rows, slots=slots
    )
    keys_B = candidate_keys(seed, len(prompts.next_R), n_candidates)
    filters = (sampling or Sampling()).filters()
    drawn = [started.draw(slots, keys_B, filters, allowed_V, stop, no_repeat=no_repeat)]
    while slots < max_new and not started.rows.stopped_B.all():
        more = min(slots, max_new - slots)
        started.grow(more)
        drawn.append(started.draw(more, keys_B, filters, allowed_V, stop, no_repeat=no_repeat))
        slots += more
    made = [_text(ids, stop) for ids in np.concatenate(list(map(np.asarray, drawn)), axis=1)]
    return [made[start : start + n_candidates] for start in range(0, rows, n_candidates)]


def search_prompts(
    generator: Generator,
    prompts: Prompts,
    max_new: int,
    *,
    allowed_V: Bool[np.ndarray, " V"],
    stop: Stop,
    beams: Beams,
) -> Texts:
    """The likeliest continuations of each prompt by beam search, the best first.

    Arguments and result as in `continue_prompts`, with `beams.width` candidates.
    """
    slots = min(FIRST_SLOTS, max_new)
    started = generator.start(
        prompts.inputs,
        prompts.lengths_R,
        prompts.next_R,
        rows=len(prompts.next_R) * beams.width,
        slots=slots,
    )
    ids_RKS, _ = search(started, max_new, beams, allowed_V, stop, first_slots=slots)
    return [[_text(ids, stop) for ids in ids_KS] for ids_KS in ids_RKS]


def _text(ids: Int[np.ndarray, " T"], stop: Stop) -> Int[np.ndarray, " T2"]:
    ends = np.flatnonzero(np.isin(ids, stop.ids))
    return ids[: ends[0]] if len(ends) else ids
