import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.losses.next_token import chunked_cross_entropy, cross_entropy

B, T, D, V = 2, 12, 6, 11


@pytest.fixture
def data():
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "hidden": jax.random.normal(keys[0], (B, T, D)),
        "kernel": jax.random.normal(keys[1], (D, V)),
        "labels": jax.random.randint(keys[2], (B, T), 0, V),
        "weights": jax.random.bernoulli(keys[3], 0.7, (B, T)).astype(jnp.float32),
    }


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_sum_and_weight_by_hand(data, z_loss):
    logits = np.asarray(data["hidden"] @ data["kernel"], np.float64)
    total, weight = 0.0, 0.0
    for b, t in np.ndindex(B, T):
        log_z = np.log(np.exp(logits[b, t]).sum())
        w = float(data["weights"][b, t])
        total += w * (log_z - logits[b, t, int(data["labels"][b, t])] + z_loss * log_z**2)
        weight += w
    ours = cross_entropy(jnp.asarray(logits, jnp.float32), data["labels"], data["weights"], z_loss)
    np.testing.assert_allclose(ours, (total, weight), rtol=1e-6)


def test_uniform_scores_cost_log_v():
    total, weight = cross_entropy(
        jnp.zeros((B, T, V)), jnp.zeros((B, T), jnp.int32), jnp.ones((B, T))
    )
    assert float(total / weight) == pytest.approx(np.log(V), rel=1e-6)


def test_masked_labels_add_nothing_and_get_no_gradient(data):
    def loss(hidden, labels):
        return cross_entropy(hidden @ data["kernel"], labels, data["weights"])[0]

    off = data["weights"] == 0
    assert off.any()
    assert (jax.grad(loss)(data["hidden"], data["labels"])[off] == 0).all()
    other = jnp.where(off, (data["labels"] + 1) % V, data["labels"])
    assert loss(data["hidden"], other) == loss(data["hidden"], data["labels"])


def test_bf16_logits_are_summed_in_fp32(data):
    logits = (data["hidden"] @ data["kernel"]).astype(jnp.bfloat16)
    args = (data["labels"], data["weights"])
    total, _ = cross_entropy(logits, *args)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(
        total, cross_entropy(logits.astype(jnp.float32), *args)[0], rtol=1e-6
    )


@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_chunks_give_the_same_loss_and_gradients(data, chunk):
    def whole(hidden, kernel):
        return cross_entropy(hidden @ kernel, data["labels"], data["weights"], 0.01)[0]

    def chunked(hidden, kernel):
        head = lambda x: x @ kernel  # noqa: E731
        return chunked_cross_entropy(
            hidden, head, data["labels"], data["weights"], chunk=chunk, z_loss=0.01
        )[0]

    args = (data["hidden"], data["kernel"])
    np.testing.assert_allclose(chunked(*args), whole(*args), rtol=1e-6)
    for ours, theirs in zip(jax.grad(chunked, (0, 1))(*args), jax.grad(whole, (0, 1))(*args)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_chunked_gradient_never_holds_all_logits(data):
    def loss(hidden):
        return chunked_cross_entropy(
            hidden, lambda x: x @ data["kernel"], data["labels"], data["weights"], chunk=4
        )[0]

    text = str(jax.make_jaxpr(jax.grad(loss))(data["hidden"]))
    assert f"f32[{B},4,{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text
    assert f"f32[{T // 4},{B},4,{V}]" not in text


def test_chunk_must_divide_the_row(data):
    with pytest.raises(UserError, match="loss chunk of 5 does not divide rows of 12"):
        chunked_cross_entropy(data["hidden"], lambda x: x, data["labels"], data["weights"], chunk=5)
