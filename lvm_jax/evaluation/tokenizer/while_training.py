"""Logs and draws the reconstructions of held-out images while a tokenizer trains.

M: images, H, W: pixels, C: the channels R, G, B.
"""

import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from lvm_jax.data.splits import spread
from lvm_jax.evaluation.base import logged
from lvm_jax.evaluation.tokenizer.reconstruction import Reconstructed, ReconstructionEvaluator
from lvm_jax.metrics.image import psnr
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.reporting import figures

_SHOWN = 16  # evenly spread: images are sorted by name, so neighbours look alike
# Result of the evaluator -> its name in metrics.jsonl, the same as for training batches.
_LOGGED = {
    "psnr": "psnr",
    "codebook_usage": "codebook_use",
    "code_perplexity": "codebook_perplexity",
}


class Reconstructions:
    """`ReconstructionEvaluator` for the training loop; it also draws WORKDIR/samples/STEP.png.

    The sheet shows held-out images above their reconstructions. TensorBoard shows it as a run `samples` of its own,
    because a second event file in the folder of the numbers would hide the first.

    Args:
      tokenizer: training state -> the tokenizer that it would export.
      images_MHWC: held out, of the tokenizer's size.
      workdir: the run's folder.
    """

    def __init__(
        self,
        tokenizer: Callable[[Any], VQGAN],
        images_MHWC: UInt8[np.ndarray, "M H W C"],
        workdir: epath.PathLike,
    ) -> None:
        self._tokenizer = tokenizer
        # Only PSNR, on the host: the devices are busy training, and SSIM needs images larger than its window.
        # All images form one batch, so that a training compiles one program for them.
        self._evaluator = ReconstructionEvaluator(
            images_MHWC, distances={"psnr": psnr}, batch_size=max(1, len(images_MHWC))
        )
        self._folder = epath.Path(workdir) / "samples"

    def __call__(self, step: int, state: Any) -> dict[str, float]:
        """Draws the sheet; returns psnr (dB), codebook_use and codebook_perplexity under `validation/`."""
        made = self._evaluator.reconstruct(self._tokenizer(state))
        if jax.process_index() == 0:
            self._draw(step, made)
        return logged("validation", self._evaluator.score(made), _LOGGED)

    def _draw(self, step: int, made: Reconstructed) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{step:06d}.png"
        shown = spread(len(made.originals_MHWC), _SHOWN)
        figures.save_comparison(made.originals_MHWC[shown], made.decoded_MHWC[shown], path)
        self._show(step, path)

    def _show(self, step: int, path: epath.Path) -> None:
        from tensorboardX import SummaryWriter

        sheet = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        with SummaryWriter(str(self._folder.parent / "tensorboard" / "samples")) as writer:
            writer.add_image("reconstructions", sheet, step, dataformats="HWC")
