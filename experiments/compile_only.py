r"""Compiles a training step for chips you do not have: does it fit, how does it scale, how long does it take?

python experiments/compile_only.py --config=experiments/configs/lvm.py:3b --topology=v5p:4x4x8 --output=3b.json

It compiles the step that train.py would, for the recipe, mesh, batch and model of the same config. Topologies: v4 and
v5p have three axes (v5p:8x8x8), v5e and v6e two (v6e:16x16); `--num_slices` joins several (config.mesh.data must be a
multiple of it). GPUs: hosts x GPUs per host (h100:8x8). It takes minutes on two CPU cores and needs the compiler, but
no chip: `pip install -e ".[tpu]"`, or XLA's for CUDA as the error message says. Peaks and bandwidths are those of
lvm_jax/analysis/roofline.py; the time of a step is predicted, not measured.
"""

import dataclasses
import json
from typing import Any

import jax
from absl import flags
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

from lvm_jax import cli
from lvm_jax.analysis.roofline import CHIPS, GIB, Chip, largest_fitting
from lvm_jax.config import from_mapping, to_dict
from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import batch_ways
from lvm_jax.parallel.topology import absent_chips, parse
from lvm_jax.recipes import Experiment, recipe_named
from lvm_jax.tasks.base import Task
from lvm_jax.training.ahead_of_time import DoesNotFit, StepReport, report_step
from lvm_jax.training.train_config import TrainConfig


def main() -> None:
    """Compiles the step, prints the report, and writes it as JSON."""
    # The chips are only described to the compiler; everything that runs here runs on the CPU.
    jax.config.update("jax_platforms", "cpu")
    recipe = recipe_named(_CONFIG.value.get("recipe", ""))
    config = from_mapping(recipe.experiment, _CONFIG.value)
    chip = CHIPS[parse(_TOPOLOGY.value)]
    mesh = make_mesh(config.mesh, absent_chips(_TOPOLOGY.value, _SLICES.value))
    task = recipe.make_task(config)
    try:
        report = report_step(task, config.train, mesh, chip)
    except DoesNotFit as error:
        raise UserError(
            f"{config.train.batch_size} rows on {mesh.size} chips do not fit (memory: {error}): set a smaller "
            "config.train.batch_size, config.model.remat=full, or more of config.mesh.fsdp or tensor"
        ) from error
    print_report(report, chip.hbm_bytes)
    record = {
        "topology": _TOPOLOGY.value,
        "num_slices": _SLICES.value,
        "mesh": dict(mesh.shape),
        "config": to_dict(config),
        **report.to_dict(),
    }
    if _LARGEST.value:
        unit = batch_ways(mesh) * microbatches(config)
        record["largest_batch_size"] = largest_batch(task, config.train, mesh, chip, unit)
        print(f"largest batch       {record['largest_batch_size']:,} rows")
    if _OUTPUT.value:
        epath.Path(_OUTPUT.value).write_text(json.dumps(record, indent=1) + "\n")


def microbatches(config: Experiment) -> int:
    """How many a recipe's configuration computes a batch in; 1 if it has no such key."""
    part: Any = getattr(config, "loss", None)
    if not hasattr(part, "accumulation"):
        part = getattr(config, "step", None)
    return getattr(part, "accumulation", 1)


def largest_batch(task: Task, config: TrainConfig, mesh: Mesh, chip: Chip, unit: int) -> int:
    """Rows of the largest batch that fits, found with several compilations.

    It is a multiple of `unit`, because a batch must divide into microbatches, and these over the mesh.
    """

    def memory(units: int) -> float:
        larger = dataclasses.replace(config, batch_size=units * unit)
        try:
            return report_step(task, larger, mesh, chip).memory.peak
        except DoesNotFit:
            return float("inf")

    return largest_fitting(memory, chip.hbm_bytes, config.batch_size // unit) * unit


def print_report(report: StepReport, hbm_bytes: float) -> None:
    """Prints the report, one quantity per line."""
    memory, cost, times = report.memory, report.cost, report.prediction
    compiled = cost.flops * report.n_chips
    print(f"chips               {report.n_chips}, {report.batch_size} rows a step")
    print(
        f"memory of a chip    {memory.peak / GIB:.2f} of {hbm_bytes / GIB:.2f} GiB: "
        f"arguments {memory.arguments / GIB:.2f}, temporaries {memory.temporaries / GIB:.2f}, "
        f"outputs {memory.outputs / GIB:.2f}"
    )
    print(
        f"FLOPs of a step     model {report.model_flops:.4g}, compiled {compiled:.4g} "
        f"({compiled / report.model_flops:.3f} of them)"
    )
    for kind, sums in report.to_dict()["collectives_per_chip"].items():
        share = sums["asynchronous_bytes"] / sums["wire_bytes"]
        print(
            f"{kind:19} {sums['executions']:.0f} of {sums['payload_bytes'] / 1e9:.3f} GB, "
            f"{sums['wire_bytes'] / 1e9:.3f} GB sent by a chip, {share:.0%} of them asynchronous"
        )
    for kernel, calls in cost.uncounted_kernels.items():
        print(f"not counted         the FLOPs of kernel {kernel}, {calls:.0f} calls")
    print(
        f"predicted step      {times.step * 1e3:.1f} ms: compute {times.compute * 1e3:.1f}, HBM {times.hbm * 1e3:.1f}, "
        f"hidden collectives {times.hidden * 1e3:.1f}, exposed collectives {times.exposed * 1e3:.1f}"
    )
    rate = report.items / report.n_chips / times.step
    print(f"predicted           {rate:,.0f} {report.unit}/s a chip, MFU {report.mfu:.1%}")


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", "experiments/configs/lvm.py:300m", "recipe")
    _TOPOLOGY = flags.DEFINE_string(
        "topology",
        None,
        "chips of a slice, such as v5p:4x4x8; GPU hosts and GPUs of each: h100:8x8",
        required=True,
    )
    _SLICES = flags.DEFINE_integer("num_slices", 1, "slices of that topology")
    _LARGEST = flags.DEFINE_bool("largest_batch", False, "find it; takes several compilations")
    _OUTPUT = flags.DEFINE_string("output", "", "JSON file of all numbers")
    cli.run(main)
