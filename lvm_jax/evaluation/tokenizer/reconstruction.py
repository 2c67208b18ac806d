"""How much of an image survives the tokenizer, and how evenly its codebook is used.

M: images, B: images of a batch, H, W: pixels, C: the channels R, G, B, N: tokens per image, D: features.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from lvm_jax.errors import UserError
from lvm_jax.evaluation import lpips
from lvm_jax.evaluation.base import Result
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.metrics.frechet import Gaussian, frechet_distance
from lvm_jax.metrics.image import psnr, ssim
from lvm_jax.metrics.states import Histogram
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float
from lvm_jax.weights.model_folder import check_finite

# (a_BHWC, b_BHWC), floats in [0, 1] -> a distance for each pair of images.
Distance = Callable[..., Any]


def _l1(a_BHWC: Float[Array, "B H W C"], b_BHWC: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    return jnp.mean(jnp.abs(a_BHWC - b_BHWC), axis=(1, 2, 3))


DISTANCES: Mapping[str, Distance] = {
    "psnr": jax.jit(psnr),
    "ssim": jax.jit(ssim),
    "l1": jax.jit(_l1),
}


@dataclasses.dataclass(frozen=True)
class Reconstructed:
    """Images and their reconstructions.

    Attributes:
      originals_MHWC, decoded_MHWC: floats in [0, 1].
      codes_MN: the originals encoded.
      codebook_size: of the tokenizer.
    """

    originals_MHWC: Float[np.ndarray, "M H W C"]
    decoded_MHWC: Float[np.ndarray, "M H W C"]
    codes_MN: Int[np.ndarray, "M N"]
    codebook_size: int


class ReconstructionEvaluator:
    """PSNR, SSIM, L1, LPIPS, a Frechet distance and codebook use over held-out images.

    Results: `psnr` (dB), `ssim`, `l1` (of pixels in [0, 1]) and `lpips` are means over images. `codebook_usage` is the
    fraction of codes that occur; `code_entropy` (nats) and `code_perplexity` say how evenly. `frechet_vgg16` is the
    Frechet distance between originals and reconstructions on the deepest features of VGG16, averaged over positions.
    It falls as the number of images grows, and it is not FID, which uses the features of Inception.

    Args:
      images_MHWC: held out, of the tokenizer's size.
      lpips_weights: see `lvm_jax.evaluation.lpips.installed_lpips`; without them `lpips` is "not installed".
      vgg_weights: those of "vgg", for `frechet_vgg16`; without them it is "not installed".
      distances: name -> a function that compares a batch of originals (NumPy arrays) with their reconstructions.
      batch_size: images at once.
    """

    name = "reconstruction"

    def __init__(
        self,
        images_MHWC: UInt8[np.ndarray, "M H W C"],
        *,
        lpips_weights: perceptual.Weights | None = None,
        vgg_weights: perceptual.Weights | None = None,
        distances: Mapping[str, Distance] = DISTANCES,
        batch_size: int = 16,
    ) -> None:
        if not len(images_MHWC):
            raise UserError("0 images to reconstruct: point at a folder with held-out images")
        self._images = images_MHWC
        self._lpips_weights, self._vgg_weights = lpips_weights, vgg_weights
        self._distances, self._batch_size = distances, batch_size

    def run(self, subject: VQGAN) -> Result:
        """Reconstructs every image with a tokenizer and scores the results.

        Raises:
          UserError: weights are not finite.
        """
        return self.score(self.reconstruct(subject))

    def reconstruct(self, vqgan: VQGAN) -> Reconstructed:
        """The first half of `run`, for callers that also show the images.

        Raises:
          UserError: weights are not finite.
        """
        check_finite(vqgan, "the tokenizer")
        codes_MN = encode_images(vqgan, self._images, self._batch_size)
        decoded_MHWC = decode_codes(vqgan, codes_MN, self._batch_size)
        originals_MHWC = to_float(self._images)
        return Reconstructed(originals_MHWC, decoded_MHWC, codes_MN, vqgan.codebook_size)

    def score(self, made: Reconstructed) -> Result:
        """The second half of `run`."""
        pair = made.originals_MHWC, made.decoded_MHWC
        result: Result = {"images": len(made.codes_MN)}
        for name, distance in self._distances.items():
            result[name] = self._mean(distance, *pair)
        result["lpips"] = self._lpips(*pair)
        result["frechet_vgg16"] = self._frechet(*pair)
        counts_K = np.bincount(made.codes_MN.reshape(-1), minlength=made.codebook_size)
        histogram = Histogram(counts_K)
        result["codebook_usage"] = histogram.usage()
        result["code_entropy"] = histogram.entropy()
        result["code_perplexity"] = histogram.perplexity()
        return result

    def _lpips(self, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float | str:
        missing = lpips.why_missing(self._lpips_weights, min(a_MHWC.shape[1:3]))
        if missing:
            return missing
        return self._mean(functools.partial(lpips.lpips, self._lpips_weights), a_MHWC, b_MHWC)

    def _frechet(self, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float | str:
        if self._vgg_weights is None:
            return lpips.NOT_INSTALLED
        if min(a_MHWC.shape[1:3]) < (least := perceptual.SMALLEST["vgg"]):
            return f"needs images of at least {least} pixels a side"
        if len(a_MHWC) < 2:
            return "needs at least 2 images"
        # Sums merge batch by batch, so the features of all images are never in memory together.
        gaussians = []
        for images_MHWC in (a_MHWC, b_MHWC):
            features = [
                np.asarray(_vgg_features(self._vgg_weights, images_MHWC[batch]))
                for batch in self._batches(len(images_MHWC))
            ]
            gaussians.append(functools.reduce(Gaussian.merge, map(Gaussian.of, features)))
        return frechet_distance(*gaussians)

    def _mean(self, distance: Distance, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float:
        batches = self._batches(len(a_MHWC))
        values = [np.asarray(distance(a_MHWC[batch], b_MHWC[batch])) for batch in batches]
        return float(np.concatenate(values).mean())

    def _batches(self, images: int) -> list[slice]:
        return [slice(i, i + self._batch_size) for i in range(0, images, self._batch_size)]


# The weights are an argument: as a closure they would become constants in the compiled program.
@jax.jit
def _vgg_features(
    weights: perceptual.Weights, images_BHWC: Float[Array, "B H W C"]
) -> Float[Array, "B D"]:
    return jnp.mean(perceptual.features(weights, images_BHWC, net="vgg")[-1], axis=(1, 2))
