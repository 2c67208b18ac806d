"""The first layer of a tower: an image cut into patches, each projected to the tower's width.

Shapes: B batch, H W image, C channels, S side of a patch, h w grid of patches, T = h * w, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.vqgan_layers import Conv


class PatchEmbedding(Conv):
    """A convolution whose windows do not overlap, computed as one matrix product."""

    def __init__(
        self, channels: int, width: int, patch: int, *, use_bias: bool, dtype: str, rngs: nnx.Rngs
    ) -> None:
        super().__init__(channels, width, patch, use_bias=use_bias, dtype=dtype, rngs=rngs)
        self.patch = patch

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        """One vector a patch."""
        (B, H, W, C), S = x.shape, self.patch
        kernel = self.kernel[...].astype(self.dtype)
        patches = x.astype(self.dtype).reshape(B, H // S, S, W // S, S, C).swapaxes(2, 3)
        rows = patches.reshape(-1, S * S * C)
        y = jnp.matmul(rows, kernel.reshape(S * S * C, -1))
        return self.add_bias(y.reshape(B, H // S, W // S, -1))


def check_images(images: jax.Array, image_size: tuple[int, int], channels: int) -> None:
    """Requires float images of a tower's size.

    Raises:
      UserError: they have another size, or are not floats.
    """
    if images.ndim != 4 or images.shape[1:] != (*image_size, channels):
        height, width = image_size
        raise UserError(
            f"images have shape {images.shape}: this tower takes (batch, {height}, {width}, {channels}); resize them "
            "first, or set image_size"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}: a tower takes normalised floats")
