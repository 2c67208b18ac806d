"""The model card of a release; every number is from the files of the run or measured while packing."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from lvm_jax.release import cost
from lvm_jax.release.cost import Change
from lvm_jax.reporting import demands, markdown, sources
from lvm_jax.reporting.demands import Demand
from lvm_jax.reporting.numbers import number as n
from lvm_jax.weights.model_folder import parameter_count

_UNCHECKED = (
    "It knows the data above and little else; nothing here was checked for bias or for harm."
)


@dataclasses.dataclass(frozen=True)
class CardParts:
    """What a system's run says of itself.

    Attributes:
      headline: on what the answers depend, going by the controls.
      what: what was trained and how it is asked.
      demands: what is asked of it, and whether it is met; nothing if that was not measured.
      load: Markdown that says how to load it.
      manifests: data set -> its manifest.json.
      trainings: folder of weights -> the trainings that led to it in words, the earliest first.
      stages: name of a command -> {"command", "seconds"}; empty if commands were run by hand.
      workdir: of the run, called W where a command names it.
      environment: versions and devices of the evaluation.
      scores: blocks of Markdown.
      limits: sentences.
    """

    headline: str
    what: str
    demands: Sequence[Demand]
    load: str
    manifests: Mapping[str, Any]
    trainings: Mapping[str, Sequence[str]]
    stages: Mapping[str, Any]
    workdir: str
    environment: Mapping[str, Any]
    scores: Sequence[str]
    limits: Sequence[str]


def model_card(name: str, parts: CardParts, costs: Sequence[Change]) -> str:
    """Writes the card as Markdown.

    Args:
      name: of the release.
      parts: see there.
      costs: of the stored type.
    """
    found = list(parts.demands)
    sections = [
        f"# {name}\n",
        # First of all: a reader of the scores has to know which answers ignore what was asked.
        f"{parts.headline}\n",
        f"{parts.what}\n",
        *(["## What is demanded of it\n", demands.as_markdown(found)] if found else []),
        "## Load\n",
        parts.load,
        "`sha256sum -c SHA256SUMS` inside the folder checks the files.\n",
        "## Data\n",
        _sources(parts.manifests),
        "## How it was trained\n",
        *_trained(parts),
        "## Scores, on what was held out\n",
        *parts.scores,
        "## What the stored type costs\n",
        cost.as_markdown(costs),
        "## Limits\n",
        bullets([*parts.limits, _UNCHECKED]),
    ]
    return "\n".join(sections)


def bullets(sentences: Sequence[str]) -> str:
    """A Markdown list."""
    return "".join(f"- {sentence}\n" for sentence in sentences)


def stored(model: nnx.Module, dtype: str) -> str:
    """A model's size, and the type of its stored weights."""
    return f"{parameter_count(model) / 1e6:.2f} million parameters, {dtype}"


def _sources(manifests: Mapping[str, Any]) -> str:
    rows = [tuple(map(n, row)) for row in sources.rows(manifests.values())]
    return markdown.table(sources.HEADER, rows)


def _trained(parts: CardParts) -> list[str]:
    """The trainings, the commands if the run recorded them, and the machine that scored it."""
    told = [bullets([one for of_weights in parts.trainings.values() for one in of_weights])]
    if parts.stages:
        # A whole path or its beginning: of `out` not the flag --output, of `.` no dot of a name.
        workdir = re.compile(rf"(?<![\w./-]){re.escape(parts.workdir)}(?![\w.-])")
        rows = [
            (stage, n(done["seconds"]), f"`{workdir.sub('W', done['command'])}`")
            for stage, done in parts.stages.items()
        ]
        told.append(markdown.table(("step", "seconds", "command"), rows))
    environment = ", ".join(f"{k} {v}" for k, v in parts.environment.items())
    return [*told, f"Scored with: {environment}.\n"]
