"""Sentences made up by a seed, and a decoder small enough to run in a second."""

from collections.abc import Callable

import numpy as np
import pytest
from flax import nnx

from lvm_jax.data.visual_sentence import VisualSentence
from lvm_jax.models.llama import Llama, LlamaConfig

CODES, TOKENS, CONTEXT = 24, 4, 8


@pytest.fixture(scope="session")
def model() -> Llama:
    config = LlamaConfig(
        vocab_size=CODES + 100,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=CODES,
        eos_token_id=CODES + 1,
        pad_token_id=CODES + 2,
        initializer_range=0.3,
        max_position_embeddings=CONTEXT * TOKENS,
        attention="xla",
    )
    return Llama(config, rngs=nnx.Rngs(1))


@pytest.fixture(scope="session")
def make_sentence() -> Callable[..., VisualSentence]:
    def make(layout: str, category: int, seed: int = 0, source: str = "made") -> VisualSentence:
        sentence = VisualSentence(
            np.zeros((0, 0), np.uint16), source, category, f"{source}/{seed}", layout
        )
        codes = np.random.default_rng(seed).integers(0, CODES, (len(sentence.roles), TOKENS))
        return VisualSentence(codes.astype(np.uint16), source, category, f"{source}/{seed}", layout)

    return make
