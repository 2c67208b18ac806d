"""Scores of words: those of each episode, and those that all episodes have together.

| score | of |
|---|---|
| `category`, `box_iou`, a set's name | see `scores.word_scores` |
| `cider_d`, `meteor` | captions: CIDEr-D and METEOR 1.5, a number an episode |
| `bleu_4` | captions: BLEU-4 of all together, without smoothing |
| `map` | words: DenseCap's mAP, over pairs of an overlap and a METEOR |
| `map_boxes` | boxes: the same over the overlaps alone |

For mAP each episode is a picture of its own: the class is given, so other things in it are not asked for. Its boxes are
detections with the caption that was said; how likely the words are to the decoder ranks them.

E: episodes that count.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from lvm_jax.data.in_context.words import Box, Words
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.scores import Scores, WordSets, word_scores
from lvm_jax.metrics.boxes import Found, Regions, found_in, precisions
from lvm_jax.metrics.captions import cider_d, meteor_1_5, missing_meteor, plain
from lvm_jax.metrics.text import bleu_counts, bleu_of, missing_sacrebleu

_RESAMPLES = 100  # of the episodes, for the error of a score that they have together
# Pixels of an edge, as of DenseCap's pictures: in its overlap the pixel of a corner is inside.
_GRID = 720.0

Meteors = Mapping[tuple[str, str], float]


def missing() -> Result:
    """Why scores are absent, by their names."""
    found: Result = {}
    if why := missing_meteor():
        found |= {"meteor": f"not measured: {why}", "map": f"not measured: {why}"}
    if why := missing_sacrebleu():
        found["bleu_4"] = f"not measured: {why}"
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """What is said about all episodes.

    Attributes:
      words: about each.
      truths: the true words.
      confidences: mean log likelihoods of the words, which rank them; all alike if nobody drew them.
      meteors: of the captions, see `with_meteors`; None: neither `meteor` nor `map` is measured.
    """

    words: Sequence[Words]
    truths: Sequence[Words]
    confidences: Sequence[float]
    meteors: Meteors | None = None

    @functools.cached_property
    def captions(self) -> list[tuple[str, str]]:
        """Captions with the true ones, both plain."""
        pairs = zip(self.words, self.truths, strict=True)
        return [(plain(said.caption), plain(truth.caption)) for said, truth in pairs]

    def each(self, sets: WordSets) -> list[Scores]:
        """The scores of each episode."""
        captions = [ours for ours, _ in self.captions]
        likeness = cider_d(captions, [[truth] for _, truth in self.captions])
        scores = [
            word_scores(words, truth, sets) | {"cider_d": value}
            for words, truth, value in zip(self.words, self.truths, likeness.tolist(), strict=True)
        ]
        if self.meteors is None:
            return scores
        return [
            one | {"meteor": self.meteors[pair]}
            for one, pair in zip(scores, self.captions, strict=True)
        ]

    def together(self, chosen_E: Int[np.ndarray, " E"]) -> Scores:
        """The scores of some episodes, each of which may be chosen several times."""
        scores: Scores = {}
        if self._counts is not None:
            scores["bleu_4"] = bleu_of(self._counts[chosen_E])
        found = [self._found[place] for place in chosen_E.tolist()]
        if any(one.regions for one in found):
            both = precisions(found)
            scores["map_boxes"] = both.boxes
            if self.meteors is not None:
                scores["map"] = both.captions
        return scores

    @functools.cached_property
    def _counts(self) -> Int[np.ndarray, "M 10"] | None:
        if missing_sacrebleu():
            return None
        captions = [ours for ours, _ in self.captions]
        return bleu_counts(captions, [[truth] for _, truth in self.captions])

    @functools.cached_property
    def _found(self) -> list[Found]:
        known = self.meteors

        def score(captions: Sequence[str], shown: Sequence[Sequence[str]]) -> list[float]:
            assert known is not None
            # The boxes of an episode have one true caption.
            return [known[ours, texts[0]] for ours, texts in zip(captions, shown, strict=True)]

        pictures = [
            _regions(words, truth, sure)
            for words, truth, sure in zip(self.words, self.truths, self.confidences, strict=True)
        ]
        return found_in(pictures, None if known is None else score)


def with_meteors(of: Mapping[str, Said]) -> dict[str, Said]:
    """The same with METEOR, where it can be computed: of all at once, for its jar takes seconds to start."""
    if missing_meteor():
        return dict(of)
    pairs = list(dict.fromkeys(pair for said in of.values() for pair in said.captions))
    found = meteor_1_5([ours for ours, _ in pairs], [[truth] for _, truth in pairs])
    known = dict(zip(pairs, found.tolist(), strict=True))
    return {name: dataclasses.replace(said, meteors=known) for name, said in of.items()}


def summary_together(
    of: Mapping[str, Said],
    told: Mapping[str, Sequence[bool]],
    controls: Collection[str],
    reference: str = "model",
) -> Result:
    """The scores that episodes have together, and what each control costs.

    Args:
      of: predictor or control -> what it says.
      told: name -> the episodes that it says something about; all if it is not named.
      controls, reference: see `scores.summary`.

    Returns:
      as `scores.summary`; an error is the standard deviation over 100 draws of the episodes with replacement.
    """
    result: Result = {}
    every = np.ones(len(of[reference].words), bool)
    for name, said in of.items():
        chosen_E = np.flatnonzero(told.get(name, every))
        if not len(chosen_E):
            continue
        rng = np.random.default_rng(0)  # the same draws for all, so that differences are paired
        draws = [chosen_E, *(rng.choice(chosen_E, len(chosen_E)) for _ in range(_RESAMPLES))]
        ours = [said.together(draw) for draw in draws]
        result |= _with_errors(name, ours)
        if name in controls:
            theirs = [of[reference].together(draw) for draw in draws]
            pairs = zip(theirs, ours, strict=True)
            costs = [{k: a[k] - b[k] for k in a.keys() & b.keys()} for a, b in pairs]
            result |= _with_errors(f"uses_{name}", costs)
    return result


def _with_errors(name: str, draws: Sequence[Scores]) -> Result:
    """The first are the scores, the others tell their errors."""
    result: Result = {}
    for score, value in draws[0].items():
        result[f"{name}/{score}"] = value
        # A draw may have no true box at all.
        drawn = [draw[score] for draw in draws[1:] if score in draw]
        if len(drawn) > 1:
            result[f"{name}/{score}_error"] = float(np.std(drawn, ddof=1))
    return result


def _regions(words: Words, truth: Words, confidence: float) -> Regions:
    return Regions(
        _boxes(words.boxes),
        [plain(words.caption)] * len(words.boxes),
        np.full(len(words.boxes), confidence),
        _boxes(truth.boxes),
        [plain(truth.caption)] * len(truth.boxes),
    )


def _boxes(boxes: Sequence[Box]) -> np.ndarray:
    return _GRID * np.array(boxes, np.float64).reshape(-1, 4)
