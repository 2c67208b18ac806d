"""The runs of a scaling study: which sizes train, for how long and on what data, and what they found."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.scaling_study import EVERYTHING, fits, mean_over_seeds, read_run
from lvm_jax.evaluation.study_commands import Command, flags_of, run_folder, training

_EVALUATORS = ("next_token", "in_context", "annotations")  # what `read_run` reads


@dataclasses.dataclass(frozen=True)
class Study:
    """The settings of a study; experiments/configs/scaling_study.py has examples.

    Attributes:
      steps: lengths of the trainings.
      seeds: of each run.
      ablation_size: the size that also trains on each of `mixtures`, for the longest length.
      mixtures: name -> the categories it keeps.
      common: settings of every run, nested as in the training's configuration; "recipe" is its configuration file.
      sizes: name -> settings that override the common ones.
    """

    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    ablation_size: str
    mixtures: dict[str, tuple[str, ...]]
    common: dict[str, Any]
    sizes: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1 or not self.seeds or not self.sizes:
            raise UserError(
                f"config has steps {self.steps}, seeds {self.seeds} and {len(self.sizes)} sizes: at least one each"
            )
        if self.ablation_size not in self.sizes:
            raise UserError(
                f"config.ablation_size is {self.ablation_size!r}: the sizes are {', '.join(self.sizes)}"
            )
        if EVERYTHING in self.mixtures:
            raise UserError(f"config.mixtures has {EVERYTHING!r}, which every size is trained on")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training."""

    size: str
    steps: int
    mixture: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.size}-{self.steps}-{self.mixture}-s{self.seed}"


def images_by_category(store: SentenceStore) -> dict[str, int]:
    """How many images of each category a split has."""
    images = dict.fromkeys((category.name.lower() for category in Category), 0)
    for origin, count in zip(store.origins, store.images_by_origin().tolist()):
        images[origin.category] += count
    return images


def study_runs(study: Study) -> list[Run]:
    """All runs of a study, cheap ones first."""
    asked = [(size, steps, EVERYTHING) for steps in sorted(study.steps) for size in study.sizes] + [
        (study.ablation_size, max(study.steps), mixture) for mixture in study.mixtures
    ]
    return [Run(*what, seed) for seed in study.seeds for what in asked]


def run_command(
    study: Study, run: Run, shards: str, workdir: Path, images: Mapping[str, int]
) -> Command:
    """The command of a run.

    Args:
      study: its settings.
      run: one of `study_runs`.
      shards: to train on.
      workdir: of the study.
      images: category -> images in the training split.

    Raises:
      UserError: the shards have none of a mixture's categories.
    """
    settings = _settings(study, run.size, run.steps, run.seed) | {"config.data.shards": shards}
    if run.mixture != EVERYTHING:
        kept = study.mixtures[run.mixture]
        settings["config.data.weights"] = _weights(run.mixture, kept, images)
    recipe = settings.pop("config.recipe")
    return training(workdir, run.name, recipe, settings)


def _settings(study: Study, size: str, steps: int, seed: int) -> dict[str, Any]:
    """The flags of a run by name. It is evaluated once, at its end, after its learning rate has decayed.

    A shorter training is therefore a run of its own, with its own schedule, and not a checkpoint of a longer one.
    """
    return {
        **flags_of(study.common, "config"),
        **flags_of(study.sizes[size], "config"),
        "config.train.steps": steps,
        "config.train.seed": seed,
        "config.train.eval_every": steps,
        "config.optimizer.decay_steps": steps,
        **{f"config.evaluators.{name}": steps for name in _EVALUATORS},
    }


def _weights(mixture: str, kept: tuple[str, ...], images: Mapping[str, int]) -> str:
    """Weights that keep some categories, in their proportions in the shards, and drop the others with weight 0."""
    if not any(images.get(category) for category in kept):
        raise UserError(
            f"config.mixtures.{mixture} is of {', '.join(kept)}: the shards have "
            + ", ".join(name for name, count in images.items() if count)
        )
    return ",".join(
        f"category/{name}={count if name in kept else 0}" for name, count in images.items() if count
    )


def collect(
    study: Study,
    runs: Sequence[Run],
    workdir: Path,
    images: Mapping[str, int],
    tokens_per_image: int,
) -> dict[str, Any]:
    """Collects the results of finished runs: the content of scaling.json.

    Returns:
      records: means over the seeds of `runs`; see `scaling_study.read_run` for the fields.
      fits: power laws through the records.
      images: category -> images in the training split.
      runs: a record for each run; `passes` is how often it went through its images.

    Raises:
      UserError: a run is not finished.
    """
    records = []
    for run in runs:
        record = dataclasses.asdict(run) | read_run(run_folder(workdir, run.name))
        kept = study.mixtures.get(run.mixture, tuple(images))
        given = tokens_per_image * sum(images.get(category, 0) for category in kept)
        records.append(record | {"passes": record["tokens"] / given})
    means = mean_over_seeds(records)
    return {"records": means, "fits": fits(means), "images": dict(images), "runs": records}
