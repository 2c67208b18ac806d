"""Compiles the training step for absent devices, and reports what the compiled program needs."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lvm_jax.analysis.costs import COLLECTIVES, Cost, program_cost
from lvm_jax.analysis.roofline import GIB, Chip, Prediction, out_of_memory, predict
from lvm_jax.parallel.sharding import BatchPlacement, batch_sharding
from lvm_jax.tasks.base import Task
from lvm_jax.training.step import abstract_state, compile_step, guarded
from lvm_jax.training.train_config import TrainConfig

# Triton's products need tiles, which XLA finds by trying them on the GPU. Without one it takes defaults, and fails
# where they do not divide a product. The libraries need none.
_ABSENT_GPU: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip: arguments are the state and the batch; peak is the compiler's maximum over the step."""

    arguments: int
    temporaries: int
    outputs: int
    peak: int


@dataclasses.dataclass(frozen=True)
class StepReport:
    """A compiled step: its memory and cost on one chip, and the time that the roofline predicts.

    Attributes:
      n_chips: chips in all slices.
      batch_size: rows of the global batch.
      items: items of the global batch.
      unit: what an item is, such as "tokens".
      memory: bytes on one chip.
      model_flops: FLOPs of all chips together, without recomputation.
      cost: of one chip, as compiled.
      prediction: seconds.
      mfu: model FLOPs over what the chips could do in the predicted time.
    """

    n_chips: int
    batch_size: int
    items: int
    unit: str
    memory: Memory
    model_flops: float
    cost: Cost
    prediction: Prediction
    mfu: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, with collectives summed by kind."""
        collectives = {}
        for kind in COLLECTIVES:
            ours = [c for c in self.cost.collectives if c.kind == kind]
            if ours:
                collectives[kind] = {
                    "executions": sum(c.times for c in ours),
                    "payload_bytes": sum(c.times * c.payload for c in ours),
                    "wire_bytes": sum(c.wire_bytes for c in ours),
                    "asynchronous_bytes": sum(c.wire_bytes for c in ours if c.asynchronous),
                }
        return {
            "chips": self.n_chips,
            "batch_size": self.batch_size,
            "items_per_step": self.items,
            "memory_bytes_per_chip": dataclasses.asdict(self.memory),
            "model_flops": self.model_flops,
            "compiled_flops": self.cost.flops * self.n_chips,
            "hbm_bytes_per_chip": self.cost.hbm_bytes,
            "collectives_per_chip": collectives,
            "uncounted_kernels": self.cost.uncounted_kernels,
            "predicted_seconds": dataclasses.asdict(self.prediction)
            | {"step": self.prediction.step},
            "predicted_items_per_second_per_chip": self.items / self.n_chips / self.prediction.step,
            "predicted_mfu": self.mfu,
        }


class DoesNotFit(Exception):
    """The step needs more memory than a chip has; the message is the compiler's "NEED of LIMIT"."""


def lower_step(task: Task, config: TrainConfig, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the step that `train` compiles, for the devices of `mesh` and with the state's shardings.

    Raises:
      UserError: the batch or a parameter's dimension does not divide over the mesh.
    """
    BatchPlacement(mesh, config.batch_size)  # only to check that the batch divides
    judged = guarded(task, config)
    with jax.set_mesh(mesh):
        batch = {
            name: jax.ShapeDtypeStruct(
                rows.shape, rows.dtype, sharding=batch_sharding(mesh, len(rows.shape))
            )
            for name, rows in task.batch_spec(config.batch_size).items()
        }
        # Constants are arrays on this host's devices; absent devices can only be given their shapes.
        whole = NamedSharding(mesh, PartitionSpec())
        constants = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), judged.constants
        )
        step = compile_step(judged, config.seed)
        return step.lower(abstract_state(judged, mesh), batch, constants)


def report_step(task: Task, config: TrainConfig, mesh: Mesh, chip: Chip) -> StepReport:
    """Compiles the step and counts its cost.

    Raises:
      DoesNotFit: the step needs more memory than the chip has.
      UserError: see `lower_step`.
    """
    lowered = lower_step(task, config, mesh)
    devices = list(mesh.devices.flat)
    options = _ABSENT_GPU if devices[0].platform in ("gpu", "cuda") else None
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        need = out_of_memory(str(error))
        if need is None:
            raise
        raise DoesNotFit(need) from error
    memory = _memory(compiled.memory_analysis())
    if memory.peak > chip.hbm_bytes:  # the compiler for GPUs does not check
        raise DoesNotFit(f"{memory.peak / GIB:.2f}G of {chip.hbm_bytes / GIB:.2f}G")
    cost = program_cost(compiled.as_text() or "", len(devices))
    prediction = predict(cost, chip, devices)
    model_flops = task.flops_per_batch(config.batch_size)
    unit, items = task.items_per_batch(config.batch_size)
    return StepReport(
        n_chips=len(devices),
        batch_size=config.batch_size,
        items=items,
        unit=unit,
        memory=memory,
        model_flops=model_flops,
        cost=cost,
        prediction=prediction,
        mfu=model_flops / (prediction.step * chip.peak_flops * len(devices)),
    )


def _memory(stats: Any) -> Memory:
    arguments, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    outputs = stats.output_size_in_bytes
    # Outputs that reuse donated arguments are the same bytes. The sum stands in where a compiler reports no peak.
    everything = arguments + temporaries + outputs - stats.alias_size_in_bytes
    return Memory(arguments, temporaries, outputs, stats.peak_memory_in_bytes or everything)
