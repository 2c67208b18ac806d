"""What may be drawn is exact; how often it is drawn follows the softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.inference.sampling import (
    Sampling,
    draw,
    keep_allowed,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)

N_DRAWS = 20_000
LOGITS_V = np.array(
    [0.5, 2.0, -1.0, 1.0, 0.0, 9.0, 8.0], np.float32
)  # five codes, then two special ids
CODES = 5
ALLOWED = np.arange(7) < CODES


def frequencies(sampling: Sampling) -> np.ndarray:
    keys = jax.random.split(jax.random.key(7), N_DRAWS)
    ids = draw(keys, jnp.tile(LOGITS_V, (N_DRAWS, 1)), sampling.filters(), ALLOWED)
    return np.bincount(np.asarray(ids), minlength=len(LOGITS_V)) / N_DRAWS


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax_over_codes(temperature):
    expected = np.append(softmax(LOGITS_V[:CODES] / temperature), [0, 0])
    error = np.sqrt(expected * (1 - expected) / N_DRAWS)  # of a frequency, by the binomial
    assert np.all(np.abs(frequencies(Sampling(temperature)) - expected) <= 4 * error)


def test_special_ids_are_never_drawn_though_the_likeliest():
    assert frequencies(Sampling(temperature=100.0))[CODES:].sum() == 0
    assert frequencies(Sampling(temperature=0.0))[CODES:].sum() == 0
    assert np.isneginf(keep_allowed(jnp.array(LOGITS_V[None]), ALLOWED)[0, CODES:]).all()


def test_greedy_is_the_argmax_over_codes():
    logits_BV = jax.random.normal(jax.random.key(0), (64, 9))
    keys = jax.random.split(jax.random.key(1), 64)
    ids = draw(
        keys, logits_BV, Sampling(temperature=0.0, top_k=3, top_p=0.5).filters(), np.arange(9) < 6
    )
    assert np.array_equal(ids, np.argmax(logits_BV[:, :6], axis=-1))


def kept(filtered: jax.Array) -> list[set[int]]:
    return [set(np.flatnonzero(np.isfinite(row)).tolist()) for row in np.asarray(filtered)]


def test_top_k_keeps_exactly_the_k_likeliest_even_among_equals():
    logits = jnp.array([[0.0, 3.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    assert kept(keep_top_k(logits, 2)) == [{1, 3}, {0, 1}]
    assert kept(keep_top_k(logits, 0)) == kept(keep_top_k(logits, 4)) == [{0, 1, 2, 3}] * 2


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
    expected = {
        0.4: {1},
        0.6: {1, 3},
        0.8: {1, 3, 2},
        0.95: {0, 1, 2, 3},
        1.0: {0, 1, 2, 3},
        1e-6: {1},
    }
    for p, ids in expected.items():
        assert kept(keep_top_p(logits, p)) == [ids], p


def test_filters_leave_the_kept_logits_alone():
    logits = jax.random.normal(jax.random.key(3), (5, 11))
    for filtered in (keep_top_k(logits, 4), keep_top_p(logits, 0.7)):
        mask = np.isfinite(filtered)
        assert np.array_equal(np.asarray(filtered)[mask], np.asarray(logits)[mask])


def test_min_p_keeps_what_is_likely_enough_relative_to_the_likeliest():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]])) + 3.0
    expected = {0.19: {0, 1, 2, 3}, 0.21: {1, 2, 3}, 0.4: {1, 3}, 0.6: {1}, 0.999: {1}}
    for p, ids in expected.items():
        assert kept(keep_min_p(logits, p)) == [ids], p
    assert set(np.flatnonzero(frequencies(Sampling(min_p=0.3)))) == {1, 3}


def test_draw_applies_top_k_and_top_p():
    assert set(np.flatnonzero(frequencies(Sampling(top_k=2)))) == {1, 3}
    # 0.55 of the mass of the codes is on id 1, the next is id 3 with 0.20
    assert set(np.flatnonzero(frequencies(Sampling(top_p=0.5)))) == {1}
    assert set(np.flatnonzero(frequencies(Sampling(top_p=0.7)))) == {1, 3}


def test_the_extreme_temperatures_are_greedy_and_even():
    keys, allowed = jax.random.split(jax.random.key(5), 64), np.array([True, True, True, False])
    logits_BV = jnp.tile(jnp.array([1.0, 3.0, 2.0, 9.0]), (64, 1))
    cold, hot = (draw(keys, logits_BV, Sampling(t).filters(), allowed) for t in (1e-30, 1e30))
    assert set(cold.tolist()) == {1}
    assert set(hot.tolist()) == {0, 1, 2}


def test_a_row_depends_on_its_own_key_only():
    keys = jax.random.split(jax.random.key(5), 6)
    logits_BV = jax.random.normal(jax.random.key(6), (6, 32))
    whole = draw(keys, logits_BV, Sampling().filters(), np.arange(32) < 30)
    assert np.array_equal(
        whole[:2], draw(keys[:2], logits_BV[:2], Sampling().filters(), np.arange(32) < 30)
    )


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(temperature=-1.0), "temperature is -1.0"),
        (Sampling(temperature=float("nan")), "temperature is nan"),
        (Sampling(temperature=1e-39), "temperature is 1e-39: it must be 0 .* or from 1e-30 to 1e"),
        (Sampling(temperature=1e39), r"temperature is 1e\+39"),
        (Sampling(top_k=-3), "top_k is -3"),
        (Sampling(top_p=0.0), "top_p is 0.0"),
        (Sampling(top_p=1.5), "top_p is 1.5"),
        (Sampling(min_p=-0.1), "min_p is -0.1"),
    ],
)
def test_values_out_of_range_are_refused(sampling, words):
    with pytest.raises(UserError, match=words):
        sampling.filters()
