"""What the unified quickstart should reach, and whether it does.

The numbers are those of `lvm_jax.evaluation.in_context`: NAME/SCORE of the model, controls and baselines.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting.demands import Demand, missed_first
from lvm_jax.reporting.numbers import apart, number

NAMED_IOU = 0.5  # with the class named in the example
GAIN = 0.05  # IoU by one example without a word
CATEGORY, WORDS, BOX = 0.9, 0.8, 0.4
FAR_ABOVE = 2.0  # times the CIDEr-D of the most frequent caption

_ALONE = "masks, the example without a word"
_NAMED = "masks, the example with a name"
_SAID = "words"

Scores = Mapping[str, Any]


def gates(pictures: Mapping[str, Scores], words: Mapping[str, Scores]) -> list[Demand]:
    """All gates; what is missed comes first, then what was not measured.

    Args:
      pictures: the evaluation whose examples have no words; "segmentation" and "captioning" of it count.
      words: the one whose examples are named; "segmentation" of it counts.
    """
    alone, named = pictures.get("segmentation", {}), words.get("segmentation", {})
    said = pictures.get("captioning", {})
    return missed_first([*_without_words(alone), *_with_words(named), *_captions(said)])


def _without_words(scores: Scores) -> list[Demand]:
    gain = scores.get("uses_no_examples/miou")
    error = scores.get("uses_no_examples/miou_error")
    other = scores.get("uses_other_examples/miou")
    other_error = scores.get("uses_other_examples/miou_error")
    return [
        Demand(
            _ALONE,
            f"one example better than none by {GAIN:g} of IoU",
            f"{_with_error(gain, error, GAIN)}; {_compared(scores)}",
            None if gain is None else gain >= GAIN,
        ),
        Demand(
            _ALONE,
            "an example of another class lowers it, by more than two standard errors",
            _with_error(other, other_error, 2 * (other_error or 0.0)),
            None if other is None or other_error is None else other > 2 * other_error,
        ),
        _turned(_ALONE, scores),
    ]


def _with_words(scores: Scores) -> list[Demand]:
    model = scores.get("model/miou")
    return [
        Demand(
            _NAMED,
            f"IoU of at least {NAMED_IOU:g}",
            _compared(scores),
            None if model is None else model >= NAMED_IOU,
        ),
        _turned(_NAMED, scores),
    ]


def _turned(task: str, scores: Scores) -> Demand:
    """By the example of the other object, that object is found and not the first one."""
    turned, left = scores.get("turned/miou"), scores.get("other_object/miou")
    met = None
    if turned is not None and left is not None:
        met = turned >= NAMED_IOU and turned > left
    return Demand(
        task,
        f"an example of the other object turns the answer to it: IoU of at least {NAMED_IOU:g}",
        f"{_beside(turned, NAMED_IOU)}, and {number(left)} with the first object",
        met,
    )


def _captions(scores: Scores) -> list[Demand]:
    least = {"category": CATEGORY, "colour": WORDS, "side": WORDS, "box_iou": BOX}
    found = []
    for name, demanded in least.items():
        value, frequent = scores.get(f"model/{name}"), scores.get(f"frequent/{name}")
        measured = f"{_beside(value, demanded)}; the most frequent {number(frequent)}"
        met = None if value is None else value >= demanded
        asked = f"{name.replace('_iou', ' IoU')} of at least {demanded:g}"
        found.append(Demand(_SAID, asked, measured, met))
    value, frequent, copy = (scores.get(f"{n}/cider_d") for n in ("model", "frequent", "copy"))
    met = None
    if value is not None and frequent is not None:
        met = value > 0 and value >= FAR_ABOVE * frequent
    found.append(
        Demand(
            _SAID,
            f"CIDEr-D at least {FAR_ABOVE:g} times that of the most frequent caption",
            f"{number(value)}; the most frequent {number(frequent)}, a copy of the example's words {number(copy)}",
            met,
        )
    )
    return found


def _compared(scores: Scores) -> str:
    ours = f"the decoder {_beside(scores.get('model/miou'), NAMED_IOU)}"
    named = {"no example": "no_examples", "mean mask": "mean_mask", "copy": "copy"}
    others = (f"{words} {number(scores.get(f'{n}/miou'))}" for words, n in named.items())
    return ", ".join([ours, *others])


def _beside(value: float | None, limit: float) -> str:
    """A number that shows on which side of its limit it is."""
    return number(None) if value is None else apart(value, limit)


def _with_error(value: float | None, error: float | None, limit: float) -> str:
    if value is None:
        return number(None)
    spread = ", without a standard error" if error is None else f" ± {error:.3f}"
    return apart(value, limit) + spread
