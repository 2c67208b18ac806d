"""What is measured and drawn while a model trains."""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from lvm_jax.data.splits import spread
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.pictures.pixels import to_float
from lvm_jax.tasks.base import Batch, State


class HeldOutLoss:
    """The mean loss of a held-out split, read once in order: `validation/loss`, in the loss's own unit.

    Args:
      loss: (params, batch) -> (sum, weight); compiled once.
      batches: host-local rows; each iteration starts over. Rows that only fill the last batch must weigh nothing.
      placement: the mesh, and the batch that `batches` yields.
    """

    def __init__(
        self,
        loss: Callable[[Any, Batch], tuple[jax.Array, jax.Array]],
        batches: Iterable[Mapping[str, np.ndarray]],
        placement: BatchPlacement,
    ) -> None:
        self._loss = jax.jit(lambda params, batch: Mean(*loss(params, batch)))
        self._batches, self._placement = batches, placement

    def __call__(self, step: int, state: State) -> dict[str, float]:
        """The mean over the whole split."""
        total: dict[str, Mean] | None = None
        for batch in self._batches:
            mean = self._loss(state["params"], self._placement.put(batch))
            total = metric_states.merge(total, {"validation/loss": mean})
        return metric_states.compute(jax.device_get(total or {}))


_SHOWN = 16  # of the images, evenly spread: they come sorted by name, so neighbours are alike


class Reconstructions:
    """WORKDIR/samples/STEP.png: held-out images above what the tokenizer makes of them; with PSNR and codebook use.

    TensorBoard shows the same pictures as the run `samples`: a second event file in the folder of the numbers would
    hide the first.

    Args:
      reconstruct: (state, images) -> (reconstructions in [0, 1], code ids); compiled by the caller.
      images: uint8 (B, H, W, 3).
      codebook_size: K, for the use of the codebook.
      workdir: the run's folder.
    """

    def __init__(
        self,
        reconstruct: Callable[[State, np.ndarray], tuple[jax.Array, jax.Array]],
        images: np.ndarray,
        codebook_size: int,
        workdir: epath.PathLike,
    ) -> None:
        self._reconstruct, self._images = reconstruct, images
        self._codebook_size = codebook_size
        self._folder = epath.Path(workdir) / "samples"

    def __call__(self, step: int, state: State) -> dict[str, float]:
        """Draws the sheet and returns the numbers."""
        from lvm_jax.reporting import figures

        originals = to_float(self._images)
        reconstructions, ids = jax.device_get(self._reconstruct(state, self._images))
        mse = np.mean((originals - reconstructions) ** 2, axis=(1, 2, 3))
        codes = metric_states.Histogram(np.bincount(ids.reshape(-1), minlength=self._codebook_size))
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{step:06d}.png"
            shown = spread(len(originals), _SHOWN)
            figures.save_comparison(originals[shown], reconstructions[shown], path)
            self._show(step, path)
        return {
            "validation/psnr": float(np.mean(-10 * np.log10(np.maximum(mse, 1e-10)))),
            "validation/codebook_use": codes.usage(),
            "validation/codebook_perplexity": codes.perplexity(),
        }

    def _show(self, step: int, path: epath.Path) -> None:
        from PIL import Image
        from tensorboardX import SummaryWriter

        sheet = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        with SummaryWriter(str(self._folder.parent / "tensorboard" / "samples")) as writer:
            writer.add_image("reconstructions", sheet, step, dataformats="HWC")
