"""The task of SegGPT: the hidden pixels of a column of masks (arXiv 2304.03284, section 3.1).

Masks stay white on black: with one class in each, random colours would tell nothing apart.

Shapes: B rows, H W a column in pixels, T patches of a column.
"""

import jax
import jax.numpy as jnp

from lvm_jax.errors import UserError
from lvm_jax.losses.smooth_l1 import smooth_l1
from lvm_jax.models.canvas.compose import column
from lvm_jax.models.canvas.seggpt import SegGpt
from lvm_jax.models.canvas.seggpt_config import SegGptConfig
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.tasks.canvas import CanvasTask, Pairs


class SegGptTask(CanvasTask):
    """Trains a `SegGpt` on columns of an example and a query; arguments as in `CanvasTask`."""

    name = "seggpt"
    network = SegGpt

    @staticmethod
    def check_fits(config: SegGptConfig, vqgan: VQGAN) -> None:
        """Requires columns of two pictures of the tokenizer."""
        side = vqgan.config.resolution
        if config.image_size != (2 * side, side):
            raise UserError(
                f"SegGPT has image_size={config.image_size}, and two pictures of {side} pixels make it "
                f"{(2 * side, side)}: set it to that"
            )

    def loss_of(
        self, model: SegGpt, pairs: Pairs, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Smooth L1 of the hidden patches, in deviations of colour."""
        rows, columns = self.config.grid
        B, T = len(pairs.counted_B), rows * columns
        if key is None:
            hidden_BT = jnp.broadcast_to(jnp.arange(T) >= T // 2, (B, T))
        else:
            shown_BK = self.shown_at_random(key, B, T)
            hidden_BT = jnp.ones((B, T), bool).at[jnp.arange(B)[:, None], shown_BK].set(False)
        pixels = pairs.pixels_BP2HWC
        pictures, masks = (column(pixels[:, 0, i], pixels[:, 1, i]) for i in (0, 1))
        painted = model(pictures[:, None], masks[:, None], hidden_BT, semantic=True)[:, 0]
        weights = model.hidden_pixels(hidden_BT) * pairs.counted_B[:, None, None]
        return smooth_l1(painted, masks, weights, self.config.beta)
