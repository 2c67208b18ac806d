"""Scores answers drawn from examples, beside baselines without a network and controls (see `episodes`).

| baseline | answer |
|---|---|
| ceiling | the true mask, encoded and decoded; only where the true mask is known in pixels |
| copy | that of the last example |
| nearest | that of the example whose picture is nearest to the query's |
| mean_mask | the mean of other episodes' examples, cut at the level that suits these best |
| frequent | the most frequent caption, category and number of boxes among all examples |

`turned` is the answer under the control `other_object`, scored against the truth about that object.

M: episodes, N: codes of a picture, H, W: pixels.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from tqdm import tqdm

from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.caption_scores import (
    Said,
    missing,
    summary_together,
    with_meteors,
)
from lvm_jax.evaluation.in_context.episodes import Episode, check_episodes, controls_of
from lvm_jax.evaluation.in_context.scores import (
    Scores,
    WordSets,
    mask_iou,
    mask_scores,
    summary,
    where,
)
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.inference.in_context import DrawnWords
from lvm_jax.inference.in_context_pictures import GREEDY, InContextGenerator, MaskAnswerer
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.annotation_maps import mask_to_rgb, rgb_to_mask
from lvm_jax.pictures.pixels import to_uint8

_LEVELS = np.arange(0.05, 1.0, 0.05)  # at which a mean mask is cut
# Pools keep codes: the pixels of their masks are gone, and the truth is what the codes decode to.
NO_PIXELS = "not measured: pools keep the codes of masks, not their pixels"

Picture = UInt8[np.ndarray, "H W 3"]
Truth = TypeVar("Truth")  # a mask or words


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnMasks:
    """Masks of all episodes.

    Attributes:
      pictures: "model", control or baseline -> its masks, decoded.
      controls: which of them are controls -> the episodes that each says something about.
      truths: the true masks.
      rivals: that of each rival; None where there is none.
    """

    pictures: Mapping[str, Sequence[Picture]]
    controls: Mapping[str, Sequence[bool]]
    truths: Sequence[Bool[np.ndarray, "H W"]]
    rivals: Sequence[Bool[np.ndarray, "H W"] | None]

    def scores(
        self, name: str, truths: Sequence[Bool[np.ndarray, "H W"]] | None = None
    ) -> list[Scores]:
        """Those of a name's masks, against the truth or others."""
        return [
            mask_scores(rgb_to_mask(picture), picture, truth)
            for picture, truth in zip(self.pictures[name], truths or self.truths, strict=True)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class SaidWords:
    """Words about all episodes.

    Attributes:
      words: "model", control or baseline -> what it says.
      controls, truths, rivals: see `DrawnMasks`.
      confidences: of the model and each control -> the mean log likelihoods of what it says.
      broken: share of the model's answers of which something could not be read.
    """

    words: Mapping[str, Sequence[Words]]
    controls: Mapping[str, Sequence[bool]]
    truths: Sequence[Words]
    rivals: Sequence[Words | None]
    confidences: Mapping[str, Sequence[float]]
    broken: float

    def said(self, name: str) -> Said:
        """What a name says beside the truth; "turned": what `other_object` says beside the rivals'."""
        is_turned = name == "turned"
        words = self.words["other_object" if is_turned else name]
        truths = _instead(self.truths, self.rivals) if is_turned else self.truths
        confidences = self.confidences.get("other_object" if is_turned else name)
        return Said(words, truths, confidences or [0.0] * len(words))


class MaskEvaluator:
    """Scores masks: NAME/miou and NAME/mae for the model, baselines and controls; uses_NAME is what NAME costs.

    Args:
      episodes: of segmentation.
      truths: their masks in pixels of the tokenizer's square; None: what the codes of the truth decode to.
      batch_size: prompts at once.

    Raises:
      UserError: see `check_episodes`.
    """

    name = "masks"

    def __init__(
        self,
        episodes: Sequence[Episode],
        *,
        truths: Sequence[Bool[np.ndarray, "H W"]] | None = None,
        batch_size: int = 8,
    ) -> None:
        check_episodes(episodes, Question.SEGMENTATION)
        self.episodes, self._truths = list(episodes), truths
        self._batch_size = batch_size

    def run(self, subject: MaskAnswerer) -> Result:
        """Answers all episodes, as they are and changed, and scores the answers."""
        return self.score(self.answer(subject))

    def answer(self, subject: MaskAnswerer) -> DrawnMasks:
        """The masks of the model, of the model under each control, and of each baseline."""
        vqgan = subject.vqgan
        truths = self._truths or _masks(vqgan, [e.query for e in self.episodes])
        controls = controls_of(self.episodes, subject.names_classes)
        drawn = {"model": self.answers(subject, self.episodes)}
        for name, control in controls.items():
            drawn[name] = self.answers(subject, control.change(self.episodes))
        drawn |= self._baselines(vqgan)
        if self._truths is not None:
            pictures = np.stack([mask_to_rgb(truth) for truth in truths])
            drawn["ceiling"] = _decoded(vqgan, list(encode_images(vqgan, pictures)))
        known = iter(_masks(vqgan, [e.rival.query for e in self.episodes if e.rival]))
        rivals = [next(known) if e.rival else None for e in self.episodes]
        told = {name: control.to(self.episodes) for name, control in controls.items()}
        return DrawnMasks(drawn, told, truths, rivals)

    def score(self, drawn: DrawnMasks) -> Result:
        """The scores of all that was drawn."""
        scores = {name: drawn.scores(name) for name in drawn.pictures}
        if "other_object" in drawn.controls:
            others = _instead(drawn.truths, drawn.rivals)
            scores["turned"] = drawn.scores("other_object", others)
        scores = _where_told(scores, _told(drawn.controls))
        missing: Result = {} if self._truths is not None else {"ceiling": NO_PIXELS}
        return {"episodes": len(self.episodes), **summary(scores, drawn.controls), **missing}

    def answers(self, subject: MaskAnswerer, episodes: Sequence[Episode]) -> list[Picture]:
        """The drawn masks as decoded pictures."""
        drawn: list[Picture] = []
        for at in tqdm(range(0, len(episodes), self._batch_size), desc=self.name, unit="batch"):
            prompts = [episode.prompt for episode in episodes[at : at + self._batch_size]]
            drawn += subject.draw_masks(prompts)
        return drawn

    def _baselines(self, vqgan: VQGAN) -> dict[str, list[Picture]]:
        if not all(episode.examples for episode in self.episodes):
            return {}
        counts = [len(episode.examples) for episode in self.episodes]
        pictures = _decoded(vqgan, [p.answer for e in self.episodes for p in e.examples])
        answers = np.split(np.stack(pictures), np.cumsum(counts)[:-1])
        nearest = _nearest(vqgan, self.episodes)
        found = {
            "copy": [each[-1] for each in answers],
            "nearest": [each[number] for each, number in zip(answers, nearest, strict=True)],
        }
        if len(self.episodes) > 1:
            found["mean_mask"] = _mean_masks(answers)
        return found


class WordsEvaluator:
    """Scores words: NAME/SCORE for the model, baselines and controls, with the scores of `caption_scores`.

    Args:
      episodes: of captioning.
      sets: of words that captions are compared by.
      sampling: how to draw; greedy by default.
      seed: of the draws.
      batch_size: prompts at once.

    Raises:
      UserError: see `check_episodes`.
    """

    name = "words"

    def __init__(
        self,
        episodes: Sequence[Episode],
        *,
        sets: WordSets,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        check_episodes(episodes, Question.CAPTIONING)
        self.episodes, self._sets = list(episodes), sets
        self._sampling, self._seed, self._batch_size = sampling, seed, batch_size

    def run(self, subject: InContextGenerator) -> Result:
        """Answers all episodes, as they are and changed, and scores the answers."""
        return self.score(self.answer(subject))

    def answer(self, subject: InContextGenerator) -> SaidWords:
        """The words of the model, of the model under each control, and of each baseline."""
        controls = controls_of(self.episodes, subject.names_classes)
        drawn = {"model": self.answers(subject, self.episodes)}
        for name, control in controls.items():
            drawn[name] = self.answers(subject, control.change(self.episodes))
        words = {name: [found.words for found in each] for name, each in drawn.items()}
        return SaidWords(
            words | self._baselines(subject.vqgan),
            {name: control.to(self.episodes) for name, control in controls.items()},
            [_words(episode.query) for episode in self.episodes],
            [_words(e.rival.query) if e.rival else None for e in self.episodes],
            {name: [found.log_likelihood for found in each] for name, each in drawn.items()},
            float(np.mean([found.broken > 0 for found in drawn["model"]])),
        )

    def score(self, said: SaidWords) -> Result:
        """The scores of all that was said."""
        told = _told(said.controls)
        of = with_meteors({name: said.said(name) for name in {**said.words, **told}})
        scores = _where_told({name: one.each(self._sets) for name, one in of.items()}, told)
        return {
            "episodes": len(self.episodes),
            "broken": said.broken,
            **summary(scores, said.controls),
            **summary_together(of, told, said.controls),
            **missing(),
        }

    def answers(self, subject: InContextGenerator, episodes: Sequence[Episode]) -> list[DrawnWords]:
        """What is said."""
        found = []
        for at in tqdm(range(0, len(episodes), self._batch_size), desc=self.name, unit="batch"):
            prompts = [episode.prompt for episode in episodes[at : at + self._batch_size]]
            drawn = subject.engine.words(prompts, sampling=self._sampling, seed=self._seed)
            found += [candidates[0] for candidates in drawn]
        return found

    def _baselines(self, vqgan: VQGAN) -> dict[str, list[Words]]:
        if not all(episode.examples for episode in self.episodes):
            return {}
        shown = [[_words(pair) for pair in episode.examples] for episode in self.episodes]
        nearest = _nearest(vqgan, self.episodes)
        return {
            "copy": [each[-1] for each in shown],
            "nearest": [each[number] for each, number in zip(shown, nearest, strict=True)],
            "frequent": [_frequent([w for each in shown for w in each])] * len(shown),
        }


def _instead(truths: Sequence[Truth], rivals: Sequence[Truth | None]) -> list[Truth]:
    """The rivals' truths, and an episode's own where it has none."""
    return [truth if rival is None else rival for truth, rival in zip(truths, rivals, strict=True)]


def _told(controls: Mapping[str, Sequence[bool]]) -> dict[str, Sequence[bool]]:
    """The episodes that each control says something about; `turned` is `other_object` beside other truths."""
    turned = {"turned": controls["other_object"]} if "other_object" in controls else {}
    return {**controls, **turned}


def _where_told(
    scores: Mapping[str, Sequence[Scores]], told: Mapping[str, Sequence[bool]]
) -> dict[str, Sequence[Scores]]:
    """Scores under controls count only for the episodes that they say something about."""
    return {n: where(told[n], each) if n in told else each for n, each in scores.items()}


def _decoded(vqgan: VQGAN, codes: Sequence[Int[np.ndarray, " N"] | Words]) -> list[Picture]:
    return list(to_uint8(decode_codes(vqgan, np.stack([np.asarray(each) for each in codes]))))


def _masks(vqgan: VQGAN, pairs: Sequence[Pair]) -> list[Bool[np.ndarray, "H W"]]:
    """What the codes of masks decode to."""
    return (
        [rgb_to_mask(picture) for picture in _decoded(vqgan, [p.answer for p in pairs])]
        if pairs
        else []
    )


def _words(pair: Pair) -> Words:
    assert isinstance(pair.answer, Words)  # checked with the episodes
    return pair.answer


def _nearest(vqgan: VQGAN, episodes: Sequence[Episode]) -> list[int]:
    """The example of each episode whose decoded picture has the least squared distance from the query's."""
    codes = [pair.picture for e in episodes for pair in (*e.examples, e.query)]
    pictures = iter(_decoded(vqgan, codes))
    found = []
    for episode in episodes:
        shown = [next(pictures).astype(np.float32) for _ in episode.examples]
        query = next(pictures).astype(np.float32)
        found.append(int(np.argmin([np.square(picture - query).mean() for picture in shown])))
    return found


def _mean_masks(answers: Sequence[UInt8[np.ndarray, "_ H W 3"]]) -> list[Picture]:
    """For each episode the mean mask of the other episodes' examples, cut at one level for all."""
    masks = [np.stack([rgb_to_mask(picture) for picture in each]) for each in answers]
    every = np.concatenate(masks)
    total, count = every.sum(axis=0), len(every)
    level = _best_level(total / count, every)
    return [
        mask_to_rgb((total - each.sum(axis=0)) / max(count - len(each), 1) >= level)
        for each in masks
    ]


def _best_level(mean: Float[np.ndarray, "H W"], masks: Bool[np.ndarray, "M H W"]) -> float:
    def quality(level: float) -> float:
        return float(np.mean([mask_iou(mean >= level, mask) for mask in masks]))

    return max(_LEVELS.tolist(), key=quality)


def _frequent(words: Sequence[Words]) -> Words:
    """Each field by itself; boxes are the mean of those of the most frequent number."""
    caption, category = (
        collections.Counter(values).most_common(1)[0][0]
        for values in ([w.caption for w in words], [w.category for w in words])
    )
    ((number, _),) = collections.Counter(len(w.boxes) for w in words).most_common(1)
    boxes = [w.boxes for w in words if len(w.boxes) == number]
    mean = np.mean(np.array(boxes, np.float64).reshape(len(boxes), number, 4), axis=0)
    return Words(caption, category, tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in mean.tolist()))
