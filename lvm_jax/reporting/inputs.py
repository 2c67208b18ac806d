"""Reads a finished workdir for its report, which uses nothing else."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Protocol

from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError

# Input file -> the script that writes it.
_WRITERS = {
    "tokenizer/metrics.jsonl": "experiments/train.py",
    "lvm/metrics.jsonl": "experiments/train.py",
    "evaluation/results.json": "experiments/evaluate.py",
    "prompts/prompts.json": "experiments/generate.py",
    "shards": "python -m data_pipelines.build_uvd",
}

# Models that answered the prompts of a release -> the folder of their answers.
COMPARED = {"released": "prompts_released", "just trained": "prompts_compared"}

Metrics = list[dict[str, float]]


class Common(Protocol):
    """What the runs of all systems have; see `RunFiles`."""

    @property
    def configs(self) -> Mapping[str, Any]:
        """Title -> configuration."""
        ...

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions and devices."""
        ...

    @property
    def manifests(self) -> Mapping[str, Any]:
        """Data set -> manifest."""
        ...

    @property
    def stages(self) -> Mapping[str, Any]:
        """Command -> its line and seconds."""
        ...


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a workdir W.

    Attributes:
      workdir: W.
      tokenizer, decoder: the lines of W/tokenizer/metrics.jsonl and W/lvm/metrics.jsonl.
      configs: title -> config.json of a training, if it exists; also of the one whose model the decoder began from.
      results: W/evaluation/results.json.
      prompts: W/prompts/prompts.json.
      manifests: data set -> its manifest.json below W/shards.
      compared: models -> prompts.json with their answers to the prompts of a release; empty without a release.
      stages: name of a command -> {"command", "seconds"} from W/stages.json; empty if commands were run by hand.
    """

    workdir: epath.Path
    tokenizer: Metrics
    decoder: Metrics
    configs: Mapping[str, Any]
    results: Mapping[str, Any]
    prompts: Mapping[str, Any]
    manifests: Mapping[str, Any]
    compared: Mapping[str, Any]
    stages: Mapping[str, Any]

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions and devices of the evaluation."""
        return self.results["environment"]

    @classmethod
    def load(cls, workdir: epath.PathLike) -> "RunFiles":
        """Reads a workdir.

        Raises:
          UserError: a file is missing or damaged; the message says which command writes it.
        """
        root = epath.Path(workdir)
        for name, script in _WRITERS.items():
            existing(root / name, script)
        paths = {"tokenizer": root / "tokenizer/config.json", "decoder": root / "lvm/config.json"}
        configs = {name: read_json(path) for name, path in paths.items() if path.exists()}
        if begun := configs.get("decoder", {}).get("init_from"):
            first = epath.Path(begun).parent / "config.json"
            configs |= {"decoder's first stage": read_json(first)} if first.exists() else {}
        return cls(
            workdir=root,
            tokenizer=read_metrics(root / "tokenizer/metrics.jsonl"),
            decoder=read_metrics(root / "lvm/metrics.jsonl"),
            configs=configs,
            results=read_json(root / "evaluation/results.json"),
            prompts=read_json(root / "prompts/prompts.json"),
            manifests=read_manifests(root / "shards"),
            compared={
                title: read_json(root / folder / "prompts.json")
                for title, folder in COMPARED.items()
                if (root / folder / "prompts.json").exists()
            },
            stages=read_stages(root),
        )


def existing(path: epath.Path, script: str) -> epath.Path:
    """The path of what a script writes.

    Raises:
      UserError: it has not written it yet.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: run {script} first")
    return path


def read_stages(workdir: epath.Path) -> dict[str, Any]:
    """See `RunFiles.stages`."""
    path = workdir / "stages.json"
    return read_json(path) if path.exists() else {}


def read_manifests(shards: epath.Path) -> dict[str, Any]:
    """Data set -> its manifest.json.

    Raises:
      UserError: there is none, or one is damaged.
    """
    # A folder may be a data set itself, or have data sets one or two levels below.
    found = [
        path
        for levels in ("", "*", "*/*")
        for path in files.expand(shards / levels / "manifest.json")
    ]
    if not found:
        raise UserError(f"{shards} has no manifest.json: run {_WRITERS['shards']} first")
    return {_name(path, shards): read_json(path) for path in sorted(found)}


def column(metrics: Metrics, name: str) -> tuple[list[float], list[float]]:
    """The steps at which `name` was logged, and its values."""
    lines = [line for line in metrics if name in line]
    return [line["step"] for line in lines], [line[name] for line in lines]


def names(metrics: Metrics) -> list[str]:
    """All names that were logged, in order of appearance, without step and time."""
    seen = dict.fromkeys(name for line in metrics for name in line)
    return [name for name in seen if name not in ("step", "time")]


def _name(manifest: epath.Path, shards: epath.Path) -> str:
    return "/".join(manifest.parent.parts[len(shards.parts) :]) or shards.name


def read_json(path: epath.Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}): run the step that wrote it again"
        ) from error


def read_metrics(path: epath.Path) -> Metrics:
    """The lines of a training's metrics.jsonl.

    Raises:
      UserError: a line is damaged, or there is none.
    """
    lines = path.read_text().splitlines()
    parsed = []
    for number, line in enumerate(lines):
        try:
            parsed.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) - 1:
                break  # a killed run can leave half a line at the end
            raise UserError(
                f"{path} line {number + 1} is not JSON ({error}): train again"
            ) from error
    if not parsed:
        raise UserError(f"{path} has no line: let the training log at least once")
    return parsed
