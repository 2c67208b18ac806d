"""Results as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any


def as_markdown(results: Mapping[str, Any]) -> str:
    """Renders each nested mapping of `results` as a table, and each other value as a line."""
    lines = ["# Results", ""]
    lines += [
        f"- {name}: {_cell(value)}"
        for name, value in results.items()
        if not isinstance(value, Mapping)
    ]
    for name, values in results.items():
        if isinstance(values, Mapping):
            lines += ["", f"## {name}", "", "| name | value |", "|---|---|"]
            lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of cells."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([_one_line(str(cell)) for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _cell(value: Any) -> str:
    return _one_line(f"{value:.4g}" if isinstance(value, float) else str(value))


def _one_line(text: str) -> str:
    """Text that neither ends a cell nor a row."""
    return " ".join(text.replace("|", "\\|").splitlines())
