r"""The training step of Vary's first stage: rows/s against the same network in PyTorch + transformers, in turns.

    taskset -c 1 python benchmarks/vary_step.py --peer_python=OTHER_ENVIRONMENT/bin/python

A ViTDet tower, a linear layer and an OPT decoder of a preset, all trained: forward, backward, clipping to norm 1 and
AdamW, in fp32, on rows that begin with a picture. The peer is transformers' SAM encoder with the same convolutions, and
OPTForCausalLM. Before any timing the losses of the first steps must agree. OTHER_ENVIRONMENT has torch, transformers
and safetensors.
"""

import dataclasses
import json
import pathlib
import tempfile

import jax
import numpy as np
import record  # benchmarks/ is the script's own folder
import steps
from absl import flags
from safetensors.numpy import save_file
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
    rows = steps.whole_rows(tokens)
    rows["loss_weights"][:, : behind + 1] = 0
    return rows | {
        "image_places": np.broadcast_to(places, (batch, 1, len(places))).copy(),
        "images": rng.integers(0, 256, (batch, 1, *tower.image_size, 3)).astype(np.uint8),
    }


def start_ours(
    config: VisionLanguageConfig, batch: int, seq_len: int, folder: pathlib.Path
) -> steps.Turn:
    """Saves a fresh model and a batch in `folder`; returns a function that trains some steps."""
    task = ImageTextTask(config, steps.make_tx(), seq_len=seq_len, max_images=1)
    state, shape = jax.jit(task.init)(jax.random.key(0)), (batch, seq_len + 1)
    tokens = np.random.default_rng(0).integers(8, config.decoder.vocab_size, shape)
    rows = make_rows(config, tokens.astype(np.int32))
    save_model(task.model(state), folder)
    steps.save_rows(rows, folder)
    return steps.start_task(task, state, jax.device_put(rows))[0]


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
    record.announce()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours = {"lvm_jax": start_ours(config, args.batch, args.seq_len, folder)}
        medians, versions = steps.race(ours, ours, "torch_vary.py", folder, items=args.batch)
    print(f"{args.preset}: {args.batch} rows of a picture and {args.seq_len} tokens, {versions}")
    steps.show(medians, "rows")
    record.write({"threads": record.cores(), "versions": versions, "medians": medians})


if __name__ == "__main__":
    steps.define_flags(
        "quickstart", "model of lvm_jax.models.presets.vary", batch=16, rounds=6, steps=8
    )
    flags.DEFINE_string("remat", "none", "of our side; what the quickstart has")
    flags.DEFINE_integer("seq_len", 47, "tokens of a row", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
