r"""The tables of docs/scaling.md: training steps, compiled for TPU slices and GPU hosts you do not have.

python benchmarks/scaling_table.py --output=DIR [--systems=vary,unified] [--only=v5p]

It compiles row after row of benchmarks/scaling_rows.py with experiments/compile_only.py, one to four minutes each on
two idle cores. DIR/ROW.json keeps the numbers, and a row that exists is not compiled again; DIR/ROW.failed keeps why
one did not compile, and is tried again by --retry. It prints a table of each system as Markdown, what each kind of
collective sends, and how much of its speed LVM's 3b keeps from 64 to 512 chips.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from absl import flags
from scaling_rows import LVM, ROWS, Row  # benchmarks/ is the script's own folder

from lvm_jax import cli
from lvm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def compile_row(row: Row, folder: pathlib.Path) -> None:
    """Writes the row's file, or why there is none."""
    path, failed = folder / f"{row.name}.json", folder / f"{row.name}.failed"
    command = [sys.executable, str(ROOT / "experiments/compile_only.py"), *row.flags()]
    path_of_imports = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path_of_imports}
    done = subprocess.run(
        [*command, f"--output={path}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    failed.unlink(missing_ok=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        failed.write_text(f"{reason}\n")
        print(f"{row.name}: {reason}", file=sys.stderr, flush=True)


def table(rows: list[Row], reports: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown; says which were not compiled."""
    lines = [
        "| model | slice | mesh data x fsdp (x expert) | remat | rows a chip | memory GiB | compiled/model FLOPs "
        "| sent GB a chip (hidden) | step ms | tokens/s a chip | MFU |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        report = reports.get(row.name)
        if report is None:
            lines.append(f"| {row.label} | {row.where} | not compiled yet |" + " |" * 8)
            continue
        sent = report["collectives_per_chip"].values()
        total = sum(kind["wire_bytes"] for kind in sent)
        hidden = sum(kind["asynchronous_bytes"] for kind in sent)
        axes = ("data", "fsdp", *(["expert"] if row.expert > 1 else []))
        cells = [
            row.label,
            row.where,
            " x ".join(str(report["mesh"][axis]) for axis in axes),
            row.remat,
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


def collectives(rows: list[Row], reports: dict[str, dict[str, Any]]) -> str:
    """Number and GB sent by a chip of each kind of collective, as Markdown; and what binds the step."""
    lines = [
        f"| model | slice | {' | '.join(KINDS)} | bound by |",
        "|---|---|" + "---|" * (len(KINDS) + 1),
    ]
    for row in rows:
        if row.name not in reports:
            continue
        report = reports[row.name]
        cells = []
        for kind in KINDS:
            found = report["collectives_per_chip"].get(kind)
            cells.append(
                f"{found['executions']:.0f}: {found['wire_bytes'] / 1e9:.2f}" if found else ""
            )
        seconds = report["predicted_seconds"]
        bound = max(("compute", "hbm", "hidden"), key=lambda part: seconds[part])
        cells.append({"hidden": "links", "hbm": "HBM"}.get(bound, bound))
        lines.append(f"| {row.label} | {row.where} | {' | '.join(cells)} |")
    return "\n".join(lines)


def weak_scaling(reports: dict[str, dict[str, Any]]) -> str:
    """A line that says how much of its speed 3b keeps from 64 to 512 chips, at the same rows per chip."""
    lines = []
    for published in (False, True):
        ends = [r for r in LVM if r.model == "3b" and r.published == published and r.slices == 1]
        names = [r.name for r in ends if r.topology in ("v5p:4x4x4", "v5p:8x8x8")]
        label = "published layout" if published else "3b"
        if not all(name in reports for name in names):
            lines.append(f"{label}: not compiled yet")
            continue
        few, many = (reports[name]["predicted_items_per_second_per_chip"] for name in names)
        lines.append(
            f"{label}: {few:,.0f} to {many:,.0f} tokens/s a chip, {many / few:.1%} of it kept"
        )
    return "Weak scaling, v5p, 64 to 512 chips, predicted: " + "; ".join(lines) + "."


def main() -> None:
    """Compiles the missing rows and prints the tables."""
    args, folder = flags.FLAGS, pathlib.Path(flags.FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    unknown = set(args.systems) - set(ROWS)
    if unknown:
        raise UserError(f"--systems={','.join(unknown)} does not exist; known: {', '.join(ROWS)}")
    chosen = [row for system in args.systems for row in ROWS[system]]
    for row in chosen:
        exists = (folder / f"{row.name}.json").exists()
        given_up = (folder / f"{row.name}.failed").exists() and not args.retry
        if args.only in row.name and not exists and not given_up:
            print(f"compiling {row.name}", file=sys.stderr, flush=True)
            compile_row(row, folder)
    reports = {
        row.name: json.loads(path.read_text())
        for row in chosen
        if (path := folder / f"{row.name}.json").exists()
    }
    for system in args.systems:
        print(table(ROWS[system], reports), collectives(ROWS[system], reports), sep="\n\n")
        print(f"\n{weak_scaling(reports)}" if system == "lvm" else "")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder of the rows' files")
    flags.DEFINE_list("systems", list(ROWS), "whose rows")
    flags.DEFINE_string("only", "", "a part of the names of rows; the others are not compiled")
    flags.DEFINE_bool("retry", False, "compile again what did not compile")
    cli.run(main, required_flags=["output"])
