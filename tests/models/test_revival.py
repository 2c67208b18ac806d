"""Which codes count as dead, and where they go."""

import jax
import jax.numpy as jnp
import numpy as np

from lvm_jax.models.tokenizer.revival import count_idle, revive


def test_idle_counts_steps_since_a_code_was_chosen():
    idle = jnp.array([0, 3, 7, 1])
    np.testing.assert_array_equal(count_idle(idle, jnp.array([[1, 3], [1, 1]])), [1, 0, 8, 0])


def test_dead_codes_move_to_the_features_that_are_served_worst():
    codebook = jnp.zeros((4, 2))
    features = jnp.array([[1.0, 1], [2, 2], [3, 3], [4, 4], [5, 5]])
    distances = jnp.array([0.0, 6.0, 0.0, 0.0, 6.0])
    dead = jnp.array([True, False, True, False])
    for seed in range(8):  # two equal halves of the distance: one dead code looks into each
        moved = revive(codebook, dead, features, distances, jax.random.key(seed))
        np.testing.assert_array_equal(moved, [[2, 2], [0, 0], [5, 5], [0, 0]])


def test_nothing_moves_where_all_is_served_or_none_is_dead():
    codebook = jnp.arange(8.0).reshape(4, 2)
    features, key = jnp.ones((3, 2)), jax.random.key(0)
    all_dead, none_dead = jnp.ones(4, bool), jnp.zeros(4, bool)
    for dead, distances in ((all_dead, jnp.zeros(3)), (none_dead, jnp.ones(3))):
        np.testing.assert_array_equal(revive(codebook, dead, features, distances, key), codebook)
