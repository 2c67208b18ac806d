"""The machine and the tokenizer behind a set of scores, recorded beside them."""

import platform

import flax
import jax

from lvm_jax.models.tokenizer.vqgan import VQGAN


def environment() -> dict[str, str | int]:
    """Versions, devices and system."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def described(vqgan: VQGAN) -> dict[str, str | int]:
    """The tokenizer's fingerprint and sizes."""
    return {
        "fingerprint": vqgan.fingerprint(),
        "image_size": vqgan.config.resolution,
        "tokens_per_image": vqgan.tokens_per_image,
        "codebook_size": vqgan.codebook_size,
    }
