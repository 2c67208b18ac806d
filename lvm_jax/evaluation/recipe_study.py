"""A recipe study: variants of one recipe, each with several seeds, trained on equally much and compared.

It serves decoders and tokenizers alike: a variant is a few settings of experiments/train.py, and what is compared are
numbers by name, from the run's own evaluators or from experiments/evaluate.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lvm_jax.errors import UserError
from lvm_jax.evaluation.study_commands import Command, as_words, flags_of, run_folder, training
from lvm_jax.files import read_json


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
      trained_as: variant -> the variant whose trained models it evaluates; it trains none of its own.
      asked: variant -> flags of experiments/evaluate.py that override `evaluate`.
      also: name -> such flags for one more evaluation of every variant; its numbers have NAME/ before them.
      milestones: name of a number -> limit: `steps_to/NAME` is the first step at which it is at most the limit, and
        `reached/NAME` whether there is one, 1 or 0.
      orders: (heading, name of a number, variants from the lowest to the highest ...): an order that somebody else
        found, which the page compares with this one.
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
    trained_as: dict[str, str] = dataclasses.field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    also: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    orders: tuple[tuple[str, ...], ...] = ()

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
        self._check_variants()
        if self.budget < 1 or self.seconds <= 0 or self.speed_steps < 3:
            raise UserError(
                f"config has budget={self.budget}, seconds={self.seconds}, speed_steps={self.speed_steps}: budget at "
                "least 1, seconds above 0, speed_steps at least 3"
            )
        if wrong := [pattern for _, pattern in self.tables if pattern.count("*") != 1]:
            raise UserError(f"config.tables has {wrong[0]!r}: one * stands for the task")
        parts = {
            "common": self.common,
            "variants": self.variants,
            "evaluate": self.evaluate,
            "asked": self.asked,
            "also": self.also,
        }
        for name, value in flags_of(parts, "config").items():
            if value == "":
                raise UserError(f"{name} is empty: name it, as --{name}=PATH")

    def _check_variants(self) -> None:
        """Requires every name of a variant to be one, and variants without a training to have somebody else's."""
        of_orders = {name for _, _, *names in self.orders for name in names}
        named = {
            "shares": self.shares,
            "trained_as": [*self.trained_as, *self.trained_as.values()],
            "asked": self.asked,
            "orders": of_orders,
        }
        for key, names in named.items():
            if unknown := sorted(set(names) - set(self.variants)):
                raise UserError(f"config.{key} has {unknown[0]!r}, which is no variant")
        for name, other in self.trained_as.items():
            if self.variants[name] or other in self.trained_as or name in self.shares:
                raise UserError(
                    f"config.trained_as has {name!r}, which is evaluated as {other!r} was trained: it may have no "
                    "settings and no share of its own, and the other must be trained"
                )
        if (self.trained_as or self.asked or self.also) and not self.evaluate:
            raise UserError(
                "config.trained_as, asked and also need evaluations, and config.evaluate is empty"
            )

    @property
    def names(self) -> list[str]:
        """The variants' names, the base first."""
        return [self.base, *(name for name in self.variants if name != self.base)]

    @property
    def trained(self) -> list[str]:
        """Those that are trained."""
        return [name for name in self.names if name not in self.trained_as]

    def trained_name(self, variant: str) -> str:
        """The variant whose training this one is evaluated by: itself, for most."""
        return self.trained_as.get(variant, variant)

    def settings(self, variant: str) -> dict[str, Any]:
        """The settings of a variant's training, as flags of experiments/train.py."""
        own = self.variants[self.trained_name(variant)]
        return flags_of(self.common, "config") | flags_of(own, "config")

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
    """A variant with one seed: its training, or another's model evaluated in its own way."""

    variant: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.variant}-s{self.seed}"

    def folder(self, workdir: Path) -> Path:
        """Where its evaluations are, and its training if it has one of its own."""
        return run_folder(workdir, self.name)

    def trained(self, study: Study, workdir: Path) -> Path:
        """The workdir of its training."""
        return dataclasses.replace(self, variant=study.trained_name(self.variant)).folder(workdir)


def speed_commands(study: Study, workdir: Path) -> list[Command]:
    """The short trainings that measure each variant's speed; none if all read equally much."""
    if study.equal == "items":
        return []
    # The learning rate and the evaluations keep to their own steps: a warm-up may be longer than this run.
    return [
        _training(
            study, variant, workdir, _speed(variant), {"config.train.steps": study.speed_steps}
        )
        for variant in study.trained
    ]


def study_runs(study: Study, workdir: Path) -> list[Run]:
    """All runs, seed by seed, so that a study that is stopped early has compared all variants.

    Those without a training of their own follow those that they need.

    Raises:
      UserError: a variant's step does not divide the items, or its speed is not measured yet.
    """
    order = [*study.trained, *(name for name in study.names if name in study.trained_as)]
    steps = {variant: _steps(study, study.trained_name(variant), workdir) for variant in order}
    return [Run(variant, seed, steps[variant]) for seed in study.seeds for variant in steps]


def run_commands(study: Study, run: Run, workdir: Path) -> list[Command]:
    """What a run takes: its training if it has one, and its evaluations if there are any."""
    commands = [] if run.variant in study.trained_as else [_whole_training(study, run, workdir)]
    for name, flags in evaluations(study, run.variant).items():
        folder = evaluation_folder(run.folder(workdir), name)
        model = run.trained(study, workdir) / "model"
        words = as_words({study.exported: model, "output": folder, **flags})
        commands.append(Command(f"{run.name}-{folder.name}", ("experiments/evaluate.py", *words)))
    return commands


def evaluations(study: Study, variant: str) -> dict[str, dict[str, Any]]:
    """Name -> flags of each evaluation of a variant; the first, "", is the one that all have."""
    if not study.evaluate:
        return {}
    own = study.evaluate | study.asked.get(variant, {})
    return {"": own, **{name: own | flags for name, flags in study.also.items()}}


def evaluation_folder(folder: Path, name: str) -> Path:
    """Where an evaluation of a run writes."""
    return folder / (f"evaluation-{name}" if name else "evaluation")


def _whole_training(study: Study, run: Run, workdir: Path) -> Command:
    settings = {"config.train.steps": run.steps, "config.train.seed": run.seed}
    # It is evaluated once, at its end, after its learning rate has decayed.
    settings |= {f"config.{name}": run.steps for name in study.follow_steps}
    return _training(study, run.variant, workdir, run.name, settings)


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
