"""Writes the page of a unified run: what it should reach first, then episodes with answers and truth, then curves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.reporting import html, sections, unified_scores
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.html import Block, Bullets, Drawing, Pairs, Picture, Section, Table, Words
from lvm_jax.reporting.inputs import (
    Metrics,
    column,
    read_json,
    read_manifests,
    read_metrics,
    read_stages,
)
from lvm_jax.reporting.numbers import number
from lvm_jax.reporting.unified_gates import gates
from lvm_jax.reporting.unified_words import ANSWERS, ASKED

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
            if not (root / name).exists():
                raise UserError(f"{root / name} does not exist: run {script} first")
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


def write_unified_report(workdir: epath.PathLike) -> epath.Path:
    """Writes WORKDIR/report.html, a self-contained page.

    Returns:
      the path of the page.

    Raises:
      UserError: a result is missing; the message says which command writes it.
    """
    run = UnifiedFiles.load(workdir)
    blocks = (
        sections.demanded(
            "Does it use its examples?",
            gates(run.results["pictures"], run.results["words"]),
            "One example, greedy answers to held-out queries; ± is one standard error.",
        ),
        *(episodes(run, name) for name in ASKED),
        depends(run),
        *(scores(run, name) for name in ASKED),
        training(run),
        sections.corpus(run),
        sections.setup(run),
    )
    subtitle = f"Every number and picture comes from the files of the run in {run.workdir}."
    content = html.page("Answers from examples, in masks and in words", subtitle, blocks)
    path = run.workdir / "report.html"
    files.write(path, content)
    return path


def episodes(run: UnifiedFiles, name: str) -> Section:
    """A good, a middling and a bad answer to each question."""
    folder, results = run.workdir / "evaluation" / name / "answers", run.results[name]
    blocks: list[Block] = []
    for place in ("best", "median", "worst"):
        masks = results.get("segmentation", {})
        if file := masks.get(f"shown/{place}"):
            iou = number(masks[f"shown/{place}/miou"])
            blocks.append(Picture(folder / file, f"{place}: IoU {iou}"))
    for place in ("best", "median", "worst"):
        words = results.get("captioning", {})
        if file := words.get(f"shown/{place}"):
            parts = (f"{part}: {words[f'shown/{place}/{part}']}" for part in _SAID)
            blocks.append(Picture(folder / file, f"{place} · {' · '.join(parts)}"))
    if not blocks:
        blocks = [Words("No answers were drawn.")]
    return Section(f"Good, middling and bad answers, {ASKED[name]}", blocks)


_SAID = ("examples", "answer", "truth")


def depends(run: UnifiedFiles) -> Section:
    """What masks and words depend on, in sentences."""
    sentences = [
        f"{what.capitalize()} with {ASKED[name]}: {sentence}"
        for question, (what, *score) in ANSWERS.items()
        for name in ASKED
        for sentence in unified_scores.control_words(run.results[name].get(question, {}), *score)
    ]
    return Section(
        "What do the answers depend on?",
        [
            Bullets(sentences) if sentences else Words("The controls were not measured."),
            Words(unified_scores.EXPLAINED, soft=True),
        ],
    )


def scores(run: UnifiedFiles, name: str) -> Section:
    """The scores of the decoder, of controls and of baselines, of masks and of words, and losses of the true answer."""
    results = run.results[name]
    absent = unified_scores.missing(results)
    return Section(
        f"All scores, {ASKED[name]}",
        [
            *(Table(header, rows) for header, rows in unified_scores.grids(results).values()),
            Bullets(absent) if absent else None,
        ],
    )


def training(run: UnifiedFiles) -> Section:
    """The loss of each question, held-out loss, and the controls while it trained."""
    charts = []
    for question in ("segmentation", "captioning"):
        names = {
            "training": f"train/loss/{question}",
            "held-out": f"validation/{question}/loss",
        }
        lines = [Series(label, *column(run.decoder, name)) for label, name in names.items()]
        lines = [line for line in lines if line.x]
        if lines:
            chart = Chart("step", "nats a token", lines, size=(4.4, 2.8))
            charts.append(Drawing(chart.svg(), f"{question}."))
    return Section(
        "The training", [Pairs(charts) if charts else None, sections.time_spent(run.decoder)]
    )
