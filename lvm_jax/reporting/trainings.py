"""The trainings that led to a model, as their own files tell them: each began from the weights of the one before."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.reporting.inputs import Metrics, column, names, read_json, read_metrics
from lvm_jax.reporting.numbers import number

RELEASED = "trainings.json"  # of a release: folder of weights -> its trainings in words
_MODEL = "model"  # the folder of a training's weights, below its own
_LOSS = re.compile(r"(train|validation)/([^/]*/)?loss(/[^/]*)?")
_DATA = ("weights", "shares", "stages")  # what else of config.data says how a model was taught


@dataclasses.dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
      name: of its folder.
      config: its config.json.
      metrics: the lines of its metrics.jsonl.
      seconds: of all its processes together; None if it left no goodput.json.
      begun: part of the model, or "model" -> the training before, or the weights, that it began from.
    """

    name: str
    config: Mapping[str, Any]
    metrics: Metrics
    seconds: float | None
    begun: Mapping[str, str]

    def in_words(self) -> str:
        """How long on what, from where; the last losses and the time; the settings."""
        told = [self._trained(), *self._ended()]
        if settings := ", ".join(self._settings()):
            told.append(f"Settings: `{settings}`")
        return f"**{self.name}**: {'. '.join(told)}."

    def _trained(self) -> str:
        train, shards = self.config["train"], self.config.get("data", {}).get("shards")
        told = [f"{number(train['steps'])} steps of {number(train['batch_size'])}"]
        if shards:
            told[0] += f" on {', '.join(epath.Path(path).name for path in shards.split(','))}"
        told += [f"beginning with the {part} of {name}" for part, name in self.begun.items()]
        if frozen := self.config.get("frozen"):
            told.append(f"with {', '.join(frozen)} frozen")
        return ", ".join(told)

    def _ended(self) -> Iterator[str]:
        losses = {
            name: column(self.metrics, name)[1][-1]
            for name in names(self.metrics)
            if _LOSS.fullmatch(name)
        }
        if losses:
            yield "At the end " + ", ".join(f"{name} {number(v)}" for name, v in losses.items())
        if self.seconds is not None:
            yield f"It took {number(round(self.seconds))} seconds"

    def _settings(self) -> Iterator[str]:
        """Those of the optimizer that are in use, then what else of the data says how a model was taught."""
        settings = self.config.get("optimizer") or self.config.get("generator", {})
        chosen = (settings.get("kind"), settings.get("schedule"))
        for key, value in settings.items():
            if value not in ([], "") and (not isinstance(value, Mapping) or key in chosen):
                yield f"{key} {value}"
        data = self.config.get("data", {})
        yield from (f"{key} {data[key]}" for key in _DATA if data.get(key))


def told(folder: epath.PathLike) -> list[str]:
    """The trainings of `chain` in words, and before them those of releases that they began from.

    Raises:
      UserError: see `chain`.
    """
    sentences: list[str] = []
    for training in chain(folder):
        for _, weights in _begun(training.config):
            sentences += _released(epath.Path(weights))
        sentences.append(training.in_words())
    return list(dict.fromkeys(sentences))  # two parts may come from one training


def _released(weights: epath.Path) -> list[str]:
    """What a release says of a folder of its weights; nothing if this is not in a release."""
    return (files.read_json(weights.parent / RELEASED) or {}).get(weights.name, [])


def chain(folder: epath.PathLike) -> list[Training]:
    """The training in a folder and all those that its weights come from, the earliest first.

    Where a configuration names a folder that has moved with the whole run, the folder of that name beside `folder`
    counts.

    Raises:
      UserError: a training's files are missing or damaged.
    """
    last = epath.Path(folder)
    before: list[Training] = []
    begun: dict[str, str] = {}
    if not (last / "config.json").exists():
        raise UserError(f"{last / 'config.json'} does not exist: run experiments/train.py first")
    config = read_json(last / "config.json")
    for part, weights in _begun(config):
        earlier = _training_of(epath.Path(weights), last)
        begun[part] = _source_of(epath.Path(weights)) if earlier is None else earlier.name
        if earlier is not None:
            before += chain(earlier)
    metrics, seconds = last / "metrics.jsonl", files.read_json(last / "goodput.json")
    ours = Training(
        last.name,
        config,
        read_metrics(metrics) if metrics.exists() else [],
        sum(seconds.values()) if seconds else None,
        begun,
    )
    # A training may lend two parts; it is told once. Folders elsewhere may have the same name.
    told: list[Training] = []
    for training in [*before, ours]:
        told += [training] if training not in told else []
    return told


def _begun(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(part, folder of weights) of a configuration."""
    given = config.get("init_from") or {}
    for part, weights in ({_MODEL: given} if isinstance(given, str) else given).items():
        if weights:
            yield part, weights


def _source_of(weights: epath.Path) -> str:
    """Names weights that no training beside the run made."""
    return f"the release {weights.parent.name}" if _released(weights) else weights.name


def _training_of(weights: epath.Path, later: epath.Path) -> epath.Path | None:
    """The folder of the training that made some weights; None if they are somebody else's."""
    for folder in (weights.parent, later.parent / weights.parent.name):
        if (folder / "config.json").exists() and folder != later:
            return folder
    # Only trainings call the folder of their weights so.
    if weights.name == _MODEL and not weights.exists():
        raise UserError(
            f"{later.name} began from {weights}, which is gone, and {later.parent} has no other training "
            f"{weights.parent.name}: keep the trainings of a run beside each other"
        )
    return None
