"""Images -> codes, in bulk: one tokenizer a process, one compiled batch shape.

Shape legend: B batch, H height, W width, C channels (3), N tokens per image.
"""

import functools
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8, UInt16

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan import VQGAN

MAX_CODEBOOK = 2**16  # codes are stored as uint16


class BatchEncoder:
    """A VQGAN that encodes any number of images in batches of one shape, so that it compiles once.

    Attributes:
      vqgan: the tokenizer.
      image_size, tokens_per_image, codebook_size, fingerprint: its own.
      compilations: how many batch shapes have been compiled: one, once anything was encoded.
    """

    def __init__(self, vqgan_dir: str, batch_size: int = 64):
        """Loads the tokenizer of a model folder.

        Raises:
          UserError: no tokenizer there, or a codebook that uint16 cannot index.
        """
        self.vqgan = VQGAN.from_pretrained(vqgan_dir)
        self.batch_size = batch_size
        self.image_size = self.vqgan.config.resolution
        self.tokens_per_image = self.vqgan.tokens_per_image
        self.codebook_size = self.vqgan.codebook_size
        self.fingerprint = self.vqgan.fingerprint()
        if self.codebook_size > MAX_CODEBOOK:
            raise UserError(
                f"{vqgan_dir} has {self.codebook_size} codes: shards store uint16, at most {MAX_CODEBOOK}"
            )
        self.compilations = 0
        graphdef, self._state = nnx.split(self.vqgan)

        def encode(state: nnx.State, images_BHWC: jax.Array) -> jax.Array:
            self.compilations += 1  # runs while JAX traces, not when the compiled program does
            return nnx.merge(graphdef, state).encode(images_BHWC.astype(jnp.float32) / 255)

        self._encode = jax.jit(encode)

    def encode(
        self, images: Sequence[UInt8[np.ndarray, "H W 3"]]
    ) -> UInt16[np.ndarray, "n_images N"]:
        """Codes in raster order; the last batch is padded.

        Args:
          images: already at `image_size`.
        """
        codes = np.empty((len(images), self.tokens_per_image), np.uint16)
        batch_BHWC = np.zeros((self.batch_size, self.image_size, self.image_size, 3), np.uint8)
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            batch_BHWC[: len(batch)] = batch
            ids_BN = np.asarray(self._encode(self._state, batch_BHWC))
            codes[start : start + len(batch)] = ids_BN[: len(batch)]
        return codes


_LOADING = threading.Lock()


def shared_encoder(vqgan_dir: str, batch_size: int) -> BatchEncoder:
    """The one encoder of this process: worker threads share its weights and its compilation."""
    with _LOADING:
        return _load(vqgan_dir, batch_size)


@functools.lru_cache(maxsize=1)
def _load(vqgan_dir: str, batch_size: int) -> BatchEncoder:
    return BatchEncoder(vqgan_dir, batch_size)
