"""Noise on the codes that a decoder reads: only codes, only inputs, only in training, and the same for the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lvm_jax.data.sentences.row_assembly import label_weights
from lvm_jax.errors import UserError
from lvm_jax.losses.next_token import cross_entropy
from lvm_jax.models import presets
from lvm_jax.tasks.code_noise import CodeNoise
from lvm_jax.tasks.decoder import DecoderTask

CODES, T = 64, 24
CONFIG = presets.llama(
    "debug", vocab_size=CODES + 100, hidden_size=32, intermediate_size=48, num_attention_heads=4
)
NOISE = CodeNoise(0.25, CODES)


def tokens(rows: int, length: int) -> np.ndarray:
    """BOS, codes, EOS, PAD."""
    codes = np.random.default_rng(0).integers(0, CODES, (rows, length), dtype=np.int32)
    codes[:, 0], codes[:, -2], codes[:, -1] = CODES, CODES + 1, CODES + 2
    return codes


def task(**arguments) -> DecoderTask:
    return DecoderTask(CONFIG, optax.sgd(0.1), seq_len=T, **arguments)


def batch() -> dict[str, jax.Array]:
    segments = np.ones((4, T + 1), np.int32)
    segments[:, -1] = 0
    rows = {
        "tokens": tokens(4, T + 1),
        "segment_ids": segments,
        "positions": np.tile(np.arange(T + 1, dtype=np.int32), (4, 1)),
        "loss_weights": label_weights(segments),
    }
    return jax.tree.map(jnp.asarray, rows)


def test_the_asked_share_of_codes_is_replaced_and_nothing_else():
    before = jnp.asarray(tokens(64, 512))
    after = NOISE(before, jax.random.key(0))
    changed, codes = np.asarray(after != before), np.asarray(before < CODES)
    assert not changed[~codes].any()
    assert changed[codes].mean() == pytest.approx(0.25 * (1 - 1 / CODES), abs=0.01)
    drawn = np.asarray(after)[changed]
    assert np.bincount(drawn, minlength=CODES).min() > 60  # of 126 to be expected
    assert np.array_equal(after, NOISE(before, jax.random.key(0)))
    assert not np.array_equal(after, NOISE(before, jax.random.key(1)))


def test_a_step_reads_noise_and_predicts_the_truth():
    noisy, rows, key = task(noise=NOISE), batch(), jax.random.key(3)
    params = jax.jit(noisy.init)(jax.random.key(0))["params"]
    found, weight = jax.jit(noisy.loss)(params, rows, dropout_key=key)
    model = noisy.model({"params": params})
    read = NOISE(rows["tokens"], jax.random.fold_in(key, 2))[:, :-1]
    logits = model(read, rows["segment_ids"][:, :-1], rows["positions"][:, :-1])
    expected, counted = cross_entropy(logits, rows["tokens"][:, 1:], rows["loss_weights"][:, 1:])
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(weight) == float(counted)


def test_without_noise_nothing_changes_and_evaluation_has_none():
    plain, noisy, rows = task(), task(noise=NOISE), batch()
    state = jax.jit(plain.init)(jax.random.key(0))
    without = [
        jax.jit(each.step)(state, rows, jax.random.key(1))[1]["loss"].compute()
        for each in (plain, task(noise=CodeNoise(0.0, CODES)), noisy)
    ]
    assert without[0] == without[1] != without[2]
    params = state["params"]
    assert jax.jit(noisy.loss)(params, rows)[0] == jax.jit(plain.loss)(params, rows)[0]


def test_noise_has_a_key_that_dropout_has_not():
    """Piece i of a split is fold_in(key, i), and the decoder splits its key in two."""
    seen: list[jax.Array] = []

    class Recorded(CodeNoise):
        def __call__(self, tokens_BT, key):
            seen.append(key)
            return tokens_BT

    key = jax.random.key(2)
    task(noise=Recorded(0.25, CODES))._with_noise(batch(), key)
    (noise,) = seen
    assert all(noise != piece for piece in jax.random.split(key))


@pytest.mark.parametrize(
    ("share", "codes", "words"), [(1.0, 64, "code_noise is 1.0"), (0.1, 1, "with 1 codes")]
)
def test_impossible_noise_is_refused(share, codes, words):
    with pytest.raises(UserError, match=words):
        CodeNoise(share, codes)
