"""Draws a good, a middling and a bad answer to each task of held-out sentences, by the score against the truth."""

import re
from collections.abc import Sequence

from etils import epath

from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.answer_scores import headline, worst_to_best
from lvm_jax.evaluation.lvm.sentence_answers import MODEL, Answered
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip

_CELL = 96  # three answers with query and truth are then as wide as the page


def show_sentences(answered: Sequence[Answered], folder: epath.PathLike) -> Result:
    """Draws FOLDER/TASK.png for each task: query, answer and truth of the best, the median and the worst answer.

    Returns:
      TASK/shown, the name of the file; TASK/best, TASK/median and TASK/worst, the scores.
    """
    result: Result = {}
    for one in answered:
        task = one.task
        each = one.scores(MODEL)
        named = [{f"{MODEL}/{name}": state for name, state in states.items()} for states in each]
        order = worst_to_best(task.score, named, MODEL)
        if not order:  # no truth has anything to measure
            continue
        places = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
        file = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-") + ".png"
        groups = [group for name, place in places.items() for group in _groups(one, name, place)]
        save_png(epath.Path(folder) / file, strip(groups, _CELL))
        result[f"{task.name}/shown"] = file
        for name, place in places.items():
            result[f"{task.name}/{name}"] = headline(task.score, each[place])
    return result


def _groups(one: Answered, name: str, place: int) -> list[Group]:
    images = one.images[place]
    return [
        Group(f"{name}: query" if one.task.period > 1 else f"{name}: last", [images[-2]]),
        Group("answer", [one.answers[MODEL][place][0]], PREDICTION),
        Group("truth", [images[-1]], TRUTH),
    ]
