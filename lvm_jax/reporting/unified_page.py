"""Writes the page of a unified run: what it should reach first, then episodes with answers and truth, then curves."""

from etils import epath

from lvm_jax import files
from lvm_jax.reporting import html, sections, unified_scores
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.html import Block, Bullets, Drawing, Pairs, Picture, Section, Table, Words
from lvm_jax.reporting.inputs import column
from lvm_jax.reporting.numbers import number
from lvm_jax.reporting.unified_gates import gates
from lvm_jax.reporting.unified_inputs import UnifiedFiles
from lvm_jax.reporting.unified_words import ASKED, told


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
    blocks: list[Block] = []
    for name, examples in ASKED.items():
        if sentences := told(run.results[name]):
            blocks += [Words(f"With {examples}:"), Bullets(sentences)]
    return Section(
        "What do the answers depend on?",
        [
            *(blocks or [Words("The controls were not measured.")]),
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
