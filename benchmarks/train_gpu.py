r"""Training on one GPU: tokens/s and MFU of every model against PyTorch; only a side whose losses agree is timed.

    python benchmarks/train_gpu.py --models=300m,1b,3b --peer_python=OTHER_ENVIRONMENT/bin/python
    python benchmarks/train_gpu.py --models=vary:tiny,unified:published --peer_python=...

A model is a preset of LVM, `vary:` and a preset of a first stage, or `unified:` and a preset. A step is forward,
backward, clipping to norm 1 and AdamW with fp32 master weights, on rows of the length that the model is trained on. The
sides: lvm_jax in bf16, and with --quantization=none,fp8 also in fp8; torch.compile + transformers, with AdamW fused
and, for LVM, cuDNN's attention forced. unified has no dropout here, and its token router drops nothing, as in the peer.
All start from one folder of weights and read the same rows. The gate: the losses of 20 steps must be within 1e-2 nats
of a run in fp32, whose products have all their digits; a side that fails is not timed. Then the sides take turns, each
turn in its own process with the whole GPU (compiled programs are kept between turns). MFU counts causal attention once,
over the data sheet's dense bf16 peak, also for fp8. It also runs on a CPU, to show that it works. For a tower alone see
tower_speed.py.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from gpu_subjects import SUBJECTS, batches
from steps import WEIGHT_DECAY, make_tx

from lvm_jax import cli
from lvm_jax.errors import UserError
from lvm_jax.parallel import runtime
from lvm_jax.training.throughput import peak_flops

LEARNING_RATE = 3e-4
GATE_STEPS, GATE_TOLERANCE = 20, 1e-2
WARM_UP = 3
# Rows per step that fit 141 GB with the products of every layer stored.
ROWS = {"300m": 16, "600m": 16, "1b": 8, "3b": 4, "vary:tiny": 4, "unified:published": 8}


def turn(question: dict[str, Any]) -> dict[str, Any]:
    """Trains in this process, as the driver asks.

    Args:
      question: system, folder of weights, file of rows, steps, warm_up, folder of compiled programs, how to compute.

    Returns:
      losses of all steps, seconds of the steps after warm-up, compile seconds, peak bytes, FLOP/s of the device, FLOPs
      and tokens of a step.
    """
    runtime.initialize(compile_cache=question["cache"])
    peak = peak_flops()
    rows = dict(np.load(question["rows"]))
    subject, folder = SUBJECTS[question["system"]], pathlib.Path(question["folder"])
    tx = make_tx(LEARNING_RATE)
    count, length = rows["tokens"].shape[1], rows["tokens"].shape[2] - 1
    task, params = subject.open(folder, question["compute"], tx, length)
    key, fed = jax.random.key(0), batches(rows)
    state = {"step": jnp.zeros((), jnp.int32), "params": params, "opt": jax.jit(tx.init)(params)}
    begin = time.perf_counter()
    # A GPU's own choice for products of fp32 is tf32, which has no more digits than the sides that it judges.
    exact = question["compute"]["dtype"] == "float32"
    with jax.default_matmul_precision("highest" if exact else None):
        step = jax.jit(task.step, donate_argnums=0).lower(state, fed[0], key).compile()
    compile_seconds = time.perf_counter() - begin

    losses, start = [], 0.0
    for number in range(question["warm_up"] + question["steps"]):
        if number == question["warm_up"]:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, metrics = step(state, fed[number % len(fed)], key)
        losses.append(metrics["loss"])
    jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    device = jax.local_devices()[0]
    plan = step.memory_analysis()
    planned = plan.argument_size_in_bytes + plan.temp_size_in_bytes if plan else 0
    return {
        "losses": [float(loss.compute()) for loss in losses],
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use", planned),
        "peak_flops": peak,
        "flops": task.flops_per_batch(count),
        "tokens": task.items_per_batch(count)[1],
        "versions": {"device": device.device_kind, "jax": jax.__version__},
    }


def prepare(question: dict[str, Any]) -> dict[str, Any]:
    """Writes a folder of random weights for all sides to start from, and the rows that they read; says how long."""
    subject, preset = SUBJECTS[question["system"]], question["preset"]
    subject.save(preset, pathlib.Path(question["folder"]))
    length = 0
    for path, steps, rows in question["files"]:
        made: dict[str, Any] = subject.rows(preset, steps, rows, question["seq_len"])
        np.savez(path, **made)
        length = made["tokens"].shape[2] - 1
    return {"seq_len": length}


def ask(command: list[str], question: dict[str, Any]) -> dict[str, Any]:
    """Runs a process and parses the last line of its output.

    Raises:
      UserError: it fails; the message has its last line of stderr.
    """
    done = subprocess.run(
        [*command, json.dumps(question)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{command[0]} ended with status {done.returncode}: {last[:300]}")
    return json.loads(lines[-1])


class Model(NamedTuple):
    """What all sides train: its system, its preset, and the folder of its weights."""

    system: str
    preset: str
    folder: str

    @classmethod
    def named(cls, name: str, folder: str) -> "Model":
        """The model of a flag's value, such as "3b" or "vary:tiny".

        Raises:
          UserError: no such system.
        """
        system, _, preset = name.rpartition(":")
        if (system or "lvm") not in SUBJECTS:
            raise UserError(f"--models={name}: known systems are {', '.join(SUBJECTS)}")
        return cls(system or "lvm", preset, folder)


class Side:
    """One program under test; each question starts a process that answers it.

    Args:
      name: of its line in the table.
      command: to start.
      compute: settings of the computation.
    """

    def __init__(self, name: str, command: list[str], compute: dict[str, Any]) -> None:
        self.name, self.command, self.compute = name, command, compute
        self.turns: list[dict[str, Any]] = []
        self.problem = ""
        self.gap = float("nan")

    def train(self, model: Model, rows: str, steps: int, warm_up: int) -> dict[str, Any]:
        """Its answer to one turn."""
        question = {"system": model.system, "folder": model.folder}
        question |= {"rows": rows, "steps": steps, "warm_up": warm_up}
        cache = f"{pathlib.Path(model.folder).parent}/compiled"
        return ask(self.command, {**question, "cache": cache, "compute": self.compute})


def sides_of(args: Any) -> list[Side]:
    """All programs to compare. The first is the fp32 reference of the gate and is not timed."""
    ours = [sys.executable, __file__, "--turn"]
    fast = {"dtype": "bfloat16", "remat": args.remat, "scan_layers": args.scan_layers}
    exact = {"dtype": "float32", "remat": "full", "scan_layers": True, "attention": "chunked"}
    sides = [Side("fp32 reference", ours, exact)]
    names = {"none": "lvm_jax bf16", "int8": "lvm_jax int8", "fp8": "lvm_jax fp8"}
    for kind in args.quantization:
        if kind not in names:
            raise UserError(f"--quantization={kind} does not exist; known: {', '.join(names)}")
        compute = fast if kind == "none" else {**fast, "quantization": kind}
        sides.append(Side(names[kind], ours, compute))
    if args.peer_python:
        script = str(pathlib.Path(__file__).parent / "peers" / "torch_train_gpu.py")
        rates = {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
        sides.append(Side("PyTorch bf16", [args.peer_python, script], rates))
    return sides


def measure(name: str, args: Any) -> list[dict[str, Any]]:
    """Gates and times all sides on one model; returns a record for each."""
    rows = args.rows or ROWS.get(name, 1)
    reference, *sides = sides_of(args)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder, gate, timed = (f"{scratch}/{part}" for part in ("model", "gate.npz", "timed.npz"))
        pathlib.Path(folder).mkdir()
        model = Model.named(name, folder)
        files = [(gate, GATE_STEPS, 1), (timed, 4, rows)]
        question = {**model._asdict(), "files": files, "seq_len": args.seq_len}
        length = ask([sys.executable, __file__, "--turn"], question)["seq_len"]
        exact = np.array(reference.train(model, gate, GATE_STEPS, 0)["losses"])
        for side in sides:
            try:
                losses = np.array(side.train(model, gate, GATE_STEPS, 0)["losses"])
                side.gap = float(np.abs(losses - exact).max())
                if not side.gap <= GATE_TOLERANCE:
                    side.problem = f"losses are {side.gap:.1e} from fp32's: no speed"
            except UserError as error:
                side.problem = str(error)
        for _ in range(args.rounds):
            for side in (side for side in sides if not side.problem):
                try:
                    side.turns.append(side.train(model, timed, args.steps, WARM_UP))
                except UserError as error:
                    side.problem = str(error)
    work = args.steps * rows * length
    ours = next((side.turns[0] for side in sides if side.turns and "flops" in side.turns[0]), {})
    flops = ours["flops"] / ours["tokens"] if ours else float("nan")  # the peer counts none
    batch = {"model": name, "rows": rows, "seq_len": length, "reference_losses": exact.tolist()}
    return [batch | numbers_of(side, work, flops) for side in sides]


def numbers_of(side: Side, work: int, flops: float) -> dict[str, Any]:
    """A side's numbers in a line of the table; `work` are tokens of a turn, `flops` are those of a token."""
    line = {"side": side.name, "gap": side.gap, "problem": side.problem}
    if not side.turns:
        return line
    rate = float(np.median([work / answer["seconds"] for answer in side.turns]))
    first = side.turns[0]
    line |= {key: first[key] for key in ("compile_seconds", "peak_bytes", "versions")}
    peak = first.get("peak_flops")
    return line | {"tokens_per_second": rate, "flops_per_second": rate * flops, "peak_flops": peak}


def show(lines: list[dict[str, Any]]) -> None:
    """Prints the rows of the table; MFU is over the peak that our side reports."""
    peak = next((line["peak_flops"] for line in lines if line.get("peak_flops")), float("nan"))
    for line in lines:
        begin = f"| {line['model']} | {line['side']} | {line['rows']} x {line['seq_len']} |"
        if line["problem"]:
            print(f"{begin} {line['problem']} | | | | {line['gap']:.1e} |", flush=True)
            continue
        print(
            f"{begin} {line['tokens_per_second']:,.0f} | {line['flops_per_second'] / peak:.1%} "
            f"| {line['compile_seconds']:.1f} | {line['peak_bytes'] / 2**30:.1f} | {line['gap']:.1e} |",
            flush=True,
        )


def main() -> None:
    """Measures every size, prints a table, and with --output writes it as JSON."""
    args = flags.FLAGS
    if args.turn:
        question = json.loads(args.turn)
        print(json.dumps(prepare(question) if "files" in question else turn(question)))
        return
    print(f"{args.rounds} rounds of {args.steps} steps, remat {args.remat}")
    print(
        "| model | side | rows x tokens | tokens/s | MFU | compile s | peak GiB | loss gap to fp32 |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    records = []
    for name in args.models:
        lines = measure(name, args)
        show(lines)
        records += lines
    record.write(records)


if __name__ == "__main__":
    flags.DEFINE_list("models", ["300m", "1b", "3b"], "presets of LVM, vary:NAME, unified:NAME")
    flags.DEFINE_list("quantization", ["none"], "of our sides: none (bf16), int8, fp8")
    flags.DEFINE_integer("rows", 0, "of a step; 0: a number for each size")
    flags.DEFINE_integer("seq_len", 0, "tokens of a row; 0: the model's own", lower_bound=0)
    flags.DEFINE_integer("rounds", 3, "turns of each side", lower_bound=1)
    flags.DEFINE_integer("steps", 20, "timed steps of a turn", lower_bound=1)
    flags.DEFINE_string("remat", "dots", "of our sides: none, full, dots")
    flags.DEFINE_bool("scan_layers", False, "of our sides; unrolled is faster on a GPU")
    flags.DEFINE_string("scratch", None, "folder for weights and tokens; default: the system's")
    flags.DEFINE_string("turn", None, "what a process of one side is asked, JSON; used by itself")
    cli.run(main)
