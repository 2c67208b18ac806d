"""The page and the tables of a recipe study, from its study.json alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.reporting import markdown
from lvm_jax.reporting.charts import Chart, Intervals, Level, Series
from lvm_jax.reporting.html import Bullets, Drawing, Folded, Pairs, Section, Table, page
from lvm_jax.reporting.numbers import number, short
from lvm_jax.reporting.recipe_findings import findings, margin_of

Study = Mapping[str, Any]
Grid = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def write_page(workdir: epath.PathLike) -> epath.Path:
    """Writes DIR/study.html, a self-contained page, and the same tables as DIR/study.md.

    Args:
      workdir: of the study, with its study.json.

    Returns:
      the path of the page.
    """
    folder = epath.Path(workdir)
    study = json.loads((folder / "study.json").read_text())
    tables = grids(study)
    found = findings(study)
    text = [f"- {sentence}\n" for sentence in (*found, *limits(study))]
    text += [f"\n## {title}\n\n{_as_markdown(grid)}" for title, grid in tables.items()]
    files.write(folder / "study.md", "# Recipe study\n\n" + "".join(text))
    blocks = [
        Section("What was found", [Bullets(found), *learning(study), Pairs(intervals(study))])
        if found
        else None,
        Section("How to read it", [Bullets(limits(study))]),
        *(Section(title, [Table(*grid)]) for title, grid in tables.items()),
        Folded("Settings of the variants", study["settings"]),
    ]
    path = folder / "study.html"
    subtitle = f"Every number is from {folder}/study.json."
    files.write(path, page("Recipe study", subtitle, blocks))
    return path


def limits(study: Study) -> list[str]:
    """What was equal, how many seeds there are, and what follows from that."""
    variants = study["variants"]
    items = [variant["items"] for variant in variants]
    seconds = [variant["seconds"] for variant in variants]
    seeds = min(variant["seeds"] for variant in variants)
    if study["equal"] == "items":
        read = " or ".join(dict.fromkeys(map(short, sorted(items))))
        equal = (
            f"Every training read {read} items; they took {number(min(seconds))} to "
            f"{number(max(seconds))} seconds, which mean little unless the machine was idle."
        )
    else:
        equal = (
            f"Every training was given equal time by its measured speed: {number(min(seconds))} to "
            f"{number(max(seconds))} seconds, in which {short(min(items))} to {short(max(items))} items were read."
        )
    spread = (
        f"{seeds} seeds each, and differences are of equal seeds. In tables ± is one standard error over seeds; in "
        "words and charts it is the 95% interval by Student's t. Of 20 differences that are none, one is told from it."
        if seeds > 1
        else "One seed each: how much another would change is not known."
    )
    return [
        equal,
        spread,
        f"All variants but the first are beside {variants[0]['variant']!r}: what is in its settings and in no other's "
        "was not varied.",
    ]


def grids(study: Study) -> dict[str, Grid]:
    """Title -> (header, a row for each variant): the columns, their differences to the first variant, each table."""
    variants, columns = study["variants"], study["columns"]
    names = [name for _, name in columns]
    sizes = ("seeds", "steps", "items", "seconds")
    rows = [
        (
            *(variant["variant"], variant["seeds"], variant["steps"]),
            *(short(variant["items"]), round(variant["seconds"])),
            *_cells(variant, "numbers", names, _value),
        )
        for variant in variants
    ]
    header = ("variant", *sizes, *(heading for heading, _ in columns))
    found: dict[str, Grid] = {"Variants": (header, rows)}
    first, *others = variants
    if others:
        differences = [(v["variant"], *_cells(v, "beside", names, _difference)) for v in others]
        found[f"Difference to {first['variant']}"] = (
            ("variant", *(heading for heading, _ in columns)),
            differences,
        )
    for title, tasks in study["tables"]:
        if tasks:
            of_task = list(tasks.values())
            rows = [(v["variant"], *_cells(v, "numbers", of_task, _value)) for v in variants]
            found[title] = (("variant", *tasks), rows)
    return found


def learning(study: Study) -> list[Drawing]:
    """How the numbers with a limit went as the variants learnt, the mean over seeds; nothing where nobody evaluated."""
    headings = {name: heading for heading, name in study["columns"]}
    found = []
    for name, limit in study["milestones"].items():
        lines = [_curve(study, name, variant["variant"]) for variant in study["variants"]]
        if lines := [line for line in lines if line.x]:
            chart = Chart("step", headings.get(name, name), lines, [Level("limit", limit)])
            found.append(Drawing(chart.svg(), "The mean over seeds, while training."))
    return found


def intervals(study: Study) -> list[Drawing]:
    """Each number of all variants, with its interval."""
    found = []
    for heading, name in study["columns"]:
        rows = [
            (v["variant"], one["mean"], margin_of(one["error"], one["seeds"]) or 0.0)
            for v in study["variants"]
            if (one := v["numbers"].get(name))
        ]
        if len({value for _, value, _ in rows}) > 1:
            found.append(Drawing(Intervals(heading, rows).svg()))
    return found


def _curve(study: Study, name: str, variant: str) -> Series:
    values: dict[int, list[float]] = {}
    for run in study["runs"]:
        if run["variant"] == variant:
            for step, value in run["curves"].get(name, []):
                values.setdefault(step, []).append(value)
    steps = sorted(values)
    return Series(variant, steps, [sum(values[s]) / len(values[s]) for s in steps])


def _cells(
    variant: Mapping[str, Any],
    part: str,
    names: Sequence[str],
    shown: Callable[[Mapping[str, Any]], str],
) -> list[str]:
    """Numbers of a variant; one that not all of its seeds have says how many do."""

    def cell(measured: Mapping[str, Any]) -> str:
        seeds, every = measured["seeds"], variant["seeds"]
        return shown(measured) + (f" ({seeds} of {every} seeds)" if seeds < every else "")

    numbers = variant[part]
    return [cell(numbers[name]) if name in numbers else "–" for name in names]


def _value(measured: Mapping[str, Any]) -> str:
    error = measured["error"]
    return number(measured["mean"]) + (f" ± {number(error, 2)}" if error is not None else "")


def _difference(measured: Mapping[str, Any]) -> str:
    return ("+" if measured["mean"] > 0 else "") + _value(measured)


def _as_markdown(grid: Grid) -> str:
    header, rows = grid
    return markdown.table(header, [tuple(map(number, row)) for row in rows])
