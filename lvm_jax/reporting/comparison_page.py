"""Models that answered the same episodes by masks: a table as the paper's Table 4, and a page with their answers.

A column of controls says what a model's score becomes when the thing that should matter is taken away.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.reporting import markdown
from lvm_jax.reporting.charts import Intervals
from lvm_jax.reporting.html import Block, Bullets, Drawing, Picture, Section, Table, Words, page
from lvm_jax.reporting.numbers import number
from lvm_jax.reporting.unified_scores import EXPLAINED, control_words

# What a score is without training, the same for all models.
BASELINES = ("copy", "nearest", "mean_mask")
CONTROLS = ("other_examples", "shuffled_answers", "other_query", "other_object", "no_examples")

Results = Mapping[str, Mapping[str, Any]]  # of each model, from `comparison.compare`
Grid = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def grid(results: Results) -> Grid:
    """Rows: models, then baselines. Columns: parameters, mIoU with its standard error, MAE, mIoU under each control."""
    first = next(iter(results.values()))
    controls = [name for name in CONTROLS if any(f"{name}/miou" in r for r in results.values())]
    rows = [
        (
            name,
            f"{result['parameters']:,}",
            *_scores(result, "model"),
            *(_number(result.get(f"{control}/miou")) for control in controls),
        )
        for name, result in results.items()
    ]
    blank = [""] * len(controls)
    rows += [
        (name, "", *_scores(first, name), *blank) for name in BASELINES if f"{name}/miou" in first
    ]
    headings = (control.replace("_", " ") for control in controls)
    return ("model", "parameters", "mIoU", "MAE", *headings), rows


def as_markdown(results: Results) -> str:
    """The table."""
    return markdown.table(*grid(results))


def write_page(results: Results, asked: str, folder: epath.PathLike) -> epath.Path:
    """Writes FOLDER/comparison.html, a self-contained page; pictures of answers are below FOLDER/answers/NAME.

    Args:
      results: of the models.
      asked: which episodes, in words.
      folder: of the results.

    Returns:
      the path of the page.
    """
    root = epath.Path(folder)
    first = next(iter(results.values()))
    names = {name: (result, "model") for name, result in results.items()}
    names |= {name: (first, name) for name in BASELINES if f"{name}/miou" in first}
    rows = [
        (label, result[f"{name}/miou"], 2 * result.get(f"{name}/miou_error", 0.0))
        for label, (result, name) in names.items()
    ]
    blocks = [
        Section(
            "On the same episodes",
            [
                Words(f"{first['episodes']} episodes: {asked}."),
                Table(*grid(results)),
                Drawing(
                    Intervals("mIoU", rows, width=7.6).svg(), "Two standard errors to each side."
                ),
                Words(EXPLAINED, soft=True),
            ],
        ),
        *(_of_model(name, result, root / "answers" / name) for name, result in results.items()),
    ]
    path = root / "comparison.html"
    subtitle = f"Every number and picture comes from {root}."
    files.write(path, page("Systems that answer from examples, compared", subtitle, blocks))
    return path


def _of_model(name: str, result: Mapping[str, Any], shown: epath.Path) -> Section:
    """What its masks depend on, and a good, a middling and a bad one."""
    sentences = control_words(result)
    blocks: list[Block | None] = [
        Bullets([s[0].upper() + s[1:] for s in sentences]) if sentences else None
    ]
    for place in ("best", "median", "worst"):
        if file := result.get(f"shown/{place}"):
            iou = number(result[f"shown/{place}/miou"])
            blocks.append(Picture(shown / file, f"{place}: IoU {iou}"))
    return Section(f"{name}: what do its masks depend on?", blocks)


def _scores(result: Mapping[str, Any], name: str) -> list[str]:
    error = result.get(f"{name}/miou_error")
    spread = f" ± {_number(error)}" if error is not None else ""
    return [f"{_number(result[f'{name}/miou'])}{spread}", _number(result[f"{name}/mae"])]


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""
