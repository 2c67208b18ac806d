"""What answers from examples depend on, in words: each control takes one thing away and scores against the same truth.

The numbers are those of `lvm_jax.evaluation.in_context`: uses_CONTROL/SCORE and uses_CONTROL/SCORE_error.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting.controls import is_flat
from lvm_jax.reporting.unified_scores import LEAST, control_words, cost_of

# Evaluation -> what its examples have.
ASKED = {
    "pictures": "examples without a word",
    "words": "examples with the name of what is meant",
}
NOT_MEASURED = (
    "The controls were not measured: nothing here says whether answers depend on the examples or on the query. "
    "experiments/evaluate.py measures them."
)
# Control -> what it takes away; the name of the class takes the place of something, and takes nothing away.
_THINGS = {
    "other_query": "the query",
    "no_examples": "the examples",
    "other_examples": "their class",
    "other_object": "the thing that they mean",
    "shuffled_answers": "their answers",
}
# Question -> answers, the score that tells what they depend on, and its name.
ANSWERS = {
    "segmentation": ("masks", "miou", "IoU"),
    "captioning": ("words", "cider_d", "CIDEr-D"),
}
_BRACKETS = (
    "The brackets say what answers lose without it, masks in IoU and words in CIDEr-D, with a name in the examples and "
    "without one."
)


def headline(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the answers do not depend on, then what they depend on, and what taking it away costs.

    Args:
      results: evaluation -> its results.json.
    """
    flat, depends = [], []
    for question, (answers, score, _) in ANSWERS.items():
        ignored, read = [], []
        for control, thing in _THINGS.items():
            known = {
                name: cost
                for name in ASKED
                if (cost := cost_of(results[name].get(question, {}), control, score))
            }
            where = [ASKED[name] for name, cost in known.items() if is_flat(*cost, LEAST)]
            if where:
                of_some = f" after {where[0]}" if len(where) < len(known) else ""
                ignored.append(thing + of_some)
            if costs := [cost for cost, error in known.values() if not is_flat(cost, error, LEAST)]:
                ends = dict.fromkeys(f"{end:.2f}" for end in (min(costs), max(costs)))
                read.append(f"{thing} ({' to '.join(ends)})")
        flat += [f"{answers} do not depend {_listed(ignored, 'or')}"] if ignored else []
        depends += [f"{answers} depend {_listed(read, 'and')}"] if read else []
    if not flat and not depends:
        return NOT_MEASURED
    sentences = [_sentence(clauses) for clauses in (flat, depends) if clauses]
    return " ".join([*sentences, *([_BRACKETS] if depends else [])])


def told(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each control of an evaluation, of masks and of words."""
    return [
        f"{answers.capitalize()}: {sentence}"
        for question, (answers, score, name) in ANSWERS.items()
        for sentence in control_words(results.get(question, {}), score, name)
    ]


def _listed(things: list[str], last: str) -> str:
    """on one, on another and on a third"""
    *others, end = (f"on {thing}" for thing in things)
    return f"{', '.join(others)} {last} {end}" if others else end


def _sentence(clauses: list[str]) -> str:
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."
