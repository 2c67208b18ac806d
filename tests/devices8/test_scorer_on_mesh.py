"""Scores on eight simulated devices: those of one, and whole on every host."""

import jax
import numpy as np
from flax import nnx

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.evaluation.lvm import scoring
from lvm_jax.models import Llama, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import state_shardings

CODES, TOKENS = 40, 4
CONFIG = presets.llama(
    "debug",
    vocab_size=CODES + 100,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    max_position_embeddings=4 * TOKENS,
    initializer_range=0.3,
)


def test_scores_equal_those_of_one_device_and_every_host_gets_all(monkeypatch):
    model = Llama(CONFIG, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    sentences = [
        VisualSentence(rng.integers(0, CODES, (n, TOKENS), np.uint16), "made", 3, str(n), f"frame*{n}")
        for n in (4, 3, 2)
    ]  # fmt: skip
    expected = scoring.Scorer(model, CODES)(sentences)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    whole, score = [], scoring._score

    def watched(*args):
        result = score(*args)
        whole.extend(x.sharding.is_fully_replicated for x in result)
        return result

    monkeypatch.setattr(scoring, "_score", watched)
    graphdef, params = nnx.split(model)
    params = jax.device_put(params, state_shardings(params, mesh))
    with jax.set_mesh(mesh):
        found = scoring.Scorer(nnx.merge(graphdef, params), CODES)(sentences)
    assert whole
    assert all(whole)
    for one, many in zip(expected, found, strict=True):
        np.testing.assert_allclose(many.nll_IN, one.nll_IN, rtol=1e-5, atol=1e-5)
        assert np.array_equal(many.hit_IN, one.hit_IN)
        np.testing.assert_allclose([many.eos_nll or 0], [one.eos_nll or 0], rtol=1e-5)
