"""Continues sequences of ids until a stop id: the face of `lvm_jax.inference.generate` for text that is ids already.

R: prompts, B: candidates of a prompt, T: tokens of a prompt, V: vocabulary.
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
    allowed_V: Bool[np.ndarray, "v"],
    stop: Stop,
    n_candidates: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[list[Int[np.ndarray, "t2"]]]:
    """Continues prompts of any lengths, each several times independently.

    Prompts are filled up to a power of two, so that texts of many lengths compile few programs.

    Args:
      generator: of the decoder; its context must have room for the longest prompt and `max_new` ids.
      prompts: ids, BOS included if the decoder wants one; at least one id each.
      max_new: ids to draw at most.
      allowed_V: the ids that may be drawn, those of `stop` included.
      stop: what ends a text.
      n_candidates: continuations of each prompt; candidate b is the same whatever their number.
      sampling: see `Sampling`; by default the model's own distribution.
      seed: of all random draws.

    Returns:
      for each prompt its candidates: the new ids, without the stop id and what follows it.

    Raises:
      UserError: no prompt, or an empty one.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError(f"{len(prompts)} prompts, one of them empty: give at least 1 id to each")
    lengths_R = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
    longest = int(lengths_R.max())
    filled = 1 << (longest - 1).bit_length() if longest else 0
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


def _text(ids: Int[np.ndarray, "t"], stop: Stop) -> Int[np.ndarray, "t2"]:
    ends = np.flatnonzero(np.isin(ids, stop.ids))
    return ids[: ends[0]] if len(ends) else ids
