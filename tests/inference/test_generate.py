"""The core: what may be drawn, what ends a row, and what a prompt is made of; greedy ids are those of full passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.inference import generate as generate_module
from lvm_jax.inference.generate import Generator, Stop, candidate_keys
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.llama import Llama, LlamaConfig

V, S = 24, 8
ALL = np.ones(V, bool)
GREEDY, SAMPLED = Sampling(0.0).filters(), Sampling().filters()


@pytest.fixture(scope="module")
def model() -> Llama:
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        attention="xla",
        initializer_range=0.3,  # logits far apart: an argmax that rounding cannot turn
        max_position_embeddings=32,
    )
    return Llama(config, rngs=nnx.Rngs(4))


@pytest.fixture(scope="module")
def generator(model) -> Generator:
    return Generator(model.unstacked())


def prompts_of(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, V, length).astype(np.int32) for length in lengths]


def start(generator, prompts, *, rows, slots=S, inputs=None):
    lengths_R = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
    tokens_RT = np.zeros((len(prompts), max(lengths_R)), np.int32)
    for row, prompt in zip(tokens_RT, prompts):
        row[: len(prompt) - 1] = prompt[:-1]
    next_R = np.array([prompt[-1] for prompt in prompts])
    inputs = tokens_RT if inputs is None else inputs(tokens_RT)
    return generator.start(inputs, lengths_R, next_R, rows=rows, slots=slots)


def draw(generator, prompts, *, rows=None, filters=SAMPLED, allowed=ALL, stop=None, inputs=None):
    rows = rows or len(prompts)
    keys = candidate_keys(3, len(prompts), rows // len(prompts))
    started = start(generator, prompts, rows=rows, inputs=inputs)
    return np.asarray(started.draw(S, keys, filters, allowed, stop))


def likeliest(model, prompt, made_S, allowed) -> np.ndarray:
    """The likeliest allowed id after each of the tokens before it, from one full pass."""
    tokens = np.zeros(S + 12, np.int32)  # one length for all: causality keeps the padding out
    tokens[: len(prompt) + S] = np.concatenate([prompt, made_S])
    logits_TV = np.asarray(model(jnp.asarray(tokens)[None])[0])[len(prompt) - 1 :][:S]
    return np.argmax(np.where(allowed, logits_TV, -np.inf), axis=-1)


def test_greedy_is_the_argmax_of_full_passes(model, generator):
    prompts = prompts_of(5, 1, 9)
    for prompt, made_S in zip(prompts, draw(generator, prompts, filters=GREEDY)):
        assert np.array_equal(made_S, likeliest(model, prompt, made_S, ALL))


@pytest.mark.parametrize("filters", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_mask_for_each_step(model, generator, filters):
    """Even ids and odd ids in turn, and one step that allows a single id."""
    allowed_SV = np.array([np.arange(V) % 2 == s % 2 for s in range(S)])
    allowed_SV[5] = np.arange(V) == 7
    prompts = prompts_of(4, 6)
    made = draw(generator, prompts, rows=6, filters=filters, allowed=allowed_SV)
    assert (made % 2 == np.arange(S) % 2).all()
    assert (made[:, 5] == 7).all()
    if filters is GREEDY:
        assert np.array_equal(made[0], likeliest(model, prompts[0], made[0], allowed_SV))


def test_a_fixed_mask_is_the_same_mask_at_each_step(generator):
    allowed = np.arange(V) < 9
    prompts = prompts_of(4, 6)
    made = draw(generator, prompts, rows=4, allowed=allowed)
    assert made.max() < 9
    assert np.array_equal(made, draw(generator, prompts, rows=4, allowed=np.tile(allowed, (S, 1))))


def test_a_stop_id_ends_its_row_and_no_other(generator):
    prompts, pad = prompts_of(5, 3), 23
    free = draw(generator, prompts, rows=8)
    stop = Stop((int(free[0, 2]), int(free[5, 4])), pad)
    made = draw(generator, prompts, rows=8, stop=stop)
    for ids, before in zip(made, free):
        ends = np.flatnonzero(np.isin(before, stop.ids))
        length = ends[0] + 1 if len(ends) else S
        assert np.array_equal(ids[:length], before[:length])  # the stop id itself is given
        assert (ids[length:] == pad).all()
    assert {int(np.isin(ids, stop.ids).argmax()) for ids in made} >= {2}
    assert not (made == pad).all(axis=1).any()


def test_generation_ends_when_all_rows_have_stopped(generator):
    prompts = prompts_of(5, 3)
    keys = candidate_keys(3, 2, 2)
    started = start(generator, prompts, rows=4, slots=2 * S)
    allowed_SV = np.tile(np.arange(V) > 1, (S, 1))
    allowed_SV[3] = np.arange(V) == 1  # every row stops at its fourth id
    stop = Stop((1,), 0)
    made = np.asarray(started.draw(S, keys, SAMPLED, allowed_SV, stop))
    assert (made[:, 3] == 1).all()
    assert (made[:, 4:] == 0).all()
    assert int(started.rows.made) == int(started.rows.cache.length) == 4
    assert started.rows.stopped_B.all()
    assert (np.asarray(started.draw(S, keys, SAMPLED, ALL, stop)) == 0).all()  # and stays so
    assert int(started.rows.made) == 4


def test_ids_do_not_depend_on_the_number_of_calls(generator):
    prompts, keys, stop = prompts_of(5, 3), candidate_keys(3, 2, 1), Stop((4,), 0)
    started = start(generator, prompts, rows=2)
    calls = [started.draw(count, keys, SAMPLED, ALL, stop) for count in (1, 5, 2)]
    assert np.array_equal(
        np.concatenate(calls, axis=1), draw(generator, prompts, rows=2, stop=stop)
    )


def test_embeddings_give_what_their_tokens_give(model, generator):
    prompts = prompts_of(5, 9, 2)
    caches = (start(generator, prompts, rows=3, inputs=made).prefix for made in (None, model.embed))
    for ours, theirs in zip(*map(jax.tree.leaves, caches), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for filters in (GREEDY, SAMPLED):
        by_tokens = draw(generator, prompts, rows=6, filters=filters)
        by_embeddings = draw(generator, prompts, rows=6, filters=filters, inputs=model.embed)
        assert np.array_equal(by_tokens, by_embeddings)
    other = draw(generator, prompts, rows=6, inputs=lambda ids: model.embed(ids[:, ::-1]))
    assert not np.array_equal(by_tokens, other)


def test_candidates_of_a_shared_prefix_are_single_runs(generator):
    prompts, keys = prompts_of(5, 9), candidate_keys(3, 1, 3)
    together = draw(generator, prompts, rows=6).reshape(2, 3, S)
    for prompt, made_CS in zip(prompts, together):
        for key, made_S in zip(keys, made_CS):
            alone = start(generator, [prompt], rows=1).draw(S, key[None], SAMPLED, ALL)
            assert np.array_equal(alone[0], made_S)


def test_one_compile_over_many_calls(generator):
    begin, decode = generate_module._start, generate_module._decode
    begin.clear_cache()
    decode.clear_cache()
    for seed in range(3):
        prompts = [prompt + seed for prompt in prompts_of(5, 3)]
        started = start(generator, prompts, rows=4, slots=2 * S)
        filters = Sampling(0.5 + seed, top_p=0.9).filters()
        for part in range(2):
            allowed = np.arange(V) < 10 + seed + part
            started.draw(S, candidate_keys(seed, 2, 2), filters, allowed, Stop((1,), 0))
    assert (begin._cache_size(), decode._cache_size()) == (1, 1)


class Counter(nnx.Module):
    """A decoder of its own kind: after id i comes i + 1, and its cache is what another decoder uses."""

    def __init__(self, decoder: Llama) -> None:
        self.decoder = decoder

    def prefill(self, inputs, lengths_R, *, dtype=None):
        return self.decoder.prefill(inputs, lengths_R, dtype=dtype)

    def init_cache(self, batch, max_len, *, dtype=None, prefix=None):
        return self.decoder.init_cache(batch, max_len, dtype=dtype, prefix=prefix)

    def extend(self, tokens_BT, cache):
        _, cache = self.decoder.extend(tokens_BT, cache)
        return jax.nn.one_hot((tokens_BT + 1) % V, V), cache


def test_any_decoder_with_a_cache_can_be_continued(model):
    made = draw(Generator(Counter(model.unstacked())), prompts_of(5, 3), filters=GREEDY)
    last = [prompt[-1] for prompt in prompts_of(5, 3)]
    assert np.array_equal(made, (np.array(last)[:, None] + 1 + np.arange(S)) % V)


def test_mistakes_are_named(generator):
    keys, prompts = candidate_keys(0, 2, 1), prompts_of(5, 3)
    with pytest.raises(UserError, match="3 rows over 2 prompts"):
        start(generator, prompts, rows=3)
    started = start(generator, prompts, rows=2)
    started.draw(S - 1, keys, SAMPLED, ALL)
    with pytest.raises(UserError, match="asked for 2 ids with 1 free slots"):
        started.draw(2, keys, SAMPLED, ALL)
    with pytest.raises(UserError, match="2 steps for 1 ids"):
        started.draw(1, keys, SAMPLED, np.ones((2, V), bool))
    with pytest.raises(UserError, match="allows 0 ids"):
        started.draw(1, keys, SAMPLED, np.zeros(V, bool))
