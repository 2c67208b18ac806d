"""What benchmarks/train_gpu.py trains: how each model is saved for all sides, opened by ours, and fed."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import unified_step  # benchmarks/ is the script's own folder
import vary_step
from flax import nnx
from steps import whole_rows

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, Llama, VisionLanguage, presets
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.tasks.image_text import ImageTextTask

CODES = {"published": 256, "debug": 8}  # of a picture of unified's rows; other sizes have 64
TEXT = {"published": (50_257, 1_024, 1_001)}  # ids of text, codes, bins
LVM_ROW = 4096  # tokens
VARY_ROW = {"tiny": 4096, "tiny-plus": 4096, "tiny-600k": 2048}  # tokens; other sizes have 47

# A batch with a leading dimension for steps.
Rows = dict[str, np.ndarray]
Computation = Mapping[str, Any]  # fields of a model's configuration


class Subject(NamedTuple):
    """A system whose training step is timed.

    Attributes:
      save: (preset, folder) writes fresh weights, which all sides open.
      open: (folder, computation, optimizer, tokens of a row) gives the task and its parameters.
      rows: (preset, steps, rows of a step, tokens of a row or 0 for the model's own) makes what all sides read.
    """

    save: Callable[[str, pathlib.Path], None]
    open: Callable[
        [pathlib.Path, Computation, optax.GradientTransformation, int],
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


def _stacked(tokens: np.ndarray, batch_of: Callable[[np.ndarray], Rows]) -> Rows:
    """The batches of all steps, side by side."""
    batches = [batch_of(of_step) for of_step in tokens]
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def _text_rows(tokens: np.ndarray) -> Rows:
    """Without segments and positions, which attention would have to mask; the peers know none."""
    rows = whole_rows(tokens)
    return {name: rows[name] for name in ("tokens", "loss_weights")}


def _save_lvm(preset: str, folder: pathlib.Path) -> None:
    config = presets.llama(preset)
    nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))().save_pretrained(folder)


def _open_lvm(
    folder: pathlib.Path, compute: Computation, tx: optax.GradientTransformation, seq_len: int
) -> tuple[DecoderTask, nnx.State]:
    task = DecoderTask(hf_folder.load_config(folder, **compute), tx, seq_len=seq_len)
    return task, nnx.state(Llama.from_pretrained(folder, **compute))


def _lvm_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    vocab_size = presets.llama(preset).vocab_size
    tokens = structured_tokens(vocab_size, steps, rows, seq_len or LVM_ROW)
    return _stacked(tokens, _text_rows)


def _save_vary(preset: str, folder: pathlib.Path) -> None:
    config = vary_step.first_stage(preset, "none")
    model = nnx.jit(lambda: VisionLanguage(config, rngs=nnx.Rngs(0)))()
    model.save_pretrained(folder / "ours")
    vary_step.save_model(model, folder)


def _open_vary(
    folder: pathlib.Path, compute: Computation, tx: optax.GradientTransformation, seq_len: int
) -> tuple[DecoderTask, nnx.State]:
    model = VisionLanguage.from_pretrained(folder / "ours", **compute)
    task = ImageTextTask(model.config, tx, seq_len=seq_len, max_images=1)
    return task, nnx.state(model, nnx.Param)


def _vary_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    config = vary_step.first_stage(preset, "none")
    length = seq_len or VARY_ROW.get(preset, 47)
    tokens = structured_tokens(config.decoder.vocab_size, steps, rows, length)
    return _stacked(tokens, lambda of_step: vary_step.make_rows(config, of_step))


def _unified_config(preset: str) -> DecoderConfig:
    experts = 8 if preset == "published" else 4
    sizes = TEXT.get(preset, (512, 512, 65))
    ways = unified_step.make_configs(preset, experts, CODES.get(preset, 64), "none", sizes)
    return ways[unified_step.NO_LIMIT]  # every choice finds room, as in the peer


def _save_unified(preset: str, folder: pathlib.Path) -> None:
    config = _unified_config(preset)
    nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))().save_pretrained(folder)


def _open_unified(
    folder: pathlib.Path, compute: Computation, tx: optax.GradientTransformation, seq_len: int
) -> tuple[DecoderTask, nnx.State]:
    model = Decoder.from_pretrained(folder, **compute)
    return DecoderTask(model.config, tx, seq_len=seq_len), nnx.state(model, nnx.Param)


def _unified_rows(preset: str, steps: int, rows: int, seq_len: int) -> Rows:
    own = unified_step.row_length(CODES.get(preset, 64)) - 1
    if seq_len not in (0, own):
        raise UserError(
            f"--seq_len={seq_len}: rows of unified:{preset} have {own} tokens; leave it out"
        )
    tokens = structured_tokens(_unified_config(preset).vocab_size, steps, rows, own)
    return _stacked(tokens, _text_rows)


SUBJECTS = {
    "lvm": Subject(_save_lvm, _open_lvm, _lvm_rows),
    "vary": Subject(_save_vary, _open_vary, _vary_rows),
    "unified": Subject(_save_unified, _open_unified, _unified_rows),
}


def batches(rows: Rows) -> list[dict[str, jax.Array]]:
    """The batch of each step, on the device."""
    steps = len(rows["tokens"])
    return [jax.device_put({name: x[i] for name, x in rows.items()}) for i in range(steps)]
