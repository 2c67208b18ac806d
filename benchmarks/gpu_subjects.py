"""What benchmarks/train_gpu.py trains: how each model is saved for all sides, opened by ours, and fed."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from unified_step import make_configs  # benchmarks/ is the script's own folder
from unified_step import make_rows as unified_rows
from vary_step import first_stage, save_model
from vary_step import make_rows as vary_rows

from lvm_jax.models import Decoder, Llama, VisionLanguage, presets
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.tasks.image_text import ImageTextTask

CODES = {"published": 256, "debug": 8}  # of a picture of unified's rows; other sizes have 64
TEXT = {"published": (50_257, 1_024, 1_001)}  # ids of text, codes, bins
VARY_ROW = {"tiny": 4096, "tiny-plus": 4096, "tiny-600k": 2048}  # tokens; other sizes have 47
WAY = "no limit"  # of unified: every choice finds room, as in the peer

# Trains as many steps: (rows of a step's batch with a leading dimension for steps).
Rows = dict[str, np.ndarray]


class Subject(NamedTuple):
    """A system whose training step is timed.

    Attributes:
      save: (preset, folder) writes fresh weights, which all sides open.
      open: (folder, preset, compute, optimizer, tokens a row) gives the task and its parameters.
      rows: (preset, steps, rows of a step, tokens a row or 0) makes what all sides read.
    """

    save: Callable[[str, pathlib.Path], None]
    open: Callable[
        [pathlib.Path, str, Mapping[str, Any], optax.GradientTransformation, int],
        tuple[DecoderTask, nnx.State],
    ]
    rows: Callable[[str, int, int, int], Rows]


def structured_tokens(vocab_size: int, steps: int, rows: int, seq_len: int) -> np.ndarray:
    """Ids (steps, rows, seq_len + 1); seven in ten follow from the previous one, so there is something to learn."""
    rng = np.random.default_rng(0)
    following = rng.permutation(vocab_size)
    shape = (steps, rows, seq_len + 1)
    tokens = rng.integers(0, vocab_size, shape).astype(np.int32)
    follows = rng.random(shape) < 0.7
    for t in range(1, seq_len + 1):
        tokens[..., t] = np.where(follows[..., t], following[tokens[..., t - 1]], tokens[..., t])
    return tokens


def _stacked(batches: list[Rows]) -> Rows:
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def _save_lvm(preset: str, folder: pathlib.Path) -> None:
    config = presets.llama(preset)
    nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))().save_pretrained(folder)


def _open_lvm(
    folder: pathlib.Path,
    preset: str,
    compute: Mapping[str, Any],
    tx: optax.GradientTransformation,
    seq_len: int,
) -> tuple[DecoderTask, nnx.State]:
    del preset
    task = DecoderTask(hf_folder.load_config(folder, **compute), tx, seq_len=seq_len)
    return task, nnx.state(Llama.from_pretrained(folder, **compute))


def _lvm_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    tokens = structured_tokens(presets.llama(preset).vocab_size, steps, rows, seq_len or 4096)
    return {"tokens": tokens, "loss_weights": np.ones(tokens.shape, np.float32)}


def _save_vary(preset: str, folder: pathlib.Path) -> None:
    config = first_stage(preset, "none")
    model = nnx.jit(lambda: VisionLanguage(config, rngs=nnx.Rngs(0)))()
    model.save_pretrained(folder / "ours")
    save_model(model, folder)


def _open_vary(
    folder: pathlib.Path,
    preset: str,
    compute: Mapping[str, Any],
    tx: optax.GradientTransformation,
    seq_len: int,
) -> tuple[DecoderTask, nnx.State]:
    del preset
    model = VisionLanguage.from_pretrained(folder / "ours", **compute)
    task = ImageTextTask(model.config, tx, seq_len=seq_len, max_images=1)
    return task, nnx.state(model, nnx.Param)


def _vary_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    config = first_stage(preset, "none")
    length = seq_len or VARY_ROW.get(preset, 47)
    tokens = structured_tokens(config.decoder.vocab_size, steps, rows, length)
    return _stacked([vary_rows(config, step_tokens) for step_tokens in tokens])


def _unified_config(preset: str) -> DecoderConfig:
    experts = 8 if preset == "published" else 4
    sizes = TEXT.get(preset, (512, 512, 65))
    return make_configs(preset, experts, CODES.get(preset, 64), "none", sizes)[WAY]


def _save_unified(preset: str, folder: pathlib.Path) -> None:
    config = _unified_config(preset)
    nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))().save_pretrained(folder)


def _open_unified(
    folder: pathlib.Path,
    preset: str,
    compute: Mapping[str, Any],
    tx: optax.GradientTransformation,
    seq_len: int,
) -> tuple[DecoderTask, nnx.State]:
    del preset
    model = Decoder.from_pretrained(folder, **compute)
    return DecoderTask(model.config, tx, seq_len=seq_len), nnx.state(model, nnx.Param)


def _unified_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    del seq_len  # follows from the pictures
    codes, vocab_size = CODES.get(preset, 64), _unified_config(preset).vocab_size
    length = unified_rows(vocab_size, 1, codes)["tokens"].shape[1] - 1
    tokens = structured_tokens(vocab_size, steps, rows, length)
    return {"tokens": tokens, "loss_weights": np.ones(tokens.shape, np.float32)}


SUBJECTS = {
    "lvm": Subject(_save_lvm, _open_lvm, _lvm_rows),
    "vary": Subject(_save_vary, _open_vary, _vary_rows),
    "unified": Subject(_save_unified, _open_unified, _unified_rows),
}


def batches(rows: Rows) -> list[dict[str, jax.Array]]:
    """The batch of each step, on the device."""
    steps = len(rows["tokens"])
    return [jax.device_put({name: x[i] for name, x in rows.items()}) for i in range(steps)]
