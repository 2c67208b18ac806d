"""Writes the page of Vary's quickstart: gates and controls first, then pictures beside what was read, then curves."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from lvm_jax import files as whole_files
from lvm_jax.reporting import html, sections
from lvm_jax.reporting.charts import Chart, Series
from lvm_jax.reporting.html import (
    Bullets,
    Cards,
    Drawing,
    Pairs,
    Reading,
    Readings,
    Section,
    Table,
    Words,
)
from lvm_jax.reporting.inputs import column
from lvm_jax.reporting.numbers import percent
from lvm_jax.reporting.vary_gates import CHARTS, LINES, SHAPES, gates
from lvm_jax.reporting.vary_inputs import OLD, TINY, TWO, Said, VaryFiles
from lvm_jax.reporting.vary_words import (
    CER,
    CONTROLS,
    EXPLAINED,
    PEERS,
    SCORES,
    control_words,
    score_of,
)

_SHOWN = 4  # right and wrong answers of each set, each
_MODELS = {
    TINY: "first stage: the new vocabulary and a small decoder",
    TWO: "second stage: both vocabularies and another decoder",
    OLD: "the old vocabulary alone, trained as the second stage",
}


def write_vary_report(workdir: epath.PathLike) -> epath.Path:
    """Writes WORKDIR/report.html, a self-contained page, and the loss curves as PNG in WORKDIR/figures/.

    Returns:
      the path of the page.

    Raises:
      UserError: a result is missing; the message says which command writes it.
    """
    run = VaryFiles.load(workdir)
    blocks = (
        sections.demanded("What it should reach", gates(run)),
        _controls(run),
        _cards(run),
        *(_readings(run, part) for part in run.evaluated[TWO].said),
        Section("Scores", score_tables(run)),
        _training(run),
        sections.corpus(run),
        sections.setup(run),
    )
    subtitle = f"Every number and picture comes from the files of the run in {run.workdir}."
    path = run.workdir / "report.html"
    whole_files.write(path, html.page("Vary: a vision vocabulary that reads", subtitle, blocks))
    figures = run.workdir / "figures"
    figures.mkdir(exist_ok=True)
    whole_files.write(figures / "vary_loss.png", _losses(run).png())
    return path


def _controls(run: VaryFiles) -> Section:
    what = (
        f"A model that has learnt what texts usually say scores without reading. {EXPLAINED} Reading shows where the "
        "first alone is good."
    )
    sentences = [control_words(part, scores) for part, scores in run.evaluated[TWO].scores.items()]
    return Section("Does it look at the picture?", [Words(what), Bullets(sentences)])


def _cards(run: VaryFiles) -> Cards:
    scores = run.evaluated[TWO].scores
    items = []
    if LINES in scores:
        items.append(
            (percent(scores[LINES]["model/cer"]), "of the characters of held-out lines are wrong")
        )
    if CHARTS in scores:
        items.append(
            (percent(scores[CHARTS]["model/fields"]), "of the fields of held-out charts are right")
        )
    if SHAPES in scores:
        items.append(
            (
                percent(scores[SHAPES]["model/exact"]),
                "of the descriptions of held-out shapes are right",
            )
        )
    if run.stages:
        seconds = sum(stage["seconds"] for stage in run.stages.values())
        items.append((f"{seconds / 60:.1f} min", "for all steps before this page"))
    return Cards(items)


def _readings(run: VaryFiles, part: str) -> Section:
    """Right and wrong answers of the second stage, with their pictures if the evaluation kept them."""
    said = run.evaluated[TWO].said[part]
    chosen = [*numbers(said, True)[:_SHOWN], *numbers(said, False)[:_SHOWN]]
    readings = [
        Reading(path, said[i]["answers"][0], said[i]["model"], is_right(said[i]))
        for i in chosen
        if (path := run.picture(TWO, part, i)).exists()
    ]
    right = len(numbers(said, True))
    words = (
        f"{said[0]['question']} {right} of {len(said)} held-out answers are right word for word."
    )
    return Section(part, [Words(words), Readings(readings) if readings else None])


def is_right(one: Mapping[str, Any]) -> bool:
    """Whether an answer is the true one but for white space."""
    return any(one["model"].split() == truth.split() for truth in one["answers"])


def numbers(said: Said, right: bool) -> list[int]:
    """The numbers of the questions whose answers are right, or those whose are not."""
    return [i for i, one in enumerate(said) if is_right(one) == right]


def score_tables(run: VaryFiles) -> list[Table]:
    """The score that counts in each set, with its picture and without, of each stage; and that of OCR engines."""
    tables = []
    for training, evaluated in run.evaluated.items():
        sets = evaluated.scores
        peers = [p for p in PEERS if any({p, f"{p}/{CER}"} & set(found) for found in sets.values())]
        rows = []
        for part, scores in sets.items():
            name = score_of(scores)
            row = (
                part,
                SCORES[name],
                *(scores.get(f"{control}/{name}") for control in CONTROLS),
                *(scores.get(f"{peer}/{name}", scores.get(peer)) for peer in peers),
                scores["model/exact"],
                scores["questions"],
            )
            rows.append(row)
        header = ("set", "score", *CONTROLS.values(), *peers, "exact", "questions")
        tables.append(Table(header, rows, _MODELS[training]))
    return tables


def _losses(run: VaryFiles) -> Chart:
    lines: list[Series] = []
    for i, training in enumerate(run.metrics):
        ours, held_out = (
            column(run.metrics[training], name) for name in ("train/loss", "validation/loss")
        )
        lines.append(Series(f"{training}, training", *ours, colour=i))
        lines.append(Series(f"{training}, held out", *held_out, line="--", colour=i))
    return Chart("step", "nats a token", [line for line in lines if line.x])


def _training(run: VaryFiles) -> Section:
    """Curves of the loss, and of what the picture is worth while it trains."""
    drawings = [
        Drawing(
            _losses(run).svg(),
            "The first stage begins with single characters and goes on to longer answers.",
        )
    ]
    charts = []
    for training in run.metrics:
        names = {
            "its picture": "loss",
            "another": "loss_other_image",
            "a blank one": "loss_blank_image",
        }
        lines = [
            Series(
                words, *column(run.metrics[training], f"evaluation/image_use/{name}"), marker=True
            )
            for words, name in names.items()
        ]
        lines = [line for line in lines if line.x]
        if lines:
            chart = Chart("step", "nats a token", lines, size=(4.4, 2.8))
            charts.append(
                Drawing(chart.svg(), f"Held-out loss by the picture that is shown: {training}")
            )
        share = column(run.metrics[training], "evaluation/image_use/share_between_images")
        if share[0]:
            chart = Chart("step", "share", [Series("", *share, marker=True)], size=(4.4, 2.8))
            words = "How much of the image tokens' variation lies between pictures; at 0 they are switched off"
            charts.append(Drawing(chart.svg(), f"{words}: {training}"))
    return Section("Training", [*drawings, Pairs(charts) if charts else None])
