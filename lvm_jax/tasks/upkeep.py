"""What follows an update of the tokenizer: its weights are averaged, and dead codes are revived.

Shape suffixes: T tokens, D code dimension, K codes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lvm_jax.models.tokenizer.quantizer import Quantized
from lvm_jax.models.tokenizer.revival import count_idle, revive
from lvm_jax.parallel.sharding import constrain
from lvm_jax.tasks.base import State
from lvm_jax.tasks.tokenizer_config import TokenizerStep


class Kept(NamedTuple):
    """The tokenizer after a step.

    Attributes:
      generator: its parameters, with dead codes revived.
      beside: what the state keeps beside them: `ema` and `idle`, if configured.
      report: scalars to log.
    """

    generator: nnx.State
    beside: State
    report: dict[str, jax.Array]


class Upkeep:
    """Averages weights and revives codes, as configured.

    Args:
      how: which of the two, and how.
      n_codes: K.
    """

    def __init__(self, how: TokenizerStep, n_codes: int) -> None:
        self._how, self._n_codes = how, n_codes

    def init(self, generator: nnx.State) -> State:
        """`ema`: averaged weights; `idle` (K,): steps since each code was chosen."""
        beside: State = {}
        if self._how.ema_decay:
            # A copy: the step donates its state, and one buffer cannot be donated twice.
            beside["ema"] = jax.tree.map(jnp.copy, generator)
        if self._how.revive_after:
            beside["idle"] = jnp.zeros(self._n_codes, jnp.int32)
        return beside

    def __call__(
        self, state: State, generator: nnx.State, latents: Quantized, key: jax.Array
    ) -> Kept:
        """Follows one update.

        Args:
          state: the task's, before the step.
          generator: the tokenizer's parameters, after the update.
          latents: what the step quantised.
          key: decides where dead codes move to.
        """
        beside: State = {}
        if self._how.ema_decay:
            beside["ema"] = self._average(state, generator)
        if not self._how.revive_after:
            return Kept(generator, beside, {})
        idle_K = count_idle(state["idle"], latents.ids_BN)
        dead_K = idle_K >= self._how.revive_after
        inputs_TD, codes_TD = flat(latents.inputs_BhwD), flat(latents.codes_BhwD)
        distances_T = jnp.sum(jnp.square(inputs_TD - codes_TD), axis=-1)
        revived_KD = revive(_codebook(generator), dead_K, inputs_TD, distances_T, key)
        # Kept whole on every device, as it was born: if XLA split it, the second step would compile again.
        beside["idle"] = constrain(jnp.where(dead_K, 0, idle_K), None)
        if "ema" in beside:  # a moved code's old vectors are no longer worth averaging
            average_KD = jnp.where(dead_K[:, None], revived_KD, _codebook(beside["ema"]))
            beside["ema"] = with_codebook(beside["ema"], average_KD)
        revived = jnp.sum(dead_K).astype(jnp.float32)
        return Kept(with_codebook(generator, revived_KD), beside, {"codes_revived": revived})

    def _average(self, state: State, generator: nnx.State) -> Any:
        # A young average still holds the initialisation, so it follows faster: by 9/10 at step 0.
        steps = state["step"].astype(jnp.float32)
        decay = jnp.minimum(self._how.ema_decay, (1 + steps) / (10 + steps))
        return jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new, state["ema"], generator
        )


def flat(x_BhwD: jax.Array) -> jax.Array:
    """(B, h, w, D) as (T, D)."""
    return x_BhwD.reshape(-1, x_BhwD.shape[-1])


def _codebook(params: nnx.State) -> Any:
    return params["quantizer"]["codebook"][...]


def with_codebook(params: nnx.State, codebook_KD: jax.Array) -> nnx.State:
    """A tokenizer's parameters with another codebook; the others are shared."""
    copy = jax.tree.map(lambda x: x, params)
    copy["quantizer"]["codebook"] = copy["quantizer"]["codebook"].replace(codebook_KD)
    return copy
