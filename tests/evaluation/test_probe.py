"""The probe learns what follows from the query, and nothing where nothing follows."""

import math

import numpy as np
import pytest
from fake_tokenizers import CellMeans

from lvm_jax.errors import UserError
from lvm_jax.evaluation.tokenizer import probe, probe_tasks
from lvm_jax.evaluation.tokenizer.probe import ProbeEvaluator

SIZE, LEVELS = 32, 6


def pictures(count: int, seed: int) -> np.ndarray:
    greys = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return np.broadcast_to(greys.repeat(16, 1).repeat(16, 2), (count, SIZE, SIZE, 3)).copy()


def of_nothing(picture: np.ndarray) -> probe_tasks.Pair:
    """The answer is the same for equal pictures, but no rule leads to it."""
    seed = int(picture.astype(np.int64).sum())
    return picture, pictures(1, seed)[0]


@pytest.fixture
def tokenizer() -> CellMeans:
    return CellMeans(SIZE, side=2, levels=LEVELS)


def test_a_rule_is_learnt_and_chance_is_not(tokenizer, monkeypatch):
    tasks = {"negative": probe_tasks.TASKS["negative"], "nothing": of_nothing}
    monkeypatch.setattr(probe, "TASKS", tasks)
    result = ProbeEvaluator(pictures(900, 0), pictures(40, 1), steps=300).run(tokenizer)
    assert result["negative/code_loss"] < 1
    assert result["negative/uses_query"] > 1.2
    assert result["nothing/code_loss"] > math.log(LEVELS) - 0.05
    assert abs(result["nothing/uses_query"]) < 0.15
    for name in ("code_loss", "uses_query", "bits_per_image"):
        mean = (result[f"negative/{name}"] + result[f"nothing/{name}"]) / 2
        assert result[f"answers/{name}"] == pytest.approx(mean)
    bits = result["nothing/code_loss"] * 4 / math.log(2)
    assert result["nothing/bits_per_image"] == pytest.approx(bits)
    assert (result["pictures"], result["questions"]) == (1024, 80)
    assert result["tokens"] == 300 * 8 * 4 * 4


@pytest.mark.slow
def test_seeds_are_averaged_and_a_run_repeats(tokenizer):
    made = [
        ProbeEvaluator(pictures(9, 0), pictures(3, 1), steps=3, seeds=seeds).run(tokenizer)
        for seeds in (1, 2, 2)
    ]
    assert made[1] == made[2]
    assert made[1]["answers/code_loss_deviation"] > 0
    assert "answers/code_loss_deviation" not in made[0]
    # |a - mean| of two values is their deviation over the root of 2.
    apart = abs(made[0]["answers/code_loss"] - made[1]["answers/code_loss"])
    assert made[1]["answers/code_loss_deviation"] == pytest.approx(apart * math.sqrt(2))
    assert made[0]["pictures"] == 72  # all symmetries of 9


def test_symmetric_copies_are_the_eight_of_a_square():
    one = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    copies = probe._turned(one, 1024)
    assert len({copy.tobytes() for copy in copies}) == 8
    assert np.array_equal(copies[0], one[0])
    assert len(probe._turned(pictures(30, 0), 20)) == 20
    assert len(probe._turned(pictures(30, 0), 70)) == 70


def test_the_answers_of_the_tasks():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture[:, 4:] = 200
    pairs = {name: pair_of(picture) for name, pair_of in probe_tasks.TASKS.items()}
    for name, (query, answer) in pairs.items():
        assert query.shape == answer.shape == picture.shape, name
        assert query.dtype == answer.dtype == np.uint8, name
    query, answer = pairs["colorization"]
    assert np.array_equal(answer, picture)
    assert np.ptp(query, axis=-1).max() == 0
    assert np.array_equal(pairs["negative"][1], 255 - picture)
    assert np.array_equal(pairs["shift"][1][:, 2:], picture[:, :-2])
    halves = np.repeat([0, 255], 4)[None].repeat(8, 0).astype(np.uint8)
    sharp = np.repeat(halves[..., None], 3, axis=-1)
    assert np.array_equal(probe_tasks.TASKS["bright"](sharp)[1], sharp)
    edges = probe_tasks.TASKS["edges"](sharp)[1][..., 0]
    assert edges[:, 3:5].min() == 255
    assert edges[:, (0, 1, 6, 7)].max() == 0


def test_too_few_pictures_are_refused():
    with pytest.raises(UserError, match="the probe has 1 images held out: it needs 2"):
        ProbeEvaluator(pictures(4, 0), pictures(1, 0))
    with pytest.raises(UserError, match="1 images to learn from"):
        ProbeEvaluator(pictures(1, 0), pictures(4, 0))
