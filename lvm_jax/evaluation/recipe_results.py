"""The numbers of a recipe study's finished runs, over seeds and beside the base."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvm_jax.errors import UserError
from lvm_jax.evaluation.recipe_study import Run, Study, evaluation_folder, evaluations
from lvm_jax.files import read_json, read_jsonl

_EVALUATED = "evaluation/"  # before the names of evaluators in metrics.jsonl
Numbers = dict[str, float]
Curve = list[tuple[int, float]]  # (step, number)


def collect(study: Study, runs: Sequence[Run], workdir: Path) -> dict[str, Any]:
    """Collects the numbers of finished runs: the content of study.json.

    Returns:
      variants: of each, `variant`, `seeds`, `steps`, `items`, `seconds` (of training, the mean over seeds), `numbers`
        (name -> {mean, error, seeds}, over the seeds that have it) and `beside` (the same of the difference to the base
        with the same seed). `error` is the standard error over seeds, None with fewer than two.
      runs: a record for each run: its `numbers`, those that the study compares, and the `curves` of its milestones,
        name -> (step, number).
      equal, columns, milestones, orders: as in the study.
      tables: (heading, task -> name of its number).
      settings: of each variant; "evaluated" are flags of experiments/evaluate.py, "trained_as" the variant whose models
        it evaluates.

    Raises:
      UserError: a run is not finished or not evaluated, or no run has a number of `columns`.
    """
    records = [_record(study, run, workdir) for run in runs]
    never = {f"steps_to/{name}" for name in study.milestones}  # no run may have got so far
    for heading, name in study.columns:
        if name not in never and not any(name in record["numbers"] for record in records):
            raise UserError(f"config.columns has {heading!r}: no run has the number {name!r}")
    names = sorted({name for record in records for name in record["numbers"]})
    return {
        "equal": study.equal,
        "columns": study.columns,
        "tables": [(heading, _matching(pattern, names)) for heading, pattern in study.tables],
        "milestones": study.milestones,
        "orders": study.orders,
        "settings": {name: _settings(study, name) for name in study.names},
        "variants": [_summary(variant, study.base, records) for variant in study.names],
        "runs": records,
    }


def _record(study: Study, run: Run, workdir: Path) -> dict[str, Any]:
    trained = run.trained(study, workdir)
    seconds = read_json(trained / "goodput.json")
    if seconds is None or not (trained / "model" / "config.json").exists():
        raise UserError(
            f"{trained} has no finished training: run experiments/recipe_study.py again"
        )
    numbers, curves = {}, {}
    if run.variant not in study.trained_as:  # what another's training showed is said once
        curves = _curves(study, trained)
        numbers = _trained_numbers(trained) | _milestones(study, curves)
    numbers |= _evaluated_numbers(study, run, workdir)
    kept: Numbers = {}
    for _, name in study.columns:
        values = [numbers[found] for found in _matching(name, numbers).values()]
        if values:
            kept[name] = float(np.mean(values))
    for _, pattern in study.tables:
        kept |= {name: numbers[name] for name in _matching(pattern, numbers).values()}
    kept |= {name: numbers[name] for _, name, *_ in study.orders if name in numbers}
    return {
        **dataclasses.asdict(run),
        "items": run.steps * study.per_step(run.variant),
        "seconds": seconds["training"],
        "numbers": kept,
        "curves": curves,
    }


def _trained_numbers(folder: Path) -> Numbers:
    """The last number of each name in a training's metrics.jsonl."""
    return _only_numbers(
        {
            name.removeprefix(_EVALUATED): value
            for line in read_jsonl(folder / "metrics.jsonl")
            for name, value in line.items()
        }
    )


def _evaluated_numbers(study: Study, run: Run, workdir: Path) -> Numbers:
    """The numbers of evaluate.py, those of a further evaluation with its name before them."""
    found: dict[str, Any] = {}
    for name in evaluations(study, run.variant):
        folder = run.folder(workdir)
        results = read_json(evaluation_folder(folder, name) / "results.json")
        if results is None:
            raise UserError(f"{folder} is not evaluated: run experiments/recipe_study.py again")
        prefix = f"{name}/" if name else ""
        for part, values in results.items():
            if isinstance(values, Mapping):
                found |= {f"{prefix}{part}/{key}": value for key, value in values.items()}
    return _only_numbers(found)


def _only_numbers(found: Mapping[str, Any]) -> Numbers:
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _curves(study: Study, folder: Path) -> dict[str, Curve]:
    """What the run's own evaluators showed of each milestone, step after step."""
    lines = list(read_jsonl(folder / "metrics.jsonl")) if study.milestones else []
    return {
        name: [
            (line["step"], line[n])
            for line in lines
            for n in (name, _EVALUATED + name)
            if n in line
        ]
        for name in study.milestones
    }


def _milestones(study: Study, curves: Mapping[str, Curve]) -> Numbers:
    """When the limits were first shown; nothing about numbers that the run did not measure."""
    found: Numbers = {}
    for name, limit in study.milestones.items():
        if not curves[name]:
            continue
        steps = [step for step, value in curves[name] if value <= limit]
        found[f"reached/{name}"] = float(bool(steps))
        if steps:
            found[f"steps_to/{name}"] = float(min(steps))
    return found


def _settings(study: Study, variant: str) -> dict[str, Any]:
    trained_as, asked = study.trained_as.get(variant), study.asked.get(variant)
    more = {"trained_as": trained_as, "evaluated": asked}
    return {**study.variants[variant], **{name: value for name, value in more.items() if value}}


def _matching(pattern: str, names: Iterable[str]) -> dict[str, str]:
    """What stands in place of the pattern's * -> the name; of a pattern without one, "" -> the name itself."""
    before, star, after = pattern.partition("*")
    if not star:
        return {"": pattern} if pattern in names else {}
    found = re.compile(f"{re.escape(before)}(.+){re.escape(after)}")
    return {
        match[1]: name for name in names if "*" not in name and (match := found.fullmatch(name))
    }


def _summary(variant: str, base: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = {record["seed"]: record for record in records if record["variant"] == variant}
    of_base = {r["seed"]: r["numbers"] for r in records if r["variant"] == base}
    first, names = next(iter(own.values())), {n: None for r in own.values() for n in r["numbers"]}
    numbers, beside = {}, {}
    for name in names:
        of_seed = {s: r["numbers"][name] for s, r in own.items() if name in r["numbers"]}
        numbers[name] = _mean_and_error(list(of_seed.values()))
        both = [v - of_base[s][name] for s, v in of_seed.items() if name in of_base.get(s, {})]
        if both:
            beside[name] = _mean_and_error(both)
    return {
        "variant": variant,
        "seeds": len(own),
        "steps": first["steps"],
        "items": first["items"],
        "seconds": float(np.mean([record["seconds"] for record in own.values()])),
        "numbers": numbers,
        "beside": beside,
    }


def _mean_and_error(values: Sequence[float]) -> dict[str, float | int | None]:
    several = len(values) > 1
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if several else None
    return {"mean": float(np.mean(values)), "error": error, "seeds": len(values)}
