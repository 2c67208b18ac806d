"""Ids in, ids out: a decoder that counts shows where a text begins and where it ends."""

import jax
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.inference import generate as generate_module
from lvm_jax.inference.generate import Generator, Stop
from lvm_jax.inference.sampling import Sampling
from lvm_jax.inference.text import continue_ids
from lvm_jax.models.decoder.llama import Llama, LlamaConfig

V = 30
ALL, STOP = np.ones(V, bool), Stop((12, 20), 0)


class Counting(Llama):
    """What follows id i is i + 1, with a little chance of anything else."""

    def extend(self, tokens_BT, cache):
        logits_BTV, cache = super().extend(tokens_BT, cache)
        return 0.01 * logits_BTV + 5 * jax.nn.one_hot((tokens_BT + 1) % V, V), cache


@pytest.fixture(scope="module")
def generator() -> Generator:
    config = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2, attention="xla",
        max_position_embeddings=64,
    )  # fmt: skip
    return Generator(Counting(config, rngs=nnx.Rngs(0)).unstacked())


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_a_text_ends_before_its_stop_id(generator):
    prompts = [ids(3, 5, 8), ids(19), ids(14), ids(7, 1)]
    made = continue_ids(
        generator, prompts, 8, allowed_V=ALL, stop=STOP, sampling=Sampling(0.0), n_candidates=2
    )
    expected = [[9, 10, 11], [], [15, 16, 17, 18, 19], [2, 3, 4, 5, 6, 7, 8, 9]]
    assert [[text.tolist() for text in texts] for texts in made] == [[e, e] for e in expected]


def test_candidates_and_prompts_do_not_change_each_other(generator):
    prompts = [ids(3, 5, 8), ids(19), ids(7, 1, 2, 3, 4, 5, 6)]
    options = {"allowed_V": np.arange(V) < 25, "stop": STOP, "seed": 4}
    made = continue_ids(generator, prompts, 6, n_candidates=3, **options)
    for prompt, texts in zip(prompts, made):
        alone = continue_ids(generator, [prompt], 6, n_candidates=2, **options)[0]
        assert [text.tolist() for text in alone] == [text.tolist() for text in texts[:2]]


def test_prompts_of_many_lengths_compile_few_programs(generator):
    generate_module._start.clear_cache()
    for length in (6, 7, 8, 9):
        continue_ids(generator, [ids(*range(length))], 4, allowed_V=ALL, stop=STOP)
    assert generate_module._start._cache_size() == 1


def test_mistakes_are_named(generator):
    for prompts in ([], [ids(1), ids()]):
        with pytest.raises(UserError, match=f"{len(prompts)} prompts.*at least 1 id"):
            continue_ids(generator, prompts, 4, allowed_V=ALL, stop=STOP)
