"""The tokenizer task: a VQGAN and its discriminator, both updated in one jitted step.

Shape suffixes: B images, H W sides, C channels, N tokens an image, T tokens in all, D code dimension, K codes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.analysis.flops import count_flops
from lvm_jax.losses import vqgan as losses
from lvm_jax.metrics.image import psnr
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.quantizer import Quantized
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.pictures.pixels import to_float
from lvm_jax.tasks.accumulation import in_microbatches
from lvm_jax.tasks.base import Batch, State
from lvm_jax.tasks.causal_prior import CausalRegularizer
from lvm_jax.tasks.critic import Critic, CriticState
from lvm_jax.tasks.likeness import Likeness
from lvm_jax.tasks.tokenizer_config import CausalPriorConfig, TokenizerLoss, TokenizerStep
from lvm_jax.tasks.upkeep import Upkeep, flat, with_codebook

__all__ = ["CausalPriorConfig", "TokenizerLoss", "TokenizerStep", "TokenizerTask"]

Scalars = dict[str, jax.Array]


class TokenizerTask:
    """Trains a `VQGAN` against a discriminator on images.

    In a step the generator sees the discriminator from before the step, and the discriminator sees the reconstructions
    from before it: neither update depends on the other.

    Args:
      config: the tokenizer.
      generator_tx: optimizer of the VQGAN.
      discriminator_tx: optimizer of the discriminator.
      loss: what it minimises; default: `TokenizerLoss()`.
      discriminator: the discriminator's shape; default: `DiscriminatorConfig()`.
      how: accumulation, weight averaging and code revival; default: `TokenizerStep()`, none of them.
      prior: the shape of what foretells codes, if the loss has a `causal_weight`. It learns by `generator_tx`.

    Attributes:
      constants: arrays that a step reads but does not train: LPIPS weights, or none. Pass them as `batch["constants"]`;
        otherwise the compiled step embeds its own copy.

    Raises:
      UserError: images are too small for the discriminator, or the encoder has nothing that could learn from a prior.
    """

    name = "tokenizer"

    def __init__(
        self,
        config: VQGANConfig,
        generator_tx: optax.GradientTransformation,
        discriminator_tx: optax.GradientTransformation,
        *,
        loss: TokenizerLoss | None = None,
        discriminator: DiscriminatorConfig | None = None,
        how: TokenizerStep | None = None,
        prior: CausalPriorConfig = CausalPriorConfig(),  # noqa: B008 - frozen
    ) -> None:
        self.config = config
        self.loss = loss = loss or TokenizerLoss()
        self.how = how = how or TokenizerStep()
        self.generator_tx = generator_tx
        self.critic = Critic(
            discriminator or DiscriminatorConfig(),
            config.resolution,
            discriminator_tx,
            loss,
            how.accumulation,
        )
        self._causal = CausalRegularizer(
            prior, config, generator_tx, loss.causal_weight, how.accumulation
        )
        self._likeness = Likeness(loss, how.accumulation)
        self._upkeep = Upkeep(how, config.num_embeddings)
        self.constants: dict[str, Any] = self._likeness.constants
        self._generator = nnx.graphdef(VQGAN.abstract(config))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and moments of both networks at step 0; no discriminator if no loss uses it.

        If configured, also a `prior` among them, `ema` (averaged weights), `idle` (steps since each code was chosen)
        and `lecam`.
        """
        generator_key, discriminator_key = jax.random.split(key)
        generator = nnx.state(VQGAN(self.config, rngs=nnx.Rngs(generator_key)))
        state = self.critic.init(discriminator_key).into(
            {
                "step": jnp.zeros((), jnp.int32),
                "params": {"generator": generator},
                "opt": {"generator": self.generator_tx.init(generator)},
                **self._upkeep.init(generator),
            }
        )
        return self._causal.init(jax.random.fold_in(key, 2), state)

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update of the generator and, from `discriminator_start` on, of the discriminator.

        It first takes the gradient of each loss by the reconstruction's pixels, then sends their weighted sum through
        one backward pass of the VQGAN. So the adaptive weight costs only the gradient of the last layer.

        Args:
          state: as `init` gives it.
          batch: see `batch_spec`.
          key: decides where dead codes move; nothing else is random.
        """
        params, opt = state["params"]["generator"], state["opt"]["generator"]
        images_BHWC = to_float(batch["images"])
        # `pull_back` is the VQGAN's backward pass. It runs once for all parameters, and with the adaptive weight twice
        # more for the last kernel alone.
        (outputs_BHWC, quantization), pull_back, (report, latents) = jax.vjp(
            lambda p, prior: self._forward(p, prior, images_BHWC),
            params,
            self._causal.params(state),
            has_aux=True,
        )
        (likeness, parts), likeness_gradient = jax.value_and_grad(self._likeness, has_aux=True)(
            outputs_BHWC, images_BHWC, batch.get("constants", self.constants)
        )
        # The critic returns the gradient by the pixels itself, so nothing differentiates through this call.
        verdict = self.critic(CriticState.of(state), state["step"], images_BHWC, outputs_BHWC)
        weight = self._adversarial_weight(
            state["step"], pull_back, likeness_gradient, verdict.pixel_gradient
        )
        gradients, of_prior = pull_back(
            (likeness_gradient + weight * verdict.pixel_gradient, jnp.ones_like(quantization))
        )
        updates, opt = self.generator_tx.update(gradients, opt, params)
        updated: Any = optax.apply_updates(params, updates)
        kept = self._upkeep(state, updated, latents, key)
        new_state = verdict.state.into(
            {
                "step": state["step"] + 1,
                "params": {"generator": kept.generator},
                "opt": {"generator": opt},
                **kept.beside,
            }
        )
        new_state = self._causal.learn(state, of_prior, new_state)
        scalars = {
            "loss": likeness + quantization + weight * verdict.report.get("adversarial", 0.0),
            **parts,
            **report,
            **verdict.report,
            **kept.report,
            "gradient_norm": optax.tree.norm(gradients),
        }
        if self.loss.adversarial_weight:
            scalars["adversarial_weight"] = weight
        return new_state, _means(scalars, images_BHWC, outputs_BHWC)

    def reconstruct(
        self, state: State, images: Int[Array, "B H W C"]
    ) -> tuple[Float[Array, "B H W C"], Int[Array, "B N"]]:
        """Encodes and decodes uint8 images with the state's tokenizer: floats in [0, 1], and the ids."""
        vqgan = self.export(state)
        ids_BN = vqgan.encode(to_float(images))
        return vqgan.decode(ids_BN), ids_BN

    def export(self, state: State) -> VQGAN:
        """The tokenizer with the state's averaged weights, or with its current ones if none are averaged."""
        return nnx.merge(self._generator, state.get("ema", state["params"]["generator"]))

    def with_codebook(self, state: State, codes_KD: Float[Array, "K D"]) -> State:
        """The state with another codebook, in its averaged weights too.

        Args:
          state: a fresh one: the optimizer's moments stay as they are.
          codes_KD: fp32.
        """
        generator = state["params"]["generator"]
        codes_KD = jax.device_put(codes_KD, generator["quantizer"]["codebook"][...].sharding)
        changed: State = {
            "params": {**state["params"], "generator": with_codebook(generator, codes_KD)}
        }
        if "ema" in state:  # a copy, as in `Upkeep.init`: the step donates its state
            changed["ema"] = with_codebook(state["ema"], jnp.copy(codes_KD))
        return {**state, **changed}

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """images: uint8 RGB (B, H, W, 3)."""
        side, channels = self.config.resolution, self.config.num_channels
        return {"images": jax.ShapeDtypeStruct((global_batch, side, side, channels), jnp.uint8)}

    def flops_per_batch(self, global_batch: int) -> float:
        """FLOPs of a step with the discriminator running, in forward passes.

        VQGAN and prior: 3 (backward costs 2). LPIPS: 3 (both images forward, one backward to the pixels).
        Discriminator: 8 (2 for the generator's loss, 6 for its own on two batches), and with R1 another 6 (2 for the
        gradient by the pixels, 4 for the gradient of that). What accumulation recomputes does not count.
        """
        side, channels = self.config.resolution, self.config.num_channels
        images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        vqgan = VQGAN.abstract(self.config)
        total = 3 * count_flops(
            lambda p, x: self._reconstruction(p, x)[0], nnx.state(vqgan), images
        )
        total += 3 * (self._likeness.flops(images) + self._causal.flops())
        if self.loss.adversarial_weight:
            critic = jax.eval_shape(self.critic.init, jax.random.key(0)).params
            times = 14 if self.loss.r1_weight else 8
            total += times * count_flops(lambda p, x: self.critic.network(p)(x), critic, images)
        return total * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """The images of a batch."""
        return "images", global_batch

    def _reconstruction(
        self, params: nnx.State, images_BHWC: jax.Array
    ) -> tuple[jax.Array, Quantized]:
        """The reconstructions, not clamped, and what was quantised. No row depends on another."""
        vqgan = nnx.merge(self._generator, params)
        quantized = vqgan.quantize(vqgan.encode_features(images_BHWC))
        codes_BhwD = quantized.straight_through_BhwD
        if self.loss.straight_through == "all_codes":
            codes_TD = vqgan.quantizer.all_codes(
                flat(quantized.codes_BhwD),
                vqgan.quantizer.affinities(flat(quantized.inputs_BhwD)),
                temperature=self.loss.entropy_temperature,
            )
            codes_BhwD = codes_TD.reshape(codes_BhwD.shape)
        return vqgan.decode_features(codes_BhwD), quantized

    def _forward(
        self, params: nnx.State, prior: nnx.State, images_BHWC: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[Scalars, Quantized]]:
        """((reconstructions, weighted losses of quantisation and prior), (scalars to report, latents))."""
        network = in_microbatches(lambda x: self._reconstruction(params, x), self.how.accumulation)
        outputs_BHWC, quantized = network(images_BHWC)
        # Outside of the microbatches: it is a loss of the whole batch, computed from rows that they returned.
        quantization, report = self._quantization(params, quantized)
        if self.loss.causal_weight:
            causal, of_prior = self._causal(prior, quantized.straight_through_BhwD)
            quantization, report = quantization + causal, report | of_prior
        return (outputs_BHWC, quantization), (report, jax.lax.stop_gradient(quantized))

    def _quantization(self, params: nnx.State, quantized: Quantized) -> tuple[jax.Array, Scalars]:
        loss = self.loss
        commitment = losses.divide(
            losses.vector_quantization(
                quantized.inputs_BhwD,
                quantized.codes_BhwD,
                commitment_cost=loss.commitment_cost,
                legacy=loss.legacy_commitment,
            )
        )
        total = loss.quantization_weight * commitment
        report = {
            "quantization": commitment,
            **_code_statistics(quantized.ids_BN, self.config.num_embeddings),
        }
        if loss.entropy_weight:

            def assign(inputs_TD: jax.Array) -> tuple[jax.Array, jax.Array]:
                quantizer = nnx.merge(self._generator, params).quantizer
                entropy_T, p_TK = losses.soft_assignment(
                    quantizer.affinities(inputs_TD), temperature=loss.entropy_temperature
                )
                return entropy_T, jnp.mean(p_TK, axis=0, keepdims=True)

            # One mean per microbatch, not a (T, K) array. Microbatches have equally many tokens, so the mean of their
            # means is the batch's.
            entropy_T, mean_PK = in_microbatches(assign, self.how.accumulation)(
                flat(quantized.inputs_BhwD)
            )
            each, overall = losses.code_entropy(entropy_T, jnp.mean(mean_PK, axis=0))
            total += loss.entropy_weight * (losses.divide(each) - losses.divide(overall))
            report |= {
                "choice_entropy": losses.divide(each),
                "mean_entropy": losses.divide(overall),
            }
        return total, report

    def _adversarial_weight(
        self,
        step: jax.Array,
        pull_back: Callable,
        likeness_gradient: jax.Array,
        adversarial_gradient: jax.Array,
    ) -> jax.Array:
        """Weight of the adversarial loss; 0 before `discriminator_start` (arXiv 2012.09841, equation 7)."""
        weight = jnp.float32(self.loss.adversarial_weight)

        def last_kernel(gradient: jax.Array) -> jax.Array:
            gradients, _ = pull_back((gradient, jnp.zeros(())))
            # XLA removes the rest as dead code.
            return gradients["decoder"]["conv_out"]["kernel"][...]

        if self.loss.adversarial_weight and self.loss.adaptive_weight:
            weight *= losses.adaptive_weight(
                last_kernel(likeness_gradient), last_kernel(adversarial_gradient)
            )
        return jnp.where(step >= self.loss.discriminator_start, weight, 0.0)


def _means(scalars: Scalars, images_BHWC: jax.Array, outputs_BHWC: jax.Array) -> dict[str, Mean]:
    """The batch's scalars as means over its images, and the mean PSNR."""
    images = jnp.float32(images_BHWC.shape[0])
    metrics = {name: Mean(value * images, images) for name, value in scalars.items()}
    metrics["psnr"] = Mean(jnp.sum(psnr(images_BHWC, jnp.clip(outputs_BHWC, 0, 1))), images)
    return metrics


def _code_statistics(ids_BN: jax.Array, codebook_size: int) -> dict[str, jax.Array]:
    """The fraction of codes that this batch uses, and exp(entropy) of their frequencies."""
    counts_K = jnp.zeros(codebook_size, jnp.float32).at[ids_BN.ravel()].add(1.0)
    p_K = counts_K / ids_BN.size
    perplexity = jnp.exp(-jnp.sum(p_K * jnp.log(jnp.where(p_K > 0, p_K, 1.0))))
    return {"codebook_use": jnp.mean(counts_K > 0), "codebook_perplexity": perplexity}
