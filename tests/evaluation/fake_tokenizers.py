"""Tokenizers without a network, whose codes have known properties.

B: images, H, W: pixels, C: the channels R, G, B, N: tokens per image.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lvm_jax.models.tokenizer.vqgan import VQGAN


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    """What evaluations read of a config."""

    resolution: int


class CellMeans(VQGAN):
    """A code is the mean grey of its cell in `levels` steps: local and canonical, and it decodes to that grey."""

    def __init__(self, resolution: int = 32, side: int = 4, levels: int = 16):
        self.config = FakeConfig(resolution)
        self.side, self.levels = side, levels

    tokens_per_image = property(lambda self: self.side**2)
    codebook_size = property(lambda self: self.levels)

    def means(self, images_BHWC: jax.Array) -> jax.Array:
        cell = self.config.resolution // self.side
        cells = images_BHWC.reshape(-1, self.side, cell, self.side, cell * 3)
        return cells.mean((2, 4)).reshape(-1, self.side**2)

    def encode(self, images_BHWC: jax.Array) -> jax.Array:
        return self.quantized(self.means(images_BHWC))

    def quantized(self, level_BN: jax.Array) -> jax.Array:
        return jnp.clip(level_BN * self.levels, 0, self.levels - 1).astype(jnp.int32)

    def decode(self, ids_BN: jax.Array) -> jax.Array:
        cell = self.config.resolution // self.side
        grey = ((ids_BN + 0.5) / self.levels).reshape(-1, self.side, self.side)
        return jnp.repeat(jnp.repeat(grey, cell, 1), cell, 2)[..., None].repeat(3, -1)


class OfTheWholePicture(CellMeans):
    """The code of a cell is its grey plus the picture's brightness in fine steps: a change elsewhere changes it."""

    def encode(self, images_BHWC: jax.Array) -> jax.Array:
        own = super().encode(images_BHWC)
        total = jnp.rint(images_BHWC.mean((1, 2, 3)) * 255 * 64).astype(jnp.int32)
        return (own + total[:, None]) % self.levels


class WithPlaces(CellMeans):
    """The code of a cell is its grey plus the number of its place: local, but the same patch has many codes."""

    def encode(self, images_BHWC: jax.Array) -> jax.Array:
        return (super().encode(images_BHWC) + jnp.arange(self.side**2)[None]) % self.levels


class Constant(CellMeans):
    """Every code is 0: perfectly local, and worth nothing."""

    def encode(self, images_BHWC: jax.Array) -> jax.Array:
        return 0 * super().encode(images_BHWC)
