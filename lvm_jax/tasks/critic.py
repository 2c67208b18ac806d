"""The discriminator's half of the tokenizer task: what it tells the generator, and how it learns.

Shape suffixes: B images, H W sides, C channels, h w patches.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.losses import vqgan as losses
from lvm_jax.models.tokenizer.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    make_discriminator,
)
from lvm_jax.tasks.accumulation import in_microbatches
from lvm_jax.tasks.base import State
from lvm_jax.tasks.tokenizer_config import TokenizerLoss

# (its part of the state after the step, the generator's gradient at the pixels, scalars to report)
Verdict = tuple[State, jax.Array, dict[str, jax.Array]]


class Critic:
    """A discriminator under the losses of the tokenizer task.

    Its part of the state is `{"params", "opt"}` and, with LeCam, `"lecam"`: the moving averages of its mean logits.

    Args:
      config: its shape.
      resolution: side of the images.
      tx: its optimizer.
      loss: what is minimised.
      parts: that a batch is computed in.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        resolution: int,
        tx: optax.GradientTransformation,
        loss: TokenizerLoss,
        parts: int,
    ) -> None:
        self.tx, self.loss = tx, loss
        self._config, self._resolution, self._parts = config, resolution, parts
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: self._make(jax.random.key(0))))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and moments; empty ones where no loss hears the discriminator."""
        params = nnx.state(self._make(key)) if self.loss.adversarial_weight else nnx.State({})
        state: State = {"params": params, "opt": self.tx.init(params)}
        if self.loss.adversarial_weight and self.loss.lecam_weight:
            state["lecam"] = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        return state

    def __call__(
        self,
        state: State,
        step: jax.Array,
        images_BHWC: Float[Array, "B H W C"],
        outputs_BHWC: Float[Array, "B H W C"],
    ) -> Verdict:
        """Judges reconstructions as it was before the step, and learns from them.

        Before `discriminator_start` nothing of it is computed, and the reported losses are 0.
        """
        if not self.loss.adversarial_weight:
            return state, jnp.zeros_like(outputs_BHWC), {}

        def active() -> Verdict:
            adversarial, pixel_gradient = jax.value_and_grad(self._generator_loss, argnums=1)(
                state["params"], outputs_BHWC
            )
            new_state, report = self._learn(state, images_BHWC, outputs_BHWC)
            return new_state, pixel_gradient, {"adversarial": adversarial, **report}

        def idle() -> Verdict:
            report = jax.eval_shape(active)[2]
            return state, jnp.zeros_like(outputs_BHWC), {name: jnp.zeros(()) for name in report}

        if not self.loss.discriminator_start:
            return active()  # XLA's CPU backend runs what is inside a condition on one core
        return jax.lax.cond(step >= self.loss.discriminator_start, active, idle)

    def logits(
        self, params: nnx.State, images_BHWC: Float[Array, "B H W C"]
    ) -> Float[Array, "B h w"]:
        """Positive for real."""
        return in_microbatches(self.network(params), self._parts)(images_BHWC)

    def network(self, params: nnx.State) -> Discriminator:
        """The discriminator itself, of a whole batch at once."""
        return nnx.merge(self._graph, params)

    def _make(self, key: jax.Array) -> Any:
        return make_discriminator(self._config, self._resolution, rngs=nnx.Rngs(key))

    def _generator_loss(self, params: nnx.State, outputs_BHWC: jax.Array) -> jax.Array:
        fake_Bhw = self.logits(params, outputs_BHWC)
        return losses.divide(losses.adversarial(fake_Bhw, self.loss.adversarial))

    def _learn(
        self, state: State, images_BHWC: jax.Array, outputs_BHWC: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        def objective(params: nnx.State) -> tuple[jax.Array, dict[str, jax.Array]]:
            real_Bhw = self.logits(params, images_BHWC)
            fake_Bhw = self.logits(params, outputs_BHWC)
            loss = losses.divide(losses.discriminator(real_Bhw, fake_Bhw, self.loss.adversarial))
            report = {
                "discriminator": loss,
                "logit_real": jnp.mean(real_Bhw),
                "logit_fake": jnp.mean(fake_Bhw),
            }
            if self.loss.lecam_weight:
                averages = state["lecam"]["real"], state["lecam"]["fake"]
                report["lecam"] = losses.divide(losses.lecam(real_Bhw, fake_Bhw, *averages))
                loss += self.loss.lecam_weight * report["lecam"]
            if self.loss.r1_weight:
                report["r1"] = self._gradient_penalty(params, images_BHWC)
                loss += self.loss.r1_weight * report["r1"]
            return loss, report

        gradients, report = jax.grad(objective, has_aux=True)(state["params"])
        updates, opt = self.tx.update(gradients, state["opt"], state["params"])
        new_state: State = {"params": optax.apply_updates(state["params"], updates), "opt": opt}
        if self.loss.lecam_weight:
            decay = self.loss.lecam_decay
            new_state["lecam"] = {
                name: decay * average + (1 - decay) * report[f"logit_{name}"]
                for name, average in state["lecam"].items()
            }
        return new_state, report

    def _gradient_penalty(self, params: nnx.State, images_BHWC: jax.Array) -> jax.Array:
        def gradient(images_BHWC: jax.Array) -> jax.Array:
            critic = self.network(params)
            return jax.grad(lambda x: jnp.sum(jnp.mean(critic(x), axis=(1, 2))))(images_BHWC)

        gradient_BHWC = in_microbatches(gradient, self._parts)(images_BHWC)
        return losses.divide(losses.gradient_penalty(gradient_BHWC))
