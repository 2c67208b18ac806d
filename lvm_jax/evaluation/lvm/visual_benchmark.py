"""Runs a benchmark in context: pairs that show what is asked, a query, and a score for the answer.

Beside the decoder it scores the tokenizer's ceiling (the truth encoded and decoded) and three baselines that need no
decoder: copying the last answer of the support, taking the answer of the support image nearest to the query, and a
constant picture in the mean colour of the support's answers.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from lvm_jax.errors import UserError
from lvm_jax.evaluation import lpips
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.answer_scores import COLORIZATION, JOINTS, SCORES, Picture, States, pck
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.inference.images import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.joints import Joints, joints_of
from lvm_jax.pictures.pixels import to_float, to_uint8
from lvm_jax.pictures.resize import resize

NOTHING = "nothing to measure"  # no truth in any episode, or nothing predicted
GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class Episode:
    """A question with its answer; uint8 RGB of any sizes.

    Attributes:
      support: (image, answer) pairs.
      query: the image whose answer is wanted.
      truth: that answer.
      key: where it came from.
      joints: of the truth; the score "joints" compares these and not the picture.
    """

    support: Sequence[tuple[Picture, Picture]]
    query: Picture
    truth: Picture
    key: str
    joints: Joints | None = None

    @property
    def shown(self) -> list[Picture]:
        """The prompt: image, answer, image, answer, ..., query."""
        return [*(picture for pair in self.support for picture in pair), self.query]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a benchmark scores: a decoder in its engine, and its tokenizer."""

    engine: Engine
    vqgan: VQGAN


class BenchmarkEvaluator:
    """Scores one benchmark: `PREDICTOR/METRIC` for model, tokenizer_ceiling, copy, nearest and constant.

    Args:
      score: how to compare an answer with the truth: a key of `SCORES`, or "joints".
      episodes: the questions; on several hosts give each its share, and merge the states.
      sampling: how to draw answers; greedy by default.
      seed: of the draws.
      batch_size: prompts to answer at once.
      lpips_weights: for colorization; see `lvm_jax.evaluation.lpips.installed_lpips`.

    Raises:
      UserError: the score is unknown, there is no episode, or one has no support.
    """

    def __init__(
        self,
        score: str,
        episodes: Sequence[Episode],
        *,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        batch_size: int = 8,
        lpips_weights: perceptual.Weights | None = None,
    ) -> None:
        if score not in (*SCORES, JOINTS):
            known = ", ".join((*SCORES, JOINTS))
            raise UserError(f"score {score!r} does not exist; known: {known}")
        if not episodes:
            raise UserError(f"0 episodes of {score}: the data set gives none; check its folder")
        for episode in episodes:
            if not episode.support:
                raise UserError(f"episode {episode.key} of {score} has 0 pairs: give at least 1")
        self.name = score
        self.episodes, self._sampling, self._seed = episodes, sampling, seed
        self._batch_size, self._lpips_weights = batch_size, lpips_weights

    def asking(self, episodes: Sequence[Episode]) -> "BenchmarkEvaluator":
        """The same benchmark with other questions."""
        return BenchmarkEvaluator(
            self.name,
            episodes,
            sampling=self._sampling,
            seed=self._seed,
            batch_size=self._batch_size,
            lpips_weights=self._lpips_weights,
        )

    def run(self, subject: Subject) -> Result:
        """Answers all episodes and scores the answers."""
        return self.result(self.each(subject))

    def result(self, each: Sequence[States]) -> Result:
        """The second half of `run`: combines the scores that `each` returns into the benchmark's results."""
        result: Result = {"episodes": len(each)}
        for name, value in metric_states.compute(_merged(each)).items():
            result[name] = NOTHING if math.isnan(value) else value
        if self.name == COLORIZATION and "model/lpips" not in result:
            result["lpips"] = (
                lpips.NOT_INSTALLED if self._lpips_weights is None else lpips.TOO_SMALL
            )
        return result

    def states(self, subject: Subject) -> States:
        """The scores before the division; `lvm_jax.metrics.states.merge` joins those of several hosts."""
        return _merged(self.each(subject))

    def each(self, subject: Subject) -> list[States]:
        """The scores of each episode before the division, in order."""
        found = []
        starts = range(0, len(self.episodes), self._batch_size)
        for start in tqdm(starts, desc=self.name, unit="batch"):
            batch = self.episodes[start : start + self._batch_size]
            for number, predictions in enumerate(self.predictions(subject, batch)):
                truth = square(batch[number].truth, subject.vqgan)
                found.append(
                    {
                        f"{name}/{metric}": state
                        for name, picture in predictions.items()
                        for metric, state in self._score(picture, truth, batch[number]).items()
                    }
                )
        return found

    def answers(self, subject: Subject, index: int) -> dict[str, Picture]:
        """Every predictor's answer to one episode, exactly as `each` scores it."""
        # Answer the same batch as there: another batch could round, and so draw, differently.
        start = index // self._batch_size * self._batch_size
        batch = self.episodes[start : start + self._batch_size]
        return self.predictions(subject, batch)[index - start]

    def predictions(self, subject: Subject, batch: Sequence[Episode]) -> list[dict[str, Picture]]:
        """Every predictor's answer to each episode, as squares of the tokenizer's size."""
        vqgan = subject.vqgan
        shown = [[square(image, vqgan) for image in episode.shown] for episode in batch]
        truths = [square(episode.truth, vqgan) for episode in batch]
        # Encode prompts and truths together, and decode answers and ceilings together: fewer, fuller batches.
        codes = encode_images(vqgan, np.stack([*(x for row in shown for x in row), *truths]))
        ends = np.cumsum([len(row) for row in shown])
        prompts = np.split(codes[: ends[-1]], ends[:-1])
        made = subject.engine.generate_batch(prompts, sampling=self._sampling, seed=self._seed)
        decoded = to_uint8(decode_codes(vqgan, np.concatenate([made[:, 0, 0], codes[ends[-1] :]])))
        return [
            {
                "model": decoded[number],
                "tokenizer_ceiling": decoded[len(shown) + number],
                **_baselines(row),
            }
            for number, row in enumerate(shown)
        ]

    def _score(self, predicted: Picture, truth: Picture, episode: Episode) -> States:
        if self.name == JOINTS:
            return self._joints(predicted, episode)
        scored = SCORES[self.name](predicted, truth)
        missing = lpips.why_missing(self._lpips_weights, min(truth.shape[:2]))
        if self.name == COLORIZATION and not missing:
            pair = [to_float(x[None]) for x in (predicted, truth)]
            scored["lpips"] = Mean(float(lpips.lpips(self._lpips_weights, *pair)[0]))
        return scored

    @staticmethod
    def _joints(predicted: Picture, episode: Episode) -> States:
        """PCK in pixels of the original picture, before it was squashed to a square."""
        if episode.joints is None:
            raise UserError(f"episode {episode.key} of {JOINTS} has no joints: use their reader")
        (height, width), square = episode.truth.shape[:2], predicted.shape[:2]
        found_K2 = joints_of(predicted, len(episode.joints.points_K2))
        # The square squashed both axes differently, and PCK's distance is one of the original picture.
        scale = np.array([width / square[1], height / square[0]])
        return pck(found_K2 * scale, episode.joints.points_K2, episode.joints.size)


def _merged(each: Sequence[States]) -> States:
    return functools.reduce(metric_states.merge, each, None) or {}


def square(picture: Picture, vqgan: VQGAN) -> Picture:
    """A picture as the tokenizer takes it."""
    return resize(picture, vqgan.config.resolution)


def _baselines(shown: Sequence[Picture]) -> dict[str, Picture]:
    """The baselines' answers to a prompt of image, answer, image, answer, ..., query."""
    images, answers, query = shown[:-1:2], shown[1:-1:2], shown[-1]
    # As float32: a difference of uint8 would wrap around.
    distances = [np.mean((image.astype(np.float32) - query) ** 2) for image in images]
    return {
        "copy": answers[-1],
        "nearest": answers[int(np.argmin(distances))],
        "constant": np.broadcast_to(_mean_colour(answers), query.shape),
    }


def _mean_colour(answers: Sequence[Picture]) -> Picture:
    mean = np.mean([answer.reshape(-1, 3).mean(0) for answer in answers], axis=0)
    return np.round(mean).astype(np.uint8)
