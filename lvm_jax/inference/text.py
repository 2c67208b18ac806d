"""Continues sequences of ids until a stop id: text generation for a caller that brings its own text tokenizer.

R: prompts, B: candidates of a prompt, T: tokens of a prompt, T2: tokens of a continuation, V: vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from lvm_jax.errors import UserError
from lvm_jax.inference.generate import Generator, Stop, candidate_keys
from lvm_jax.inference.sampling import Sampling


def continue_ids(
    generator: Generator,
    prompts: Sequence[Int[np.ndarray, "_"]],
    max_new: int,
    *,
    allowed_V: Bool[np.ndarray, " V"],
    stop: Stop,
    n_candidates: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[list[Int[np.ndarray, " T2"]]]:
    """Continues prompts of any lengths, each of them `n_candidates` times independently.

    Prompts are padded to a power of two, so that texts of many lengths compile few programs.

    Args:
      generator: of the decoder; the context must hold the longest prompt and `max_new` ids.
      prompts: at least one id each; with BOS if the decoder wants one.
      max_new: ids to draw at most.
      allowed_V: the ids that may be drawn, including those of `stop`.
      stop: what ends a text.
      n_candidates: continuations of each prompt; candidate b does not depend on their number.
      sampling: see `Sampling`; by default the model's own distribution.
      seed: of all random draws.

    Returns:
      the candidates of each prompt: the new ids before the stop id.

    Raises:
      UserError: no prompt, or an empty one.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError(f"{len(prompts)} prompts, one of them empty: give at least 1 id to each")
    # The last id of a prompt is not prefilled: it is the input of the first draw.
    lengths_R = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
    longest = int(lengths_R.max())
    filled = 1 << (longest - 1).bit_length() if longest else 0
    # Padding on the right: positions then count from the first real token, and `lengths_R` hides the rest.
    inputs_RT = np.full((len(prompts), filled), stop.pad, np.int32)
    for row, prompt in zip(inputs_RT, prompts):
        row[: len(prompt) - 1] = prompt[:-1]
    next_R = np.array([prompt[-1] for prompt in prompts], np.int32)
    rows = len(prompts) * n_candidates
    started = generator.start(inputs_RT, lengths_R, next_R, rows=rows, slots=max_new)
    keys_B = candidate_keys(seed, len(prompts), n_candidates)
    filters = (sampling or Sampling()).filters()
    made = [
        _text(ids, stop)
        for ids in np.asarray(started.draw(max_new, keys_B, filters, allowed_V, stop))
    ]
    return [made[start : start + n_candidates] for start in range(0, rows, n_candidates)]


def _text(ids: Int[np.ndarray, " T"], stop: Stop) -> Int[np.ndarray, " T2"]:
    ends = np.flatnonzero(np.isin(ids, stop.ids))
    return ids[: ends[0]] if len(ends) else ids
