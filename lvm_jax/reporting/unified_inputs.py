"""Reads a finished workdir of unified for its report and its card, which use nothing else."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.reporting.inputs import (
    Metrics,
    existing,
    read_json,
    read_manifests,
    read_metrics,
    read_stages,
)
from lvm_jax.reporting.unified_words import ASKED

# Input file -> the script that writes it.
_WRITERS = {
    "tokenizer/metrics.jsonl": "experiments/train.py",
    "unified/metrics.jsonl": "experiments/train.py",
    "evaluation/pictures/results.json": "experiments/evaluate.py --category=none",
    "evaluation/words/results.json": "experiments/evaluate.py --category=examples",
}
_RESULTS = "evaluation/{}/results.json"


@dataclasses.dataclass(frozen=True)
class UnifiedFiles:
    """The files of a workdir W.

    Attributes:
      workdir: W.
      tokenizer, decoder: the lines of W/tokenizer/metrics.jsonl and W/unified/metrics.jsonl.
      configs: title -> config.json of a training, if it exists.
      results: evaluation -> W/evaluation/NAME/results.json, first those of `ASKED`, which there must be.
      manifests: data set -> its manifest.json below W/pools.
      stages: see `RunFiles`.
    """

    workdir: epath.Path
    tokenizer: Metrics
    decoder: Metrics
    configs: Mapping[str, Any]
    results: Mapping[str, Any]
    manifests: Mapping[str, Any]
    stages: Mapping[str, Any]

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions and devices of the first evaluation."""
        return self.results["pictures"]["environment"]

    @classmethod
    def load(cls, workdir: epath.PathLike) -> "UnifiedFiles":
        """Reads a workdir.

        Raises:
          UserError: a file is missing or damaged; the message says which command writes it.
        """
        root = epath.Path(workdir)
        for name, script in _WRITERS.items():
            existing(root / name, script)
        found = files.expand(root / _RESULTS.format("*"))
        evaluations = dict.fromkeys([*ASKED, *(path.parent.name for path in found)])
        configs = {
            "tokenizer": root / "tokenizer/config.json",
            "decoder": root / "unified/config.json",
        }
        return cls(
            workdir=root,
            tokenizer=read_metrics(root / "tokenizer/metrics.jsonl"),
            decoder=read_metrics(root / "unified/metrics.jsonl"),
            configs={name: read_json(path) for name, path in configs.items() if path.exists()},
            results={name: read_json(root / _RESULTS.format(name)) for name in evaluations},
            manifests=read_manifests(root / "pools"),
            stages=read_stages(root),
        )
