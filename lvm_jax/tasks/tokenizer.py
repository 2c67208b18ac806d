"""The tokenizer task: a VQGAN and its discriminator, both updated in one jitted step.

Shape suffixes: B images, H W sides, C channels, D code dimension, T tokens, K codes.
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
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.quantizer import Quantized
from lvm_jax.models.tokenizer.revival import count_idle, revive
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.parallel.sharding import constrain
from lvm_jax.pictures.pixels import to_float
from lvm_jax.tasks.accumulation import in_microbatches
from lvm_jax.tasks.base import Batch, State
from lvm_jax.tasks.critic import Critic
from lvm_jax.tasks.tokenizer_config import TokenizerLoss, TokenizerStep

__all__ = ["TokenizerLoss", "TokenizerStep", "TokenizerTask"]

Scalars = dict[str, jax.Array]


class TokenizerTask:
    """Trains a `VQGAN` against a discriminator on images.

    The generator sees the discriminator as it was before the step, and the discriminator the reconstructions from
    before it: neither update depends on the other's.

    Args:
      config: the tokenizer.
      generator_tx: optimizer of the VQGAN.
      discriminator_tx: optimizer of the discriminator.
      loss: what is minimised; default: `TokenizerLoss()`.
      discriminator: the discriminator's shape; default: `DiscriminatorConfig()`.
      how: accumulation, averaging of weights and revival of codes; default: `TokenizerStep()`, none of them.

    Attributes:
      constants: arrays that a step reads and nothing trains (LPIPS weights; empty otherwise). Pass them as
        `batch["constants"]`; a step without them embeds its own copy in the compiled program.
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
        self.constants: dict[str, Any] = {}
        if loss.perceptual.startswith("lpips-"):
            self._net: perceptual.Net = "vgg" if loss.perceptual == "lpips-vgg" else "alex"
            self.constants["perceptual"] = perceptual.load_weights(self._net)
        self._generator = nnx.graphdef(VQGAN.abstract(config))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and optimizer moments of both networks, at step 0; no discriminator if nothing hears it.

        Where they are asked for: `ema`, averaged weights; `idle`, steps since each code was chosen; `lecam`.
        """
        generator_key, discriminator_key = jax.random.split(key)
        critic = self.critic.init(discriminator_key)
        generator = nnx.state(VQGAN(self.config, rngs=nnx.Rngs(generator_key)))
        state: State = {
            "step": jnp.zeros((), jnp.int32),
            "params": {"generator": generator, "discriminator": critic.pop("params")},
            "opt": {
                "generator": self.generator_tx.init(generator),
                "discriminator": critic.pop("opt"),
            },
            **critic,
        }
        if self.how.ema_decay:
            state["ema"] = jax.tree.map(jnp.copy, generator)
        if self.how.revive_after:
            state["idle"] = jnp.zeros(self.config.num_embeddings, jnp.int32)
        return state

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update of the generator and, from `discriminator_start` on, of the discriminator.

        The losses of the reconstruction are differentiated down to its pixels first; one backward pass through the
        VQGAN then carries their weighted sum, so that the adaptive weight costs only the last layer's gradient.

        Args:
          state: as `init` gives it.
          batch: see `batch_spec`.
          key: decides where dead codes move to; nothing else is drawn here.
        """
        params, opt = state["params"], state["opt"]
        images_BHWC = to_float(batch["images"])
        constants = batch.get("constants", self.constants)

        (outputs_BHWC, quantization), pull_back, (report, latents) = jax.vjp(
            lambda p: self._forward(p, images_BHWC), params["generator"], has_aux=True
        )
        (likeness, parts), likeness_gradient = jax.value_and_grad(self._likeness, has_aux=True)(
            outputs_BHWC, images_BHWC, constants
        )
        critic = {"params": params["discriminator"], "opt": opt["discriminator"]}
        critic |= {"lecam": state["lecam"]} if "lecam" in state else {}
        critic, adversarial_gradient, adversarial_parts = self.critic(
            critic, state["step"], images_BHWC, outputs_BHWC
        )
        heard = state["step"] >= self.loss.discriminator_start
        weight = jnp.where(
            heard,
            self._adversarial_weight(pull_back, likeness_gradient, adversarial_gradient),
            0.0,
        )
        (gradients,) = pull_back(
            (likeness_gradient + weight * adversarial_gradient, jnp.ones_like(quantization))
        )
        updates, generator_opt = self.generator_tx.update(
            gradients, opt["generator"], params["generator"]
        )
        generator: Any = optax.apply_updates(params["generator"], updates)
        kept, kept_report = self._keep(state, generator, latents, key)
        new_state = {
            "step": state["step"] + 1,
            "params": {"generator": generator, "discriminator": critic.pop("params")},
            "opt": {"generator": generator_opt, "discriminator": critic.pop("opt")},
            **critic,
        }
        new_state["params"]["generator"] = kept.pop("generator")
        new_state |= kept
        total = likeness + quantization + weight * adversarial_parts.get("adversarial", 0.0)
        scalars = {"loss": total, **parts, **report, **adversarial_parts, **kept_report}
        scalars["gradient_norm"] = optax.tree.norm(gradients)
        if self.loss.adversarial_weight:
            scalars["adversarial_weight"] = weight
        images = jnp.float32(images_BHWC.shape[0])
        metrics = {name: Mean(value * images, images) for name, value in scalars.items()}
        metrics["psnr"] = Mean(jnp.sum(psnr(images_BHWC, jnp.clip(outputs_BHWC, 0, 1))), images)
        return new_state, metrics

    def reconstruct(
        self, state: State, images: Int[Array, "B H W C"]
    ) -> tuple[Float[Array, "B H W C"], Int[Array, "B N"]]:
        """uint8 images through the state's tokenizer and back: floats in [0, 1], and their ids."""
        vqgan = self.export(state)
        ids_BN = vqgan.encode(to_float(images))
        return vqgan.decode(ids_BN), ids_BN

    def export(self, state: State) -> VQGAN:
        """The tokenizer with the state's averaged weights, or its present ones where none are averaged."""
        return nnx.merge(self._generator, state.get("ema", state["params"]["generator"]))

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """images: uint8 RGB (B, H, W, 3)."""
        side, channels = self.config.resolution, self.config.num_channels
        return {"images": jax.ShapeDtypeStruct((global_batch, side, side, channels), jnp.uint8)}

    def flops_per_batch(self, global_batch: int) -> float:
        """Of a step with the discriminator running: 3 times the VQGAN's forward pass (backward costs two), 3 times
        LPIPS's (both images forward, one backward to the pixels), 8 times the discriminator's (2 for the generator's
        loss, 6 for its own on two batches), and 6 more with R1 (2 for the gradient at the pixels, 4 for its gradient).
        What accumulation computes twice is not counted.
        """
        side, channels = self.config.resolution, self.config.num_channels
        images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        vqgan = VQGAN.abstract(self.config)
        total = 3 * count_flops(
            lambda p, x: self._reconstruction(p, x)[0], nnx.state(vqgan), images
        )
        if "perceptual" in self.constants:
            total += 3 * count_flops(self._features, self.constants["perceptual"], images)
        if self.loss.adversarial_weight:
            critic = jax.eval_shape(self.critic.init, jax.random.key(0))["params"]
            times = 14 if self.loss.r1_weight else 8
            total += times * count_flops(lambda p, x: self.critic.network(p)(x), critic, images)
        return total * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Images."""
        return "images", global_batch

    def _reconstruction(
        self, params: nnx.State, images_BHWC: jax.Array
    ) -> tuple[jax.Array, Quantized]:
        """Images through the tokenizer and back, not clamped, and how they were quantised: rows that stand alone."""
        vqgan = nnx.merge(self._generator, params)
        quantized = vqgan.quantize(vqgan.encode_features(images_BHWC))
        codes_BhwD = quantized.straight_through_BhwD
        if self.loss.straight_through == "all_codes":
            codes_TD = vqgan.quantizer.all_codes(
                _rows(quantized.codes_BhwD),
                vqgan.quantizer.affinities(_rows(quantized.inputs_BhwD)),
                temperature=self.loss.entropy_temperature,
            )
            codes_BhwD = codes_TD.reshape(codes_BhwD.shape)
        return vqgan.decode_features(codes_BhwD), quantized

    def _forward(
        self, params: nnx.State, images_BHWC: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[Scalars, Quantized]]:
        """((reconstruction, weighted quantisation loss), (scalars to report, the latents))."""
        network = in_microbatches(lambda x: self._reconstruction(params, x), self.how.accumulation)
        outputs_BHWC, quantized = network(images_BHWC)
        quantization, report = self._quantization(params, quantized)
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

            # One mean a part, of equally many tokens each: their mean is that of the batch.
            entropy_T, mean_PK = in_microbatches(assign, self.how.accumulation)(
                _rows(quantized.inputs_BhwD)
            )
            each, overall = losses.code_entropy(entropy_T, jnp.mean(mean_PK, axis=0))
            total += loss.entropy_weight * (losses.divide(each) - losses.divide(overall))
            report |= {
                "choice_entropy": losses.divide(each),
                "mean_entropy": losses.divide(overall),
            }
        return total, report

    def _likeness(
        self, outputs_BHWC: jax.Array, images_BHWC: jax.Array, constants: dict[str, Any]
    ) -> tuple[jax.Array, Scalars]:
        """What the adversarial loss is balanced against: pixels and perception."""
        loss = self.loss
        pixels = losses.divide(
            losses.reconstruction(images_BHWC, outputs_BHWC, loss.reconstruction)
        )
        parts = {"reconstruction": pixels}
        if loss.perceptual == "gradient":
            distance_B = losses.gradient_distance(images_BHWC, outputs_BHWC)
        elif loss.perceptual == "none":
            return loss.reconstruction_weight * pixels, parts
        else:
            distance = in_microbatches(
                lambda a, b: perceptual.lpips(constants["perceptual"], a, b, net=self._net),
                self.how.accumulation,
            )
            distance_B = distance(images_BHWC, outputs_BHWC)
        parts["perceptual"] = losses.divide(losses.per_image(distance_B))
        total = loss.reconstruction_weight * pixels + loss.perceptual_weight * parts["perceptual"]
        return total, parts

    def _keep(
        self, state: State, generator: nnx.State, latents: Quantized, key: jax.Array
    ) -> tuple[State, Scalars]:
        """What follows the update: `generator` with dead codes revived, and `idle` and `ema` where they are kept."""
        kept: State = {"generator": generator}
        report: Scalars = {}
        if self.how.ema_decay:
            steps = state["step"].astype(jnp.float32)
            decay = jnp.minimum(self.how.ema_decay, (1 + steps) / (10 + steps))
            kept["ema"] = jax.tree.map(
                lambda old, new: decay * old + (1 - decay) * new, state["ema"], generator
            )
        if self.how.revive_after:
            idle_K = count_idle(state["idle"], latents.ids_BN)
            dead_K = idle_K >= self.how.revive_after
            inputs_TD, codes_TD = _rows(latents.inputs_BhwD), _rows(latents.codes_BhwD)
            distances_T = jnp.sum(jnp.square(inputs_TD - codes_TD), axis=-1)
            codebook_KD: Any = generator["quantizer"]["codebook"][...]
            revived_KD = revive(codebook_KD, dead_K, inputs_TD, distances_T, key)
            kept["generator"] = _with_codebook(generator, revived_KD)
            # Whole on every device, as it was born: else the second step would compile anew, for a split one.
            kept["idle"] = constrain(jnp.where(dead_K, 0, idle_K), None)
            if "ema" in kept:  # a moved code has no past worth averaging
                average_KD = kept["ema"]["quantizer"]["codebook"][...]
                average_KD = jnp.where(dead_K[:, None], revived_KD, average_KD)
                kept["ema"] = _with_codebook(kept["ema"], average_KD)
            report["codes_revived"] = jnp.sum(dead_K).astype(jnp.float32)
        return kept, report

    def _adversarial_weight(
        self, pull_back: Callable, likeness_gradient: jax.Array, adversarial_gradient: jax.Array
    ) -> jax.Array:
        weight = jnp.float32(self.loss.adversarial_weight)
        if not (self.loss.adversarial_weight and self.loss.adaptive_weight):
            return weight

        def last_kernel(gradient: jax.Array) -> jax.Array:
            (gradients,) = pull_back((gradient, jnp.zeros(())))
            return gradients["decoder"]["conv_out"]["kernel"][...]  # XLA drops all the rest

        return weight * losses.adaptive_weight(
            last_kernel(likeness_gradient), last_kernel(adversarial_gradient)
        )

    def _features(self, weights: perceptual.Weights, images_BHWC: jax.Array) -> list[jax.Array]:
        return perceptual.features(weights, images_BHWC, net=self._net)


def _rows(x_BhwD: jax.Array) -> jax.Array:
    return x_BhwD.reshape(-1, x_BhwD.shape[-1])


def _with_codebook(params: nnx.State, codebook_KD: jax.Array) -> nnx.State:
    copy = jax.tree.map(lambda x: x, params)
    copy["quantizer"]["codebook"] = copy["quantizer"]["codebook"].replace(codebook_KD)
    return copy


def _code_statistics(ids_BN: jax.Array, codebook_size: int) -> dict[str, jax.Array]:
    """The fraction of codes in use and exp(entropy) of their frequencies, within this batch."""
    counts_K = jnp.zeros(codebook_size, jnp.float32).at[ids_BN.ravel()].add(1.0)
    p_K = counts_K / ids_BN.size
    perplexity = jnp.exp(-jnp.sum(p_K * jnp.log(jnp.where(p_K > 0, p_K, 1.0))))
    return {"codebook_use": jnp.mean(counts_K > 0), "codebook_perplexity": perplexity}
