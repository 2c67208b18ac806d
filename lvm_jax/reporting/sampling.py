"""A sampling study as Markdown: the best way to draw the answers of each task, and the ranks of all ways."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting import markdown
from lvm_jax.reporting.numbers import number

_BASELINES = ("copy", "nearest", "mean", "query")
_CAPTION = """The first half of a task's sentences chooses its best way, the scores are those of the other half,
against the truth as the tokenizer shows it. A single draw has its expected score. `copy` is the last answer of the
pairs, or the image before; `nearest` the answer of the pair whose query is nearest; `mean` the mean of the pairs'
answers; `query` the query itself. More miou, f1, pck and psnr (dB) is better, and less absrel and mean_angle.
"""


def as_markdown(results: Mapping[str, Any]) -> str:
    """The tables of what `lvm_jax.evaluation.lvm.sampling_study.study` gives."""
    default = results["default"]
    header = (
        *("task", "sentences", "score", "best way", "its score", f"default: {default}", "greedy"),
        *_BASELINES,
    )
    rows = [
        (
            task,
            number(one["sentences"]),
            one["metric"],
            number(one["chosen"]),
            number(one["reporting"].get(one["chosen"])),
            number(one["reporting"].get(default)),
            number(one["reporting"].get("greedy")),
            *(number(one["baselines"].get(name)) for name in _BASELINES),
        )
        for task, one in results["tasks"].items()
    ]
    ranks = [(way, number(rank)) for way, rank in results["ranks"].items()]
    left_out = results["sentences_too_few"]
    return "\n".join(
        [
            "# How to draw answers\n",
            f"Best over all tasks: **{default}**.\n",
            markdown.table(header, rows),
            _CAPTION,
            *([f"Too few sentences: {', '.join(left_out)}.\n"] if left_out else []),
            "## Mean ranks over the tasks, where they choose\n",
            markdown.table(("way", "mean rank, 1 is best"), ranks),
        ]
    )
