"""A recipe study: variants of one recipe, each with several seeds, trained on equally much and compared.

It serves decoders and tokenizers alike: a variant is a few settings of experiments/train.py, and what is compared are
numbers by name, from the run's own evaluators or from experiments/evaluate.py.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lvm_jax.errors import UserError
from lvm_jax.evaluation.study_commands import Command, as_words, flags_of, run_folder, training
from lvm_jax.files import read_json, read_jsonl

_EVALUATED = "evaluation/"  # before the names of evaluators in metrics.jsonl
Numbers = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Study:
    """The settings of a study; experiments/configs/recipe_study.py has examples.

    Attributes:
      seeds: of every variant.
      equal: what all trainings have the same of: "items" (tokens or images), or "time", for an idle machine.
      budget: tokens or images that each training reads; with "items".
      seconds: of each training, without start, compilation and evaluations; with "time".
      speed_steps: steps of the short training that measures a variant's speed; with "time".
      items_per_step: settings, such as "train.batch_size", whose product is the items of a step.
      follow_steps: settings that are given the number of steps, such as the learning rate's end.
      common: settings of every training, nested as in its configuration; "recipe" is its configuration file and
        argument.
      variants: name -> settings that override the common ones.
      base: the variant that the others are compared with.
      exported: flag of experiments/evaluate.py that takes the trained model.
      evaluate: its other flags; empty: it does not run, and the training's own evaluators tell.
      columns: (heading, name of a number); a * in the name stands for any task, and means the mean over all of them.
      tables: (heading, name with a *): a table with a column for each task.
      shares: variant -> share of `budget` that it reads, such as 0.5 for one task of two; others read all.
      milestones: name of a number -> limit: `steps_to/NAME` is the first step at which it is at most the limit, and
        `reached/NAME` whether there is one, 1 or 0.
    """

    seeds: tuple[int, ...]
    equal: Literal["items", "time"]
    budget: int
    seconds: float
    speed_steps: int
    items_per_step: tuple[str, ...]
    follow_steps: tuple[str, ...]
    common: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    base: str
    exported: Literal["model", "tokenizer"]
    evaluate: dict[str, Any]
    columns: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, str], ...]
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    milestones: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.base not in self.variants or not self.seeds:
            raise UserError(
                f"config.base is {self.base!r}, config.seeds {self.seeds}: name one of the variants "
                f"{', '.join(self.variants)}, and at least one seed"
            )
        if without := [
            name for name in self.variants if "config.recipe" not in self.settings(name)
        ]:
            raise UserError(
                f"config.common.recipe is missing, and {without[0]!r} has none of its own"
            )
        if unknown := sorted(set(self.shares) - set(self.variants)):
            raise UserError(f"config.shares has {unknown[0]!r}, which is no variant")
        if self.budget < 1 or self.seconds <= 0 or self.speed_steps < 3:
            raise UserError(
                f"config has budget={self.budget}, seconds={self.seconds}, speed_steps={self.speed_steps}: budget at "
                "least 1, seconds above 0, speed_steps at least 3"
            )
        if wrong := [pattern for _, pattern in self.tables if pattern.count("*") != 1]:
            raise UserError(f"config.tables has {wrong[0]!r}: one * stands for the task")
        parts = {"common": self.common, "variants": self.variants, "evaluate": self.evaluate}
        for name, value in flags_of(parts, "config").items():
            if value == "":
                raise UserError(f"{name} is empty: name it, as --{name}=PATH")

    @property
    def names(self) -> list[str]:
        """The variants' names, the base first."""
        return [self.base, *(name for name in self.variants if name != self.base)]

    def settings(self, variant: str) -> dict[str, Any]:
        """A variant's settings, as flags of experiments/train.py."""
        return flags_of(self.common, "config") | flags_of(self.variants[variant], "config")

    def per_step(self, variant: str) -> int:
        """The items of a step.

        Raises:
          UserError: the settings do not say.
        """
        settings = self.settings(variant)
        for name in self.items_per_step:
            if f"config.{name}" not in settings:
                raise UserError(f"config.common.{name} is missing: it says how much a step reads")
        return math.prod(settings[f"config.{name}"] for name in self.items_per_step)


@dataclasses.dataclass(frozen=True)
class Run:
    """A training of a study."""

    variant: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.variant}-s{self.seed}"


def speed_commands(study: Study, workdir: Path) -> list[Command]:
    """The short trainings that measure each variant's speed; none if all read equally much."""
    if study.equal == "items":
        return []
    # The learning rate and the evaluations keep to their own steps: a warm-up may be longer than this run.
    return [
        _training(
            study, variant, workdir, _speed(variant), {"config.train.steps": study.speed_steps}
        )
        for variant in study.names
    ]


def study_runs(study: Study, workdir: Path) -> list[Run]:
    """All trainings, seed by seed, so that a study that is stopped early has compared all variants.

    Raises:
      UserError: a variant's step does not divide the items, or its speed is not measured yet.
    """
    steps = {variant: _steps(study, variant, workdir) for variant in study.names}
    return [Run(variant, seed, steps[variant]) for seed in study.seeds for variant in steps]


def run_commands(study: Study, run: Run, workdir: Path) -> list[Command]:
    """What a run takes: its training, and its evaluation if there is one."""
    settings = {"config.train.steps": run.steps, "config.train.seed": run.seed}
    # It is evaluated once, at its end, after its learning rate has decayed.
    settings |= {f"config.{name}": run.steps for name in study.follow_steps}
    commands = [_training(study, run.variant, workdir, run.name, settings)]
    if study.evaluate:
        folder = run_folder(workdir, run.name)
        flags = {study.exported: folder / "model", "output": folder / "evaluation"}
        words = as_words(flags | study.evaluate)
        commands.append(Command(f"{run.name}-evaluation", ("experiments/evaluate.py", *words)))
    return commands


def collect(study: Study, runs: Sequence[Run], workdir: Path) -> dict[str, Any]:
    """Collects the numbers of finished runs: the content of study.json.

    Returns:
      variants: of each, `variant`, `seeds`, `steps`, `items`, `seconds` (of training, the mean over seeds), `numbers`
        (name -> {mean, error}, over the seeds that have it) and `beside` (the same of the difference to the base
        with the same seed). `error` is the standard error over seeds, None with fewer than two.
      runs: a record for each run: its `numbers`, those that the study compares.
      equal, columns: as in the study.
      tables: (heading, task -> name of its number).
      settings: of each variant.

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
        "settings": study.variants,
        "variants": [_summary(variant, study.base, records) for variant in study.names],
        "runs": records,
    }


def _steps(study: Study, variant: str, workdir: Path) -> int:
    if study.equal == "time":
        return max(1, round(study.seconds / _seconds_a_step(run_folder(workdir, _speed(variant)))))
    per_step = study.per_step(variant)
    items = round(study.budget * study.shares.get(variant, 1))
    if items % per_step:
        raise UserError(
            f"config.budget gives {variant!r} {items}, and a step of it has {per_step}: it must divide them; the next "
            f"that it does is {-(-items // per_step) * per_step}"
        )
    return items // per_step


def _speed(variant: str) -> str:
    return f"{variant}-speed"


def _training(
    study: Study, variant: str, workdir: Path, name: str, more: Mapping[str, Any]
) -> Command:
    """The training NAME of a variant, with settings of its own."""
    settings = {**study.settings(variant), **more}
    return training(workdir, name, settings.pop("config.recipe"), settings)


def _seconds_a_step(folder: Path) -> float:
    """Without the first step, in which the program is compiled.

    Raises:
      UserError: the run was not timed.
    """
    seconds, config = read_json(folder / "goodput.json"), read_json(folder / "config.json")
    if seconds is None or config is None or not seconds["training"]:
        raise UserError(f"{folder} has no timed training: run experiments/recipe_study.py again")
    return seconds["training"] / (config["train"]["steps"] - 1)


def _record(study: Study, run: Run, workdir: Path) -> dict[str, Any]:
    folder = run_folder(workdir, run.name)
    seconds = read_json(folder / "goodput.json")
    if seconds is None or not (folder / "model" / "config.json").exists():
        raise UserError(f"{folder} has no finished training: run experiments/recipe_study.py again")
    numbers, kept = _numbers(folder, evaluated=bool(study.evaluate)), {}
    numbers |= _milestones(study, folder)
    for _, name in study.columns:
        values = [numbers[found] for found in _matching(name, numbers).values()]
        if values:
            kept[name] = float(np.mean(values))
    for _, pattern in study.tables:
        kept |= {name: numbers[name] for name in _matching(pattern, numbers).values()}
    return {
        **dataclasses.asdict(run),
        "items": run.steps * study.per_step(run.variant),
        "seconds": seconds["training"],
        "numbers": kept,
    }


def _numbers(folder: Path, *, evaluated: bool) -> Numbers:
    """The last number of each name in metrics.jsonl, and if `evaluated` those of evaluate.py, which win."""
    found = {
        name.removeprefix(_EVALUATED): value
        for line in read_jsonl(folder / "metrics.jsonl")
        for name, value in line.items()
    }
    results = read_json(folder / "evaluation" / "results.json") if evaluated else {}
    if results is None:
        raise UserError(f"{folder} is not evaluated: run experiments/recipe_study.py again")
    for name, values in results.items():
        if isinstance(values, Mapping):
            found |= {f"{name}/{key}": value for key, value in values.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _milestones(study: Study, folder: Path) -> Numbers:
    """When the run's own evaluators first showed the limits."""
    found: Numbers = {}
    lines = list(read_jsonl(folder / "metrics.jsonl")) if study.milestones else []
    for name, limit in study.milestones.items():
        names = (name, f"{_EVALUATED}{name}")
        steps = [line["step"] for line in lines for n in names if line.get(n, math.inf) <= limit]
        found[f"reached/{name}"] = float(bool(steps))
        if steps:
            found[f"steps_to/{name}"] = float(min(steps))
    return found


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


def _mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    several = len(values) > 1
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if several else None
    return {"mean": float(np.mean(values)), "error": error}
