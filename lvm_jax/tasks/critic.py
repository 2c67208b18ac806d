"""The discriminator's half of the tokenizer task: what it tells the generator, and how it learns.

Shape suffixes: B images, H W sides, C channels, H2 W2 patches along each side (h w in names).
"""

from typing import Any, NamedTuple

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

Scalars = dict[str, jax.Array]


class CriticState(NamedTuple):
    """What the discriminator keeps in the task's state. Only this class knows where.

    Attributes:
      params: its parameters; `params/discriminator` in checkpoints.
      opt: its optimizer's state; `opt/discriminator`.
      lecam: moving averages of its mean logits on real and fake images; `lecam`, empty without LeCam.
    """

    params: nnx.State
    opt: optax.OptState
    lecam: Scalars

    @classmethod
    def of(cls, state: State) -> "CriticState":
        """The discriminator's entries of the task's state."""
        entries = state["params"]["discriminator"], state["opt"]["discriminator"]
        return cls(*entries, state.get("lecam", {}))

    def into(self, state: State) -> State:
        """The task's state with these entries added."""
        return {
            **state,
            "params": {**state["params"], "discriminator": self.params},
            "opt": {**state["opt"], "discriminator": self.opt},
            **({"lecam": self.lecam} if self.lecam else {}),
        }


class Verdict(NamedTuple):
    """What the discriminator says about a batch.

    Attributes:
      state: its own, after the step.
      pixel_gradient: gradient of the generator's adversarial loss by the reconstructions, (B, H, W, C).
      report: scalars to log; `adversarial` is the generator's loss.
    """

    state: CriticState
    pixel_gradient: jax.Array
    report: Scalars


class Critic:
    """A discriminator, trained by the losses of the tokenizer task.

    Args:
      config: its shape.
      resolution: side of the images.
      tx: its optimizer.
      loss: what the task minimises.
      microbatches: how many a batch is computed in.

    Raises:
      UserError: a loss uses the discriminator, and the images are too small for it.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        resolution: int,
        tx: optax.GradientTransformation,
        loss: TokenizerLoss,
        microbatches: int,
    ) -> None:
        self.tx, self.loss = tx, loss
        self._config, self._resolution = config, resolution
        self._microbatches = microbatches
        if loss.adversarial_weight:
            self._graph = nnx.graphdef(nnx.eval_shape(lambda: self._make(jax.random.key(0))))

    def init(self, key: jax.Array) -> CriticState:
        """Fresh parameters and moments; empty if no loss uses the discriminator."""
        params = nnx.state(self._make(key)) if self.loss.adversarial_weight else nnx.State({})
        averaged = (
            ("real", "fake") if self.loss.adversarial_weight and self.loss.lecam_weight else ()
        )
        return CriticState(params, self.tx.init(params), {name: jnp.zeros(()) for name in averaged})

    def __call__(
        self,
        state: CriticState,
        step: jax.Array,
        images_BHWC: Float[Array, "B H W C"],
        outputs_BHWC: Float[Array, "B H W C"],
    ) -> Verdict:
        """Judges the reconstructions with its parameters from before the step, then learns from them.

        Before `discriminator_start` it computes nothing and reports losses of 0.
        """
        if not self.loss.adversarial_weight:
            return Verdict(state, jnp.zeros_like(outputs_BHWC), {})

        def active() -> Verdict:
            adversarial, pixel_gradient = jax.value_and_grad(self._generator_loss, argnums=1)(
                state.params, outputs_BHWC
            )
            new_state, report = self._learn(state, images_BHWC, outputs_BHWC)
            return Verdict(new_state, pixel_gradient, {"adversarial": adversarial, **report})

        def idle() -> Verdict:
            # Both branches of the condition must return the same tree.
            report = jax.eval_shape(active).report
            return Verdict(
                state, jnp.zeros_like(outputs_BHWC), {name: jnp.zeros(()) for name in report}
            )

        if not self.loss.discriminator_start:
            # Without a condition, whose branches XLA's CPU backend runs on one core.
            return active()
        return jax.lax.cond(step >= self.loss.discriminator_start, active, idle)

    def logits(
        self, params: nnx.State, images_BHWC: Float[Array, "B H W C"]
    ) -> Float[Array, "B H2 W2"]:
        """A map of logits per image; positive means real."""
        return in_microbatches(self.network(params), self._microbatches)(images_BHWC)

    def network(self, params: nnx.State) -> Discriminator:
        """The discriminator itself, which takes a whole batch at once."""
        return nnx.merge(self._graph, params)

    def _make(self, key: jax.Array) -> Any:
        return make_discriminator(self._config, self._resolution, rngs=nnx.Rngs(key))

    def _generator_loss(self, params: nnx.State, outputs_BHWC: jax.Array) -> jax.Array:
        fake_Bhw = self.logits(params, outputs_BHWC)
        return losses.divide(losses.adversarial(fake_Bhw, self.loss.adversarial))

    def _learn(
        self, state: CriticState, images_BHWC: jax.Array, outputs_BHWC: jax.Array
    ) -> tuple[CriticState, Scalars]:
        # `outputs_BHWC` is a constant here: the gradient is by the discriminator's parameters only.
        gradients, report = jax.grad(self._objective, has_aux=True)(
            state.params, state.lecam, images_BHWC, outputs_BHWC
        )
        updates, opt = self.tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        # Updated after the loss has used them: LeCam compares with averages of earlier steps.
        decay = self.loss.lecam_decay
        lecam = {
            name: decay * average + (1 - decay) * report[f"logit_{name}"]
            for name, average in state.lecam.items()
        }
        return CriticState(params, opt, lecam), report

    def _objective(
        self,
        params: nnx.State,
        averages: Scalars,
        images_BHWC: jax.Array,
        outputs_BHWC: jax.Array,
    ) -> tuple[jax.Array, Scalars]:
        """The loss that the discriminator minimises, and scalars to report."""
        real_Bhw = self.logits(params, images_BHWC)
        fake_Bhw = self.logits(params, outputs_BHWC)
        loss = losses.divide(losses.discriminator(real_Bhw, fake_Bhw, self.loss.adversarial))
        report = {
            "discriminator": loss,
            "logit_real": jnp.mean(real_Bhw),
            "logit_fake": jnp.mean(fake_Bhw),
        }
        if self.loss.lecam_weight:
            pull = losses.lecam(real_Bhw, fake_Bhw, averages["real"], averages["fake"])
            report["lecam"] = losses.divide(pull)
            loss += self.loss.lecam_weight * report["lecam"]
        if self.loss.r1_weight:
            # Within the objective, because its gradient by the parameters is a second derivative of the logits.
            report["r1"] = self._gradient_penalty(params, images_BHWC)
            loss += self.loss.r1_weight * report["r1"]
        return loss, report

    def _gradient_penalty(self, params: nnx.State, images_BHWC: jax.Array) -> jax.Array:
        def gradient(images_BHWC: jax.Array) -> jax.Array:
            critic = self.network(params)
            # No logit depends on another image, so one gradient of the batch's sum holds each image's own.
            return jax.grad(lambda x: jnp.sum(jnp.mean(critic(x), axis=(1, 2))))(images_BHWC)

        gradient_BHWC = in_microbatches(gradient, self._microbatches)(images_BHWC)
        return losses.divide(losses.gradient_penalty(gradient_BHWC))
