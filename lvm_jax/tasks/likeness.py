"""How much a reconstruction resembles its original: the pixel error, and a perceptual distance.

Shape suffixes: B images, H W sides, C channels.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from lvm_jax.analysis.flops import count_flops
from lvm_jax.losses import vqgan as losses
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.tasks.accumulation import in_microbatches
from lvm_jax.tasks.tokenizer_config import TokenizerLoss

Scalars = dict[str, jax.Array]


class Likeness:
    """The losses that the adversarial loss is balanced against.

    Args:
      loss: which ones, and their weights.
      microbatches: how many a batch is computed in.

    Attributes:
      constants: `{"perceptual": weights}` if a network measures the distance, else {}; never trained.
    """

    def __init__(self, loss: TokenizerLoss, microbatches: int) -> None:
        self._loss, self._microbatches = loss, microbatches
        self._net: perceptual.Net = "vgg" if loss.perceptual == "lpips-vgg" else "alex"
        self.constants: dict[str, Any] = {}
        if loss.perceptual.startswith("lpips-"):
            self.constants["perceptual"] = perceptual.load_weights(self._net)

    def __call__(
        self,
        outputs_BHWC: Float[Array, "B H W C"],
        images_BHWC: Float[Array, "B H W C"],
        constants: dict[str, Any],
    ) -> tuple[jax.Array, Scalars]:
        """(weighted loss, scalars to report).

        Args:
          outputs_BHWC: reconstructions, near [0, 1] and not clamped.
          images_BHWC: originals in [0, 1].
          constants: the attribute's value, passed in so that the compiled step does not embed a copy.
        """
        loss = self._loss
        pixels = losses.divide(
            losses.reconstruction(images_BHWC, outputs_BHWC, loss.reconstruction)
        )
        report = {"reconstruction": pixels}
        if loss.perceptual == "none":
            return loss.reconstruction_weight * pixels, report
        if loss.perceptual == "gradient":
            distance_B = losses.gradient_distance(images_BHWC, outputs_BHWC)
        else:
            distance = in_microbatches(
                lambda a, b: perceptual.lpips(constants["perceptual"], a, b, net=self._net),
                self._microbatches,
            )
            distance_B = distance(images_BHWC, outputs_BHWC)
        report["perceptual"] = losses.divide(losses.per_image(distance_B))
        total = loss.reconstruction_weight * pixels + loss.perceptual_weight * report["perceptual"]
        return total, report

    def flops(self, images: jax.ShapeDtypeStruct) -> float:
        """FLOPs of one forward pass of the perceptual network on these images; 0 without one."""
        if "perceptual" not in self.constants:
            return 0.0
        return count_flops(self._features, self.constants["perceptual"], images)

    def _features(self, weights: perceptual.Weights, images_BHWC: jax.Array) -> list[jax.Array]:
        return perceptual.features(weights, images_BHWC, net=self._net)
