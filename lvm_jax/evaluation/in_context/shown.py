"""Draws a good, a middling and a bad answer from examples, by the score against the truth.

M: episodes.
"""

import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from lvm_jax.data.in_context.sequences import Pair
from lvm_jax.data.in_context.words import Words
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.answers import DrawnMasks, SaidWords
from lvm_jax.evaluation.in_context.episodes import Episode
from lvm_jax.evaluation.in_context.scores import Scores, WordSets
from lvm_jax.inference.codec import decode_codes
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip

_CELL = 96  # one example, a query and three masks are then as wide as the page


def show_masks(
    episodes: Sequence[Episode], drawn: DrawnMasks, vqgan: VQGAN, folder: epath.PathLike
) -> Result:
    """Draws FOLDER/masks-NAME.png of the best, the median and the worst answer: examples, query, answer, truth.

    Where there are examples of another object, the answer to them stands behind.

    Returns:
      shown/NAME, the file, and shown/NAME/miou, the score.
    """
    scores = drawn.scores("model")
    turns = drawn.controls.get("other_object", [False] * len(episodes))
    result: Result = {}
    for name, place in _places([each["miou"] for each in scores]).items():
        episode = episodes[place]
        groups = [
            *_examples(vqgan, episode),
            Group("query", [_decoded(vqgan, episode.query.picture)]),
            Group("answer", [drawn.pictures["model"][place]], PREDICTION),
            Group("truth", [mask_to_rgb(drawn.truths[place])], TRUTH),
        ]
        if turns[place]:
            turned = drawn.pictures["other_object"][place]
            groups.append(Group("other object's", [turned], PREDICTION))
        file = f"masks-{name}.png"
        save_png(epath.Path(folder) / file, strip(groups, _CELL))
        result |= {f"shown/{name}": file, f"shown/{name}/miou": scores[place]["miou"]}
    return result


def show_words(
    episodes: Sequence[Episode],
    said: SaidWords,
    sets: WordSets,
    vqgan: VQGAN,
    folder: epath.PathLike,
) -> Result:
    """Draws FOLDER/words-NAME.png of the best, the median and the worst answer: the pictures of examples and query.

    Returns:
      shown/NAME, the file; shown/NAME/examples, shown/NAME/answer and shown/NAME/truth, what is said.
    """
    result: Result = {}
    for name, place in _places([_mean(each) for each in said.said("model").each(sets)]).items():
        episode = episodes[place]
        pictures = [_decoded(vqgan, pair.picture) for pair in episode.examples]
        query = Group("query", [_decoded(vqgan, episode.query.picture)])
        file = f"words-{name}.png"
        save_png(epath.Path(folder) / file, strip([Group("examples", pictures), query], _CELL))
        told = [pair.answer for pair in episode.examples if isinstance(pair.answer, Words)]
        result |= {
            f"shown/{name}": file,
            f"shown/{name}/examples": "; ".join(map(as_text, told)),
            f"shown/{name}/answer": as_text(said.words["model"][place]),
            f"shown/{name}/truth": as_text(said.truths[place]),
        }
    return result


def as_text(words: Words) -> str:
    """Words as people read them: [category] caption (left top right bottom)."""
    boxes = [f"({' '.join(f'{corner:.2f}' for corner in box)})" for box in words.boxes]
    category = [f"[{words.category}]"] if words.category else []
    return " ".join([*category, words.caption, *boxes])


def _places(scores_M: Sequence[float]) -> dict[str, int]:
    """The places of the best, the median and the worst score; NaN counts as the worst."""
    order = np.argsort(np.nan_to_num(scores_M, nan=-math.inf), kind="stable").tolist()
    return {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}


def _mean(scores: Scores) -> float:
    known = [value for value in scores.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _examples(vqgan: VQGAN, episode: Episode) -> list[Group]:
    def shown(pair: Pair) -> list[np.ndarray]:
        assert not isinstance(pair.answer, Words)
        return [_decoded(vqgan, pair.picture), _decoded(vqgan, pair.answer)]

    pictures = [picture for pair in episode.examples for picture in shown(pair)]
    return [Group("examples", pictures)] if pictures else []


def _decoded(vqgan: VQGAN, codes_N: np.ndarray) -> np.ndarray:
    return to_uint8(decode_codes(vqgan, codes_N[None]))[0]
