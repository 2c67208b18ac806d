"""A task in context: pairs that show it, a query, and how near the answer is, beside what no decoder is needed for.

Every score stands beside the tokenizer's ceiling (the truth encoded and decoded) and three baselines: the last answer
of the support copied, the answer of the support image that is nearest to the query, and a constant, the mean colour of
the support's answers.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.answer_scores import JOINTS, SCORES, Picture, States, pck
from lvm_jax.evaluation.tokenizer.reconstruction import LPIPS_MIN_SIDE, LPIPS_NET, NOT_INSTALLED
from lvm_jax.inference.codec import decode_codes, encode_images, to_uint8
from lvm_jax.inference.images import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer import perceptual
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.joints import Joints, joints_of
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
      joints: of the truth of the task "joints", which is scored by them and not by its picture.
    """

    support: Sequence[tuple[Picture, Picture]]
    query: Picture
    truth: Picture
    key: str
    joints: Joints | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is judged: a decoder behind its engine, and its tokenizer."""

    engine: Engine
    vqgan: VQGAN


class VisualTaskEvaluator:
    """Scores of one task: `PREDICTOR/METRIC` for model, tokenizer_ceiling, copy, nearest and constant.

    Args:
      task: a key of `SCORES`, or "joints".
      episodes: what is asked; give each host its own part and merge the states.
      sampling: how answers are drawn; greedy by default.
      seed: of the draws.
      batch_size: prompts answered at once.
      lpips_weights: for colorization: see `lvm_jax.evaluation.tokenizer.reconstruction.installed_lpips`.

    Raises:
      UserError: an unknown task, no episode, or one without support.
    """

    def __init__(
        self,
        task: str,
        episodes: Sequence[Episode],
        *,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        batch_size: int = 8,
        lpips_weights: perceptual.Weights | None = None,
    ) -> None:
        if task not in (*SCORES, JOINTS):
            raise UserError(f"task {task!r} does not exist; known: {', '.join((*SCORES, JOINTS))}")
        if not episodes:
            raise UserError(f"0 episodes of {task}: the data set gives none; check its folder")
        for episode in episodes:
            if not episode.support:
                raise UserError(f"episode {episode.key} of {task} has 0 pairs: give at least 1")
        self.name = task
        self._episodes, self._sampling, self._seed = episodes, sampling, seed
        self._batch_size, self._lpips_weights = batch_size, lpips_weights

    def run(self, subject: Subject) -> Result:
        """The scores over all episodes."""
        return self.result(self.each(subject))

    def result(self, each: Sequence[States]) -> Result:
        """The scores of episodes that are scored already."""
        result: Result = {"episodes": len(each)}
        for name, value in metric_states.compute(_merged(each)).items():
            result[name] = NOTHING if math.isnan(value) else value
        if self.name == "colorization" and "model/lpips" not in result:
            small = f"needs images of at least {LPIPS_MIN_SIDE} pixels a side"
            result["lpips"] = NOT_INSTALLED if self._lpips_weights is None else small
        return result

    def states(self, subject: Subject) -> States:
        """The same before the division: `lvm_jax.metrics.states.merge` joins those of several hosts."""
        return _merged(self.each(subject))

    def each(self, subject: Subject) -> list[States]:
        """The states of every episode alone, in order."""
        found = []
        starts = range(0, len(self._episodes), self._batch_size)
        for start in tqdm(starts, desc=self.name, unit="batch"):
            batch = self._episodes[start : start + self._batch_size]
            for number, predictions in enumerate(self.predictions(subject, batch)):
                truth = _square(batch[number].truth, subject.vqgan)
                found.append(
                    {
                        f"{name}/{metric}": state
                        for name, picture in predictions.items()
                        for metric, state in self._score(picture, truth, batch[number]).items()
                    }
                )
        return found

    def answers(self, subject: Subject, index: int) -> dict[str, Picture]:
        """Every predictor's answer to one episode, the same as in `each`: it is asked in the same batch."""
        start = index // self._batch_size * self._batch_size
        batch = self._episodes[start : start + self._batch_size]
        return self.predictions(subject, batch)[index - start]

    def predictions(self, subject: Subject, batch: Sequence[Episode]) -> list[dict[str, Picture]]:
        """Every predictor's answer to each episode, squares of the tokenizer's size."""
        vqgan = subject.vqgan
        shown = [[_square(image, vqgan) for image in _shown(episode)] for episode in batch]
        truths = [_square(episode.truth, vqgan) for episode in batch]
        codes = encode_images(vqgan, np.stack([*(x for row in shown for x in row), *truths]))
        ends = np.cumsum([len(row) for row in shown])
        prompts = np.split(codes[: ends[-1]], ends[:-1])
        made = subject.engine.generate_batch(prompts, sampling=self._sampling, seed=self._seed)
        decoded = to_uint8(decode_codes(vqgan, np.concatenate([made[:, 0, 0], codes[ends[-1] :]])))
        results = []
        for number, row in enumerate(shown):
            images, answers, query = row[:-1:2], row[1:-1:2], row[-1]
            distances = [np.mean((image.astype(np.float32) - query) ** 2) for image in images]
            results.append(
                {
                    "model": decoded[number],
                    "tokenizer_ceiling": decoded[len(shown) + number],
                    "copy": answers[-1],
                    "nearest": answers[int(np.argmin(distances))],
                    "constant": np.broadcast_to(_mean_colour(answers), query.shape),
                }
            )
        return results

    def _score(self, predicted: Picture, truth: Picture, episode: Episode) -> States:
        if self.name == JOINTS:
            return self._joints(predicted, episode)
        scored = SCORES[self.name](predicted, truth)
        if (
            self.name == "colorization"
            and self._lpips_weights is not None
            and min(truth.shape[:2]) >= LPIPS_MIN_SIDE
        ):
            pair = [jnp.asarray(x[None], jnp.float32) / 255 for x in (predicted, truth)]
            scored["lpips"] = Mean(float(_lpips(self._lpips_weights, *pair)[0]))
        return scored

    @staticmethod
    def _joints(predicted: Picture, episode: Episode) -> States:
        """PCK in the pixels of the truth as it was before it was squashed."""
        if episode.joints is None:
            raise UserError(f"episode {episode.key} of {JOINTS} has no joints: use their reader")
        (height, width), square = episode.truth.shape[:2], predicted.shape[:2]
        found_K2 = joints_of(predicted, len(episode.joints.points_K2))
        scale = np.array([width / square[1], height / square[0]])
        return pck(found_K2 * scale, episode.joints.points_K2, episode.joints.size)


@jax.jit
def _lpips(weights: perceptual.Weights, a: jax.Array, b: jax.Array) -> jax.Array:
    return perceptual.lpips(weights, a, b, net=LPIPS_NET)


def _merged(each: Sequence[States]) -> States:
    return functools.reduce(metric_states.merge, each, None) or {}


def _shown(episode: Episode) -> list[Picture]:
    return [*(picture for pair in episode.support for picture in pair), episode.query]


def _square(picture: Picture, vqgan: VQGAN) -> Picture:
    return resize(picture, vqgan.config.resolution)


def _mean_colour(answers: Sequence[Picture]) -> Picture:
    mean = np.mean([answer.reshape(-1, 3).mean(0) for answer in answers], axis=0)
    return np.round(mean).astype(np.uint8)
