"""Draws the best, middle and worst answers to a benchmark for its page."""

import math
from collections.abc import Sequence

from etils import epath

from lvm_jax.evaluation.lvm.answer_scores import States, worst_to_best
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Subject
from lvm_jax.metrics.states import compute
from lvm_jax.reporting.benchmark_page import ScoredAnswer
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip


def show_answers(
    evaluator: BenchmarkEvaluator,
    subject: Subject,
    each: Sequence[States],
    folder: epath.PathLike,
    count: int,
) -> list[ScoredAnswer]:
    """Draws FOLDER/GROUP_RANK.png: support, query, the decoder's answer, the tokenizer's ceiling and the truth.

    Args:
      evaluator: of the benchmark.
      subject: what it scored.
      each: the scores of every episode, from `evaluator.each(subject)`.
      folder: for the pictures.
      count: answers in each of the groups "best", "middle" and "worst"; fewer if there are few episodes.
    """
    groups = best_middle_worst(worst_to_best(evaluator.name, each), count)
    shown = []
    for group, indices in groups.items():
        for rank, index in enumerate(indices, 1):
            path = epath.Path(folder) / f"{group}_{rank}.png"
            save_png(path, _strip(evaluator, subject, index))
            # JSON has no NaN, so a metric with nothing to measure becomes None.
            scores = {
                name: None if math.isnan(v) else v for name, v in compute(each[index]).items()
            }
            shown.append(ScoredAnswer(group, evaluator.episodes[index].key, path, scores))
    return shown


def best_middle_worst(order: Sequence[int], count: int) -> dict[str, list[int]]:
    """`count` items from each end and from the middle of an order from worst to best, without repeats."""
    count = min(count, len(order) // 3) or min(1, len(order))
    best, worst = list(order[: -count - 1 : -1]), list(order[:count])
    between = order[count : len(order) - count]
    first = (len(between) - count) // 2
    groups = {"best": best, "middle": list(between[first : first + count])}
    return groups | ({"worst": worst} if len(order) > count else {})


def _strip(evaluator: BenchmarkEvaluator, subject: Subject, index: int):
    episode, answers = evaluator.episodes[index], evaluator.answers(subject, index)
    return strip(
        [
            Group("support", [picture for pair in episode.support for picture in pair]),
            Group("query", [episode.query]),
            Group("model", [answers["model"]], PREDICTION),
            Group("ceiling", [answers["tokenizer_ceiling"]]),
            Group("truth", [episode.truth], TRUTH),
        ]
    )
