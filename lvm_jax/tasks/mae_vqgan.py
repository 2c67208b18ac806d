"""The task of MAE-VQGAN: the codes of a canvas's hidden patches (arXiv 2209.00647, section 3.2).

Shapes: B rows, T patches of a canvas, K of them shown, N codes of a cell.
"""

import jax
import jax.numpy as jnp

from lvm_jax.errors import UserError
from lvm_jax.losses.next_token import cross_entropy
from lvm_jax.models.canvas.compose import cells, square
from lvm_jax.models.canvas.mae_vqgan import MaeVqgan
from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.tasks.canvas import CanvasTask, Pairs


class MaeVqganTask(CanvasTask):
    """Trains a `MaeVqgan` on canvases of an example and a query; arguments as in `CanvasTask`."""

    name = "mae_vqgan"
    network = MaeVqgan

    @staticmethod
    def check_fits(config: MaeVqganConfig, vqgan: VQGAN) -> None:
        """Requires a canvas of four pictures of the tokenizer, one patch for each code."""
        side, patch = vqgan.config.resolution, vqgan.config.downsampling
        wanted = {
            "image_size": (2 * side, 2 * side),
            "patch_size": patch,
            "codes": vqgan.codebook_size,
        }
        for name, value in wanted.items():
            if vars(config)[name] != value:
                raise UserError(
                    f"MAE-VQGAN has {name}={vars(config)[name]}, and a tokenizer of {side} pixels and patches "
                    f"of {patch} makes it {value}: set it to that"
                )

    def loss_of(
        self, model: MaeVqgan, pairs: Pairs, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy of the hidden patches' codes, in nats."""
        of_cell_4N = cells(self.config.grid)
        codes_B4N, T = pairs.codes_BP2N.reshape(-1, *of_cell_4N.shape), of_cell_4N.size
        B = len(codes_B4N)
        labels_BT = jnp.zeros((B, T), jnp.int32).at[:, of_cell_4N].set(codes_B4N)
        if key is None:
            shown_BK = jnp.broadcast_to(of_cell_4N[:3].reshape(-1), (B, T - of_cell_4N.shape[1]))
        else:
            shown_BK = self.shown_at_random(key, B, T)
        hidden_BT = jnp.ones((B, T)).at[jnp.arange(B)[:, None], shown_BK].set(0)
        canvas = square(*(pairs.pixels_BP2HWC[:, i, j] for i in (0, 1) for j in (0, 1)))
        logits_BTV = model(canvas, shown_BK)
        return cross_entropy(logits_BTV, labels_BT, hidden_BT * pairs.counted_B[:, None])
