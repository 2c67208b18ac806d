r"""A scaling study on one set of shards: how the loss falls with size, tokens and compute, and what the data is worth.

  python experiments/scaling_study.py --config=experiments/configs/scaling_study.py --shards=SHARDS --workdir=DIR

Trains every size to every length, and one size on parts of the data, each by experiments/train_lvm.py in
DIR/runs/NAME; a run that is done is not done again, and one that was stopped goes on. Then DIR/scaling.json has the
numbers and fitted power laws, DIR/scaling.html shows them (the paper's Figures 3, 4, 5 and 7), DIR/figures/ as PNGs.
--dry_run prints the commands, for machines that share DIR; this command then only collects what they left.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from lvm_jax import cli, files
from lvm_jax.config import from_mapping
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.scaling_study import EVERYTHING, fits, mean_over_seeds, read_run
from lvm_jax.reporting.scaling_page import write_page

_CONFIG = config_flags.DEFINE_config_file("config", "experiments/configs/scaling_study.py", "study")
_SHARDS = flags.DEFINE_string("shards", None, "token shards, as of train_lvm", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the study", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands and stop")


@dataclasses.dataclass(frozen=True)
class Study:
    """See experiments/configs/scaling_study.py."""

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
        """Of its folder."""
        return f"{self.size}-{self.steps}-{self.mixture}-s{self.seed}"


def main() -> None:
    """Trains what is not trained yet, and draws."""
    study, workdir = from_mapping(Study, _CONFIG.value), Path(_WORKDIR.value)
    store = SentenceStore(_SHARDS.value, "train")
    images = dict.fromkeys((category.name.lower() for category in Category), 0)
    for origin, count in zip(store.origins, store.images_by_origin().tolist()):
        images[origin.category] += count
    per_image = store.manifest.tokens_per_image
    runs = list(plan(study, _SHARDS.value, workdir, images))
    if _DRY_RUN.value:
        print("\n".join(f"python {run.command}" for run in runs))
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with cli.only_one_run(workdir) as lock:
        for number, run in enumerate(runs, 1):
            done = workdir / "runs" / run.name / "model" / "config.json"
            print(f"[{number}/{len(runs)}] {run.name}{' (done)' if done.exists() else ''}")
            if not done.exists():
                print(f"$ python {run.command}", flush=True)
                cli.run_python(run.command, lock)
    records = []
    for run in runs:
        kept = study.mixtures.get(run.mixture, images)
        record = dataclasses.asdict(run) | read_run(workdir / "runs" / run.name)
        # How often the training has passed through what it was given.
        record["passes"] = record["tokens"] / (per_image * sum(images.get(c, 0) for c in kept))
        records.append(record)
    means = mean_over_seeds(records)
    result = {"records": means, "fits": fits(means), "images": images, "runs": records}
    files.write_json(workdir / "scaling.json", result)
    print(f"open {write_page(workdir)}")


def plan(study: Study, shards: str, workdir: Path, images: Mapping[str, int]) -> Iterator[Run]:
    """All runs of a study, the cheap ones first.

    Args:
      study: what is asked.
      shards: to train on.
      workdir: of the study.
      images: category -> how many the training split has.

    Raises:
      UserError: a part of the data that the shards do not have.
    """
    asked = [(steps, size, EVERYTHING) for steps in sorted(study.steps) for size in study.sizes] + [
        (max(study.steps), study.ablation_size, mixture) for mixture in study.mixtures
    ]
    for seed in study.seeds:
        for steps, size, mixture in asked:
            values = {
                **dict(_flags("config", study.common)),
                **dict(_flags("config", study.sizes[size])),
                "config.train.steps": steps,
                "config.train.seed": seed,
                "config.train.eval_every": steps,
                "config.optimizer.decay_steps": steps,
                **{f"config.evaluators.{name}": steps for name in ("next_token", "in_context", "annotations")},
                "config.data.shards": shards,
            }  # fmt: skip
            if mixture != EVERYTHING:
                values["config.data.weights"] = _weights(mixture, study.mixtures[mixture], images)
            recipe = values.pop("config.recipe")
            run = Run(size, steps, mixture, seed, "")
            words = " ".join(f"--{name}={value}" for name, value in values.items())
            yield dataclasses.replace(
                run,
                command=f"experiments/train_lvm.py --config={recipe} "
                f"--workdir={workdir / 'runs' / run.name} {words}",
            )


def _weights(mixture: str, kept: tuple[str, ...], images: Mapping[str, int]) -> str:
    """The kept categories in the proportion in which the shards have them, the others left out."""
    if not any(images.get(category) for category in kept):
        raise UserError(
            f"config.mixtures.{mixture} is of {', '.join(kept)}: the shards have "
            + ", ".join(name for name, count in images.items() if count)
        )
    return ",".join(
        f"category/{name}={count if name in kept else 0}" for name, count in images.items() if count
    )


def _flags(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested settings as names of flags."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flags(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


if __name__ == "__main__":
    cli.run(main)
