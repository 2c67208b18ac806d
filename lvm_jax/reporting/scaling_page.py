"""The page of a scaling study, from its scaling.json alone."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from lvm_jax import files
from lvm_jax.reporting.charts import Bars, Chart, Picture, Series
from lvm_jax.reporting.html import Bullets, Cards, Drawing, Section, Table, page
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent, short

Record = Mapping[str, Any]
_EVERYTHING = "all"  # the mixture of the scaling runs
_POINTS_OF_A_FIT = 40


def write_page(workdir: epath.PathLike) -> epath.Path:
    """Writes DIR/scaling.html, a self-contained page, and its charts as PNG in DIR/figures/.

    Args:
      workdir: of the study, with its scaling.json.

    Returns:
      the path of the page.
    """
    folder = epath.Path(workdir)
    study = json.loads((folder / "scaling.json").read_text())
    figures = charts(study)
    (folder / "figures").mkdir(exist_ok=True)
    for name, (picture, _) in figures.items():
        files.write(folder / "figures" / f"{name}.png", picture.png())
    drawn = {name: Drawing(picture.svg(), caption) for name, (picture, caption) in figures.items()}
    blocks = [
        _cards(study),
        Section("What small means here", [Bullets(limits(study))]),
        Section("Loss against tokens", [drawn["tokens"], _law_table(study)]),
        Section("Loss against compute", [drawn["compute"]]),
        Section("Perplexity against size", [drawn["tasks"]]),
        Section("What the data is worth", [drawn["ablation"], _ablation_table(study)])
        if "ablation" in drawn
        else None,
        Section("Does context help?", [drawn["frames"]]) if "frames" in drawn else None,
        Section("All runs", [_run_table(study)]),
    ]
    path = folder / "scaling.html"
    subtitle = f"Every number is from {folder}/scaling.json."
    files.write(path, page("Scaling study", subtitle, blocks))
    return path


def charts(study: Mapping[str, Any]) -> dict[str, tuple[Picture, str]]:
    """Name -> (chart, caption), as in the paper's Figures 3, 4, 5 and 7; no chart for what was not measured."""
    of_size = _by_size(study)
    ends = {size: max(records, key=lambda r: r["steps"]) for size, records in of_size.items()}
    names = list(of_size)
    found: dict[str, tuple[Picture, str]] = {
        "tokens": (_tokens_chart(study, of_size, ends), "Dots: held-out loss at the end of each training. "
                   "Lines: training loss of the longest one. Dashed: the fitted power law."),
        "compute": (_compute_chart(study, of_size), "Dots: held-out loss at the end of each training. Dashed: the "
                    "power law through the runs that no cheaper run beats."),
        "tasks": (_tasks_chart(ends), "Held-out perplexity at the longest training: of an annotation after "
                  f"{next(iter(ends.values()))['shots']} pairs and the query, and of the last frame of a sequence "
                  "after all frames before it; mean over examples, as published."),
    }  # fmt: skip
    ablation = [r for r in study["records"] if r["mixture"] != _EVERYTHING]
    if ablation:
        compared = [*ablation, ends[ablation[0]["size"]]]
        tasks = list(compared[-1]["perplexity"])
        bars = [(_mixture(r), [r["perplexity"][task] for task in tasks]) for r in compared]
        found["ablation"] = (
            Bars("perplexity", tasks, bars, size=(7.6, 4.0)),
            f"{ablation[0]['size']} trained on parts of the data, to the same number of tokens; held-out sentences "
            "of all kinds.",
        )
    curves = [
        Series(size, [int(c) for c in end["frames"]], list(end["frames"].values()), True)
        for size, end in ends.items()
        if end["frames"]
    ]
    if curves:
        found["frames"] = (
            Chart("frames of context", "perplexity of the last frame", curves, log="y"),
            f"Longest training of each of {', '.join(names)}; mean over examples.",
        )
    return found


def limits(study: Mapping[str, Any]) -> list[str]:
    """What the study cannot show, with numbers."""
    records = [r for r in study["records"] if r["mixture"] == _EVERYTHING]
    sizes, tokens = (sorted({r[k] for r in records}) for k in ("parameters", "tokens"))
    passes = max(r["passes"] for r in records)
    seeds = min(r["seeds"] for r in records)
    spreads = [r["loss_spread"] for r in records if r["loss_spread"] is not None]
    words = [
        f"Sizes go from {short(sizes[0])} to {short(sizes[-1])} parameters without vocabulary tables, a factor of "
        f"{n(sizes[-1] / sizes[0])}; the paper's from 300M to 3B. Training tokens go from {short(tokens[0])} to "
        f"{short(tokens[-1])}, a factor of {n(tokens[-1] / tokens[0])}; the paper's largest has 420 billion.",
        f"The longest training passed {n(passes)} times through its images"
        + (
            ": later passes are repeats, which help less than new data would."
            if passes > 1
            else ": no sentence came twice."
        ),
        f"Held out: {n(records[0]['sentences'])} sentences, {n(records[0]['held_out_tokens'])} tokens; by copying the "
        f"previous image {n(records[0]['copy_loss'])} nats a code, by frequency alone "
        f"{n(records[0]['unigram_entropy'])}.",
        f"{seeds} seeds a run; their losses differ by a standard deviation of up to {n(max(spreads))}."
        if spreads
        else "One seed a run: how much another seed would change is not known.",
        "One learning rate and batch for every size, unless the configuration says otherwise; none was tuned.",
        "A fit has no floor under the loss, and its interval holds only the scatter of its few points around the line. "
        "It describes the range it was fitted in, and predicts nothing beyond; an interval that holds 0 shows no fall.",
    ]
    return words


def _tokens_chart(
    study: Mapping[str, Any], of_size: Mapping[str, list[Record]], ends: Mapping[str, Record]
) -> Chart:
    lines = []
    for colour, (size, records) in enumerate(of_size.items()):
        x, y = [r["tokens"] for r in records], [r["loss"] for r in records]
        lines.append(Series(size, x, y, marker=True, line="", colour=colour))
        start = min(x) / 4  # earlier, the curve only falls from a uniform guess
        train = ends[size]["train"]
        curve = [(t, loss) for t, loss in zip(train["tokens"], train["loss"]) if t >= start]
        smooth = _smoothed([loss for _, loss in curve])
        lines.append(Series("", [t for t, _ in curve], smooth, colour=colour))
        lines += _fitted("", study["fits"]["tokens"][size], colour)
    return Chart("training tokens", "nats a token", lines, size=(7.6, 4.2), log="xy")


def _compute_chart(study: Mapping[str, Any], of_size: Mapping[str, list[Record]]) -> Chart:
    lines = [
        Series(size, [r["flops"] for r in records], [r["loss"] for r in records], marker=True)
        for size, records in of_size.items()
    ]
    lines += _fitted("fit of the frontier", study["fits"]["compute"], len(lines))
    return Chart("training FLOPs", "held-out nats a token", lines, size=(7.6, 4.2), log="xy")


def _tasks_chart(ends: Mapping[str, Record]) -> Chart:
    tasks = dict.fromkeys(task for end in ends.values() for task in end["perplexity"])
    parameters = [end["parameters"] for end in ends.values()]
    lines = [
        Series(task, parameters, [end["perplexity"][task] for end in ends.values()], marker=True)
        for task in tasks
    ]
    words = "parameters without vocabulary tables"
    return Chart(words, "perplexity", lines, size=(7.6, 4.2), log="xy")


def _fitted(label: str, law: Mapping[str, float] | None, colour: int) -> list[Series]:
    if law is None:
        return []
    x = np.geomspace(law["first"], law["last"], _POINTS_OF_A_FIT)
    y = law["coefficient"] * x ** -law["exponent"]
    return [Series(label, x.tolist(), y.tolist(), line="--", colour=colour)]


def _smoothed(values: Sequence[float]) -> list[float]:
    """A trailing mean over a twentieth of the line."""
    window = max(1, len(values) // 20)
    return [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]


def _by_size(study: Mapping[str, Any]) -> dict[str, list[Record]]:
    """The scaling runs of each size, ordered by tokens."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(study["records"], key=lambda r: (r["parameters"], r["tokens"])):
        if record["mixture"] == _EVERYTHING:
            groups.setdefault(record["size"], []).append(record)
    return groups


def _cards(study: Mapping[str, Any]) -> Cards:
    records = [r for r in study["records"] if r["mixture"] == _EVERYTHING]
    best = min(records, key=lambda r: r["loss"])
    items = [
        (f"{n(best['loss'])} nats", f"the best held-out loss, {best['size']}"),
        (str(len(study["runs"])), "trainings"),
        (short(max(r["flops"] for r in records)), "FLOPs of the largest"),
    ]
    for name, words in {"compute": "against compute", "size": "against parameters"}.items():
        if study["fits"][name]:
            items.append((_exponent(study["fits"][name]), f"exponent of the loss {words}"))
    return Cards(items)


def _law_table(study: Mapping[str, Any]) -> Table:
    """The fits, or why there are none."""
    laws = {f"tokens, {size}": law for size, law in study["fits"]["tokens"].items()}
    laws |= {
        "parameters, longest training": study["fits"]["size"],
        "FLOPs, frontier": study["fits"]["compute"],
    }
    rows = [
        (name, _exponent(law), percent(1 - 2 ** -law["exponent"]), percent(law["scatter"]), law["points"])
        if law
        else (name, "fewer than 3 points", "–", "–", None)
        for name, law in laws.items()
    ]  # fmt: skip
    header = ("loss against", "exponent, 95%", "lower by doubling", "scatter", "points")
    return Table(header, rows)


def _exponent(law: Mapping[str, float]) -> str:
    digits = max(3, 1 - math.floor(math.log10(law["margin"]))) if law["margin"] > 0 else 3
    return f"{law['exponent']:.{min(digits, 4)}f} ± {law['margin']:.{min(digits, 4)}f}"


def _ablation_table(study: Mapping[str, Any]) -> Table:
    others = [r for r in study["records"] if r["mixture"] != _EVERYTHING]
    compared = [*others, max(_by_size(study)[others[0]["size"]], key=lambda r: r["steps"])]
    categories = list(compared[-1]["categories"])
    header = ("trained on", "passes", "loss", *(c.replace("_", " ") for c in categories))
    rows = [
        (_mixture(r), r["passes"], r["loss"], *(r["categories"][c] for c in categories))
        for r in compared
    ]
    return Table(header, rows, "held-out nats: of all tokens, and of the codes of each kind")


def _run_table(study: Mapping[str, Any]) -> Table:
    rows = [
        (
            r["size"],
            _mixture(r),
            *(short(r[name]) for name in ("parameters", "tokens", "flops")),
            r["passes"],
            r["loss"],
        )
        for r in study["records"]
    ]
    header = ("size", "trained on", "parameters", "tokens", "FLOPs", "passes", "held-out loss")
    return Table(header, rows)


def _mixture(record: Record) -> str:
    everything = record["mixture"] == _EVERYTHING
    return "everything" if everything else f"{record['mixture']} only"
