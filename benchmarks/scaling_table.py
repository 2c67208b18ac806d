r"""The table of docs/scaling.md: the decoder's training step, compiled for TPU slices and GPU hosts you do not have.

python benchmarks/scaling_table.py --output=DIR [--only=3b]

It compiles row after row with experiments/compile_only.py, one to two minutes each on two idle cores. DIR/ROW.json
keeps the numbers, and a row that exists is not compiled again. It prints the table of all rows in DIR as Markdown, and
how much of its speed 3b keeps from 64 to 512 chips.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import subprocess
import sys

from absl import flags

from lvm_jax import cli
from lvm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
HOST_CHIPS = 4  # of v5p, v5e and v6e pods; the published mesh is (hosts, the rest, 1)


@dataclasses.dataclass(frozen=True)
class Row:
    """A model on a slice, with the mesh and remat of the published code (`published`) or ours.

    `system` is the configuration file, `expert` the axis of the mesh that splits experts.
    """

    size: str
    topology: str
    data: int
    rows_per_chip: int
    remat: str = "dots"
    published: bool = False
    slices: int = 1
    system: str = "lvm"
    expert: int = 1

    @property
    def model(self) -> str:
        """The argument of the configuration file, and which file it is of, unless that is LVM's."""
        return self.size if self.system == "lvm" else f"{self.system}: {self.size}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        shape = re.findall(r"\d+", self.topology.split(":")[1])
        return self.slices * math.prod(map(int, shape))

    @property
    def where(self) -> str:
        """The slices, as the table shows them."""
        return f"{self.slices} x {self.topology}" if self.slices > 1 else self.topology

    @property
    def name(self) -> str:
        """Name of the row's file."""
        rules = "-published" if self.published else ""
        slices = re.sub(r"\W+", "-", self.where)
        model = re.sub(r"\W+", "-", self.model)
        return f"{model}-{slices}{rules}"

    def flags(self, attention: str) -> list[str]:
        """Flags of compile_only.py; `attention` is the one for TPUs."""
        if self.topology.startswith("h"):
            attention = "cudnn"
        if self.system == "unified":  # which drops weights of attention
            attention = "xla"
        hosts = self.chips // HOST_CHIPS
        return [
            f"--config=experiments/configs/{self.system}.py:{self.size}",
            f"--topology={self.topology}",
            f"--num_slices={self.slices}",
            f"--config.mesh.data={hosts if self.published else self.data}",
            f"--config.mesh.expert={self.expert}",
            f"--config.train.batch_size={self.rows_per_chip * self.chips}",
            f"--config.model.remat={'full' if self.published else self.remat}",
            f"--config.model.attention={attention}",
        ]


ROWS = [
    Row("100m", "v5e:16x16", 16, 8),
    Row("300m", "v5e:16x16", 16, 4),
    Row("300m", "v6e:16x16", 16, 4),
    Row("300m", "v5p:4x4x8", 4, 8),
    Row("600m", "v5e:16x16", 16, 2),
    Row("1b", "v5e:16x16", 4, 2),
    Row("3b", "v5e:16x16", 2, 1),
    Row("3b", "v6e:16x16", 2, 2),
    Row("3b", "v5p:4x4x4", 2, 4),
    Row("3b", "v5p:4x4x8", 4, 4),
    Row("3b", "v5p:4x4x4", 4, 4, slices=2),
    Row("3b", "v5p:8x8x8", 16, 4),
    Row("3b", "v5p:4x4x4", 0, 4, published=True),
    Row("3b", "v5p:8x8x8", 0, 4, published=True),
    Row("7b", "v5e:16x16", 2, 1),
    Row("7b", "v6e:16x16", 2, 1),
    Row("7b", "v5p:4x4x8", 2, 4),
    Row("7b", "v5p:8x8x8", 8, 4),
    Row("13b", "v5p:8x8x8", 4, 2),
    Row("20b", "v5p:8x8x8", 4, 2),
    Row("30b", "v5p:8x8x8", 4, 2),
    Row("300m", "h100:1x8", 1, 8),
    Row("1b", "h100:1x8", 1, 4),
    Row("3b", "h100:1x8", 1, 4),
    Row("3b", "h100:8x8", 8, 4),
    Row("7b", "h100:8x8", 8, 2),
    Row("3b", "h200:8x8", 8, 8),
    Row("published,experts=token", "v5p:4x4x4", 1, 8, system="unified", expert=8),
    Row("published,experts=token", "v6e:8x8", 1, 4, system="unified", expert=8),
    Row("published,experts=token", "h200:1x8", 1, 16, system="unified", expert=8),
    Row("published", "v5p:4x4x4", 1, 8, system="unified", expert=8),
]


def compile_row(row: Row, folder: pathlib.Path, attention: str) -> None:
    """Writes the row's file.

    Raises:
      UserError: it does not compile, or does not fit.
    """
    path = folder / f"{row.name}.json"
    command = [sys.executable, str(ROOT / "experiments/compile_only.py"), *row.flags(attention)]
    path_of_imports = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path_of_imports}
    done = subprocess.run(
        [*command, f"--output={path}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{row.name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def table(folder: pathlib.Path) -> str:
    """The rows as Markdown; says which were not compiled."""
    lines = [
        "| model | slice | mesh data x fsdp (x expert) | remat | rows a chip | memory GiB | compiled/model FLOPs "
        "| sent GB a chip (hidden) | step ms | tokens/s a chip | MFU |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        path = folder / f"{row.name}.json"
        label = f"{row.model}{' (published)' if row.published else ''}"
        if not path.exists():
            lines.append(f"| {label} | {row.where} | not compiled yet |" + " |" * 8)
            continue
        report = json.loads(path.read_text())
        sent = report["collectives_per_chip"].values()
        total = sum(kind["wire_bytes"] for kind in sent)
        hidden = sum(kind["asynchronous_bytes"] for kind in sent)
        cells = [
            label,
            row.where,
            " x ".join(
                str(report["mesh"][axis])
                for axis in ("data", "fsdp", *(["expert"] if row.expert > 1 else []))
            ),
            report["config"]["model"]["remat"],
            str(row.rows_per_chip),
            f"{report['memory_bytes_per_chip']['peak'] / 2**30:.1f}",
            f"{report['compiled_flops'] / report['model_flops']:.2f}",
            f"{total / 1e9:.1f} ({hidden / total:.0%})",
            f"{report['predicted_seconds']['step'] * 1e3:.0f}",
            f"{report['predicted_items_per_second_per_chip']:,.0f}",
            f"{report['predicted_mfu']:.1%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def experts(folder: pathlib.Path) -> str:
    """How often and how much the tokens of each row with experts travel."""
    lines = []
    for row in ROWS:
        path = folder / f"{row.name}.json"
        if row.expert > 1 and path.exists():
            report = json.loads(path.read_text())["collectives_per_chip"]
            found = report.get("all-to-all", {"executions": 0, "wire_bytes": 0})
            lines.append(
                f"{row.model} on {row.where}: {found['executions']:.0f} all-to-alls, "
                f"{found['wire_bytes'] / 1e9:.2f} GB sent by a chip"
            )
    return "\n".join(lines) or "rows with experts: not compiled yet"


def weak_scaling(folder: pathlib.Path) -> str:
    """A line that says how much of its speed 3b keeps from 64 to 512 chips, at the same rows per chip."""
    lines = []
    for published in (False, True):
        ends = [r for r in ROWS if r.size == "3b" and r.published == published and r.slices == 1]
        paths = [
            folder / f"{r.name}.json" for r in ends if r.topology in ("v5p:4x4x4", "v5p:8x8x8")
        ]
        label = "published layout" if published else "3b"
        if not all(path.exists() for path in paths):
            lines.append(f"{label}: not compiled yet")
            continue
        few, many = (
            json.loads(path.read_text())["predicted_items_per_second_per_chip"] for path in paths
        )
        lines.append(
            f"{label}: {few:,.0f} to {many:,.0f} tokens/s a chip, {many / few:.1%} of it kept"
        )
    return "Weak scaling, v5p, 64 to 512 chips, predicted: " + "; ".join(lines) + "."


def main() -> None:
    """Compiles the missing rows and prints the table."""
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        if (not _ONLY.value or row.size == _ONLY.value) and not (
            folder / f"{row.name}.json"
        ).exists():
            print(f"compiling {row.name}", file=sys.stderr, flush=True)
            try:
                compile_row(row, folder, _ATTENTION.value)
            except UserError as error:
                print(error, file=sys.stderr, flush=True)
    print(table(folder), experts(folder), weak_scaling(folder), sep="\n\n")


if __name__ == "__main__":
    _OUTPUT = flags.DEFINE_string("output", None, "folder of the rows' files", required=True)
    _ONLY = flags.DEFINE_string("only", "", "a size; the others are not compiled")
    _ATTENTION = flags.DEFINE_string("attention", "splash", "config.model.attention of all rows")
    cli.run(main)
