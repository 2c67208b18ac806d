"""What a model that reads pages scores with its picture and without, in words."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting.numbers import percent

CER, FIELDS = "cer", "fields"  # what counts in a set
CONTROLS = {
    "model": "its picture",
    "other_page": "another picture",
    "blank": "a blank one",
    "no_picture": "none",
}
PEERS = ("tesseract", "rapidocr")  # OCR engines that may have read the same pages
EXPLAINED = (
    "Every question is asked with its picture, with another question's, with a blank one and with none. Where more is "
    "written than there is to read, more than 100 % of the characters are wrong."
)
LEAST = 0.1  # of the characters or fields: what is gained by less may be luck
NOT_MEASURED = (
    "The controls were not measured: nothing here says whether it looks at its pictures. "
    "experiments/evaluate_documents.py measures them."
)
SCORES = {CER: "CER (less is better)", FIELDS: "fields right"}
_COUNTED = {CER: "of the characters are wrong", FIELDS: "of the fields are right"}


def headline(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """In which sets the answers gain nothing by the picture, then in which they do, and how much.

    Args:
      sets: name -> CONTROL/SCORE.
    """
    gains = {part: gain for part, scores in sets.items() if (gain := _gain(scores)) is not None}
    if not gains:
        return NOT_MEASURED
    flat = [part for part, gain in gains.items() if gain < LEAST]
    read = [gain for gain in gains.values() if gain >= LEAST]
    told = []
    if flat:
        told.append(
            f"In {len(flat)} of {len(gains)} sets ({', '.join(flat)}) the answers are no better with the picture than "
            "without it."
        )
    if read:
        ends = dict.fromkeys(f"{end:.2f}" for end in (min(read), max(read)))
        told.append(
            f"In {len(read)} of {len(gains)} sets {'they' if flat else 'the answers'} come from the picture: without "
            f"it they are worse by {' to '.join(ends)} of the characters or fields."
        )
    return " ".join(told)


def control_words(part: str, scores: Mapping[str, Any]) -> str:
    """What a set's score is with its picture and without it, as a sentence."""
    name = score_of(scores)
    told = {
        what: percent(scores[f"{control}/{name}"])
        for control, what in CONTROLS.items()
        if f"{control}/{name}" in scores
    }
    ours, *others = (f"with {what} {value}" for what, value in told.items())
    ours = ours.removeprefix("with its picture ")
    return f"{part}: {'; '.join([f'{ours} {_COUNTED[name]}', *others])}."


def score_of(scores: Mapping[str, Any]) -> str:
    """The score that counts in a set: fields right if the answers are dicts, else the character error rate."""
    return FIELDS if f"model/{FIELDS}" in scores else CER


def _gain(scores: Mapping[str, Any]) -> float | None:
    """By how much the score is better than without the picture, however that is done best; None without controls."""
    name = score_of(scores)
    without = [
        scores[f"{control}/{name}"]
        for control in CONTROLS
        if control != "model" and f"{control}/{name}" in scores
    ]
    if not without:
        return None
    ours = scores[f"model/{name}"]
    return min(without) - ours if name == CER else ours - max(without)
