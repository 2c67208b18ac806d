"""The runs of a scaling study: which sizes are trained, how long and on what, and what they have found."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.scaling_study import EVERYTHING, fits, mean_over_seeds, read_run

_EVALUATORS = ("next_token", "in_context", "annotations")  # what `read_run` reads


@dataclasses.dataclass(frozen=True)
class Study:
    """What is asked; experiments/configs/scaling_study.py explains it with examples.

    Attributes:
      steps: lengths of the trainings.
      seeds: of each run.
      ablation_size: the size that is also trained on each of `mixtures`, at the longest length.
      mixtures: name -> the categories that it keeps.
      common: settings of every run, nested as in the training's configuration; "recipe" is its configuration file.
      sizes: name -> settings of its runs, in place of the common ones.
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
    """One training: what it is, and its command behind `python`."""

    size: str
    steps: int
    mixture: str
    seed: int
    command: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.size}-{self.steps}-{self.mixture}-s{self.seed}"


def images_by_category(store: SentenceStore) -> dict[str, int]:
    """How many images a split has of each category."""
    images = dict.fromkeys((category.name.lower() for category in Category), 0)
    for origin, count in zip(store.origins, store.images_by_origin().tolist()):
        images[origin.category] += count
    return images


def study_runs(
    study: Study, shards: str, workdir: Path, images: Mapping[str, int]
) -> Iterator[Run]:
    """All runs of a study, the cheap ones first.

    Args:
      study: what is asked.
      shards: to train on.
      workdir: of the study.
      images: category -> how many the training split has.

    Raises:
      UserError: a mixture of categories that the shards do not have.
    """
    asked = [(steps, size, EVERYTHING) for steps in sorted(study.steps) for size in study.sizes] + [
        (max(study.steps), study.ablation_size, mixture) for mixture in study.mixtures
    ]
    for seed in study.seeds:
        for steps, size, mixture in asked:
            settings = _settings(study, size, steps, seed) | {"config.data.shards": shards}
            if mixture != EVERYTHING:
                settings["config.data.weights"] = _weights(mixture, study.mixtures[mixture], images)
            recipe = settings.pop("config.recipe")
            run = Run(size, steps, mixture, seed, "")
            words = " ".join(f"--{name}={value}" for name, value in settings.items())
            command = f"experiments/train.py --config={recipe} --workdir={workdir / 'runs' / run.name} {words}"
            yield dataclasses.replace(run, command=command)


def _settings(study: Study, size: str, steps: int, seed: int) -> dict[str, Any]:
    """The flags of a run, by name: evaluated once, at its end, where its learning rate has decayed."""
    return {
        **dict(_flags("config", study.common)),
        **dict(_flags("config", study.sizes[size])),
        "config.train.steps": steps,
        "config.train.seed": seed,
        "config.train.eval_every": steps,
        "config.optimizer.decay_steps": steps,
        **{f"config.evaluators.{name}": steps for name in _EVALUATORS},
    }


def _weights(mixture: str, kept: tuple[str, ...], images: Mapping[str, int]) -> str:
    """The kept categories in the proportion in which the shards have them; a weight of 0 drops the others."""
    if not any(images.get(category) for category in kept):
        raise UserError(
            f"config.mixtures.{mixture} is of {', '.join(kept)}: the shards have "
            + ", ".join(name for name, count in images.items() if count)
        )
    return ",".join(
        f"category/{name}={count if name in kept else 0}" for name, count in images.items() if count
    )


def _flags(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested settings as (name of the flag, value)."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flags(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


def collect(
    study: Study,
    runs: Sequence[Run],
    workdir: Path,
    images: Mapping[str, int],
    tokens_per_image: int,
) -> dict[str, Any]:
    """What finished runs have found: the content of scaling.json.

    Returns:
      records: the means over seeds of `runs`; see `scaling_study.read_run` for the fields.
      fits: power laws through the records.
      images: category -> how many the training split has.
      runs: a record for each run. `passes` says how often it went through the images that it was given.

    Raises:
      UserError: a run is not finished.
    """
    records = []
    for run in runs:
        record = dataclasses.asdict(run) | read_run(workdir / "runs" / run.name)
        kept = study.mixtures.get(run.mixture, tuple(images))
        given = tokens_per_image * sum(images.get(category, 0) for category in kept)
        records.append(record | {"passes": record["tokens"] / given})
    means = mean_over_seeds(records)
    return {"records": means, "fits": fits(means), "images": dict(images), "runs": records}
