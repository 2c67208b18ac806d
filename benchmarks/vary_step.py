r"""The training step of Vary's first stage: rows/s against the same network in PyTorch + transformers, in turns.

    taskset -c 1 python benchmarks/vary_step.py --peer_python=OTHER_ENVIRONMENT/bin/python

A ViTDet tower, a linear layer and an OPT decoder of a preset, all trained: forward, backward, clipping to norm 1 and
AdamW, in fp32, on rows that begin with a picture. The peer is transformers' SAM encoder with the same convolutions, and
OPTForCausalLM. Before any timing the losses of the first steps must agree. OTHER_ENVIRONMENT has torch, transformers
and safetensors.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

import jax
import numpy as np
from absl import flags
from safetensors.numpy import save_file
from steps import (  # benchmarks/ is the script's own folder
    GATE_STEPS,
    Turn,
    check_losses,
    compare,
    cores,
    make_tx,
    save_rows,
    show,
    start_peer,
    start_task,
)
from tower_folder import save_tower

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.models import VisionLanguage, VitDet, presets
from lvm_jax.models.vision_language.config import VisionLanguageConfig
from lvm_jax.parallel import runtime
from lvm_jax.tasks.image_text import ImageTextTask

FIRST = 1  # of an image's tokens, behind its start


def first_stage(preset: str, remat: str) -> VisionLanguageConfig:
    """A preset with one tower, the new one.

    Raises:
      UserError: it has others.
    """
    config = presets.vary(preset)
    if config.vitdet is None or config.clip is not None:
        raise UserError(f"--preset={preset} is no first stage: choose quickstart, small or tiny")
    tower = dataclasses.replace(config.vitdet.tower, remat=remat)
    branch = dataclasses.replace(config.vitdet, tower=tower)
    decoder = dataclasses.replace(config.decoder, remat=remat)
    return dataclasses.replace(config, vitdet=branch, decoder=decoder)


def make_rows(config: VisionLanguageConfig, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a picture and text, `tokens` (B, T + 1) where no picture stands; the text is learnt."""
    rng, (tower,) = np.random.default_rng(0), (b.tower for b in config.branches.values())
    behind, batch = FIRST + config.image_tokens, len(tokens)
    tokens = tokens.copy()
    tokens[:, FIRST:behind] = config.image_patch_id
    places = np.arange(FIRST, behind, dtype=np.int32)
    weights = np.ones(tokens.shape, np.float32)
    weights[:, : behind + 1] = 0
    return {
        "tokens": tokens,
        "segment_ids": np.ones_like(tokens),
        "positions": np.broadcast_to(
            np.arange(tokens.shape[1], dtype=np.int32), tokens.shape
        ).copy(),
        "loss_weights": weights,
        "image_places": np.broadcast_to(places, (batch, 1, len(places))).copy(),
        "images": rng.integers(0, 256, (batch, 1, *tower.image_size, 3)).astype(np.uint8),
    }


def start_ours(
    config: VisionLanguageConfig, batch: int, seq_len: int, folder: pathlib.Path
) -> Turn:
    """Saves a fresh model and a batch in `folder`; returns a function that trains some steps."""
    task = ImageTextTask(config, make_tx(), seq_len=seq_len, max_images=1)
    state, shape = jax.jit(task.init)(jax.random.key(0)), (batch, seq_len + 1)
    tokens = np.random.default_rng(0).integers(8, config.decoder.vocab_size, shape)
    rows = make_rows(config, tokens.astype(np.int32))
    save_model(task.model(state), folder)
    save_rows(rows, folder)
    return start_task(task, state, jax.device_put(rows))[0]


def save_model(model: VisionLanguage, folder: pathlib.Path) -> None:
    """Writes it as the peer reads it."""
    seeing, branch = model.vitdet, model.config.vitdet
    assert seeing is not None  # it is a first stage
    assert branch is not None
    assert isinstance(seeing.tower, VitDet)
    model.decoder.save_pretrained(folder)
    save_tower(seeing.tower, folder)
    linear = seeing.projector.linear
    tensors = {"weight": linear.kernel[...].T, "bias": linear.bias[...]}
    host = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(host, folder / "projector.safetensors")
    colours = {"mean": branch.mean, "deviation": branch.deviation}
    (folder / "colours.json").write_text(json.dumps(colours))


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    config = first_stage(args.preset, args.remat)
    print(f"{cores()} cores, load average {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        ours = start_ours(config, args.batch, args.seq_len, pathlib.Path(folder))
        with start_peer(args.peer_python, "torch_vary.py", pathlib.Path(folder)) as peer:
            turns: dict[str, Turn] = {
                "lvm_jax": ours,
                "PyTorch": lambda steps: peer.ask({"steps": steps}),
            }
            check_losses({name: turn(GATE_STEPS)["losses"] for name, turn in turns.items()})
            medians = compare(turns, args.steps, args.rounds, args.batch)
    versions = peer.versions | {"jax": jax.__version__, "python": sys.version.split()[0]}
    print(f"{args.preset}: {args.batch} rows of a picture and {args.seq_len} tokens, {versions}")
    show(medians, "rows")
    if args.output:
        record = {"threads": cores(), "versions": versions, "medians": medians}
        pathlib.Path(args.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("peer_python", None, "a Python interpreter with torch and transformers")
    flags.DEFINE_string("preset", "quickstart", "model of lvm_jax.models.presets.vary")
    flags.DEFINE_string("remat", "none", "of our side; what the quickstart has")
    flags.DEFINE_integer("batch", 16, "rows of a step", lower_bound=1)
    flags.DEFINE_integer("seq_len", 47, "tokens of a row", lower_bound=1)
    flags.DEFINE_integer("rounds", 6, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", 8, "steps of a turn", lower_bound=1)
    flags.DEFINE_string("output", None, "JSON file for the numbers")
    cli.run(main, required_flags=["peer_python"])
