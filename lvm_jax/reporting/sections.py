"""The sections of a run's report, each from the files of the workdir alone."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting import answers, controls, demands, sources
from lvm_jax.reporting.charts import Chart, Level, Series
from lvm_jax.reporting.demands import Demand
from lvm_jax.reporting.html import (
    Block,
    Bullets,
    Cards,
    Drawing,
    Folded,
    Pairs,
    Picture,
    Section,
    Shards,
    Table,
    Words,
)
from lvm_jax.reporting.inputs import COMPARED, Common, Metrics, RunFiles, column, names
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent
from lvm_jax.reporting.words import KINDS, context_curve, members_of, plain_words

_SHOWN_TASKS = 7  # with pictures
_NOT_DRAWN = ("goodput", "badput/", "epochs/", "evaluation/")


def depends(files: RunFiles) -> Section:
    """What the answers depend on, over all tasks, in plain words."""
    results = files.results.get("controls")
    return Section(
        "Do the answers depend on what is asked?",
        [
            Words(controls.headline(results)),
            Words(controls.EXPLAINED, soft=True) if results else None,
        ],
    )


def good_and_bad(files: RunFiles) -> Section:
    """A good, a middling and a bad answer to several tasks."""
    results = files.results.get("answers")
    blocks: list[Block] = [Words(answers.headline(results))]
    if results:
        folder = files.workdir / "evaluation" / "answers"
        blocks += [
            Picture(folder / values["shown"], answers.words_of(task, values))
            for task, values in answers.examples(results, _SHOWN_TASKS).items()
        ]
    return Section("Good, middling and bad answers", blocks)


def by_task(files: RunFiles) -> Section | None:
    """Controls and scores of each task; None if neither was measured."""
    blocks: list[Block] = []
    if measured := files.results.get("controls"):
        blocks.append(Bullets(controls.plain_words(measured)))
    if drawn := files.results.get("answers"):
        blocks += [
            Table(*answers.table(drawn, files.results.get("ceilings", {}))),
            Words(answers.CAPTION, soft=True),
        ]
    if measured:
        blocks += [Table(header, rows) for header, rows in controls.tables(measured)]
        blocks.append(Words(controls.CAPTION, soft=True))
    return Section("Task by task", blocks) if blocks else None


def summary(files: RunFiles) -> list[Block]:
    """Cards with the main numbers, and sentences that explain them."""
    scores, images = files.results["next_token"], files.results["reconstruction"]
    means = files.prompts["means"]
    copy = n(scores["baseline/copy_loss"])
    items = [
        (f"{n(scores['code_loss'])} nats", f"held-out loss a code; {copy} by copying"),
        (percent(scores["accuracy"]), "of held-out codes are the decoder's first guess"),
        (f"{n(images['psnr'])} dB", f"PSNR of {n(images['images'])} held-out reconstructions"),
    ]
    if means:
        copy = n(means["copy_psnr"])
        items.append((f"{n(means['psnr'])} dB", f"predicted images; {copy} by copying"))
    if files.stages:
        seconds = sum(stage["seconds"] for stage in files.stages.values())
        items.append((f"{seconds / 60:.1f} min", "for all steps before this page"))
    return [Cards(items), Bullets(plain_words(files))]


def demanded(title: str, found: list[Demand], note: str = "") -> Section:
    """What is asked of a run, and whether it is met; `note` is small print."""
    return Section(
        title,
        [
            Words(demands.headline(found)),
            Table(demands.HEADER, demands.rows(found)),
            Words(note, soft=True) if note else None,
        ],
    )


def corpus(files: Common) -> Section:
    """The contents and licences of the shards."""
    blocks: list[Block] = []
    for name, manifest in files.manifests.items():
        splits = [
            (split, info["sentences"], info["images"], info["shards"])
            for split, info in manifest["splits"].items()
        ]
        blocks += [
            Shards(
                name,
                manifest["image_size"],
                manifest["tokens_per_image"],
                manifest["tokenizer_fingerprint"],
            ),
            Table(("split", "records", "images", "shards"), splits),
            Table(sources.HEADER, sources.rows([manifest])),
        ]
    return Section("The corpus", blocks)


def tokenizer(files: RunFiles) -> Section:
    """How the tokenizer learned, its scores, and held-out images beside their reconstructions."""
    results = files.results["reconstruction"]
    words = {
        "images": "held-out images",
        "psnr": "PSNR, dB (higher is better)",
        "ssim": "SSIM, at most 1 (higher is better)",
        "l1": "mean absolute error of pixels in [0, 1]",
        "lpips": "LPIPS (lower is better)",
        "frechet_vgg16": "Frechet distance of VGG16 features (lower is better; not FID)",
        "codebook_usage": "fraction of codes in use",
        "code_entropy": "entropy of the codes, nats",
        "code_perplexity": "perplexity of the codes",
    }
    rows = [(words.get(name, name), value) for name, value in results.items()]
    sheet = files.workdir / "evaluation" / "reconstructions.png"
    shown = Picture(sheet, "Held-out images, and below each row what the codes keep of it.")
    return Section(
        "The tokenizer",
        [
            Table(("on held-out images", ""), rows),
            shown if sheet.exists() else None,
            _codes(files.results.get("codes", {})),
            _ceilings(files.results.get("ceilings", {})),
            time_spent(files.tokenizer),
            small_charts(files.tokenizer),
        ],
    )


_CODES = {
    "local/cell": "codes that stay when all but their own cell becomes another picture",
    "local/by_chance": "the same by chance: the other picture's code is equal",
    "shift/stays": "codes that move along when the picture moves by a cell",
    "flat/codes": "different codes in a picture of one colour (1 is best)",
    "tiled/inside": "cells with the most common code in a picture of equal patches",
    "entropy/unigram": "entropy of a code by frequency, nats",
    "entropy/left_and_upper": "the same beside its left and upper neighbours, nats",
}


def _codes(results: Mapping[str, Any]) -> Table | None:
    """How easy the codes are to learn; None if a workdir's evaluation has not measured it."""
    rows = [(words, results[name]) for name, words in _CODES.items() if name in results]
    return Table(("are the codes easy to learn?", ""), rows) if rows else None


# A role's metric -> words; the others of a role are in results.json.
_CEILINGS = {
    "mask/miou": "masks, mIoU",
    "segmentation/miou": "segmentation, mIoU over classes",
    "boxes/miou": "boxes, mIoU over classes",
    "depth/absrel": "depth, AbsRel (lower is better)",
    "normals/mean_angle": "normals, mean angle in degrees (lower is better)",
    "edges/f1": "edges, F1",
}


def _ceilings(results: Mapping[str, Any]) -> Table | None:
    """The best that any decoder can do on maps; None if there were none."""
    rows = [(words, results[name]) for name, words in _CEILINGS.items() if name in results]
    return Table(("ceilings: maps encoded and decoded", ""), rows) if rows else None


def decoder(files: RunFiles) -> Section:
    """The loss beside its baselines and by source, and how training went."""
    scores = files.results["next_token"]
    baselines = [
        ("uniform over the codes", scores["uniform_loss"]),
        (
            "frequency of the held-out codes themselves (unigram entropy)",
            scores["baseline/unigram_entropy"],
        ),
        ("frequency in the training split", scores.get("baseline/train_unigram_loss")),
        (
            f"copying the previous image with fitted probability ({scores['baseline/fitted_on']} split)",
            scores["baseline/copy_loss"],
        ),
        ("the decoder", scores["code_loss"]),
    ]
    known = [row for row in baselines if row[1] is not None]
    columns = ("loss", "perplexity", "sentences")
    return Section(
        "The decoder",
        [
            Drawing(
                loss_chart(files).svg(),
                "Cross-entropy while training; the levels are what predictors without a network reach on the same "
                "held-out sentences.",
            ),
            Table(("loss on held-out codes, nats", ""), known),
            Table(("kind", *columns), _groups(scores, "category")),
            Table(("source", *columns), _groups(scores, "source")),
            time_spent(files.decoder),
            small_charts(files.decoder, without=("loss",)),
        ],
    )


def loss_chart(files: RunFiles) -> Chart:
    """The decoder's training and held-out loss, with the baselines as levels."""
    scores = files.results["next_token"]
    lines = [
        Series(label, *column(files.decoder, name))
        for label, name in (("training", "train/loss"), ("held-out", "validation/loss"))
    ]
    levels = [
        Level("unigram entropy", scores["baseline/unigram_entropy"]),
        Level("copy the previous image", scores["baseline/copy_loss"]),
    ]
    return Chart("step", "nats a token", [line for line in lines if line.x], levels)


def in_context(files: RunFiles) -> Section | None:
    """Perplexity of one image against the number of images before it; None if nothing was evaluated."""
    results, charts = files.results["in_context"], []
    for kind, words in KINDS.items():
        lines = [
            Series(label, *context_curve(results, kind, name), marker=True)
            for label, name in (
                ("over all tokens", "corpus_perplexity"),
                ("mean over examples", "mean_example_perplexity"),
            )
        ]
        if lines[0].x:
            chart = Chart("images of context", "perplexity", lines, size=(4.4, 3.2))
            caption = f"{words[0].upper()}{words[1:]}; {results[f'{kind}/sentences']} sentences."
            charts.append(Drawing(chart.svg(), caption))
    if not charts:
        return None
    what = "The image to predict stays the same; what grows is how many of the images before it the decoder reads."
    return Section("Does context help?", [Words(what), Pairs(charts)])


def prompts(files: RunFiles) -> Section:
    """Every visual prompt: the prompt, the answers, the truth, and the distance between them."""
    asked = files.prompts["request"]
    sampling = asked["sampling"]
    shown = asked.get("answer", "each")  # runs of before it could be chosen
    of_each = "answers each" if shown == "each" else f"draws each, of which the {shown} is shown"
    how = (
        f"{asked['n_candidates']} {of_each}, temperature {sampling['temperature']}, top-k "
        f"{sampling['top_k'] or 'off'}, top-p {sampling['top_p']}, seed {asked['seed']}. All images are shown as the "
        "tokenizer decodes them."
    )
    blocks: list[Block] = [Words(how)]
    for prompt in files.prompts["prompts"]:
        caption = (
            f"{prompt['source']} · {prompt['kind']} · {', '.join(dict.fromkeys(prompt['roles']))}"
        )
        if "psnr" in prompt:
            for words, prefix in (("prediction", ""), ("copy", "copy_")):
                psnr, accuracy = prompt[f"{prefix}psnr"], prompt[f"{prefix}token_accuracy"]
                caption += f" · {words} {n(psnr)} dB, {percent(accuracy)} of the codes"
        blocks.append(Picture(files.workdir / "prompts" / prompt["strip"], caption))
    return Section("Visual prompts", blocks)


def compared(files: RunFiles) -> Section | None:
    """The prompts of a release, answered by its models and by those of this run; None without a release."""
    if len(files.compared) < len(COMPARED):
        return None
    rows = [
        (title, answers["means"].get("psnr"), answers["means"].get("copy_psnr"))
        for title, answers in files.compared.items()
    ]
    blocks: list[Block] = [
        Words(
            "The prompts are pictures that the released tokenizer has decoded. Each pair is compared with the truth "
            "as its own tokenizer shows it, so the distances are not of one scale."
        ),
        Table(("models", "PSNR of the answers, dB", "of a copy, dB"), rows),
    ]
    answered = zip(*(answers["prompts"] for answers in files.compared.values()), strict=True)
    for prompts in answered:
        for (title, folder), prompt in zip(COMPARED.items(), prompts):
            strip = files.workdir / folder / prompt["strip"]
            blocks.append(Picture(strip, f"{prompt['name']} · {title}"))
    return Section("Beside the released models", blocks)


def setup(files: Common) -> Section:
    """The environment, the seconds of each command, and the configurations."""
    stages = [(name, stage["seconds"], stage["command"]) for name, stage in files.stages.items()]
    blocks = [
        Table(("environment", ""), list(files.environment.items())),
        Table(("step", "seconds", "command"), stages) if stages else None,
        *(Folded(f"configuration: {name}", config) for name, config in files.configs.items()),
    ]
    return Section("Set-up", blocks)


def _groups(scores: Mapping[str, Any], by: str) -> list[tuple[Any, ...]]:
    """One row per source or category: its name, loss, perplexity and number of sentences."""
    columns = ("code_loss", "code_perplexity", "sentences")
    return [
        (m.replace("_", " "), *(scores[f"{by}/{m}/{column}"] for column in columns))
        for m in members_of(scores, by)
    ]


def small_charts(metrics: Metrics, without: tuple[str, ...] = ()) -> Pairs:
    """A small chart for each metric of the training; training and held-out values share one."""
    groups: dict[str, list[str]] = {}
    for name in names(metrics):
        if name.startswith(_NOT_DRAWN) or not any(column(metrics, name)[1]):
            continue  # shares of time have a sentence of their own; a metric that is always 0 says nothing
        groups.setdefault(name.removeprefix("train/").removeprefix("validation/"), []).append(name)
    charts = []
    for title, members in groups.items():
        lines = [
            Series(_split(name), *column(metrics, name), marker=name.startswith("validation/"))
            for name in members
        ]
        lines = [line for line in lines if len(line.x) > 1]
        if lines and title not in without:
            chart = Chart("step", title.replace("_", " "), lines, size=(4.4, 2.6))
            charts.append(Drawing(chart.svg()))
    return Pairs(charts)


def time_spent(metrics: Metrics) -> Words | None:
    """Where the time of the training went, including restarts; from the last line that has it."""
    shares = next((line for line in reversed(metrics) if "goodput" in line), {})
    causes = [
        f"{percent(shares[name])} {name.removeprefix('badput/')}"
        for name in sorted((s for s in shares if s.startswith("badput/")), key=lambda s: -shares[s])
        if shares[name] >= 0.001
    ]
    if not causes:
        return None
    sentence = (
        f"Of its time, {percent(shares['goodput'])} went into training steps; the rest into "
        f"{', '.join(causes)}."
    )
    return Words(sentence, soft=True)


def _split(name: str) -> str:
    return {"train": "training", "validation": "held-out"}.get(name.split("/")[0], name)
