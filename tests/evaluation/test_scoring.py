"""A score is what the full forward pass says of one sentence alone, however it was batched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm import scoring
from lvm_jax.evaluation.lvm.scoring import Scorer

CODES, TOKENS = 24, 4


def test_scores_equal_the_forward_pass_of_each_sentence_alone(model, make_sentence):
    sentences = [
        make_sentence(layout, 3, seed)
        for seed, layout in enumerate(
            ["frame", "frame*3", "frame*8", "frame*2", "frame*8", "frame*5"]
        )
    ]
    scores = Scorer(model, CODES, batch_size=2)(sentences)
    for sentence, score in zip(sentences, scores):
        ids = [CODES, *sentence.codes.reshape(-1).tolist(), CODES + 1]
        logits_TV = model(jnp.array(ids[:-1])[None])[0]
        labels_T = np.array(ids[1:])
        nll_T = -np.asarray(jax.nn.log_softmax(logits_TV))[np.arange(len(labels_T)), labels_T]
        hit_T = np.asarray(logits_TV).argmax(-1) == labels_T
        np.testing.assert_allclose(score.nll_IN.reshape(-1), nll_T[:-1], rtol=2e-5)
        assert np.array_equal(score.hit_IN.reshape(-1), hit_T[:-1])
        if len(sentence.codes) == 8:
            assert score.eos_nll is None  # BOS and 8 images fill the context
        else:
            np.testing.assert_allclose(score.eos_nll, nll_T[-1], rtol=2e-5)


def test_lengths_share_programs(model, make_sentence):
    scoring._score.clear_cache()
    Scorer(model, CODES)([make_sentence(f"frame*{n}", 3) for n in (1, 2, 3, 4, 5, 6, 7, 8)])
    assert scoring._score._cache_size() == 4  # 1, 2, 4 and 8 images


def test_mistakes_are_named(model, make_sentence):
    with pytest.raises(UserError, match="0 sentences"):
        Scorer(model, CODES)([])
    with pytest.raises(UserError, match="made/0 has 9 images: the model reads 8"):
        Scorer(model, CODES)([make_sentence("frame*9", 3)])


def test_weights_that_are_no_numbers(model):
    graphdef, state = nnx.split(model)
    broken = nnx.merge(graphdef, jax.tree.map(jnp.copy, state))
    head = broken.head
    head[...] = head[...].at[0, 0].set(jnp.inf)
    with pytest.raises(UserError, match=r"the decoder has NaN or infinite weights in head"):
        Scorer(broken, 24)
