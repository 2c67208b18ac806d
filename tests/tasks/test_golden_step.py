"""Golden numbers of the next-token task: two updates of a small decoder on fixed tokens.

They may change only with a change that is meant to alter training (an initialisation, an optimizer, a loss, the order
of random draws), and the commit that changes them says so. A rename, a move or a faster program must not move them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lvm_jax.data.sentences.row_assembly import label_weights
from lvm_jax.errors import UserError
from lvm_jax.models import presets
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer

SEQ_LEN = 24
# The suite compiles in haste (tests/conftest.py); these numbers are of the program that a user runs.
AS_A_USER = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
GOLDEN_LOSSES = [5.122644901275635, 4.748151779174805]
GOLDEN_NORMS = [1.5026874542236328, 1.7191320657730103]
GOLDEN_PARAMETERS = {
    "embedding": [0.027734827250242233, -0.0037498914171010256, -0.0032212266232818365],
    "query": [-0.00847769808024168, -0.022010179236531258, -0.010581710375845432],
    "down": [0.0067339311353862286, -0.036269888281822205, -0.003361247479915619],
}
GOLDEN_SUM = 709.5203018188477
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2,
    end_learning_rate=1e-3,
    warmup_steps=0,
    decay_steps=10,
    b1=0.9,
    b2=0.95,
    weight_decay=0.1,
    decay="matrices",
    clip_norm=1.0,
)


def rows():
    """Two rows: one of two sentences and padding, one of a single sentence."""
    tokens = np.random.default_rng(0).integers(0, 64, (2, SEQ_LEN + 1), dtype=np.int32)
    segments = np.ones((2, SEQ_LEN + 1), np.int32)
    segments[0, 10:20], segments[0, 20:] = 2, 0
    positions = np.arange(SEQ_LEN + 1, dtype=np.int32) * np.ones((2, 1), np.int32)
    positions[0, 10:20] = np.arange(10)
    rows = {"tokens": tokens, "segment_ids": segments, "positions": positions}
    return rows | {"loss_weights": label_weights(segments)}


def make(**arguments):
    config = presets.llama(
        "debug", vocab_size=164, hidden_size=32, intermediate_size=48, num_attention_heads=4
    )
    return DecoderTask(config, make_optimizer(OPTIMIZER), seq_len=SEQ_LEN, **arguments)


@pytest.fixture(scope="module")
def trained():
    task = make()
    state = task.init(jax.random.key(7))
    step = jax.jit(task.step, compiler_options=AS_A_USER)
    seen = []
    for number in range(2):
        batch = {name: jnp.asarray(x) for name, x in rows().items()}
        state, metrics = step(state, batch, jax.random.key(number))
        seen.append({name: float(mean.total / mean.weight) for name, mean in metrics.items()})
    return state, seen


def test_losses_and_gradient_norms(trained):
    _, seen = trained
    np.testing.assert_allclose([m["loss"] for m in seen], GOLDEN_LOSSES, rtol=2e-6)
    np.testing.assert_allclose([m["grad_norm"] for m in seen], GOLDEN_NORMS, rtol=2e-5)


@pytest.mark.parametrize("name", ["embedding", "query", "down"])
def test_parameters_after_two_updates(trained, name):
    params = trained[0]["params"]
    found = {
        "embedding": params["embedding"][5, :3],
        "query": params["layers"]["attention"]["query"][1, 2, 3, :3],
        "down": params["layers"]["mlp"]["down"][0, 4, :3],
    }[name]
    np.testing.assert_allclose(found, GOLDEN_PARAMETERS[name], rtol=2e-5)


def test_every_parameter_is_in_the_sum(trained):
    """Three slices could miss a parameter that moved: the sums of all of them could not."""
    total = sum(float(jnp.sum(jnp.abs(x))) for x in jax.tree.leaves(trained[0]["params"]))
    np.testing.assert_allclose(total, GOLDEN_SUM, rtol=2e-6)


@pytest.mark.parametrize("loss_chunk", [0, 8])
def test_z_loss_is_trained_and_not_evaluated(trained, loss_chunk):
    """A held-out loss is nats a token, whatever else is minimised."""
    state, _ = trained
    plain, drifting = make(), make(z_loss=0.1, loss_chunk=loss_chunk)
    batch = {name: jnp.asarray(x) for name, x in rows().items()}
    held_out = [jax.jit(task.loss)(state["params"], batch)[0] for task in (plain, drifting)]
    np.testing.assert_allclose(*held_out, rtol=1e-6)
    _, metrics = jax.jit(drifting.step)(state, batch, jax.random.key(0))
    assert metrics["loss"].total > held_out[0] + 1


def test_no_microbatch_is_refused():
    with pytest.raises(UserError, match="accumulation is 0: it must be at least 1"):
        make(accumulation=0)
