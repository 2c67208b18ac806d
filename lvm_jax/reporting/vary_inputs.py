"""Reads a finished workdir of Vary for its report and its card, which use nothing else."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax.reporting.inputs import (
    Metrics,
    existing,
    read_json,
    read_manifests,
    read_metrics,
    read_stages,
)
from lvm_jax.weights.model_folder import read_tensors

# The trainings, and the folders of their models: the new vocabulary, both vocabularies, the old one alone.
TINY, TWO, OLD = "tiny", "two", "old"
TRAININGS = (TINY, TWO, OLD)
_SHARDS = "shards"  # the folder of all data sets
_TOWER = "vitdet.tower."  # tensors that the second stage leaves as they are

Said = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a model scored and said.

    Attributes:
      scores: set -> name -> number, such as `model/cer`.
      said: set -> for each question its answers, as evaluate_documents writes them.
    """

    scores: Mapping[str, Mapping[str, Any]]
    said: Mapping[str, Said]


@dataclasses.dataclass(frozen=True)
class VaryFiles:
    """The files of a workdir W. The old vocabulary alone need not have been trained.

    Attributes:
      workdir: W.
      metrics: training -> the lines of W/TRAINING/metrics.jsonl.
      configs: training -> its config.json.
      evaluated: training -> what W/evaluation/TRAINING holds.
      environment: what the evaluation ran on.
      manifests: data set -> its manifest.json below W/shards.
      changed: how many tensors of the tower the second stage has changed, and how many there are.
      stages: name of a command -> {"command", "seconds"} from W/stages.json; empty if commands were run by hand.
    """

    workdir: epath.Path
    metrics: Mapping[str, Metrics]
    configs: Mapping[str, Any]
    evaluated: Mapping[str, Evaluated]
    environment: Mapping[str, Any]
    manifests: Mapping[str, Any]
    changed: tuple[int, int]
    stages: Mapping[str, Any]

    @classmethod
    def load(cls, workdir: epath.PathLike) -> "VaryFiles":
        """Reads a workdir.

        Raises:
          UserError: a file is missing or damaged; the message says which command writes it.
        """
        root = epath.Path(workdir)
        train, evaluate = "experiments/train.py", "experiments/evaluate_documents.py"
        trained = [name for name in TRAININGS if name != OLD or (root / OLD).is_dir()]
        results = {
            name: read_json(existing(root / "evaluation" / name / "results.json", evaluate))
            for name in trained
        }
        return cls(
            workdir=root,
            metrics={
                name: read_metrics(existing(root / name / "metrics.jsonl", train))
                for name in trained
            },
            configs={
                name: read_json(existing(root / name / "config.json", train)) for name in trained
            },
            evaluated={
                name: _evaluated(found, root / "evaluation" / name)
                for name, found in results.items()
            },
            environment=results[TWO]["environment"],
            manifests=read_manifests(root / _SHARDS),
            changed=_changed(root / TINY / "model", root / TWO / "model"),
            stages=read_stages(root),
        )

    def picture(self, training: str, part: str, number: int) -> epath.Path:
        """The page of a question of a set."""
        return self.workdir / "evaluation" / training / part / f"{number}.png"

    @property
    def steps_of_an_epoch(self) -> float:
        """Steps in which the first stage sees as many pictures as its data sets hold for training."""
        config = self.configs[TINY]
        named = {epath.Path(path).name for path in config["data"]["shards"].split(",")}
        records = sum(
            found["splits"]["train"]["sentences"]
            for name, found in self.manifests.items()
            if named & {_SHARDS, *name.split("/")}
        )
        return records / config["train"]["batch_size"]


def _evaluated(results: Mapping[str, Any], folder: epath.Path) -> Evaluated:
    scores = {name: found for name, found in results.items() if name != "environment"}
    said = {
        name: [json.loads(line) for line in _lines((folder / f"{name}.jsonl").read_text())]
        for name in scores
    }
    return Evaluated(scores, said)


def _lines(text: str) -> list[str]:
    """Not `splitlines`: what is written on a page may have Unicode's line separators, which JSON leaves as they are."""
    return [line for line in text.split("\n") if line]


def _changed(before: epath.Path, after: epath.Path) -> tuple[int, int]:
    first, second = read_tensors(before), read_tensors(after)
    names = [name for name in first if name.startswith(_TOWER)]
    changed = [
        name
        for name in names
        if name not in second or first[name].tobytes() != second[name].tobytes()
    ]
    return len(changed), len(names)
