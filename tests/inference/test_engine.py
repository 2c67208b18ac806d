"""Decoding with a cache gives what the full forward pass says, in one dispatch an image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from lvm_jax.errors import UserError
from lvm_jax.inference import generate as generate_module
from lvm_jax.inference.images import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.llama import Llama, LlamaConfig

CODES, TOKENS, CONTEXT = 20, 4, 4
BOS = CODES


@pytest.fixture(scope="module")
def model() -> Llama:
    config = LlamaConfig(
        vocab_size=CODES + 100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=CODES,
        eos_token_id=CODES + 1,
        pad_token_id=CODES + 2,
        attention="xla",
        initializer_range=0.3,  # logits far apart: an argmax that rounding cannot turn
        max_position_embeddings=CONTEXT * TOKENS,
    )
    return Llama(config, rngs=nnx.Rngs(3))


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    return Engine(model, TOKENS, CODES)


def prompt_of(n_images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CODES, (n_images, TOKENS)).astype(np.int32)


def teacher_forced(model: Llama, images_PN: np.ndarray) -> np.ndarray:
    """The likeliest code at every place of a sentence, from one full forward pass."""
    tokens = np.concatenate([[BOS], images_PN.reshape(-1)]).astype(np.int32)
    logits_TV = model(jnp.asarray(tokens)[None])[0]
    return np.asarray(jnp.argmax(logits_TV[:-1, :CODES], axis=-1)).reshape(images_PN.shape)


GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize("n_prompt", [0, 1, 2, 3])
def test_greedy_equals_the_full_forward_pass(model, engine, n_prompt):
    prompt = prompt_of(n_prompt)
    made = engine.generate(prompt, CONTEXT - n_prompt, sampling=GREEDY)[0]
    assert made.shape == (CONTEXT - n_prompt, TOKENS)
    assert np.array_equal(made, teacher_forced(model, np.concatenate([prompt, made]))[n_prompt:])


def test_beyond_the_context_it_slides_by_whole_images(model, engine):
    prompt = prompt_of(3)
    made = engine.generate(prompt, 3, sampling=GREEDY, n_candidates=2)
    assert np.array_equal(made[0], made[1])
    sentence = np.concatenate([prompt, made[0]])
    for i in range(3):
        window = sentence[: 4 + i][-CONTEXT:]  # the image and what it was made from
        assert np.array_equal(teacher_forced(model, window)[-1], sentence[3 + i])


def test_sliding_candidates_keep_their_own_past(model, engine):
    made = engine.generate(prompt_of(3), 2, n_candidates=3, seed=1)
    assert not np.array_equal(made[0, 0], made[1, 0])
    # The second image sees the first through its own row only: the same draw from a single row agrees.
    alone = engine.generate(prompt_of(3), 2, n_candidates=1, seed=1)
    assert np.array_equal(alone[0], made[0])


def test_seeds(engine):
    prompt = prompt_of(2)
    first = engine.generate(prompt, 2, n_candidates=3, seed=5)
    assert np.array_equal(first, engine.generate(prompt, 2, n_candidates=3, seed=5))
    assert not np.array_equal(first, engine.generate(prompt, 2, n_candidates=3, seed=6))
    assert len({row.tobytes() for row in first}) == 3
    assert not np.array_equal(first[0, 0], first[0, 1])
    assert first.min() >= 0
    assert first.max() < CODES


def test_every_code_has_a_key_of_its_own(model):
    flat = dataclasses.replace(
        model.config, initializer_range=0.0
    )  # all codes equally likely, whatever came before
    engine = Engine(Llama(flat, rngs=nnx.Rngs(0)), TOKENS, CODES)
    made = engine.generate(prompt_of(1), 3, n_candidates=4)
    assert len({image.tobytes() for image in made.reshape(-1, TOKENS)}) == 12
    assert (made[..., :1] == made).all(axis=-1).mean() < 0.5


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_sampled_images_follow_the_models_distribution(model, engine, temperature):
    """Chi-square of the first code of 4000 candidates, against the softmax over codes of one full forward pass."""
    prompt = prompt_of(3)
    sampling = Sampling(temperature)
    codes = engine.generate(prompt, 1, n_candidates=4000, seed=2, sampling=sampling)[:, 0, 0]
    tokens = jnp.concatenate([jnp.array([BOS]), jnp.asarray(prompt).reshape(-1)])[None]
    expected = 4000 * np.asarray(jax.nn.softmax(model(tokens)[0, -1, :CODES] / temperature))
    counts = np.bincount(codes, minlength=CODES).astype(float)
    rare = expected < 5  # one cell, as the test demands
    cells = [np.append(x[~rare], x[rare].sum()).astype(np.float64) for x in (counts, expected)]
    kept = cells[1] > 0
    p_value = stats.chisquare(cells[0][kept], cells[1][kept] * 4000 / cells[1].sum()).pvalue
    assert p_value > 0.01
    # The test has power: the neighbouring temperature is refused.
    wrong = 4000 * np.asarray(jax.nn.softmax(model(tokens)[0, -1, :CODES] / (temperature * 1.15)))
    wrong = np.append(wrong[~rare], wrong[rare].sum()).astype(np.float64)
    assert stats.chisquare(cells[0][kept], wrong[kept] * 4000 / wrong.sum()).pvalue < 1e-3


def test_prompts_of_different_lengths_in_one_batch(model, engine):
    """Each is answered as if it were alone, also once the longest begins to slide."""
    prompts = [prompt_of(n, seed=n) for n in (3, 0)]
    together = engine.generate_batch(prompts, 2, n_candidates=2, seed=4)
    assert together.shape == (2, 2, 2, TOKENS)
    for prompt, made in zip(prompts, together):
        assert np.array_equal(made, engine.generate(prompt, 2, n_candidates=2, seed=4))
    greedy = engine.generate_batch(prompts, 2, n_candidates=2, sampling=GREEDY)
    for prompt, made in zip(prompts, greedy[:, 0]):
        sentence = np.concatenate([prompt, made])
        for i in range(2):
            window = sentence[: len(prompt) + i + 1][-CONTEXT:]
            assert np.array_equal(teacher_forced(model, window)[-1], made[i])


# What the engine of images gave before it became a face of `lvm_jax.inference.generate`: three prompts of 2, 0 and 1
# images, two candidates each, three images made, so that the context of four slides. They may change only with a change
# that is meant to alter the draws.
GOLDEN = {
    Sampling(0.0): [
        [19, 17, 16, 19, 6, 17, 11, 18, 4, 5, 8, 17],
        [19, 17, 16, 19, 6, 17, 11, 18, 4, 5, 8, 17],
        [17, 18, 17, 18, 17, 3, 14, 8, 17, 19, 6, 17],
        [17, 18, 17, 18, 17, 3, 14, 8, 17, 19, 6, 17],
        [17, 8, 17, 3, 18, 17, 18, 6, 17, 0, 7, 19],
        [17, 8, 17, 3, 18, 17, 18, 6, 17, 0, 7, 19],
    ],
    Sampling(): [
        [19, 15, 5, 1, 0, 7, 16, 12, 18, 13, 10, 11],
        [19, 17, 16, 0, 10, 16, 5, 16, 18, 10, 11, 18],
        [17, 5, 14, 8, 17, 15, 16, 18, 18, 8, 0, 16],
        [18, 15, 16, 19, 6, 17, 19, 17, 5, 13, 9, 4],
        [6, 17, 8, 17, 17, 14, 16, 6, 5, 8, 9, 11],
        [7, 12, 18, 6, 6, 16, 17, 0, 19, 6, 17, 4],
    ],
    Sampling(1.3, 9, 0.8, 0.02): [
        [2, 8, 8, 16, 18, 13, 9, 6, 9, 12, 4, 6],
        [19, 17, 16, 14, 19, 17, 5, 9, 2, 0, 10, 18],
        [15, 8, 14, 14, 2, 17, 4, 6, 5, 8, 10, 6],
        [18, 15, 16, 19, 6, 17, 5, 9, 19, 19, 6, 12],
        [6, 17, 8, 17, 17, 10, 12, 6, 16, 17, 4, 6],
        [7, 8, 18, 6, 6, 16, 19, 17, 8, 10, 10, 11],
    ],
}
GOLDEN_INT8 = [
    [18, 17, 19, 17, 6, 7, 1, 19, 2, 17, 8, 4],
    [17, 1, 12, 18, 17, 2, 7, 18, 17, 19, 6, 17],
]


@pytest.mark.parametrize("sampling", GOLDEN, ids=["greedy", "sampled", "filtered"])
def test_golden_ids(engine, sampling):
    prompts = [prompt_of(n, seed=n) for n in (2, 0, 1)]
    made = engine.generate_batch(prompts, 3, n_candidates=2, sampling=sampling, seed=11)
    assert made.reshape(6, -1).tolist() == GOLDEN[sampling]


def test_golden_ids_without_a_prompt_and_with_a_small_cache(model):
    engine = Engine(model, TOKENS, CODES, context_images=1, cache_dtype="int8")
    made = engine.generate(prompt_of(0), 3, n_candidates=2, seed=5)
    assert made.reshape(2, -1).tolist() == GOLDEN_INT8


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.3, 9, 0.8)], ids=["greedy", "filtered"])
def test_likelihoods_are_those_of_the_full_forward_pass(model, engine, sampling):
    """Of codes alone, at temperature 1 whatever the draw; two prompts, and a context that slides."""
    prompts = [prompt_of(n, seed=n) for n in (2, 1)]
    made, found = engine.generate_scored(prompts, 3, n_candidates=2, sampling=sampling, seed=3)
    assert found.shape == (2, 2)
    for prompt, candidates, likelihoods in zip(prompts, made, found):
        for images, likelihood in zip(candidates, likelihoods):
            sentence = np.concatenate([prompt, images])
            total = 0.0
            for i in range(len(prompt), len(sentence)):
                window = sentence[: i + 1][-CONTEXT:]
                tokens = jnp.concatenate([jnp.array([BOS]), jnp.asarray(window).reshape(-1)])[None]
                logprobs = jax.nn.log_softmax(model(tokens)[0, :-1, :CODES], axis=-1)[-TOKENS:]
                total += float(logprobs[np.arange(TOKENS), window[-1]].sum())
            assert likelihood == pytest.approx(total, abs=2e-4)


def nbytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_candidates_share_the_prompts_cache(model, engine):
    """One prompt's cache and the candidates' own tokens: nothing grows with candidates times prompt."""
    prompt = prompt_of(3)
    many = engine.start([prompt], 8, 1)
    prefix, own = many.prefix, many.rows
    one = engine.start([prompt], 1, 1).prefix
    layers, heads, head_dim = 2, 2, 16
    a_token = layers * 2 * heads * head_dim * 4
    assert nbytes(one) == pytest.approx(3 * TOKENS * a_token, rel=0.01)
    assert nbytes((prefix, own)) <= 1.15 * (nbytes(one) + 8 * TOKENS * a_token)
    small = Engine(model, TOKENS, CODES, cache_dtype="int8").start([prompt], 8, 1)
    assert nbytes((small.prefix, small.rows)) < 0.35 * nbytes((prefix, own))


@pytest.mark.parametrize("cache_dtype", ["int8", "float8_e4m3fn"])
def test_a_smaller_cache_draws_nearly_the_same(model, engine, cache_dtype):
    prompt = prompt_of(2)
    small = Engine(model, TOKENS, CODES, cache_dtype=cache_dtype)
    ours = small.generate(prompt, 1, n_candidates=64, seed=3)[:, 0, 0]
    exact = engine.generate(prompt, 1, n_candidates=64, seed=3)[:, 0, 0]
    assert np.mean(ours == exact) > 0.8


def test_weights_that_are_no_numbers_are_refused(model):
    broken = nnx.clone(model)
    gate = broken.layers.mlp.gate
    gate[...] = gate[...].at[1, 0, 0].set(jnp.nan)
    with pytest.raises(UserError, match=r"the decoder has NaN.*layers\.mlp\.gate: use an earlier"):
        Engine(broken, TOKENS, CODES)


def test_one_compile_for_all_prompts_of_a_length(engine):
    start, decode = generate_module._start, generate_module._decode
    start.clear_cache()
    decode.clear_cache()
    for seed in range(3):
        engine.generate(
            prompt_of(2, seed), 2, seed=seed, sampling=Sampling(temperature=0.5 + seed, top_p=0.9)
        )
    assert (start._cache_size(), decode._cache_size()) == (1, 1)


def test_one_dispatch_an_image(engine, monkeypatch):
    calls = []
    decode = generate_module._decode
    monkeypatch.setattr(generate_module, "_decode", lambda *args: calls.append(1) or decode(*args))
    engine.generate(prompt_of(1), 3, n_candidates=2)
    assert len(calls) == 3


def test_the_context_is_the_models(model):
    assert Engine(model, TOKENS, CODES).context_images == CONTEXT
    assert Engine(model, TOKENS, CODES, context_images=2).context_images == 2


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        (prompt_of(4), {}, r"4 images: at most 3 leave room.*drop the oldest"),
        (prompt_of(1), {"n_candidates": 0}, "0 candidates of 1 images"),
        (prompt_of(1), {"n_images": 0}, "1 candidates of 0 images"),
        (prompt_of(1) + CODES, {}, f"codes are 0..{CODES - 1}"),
        (np.zeros((1, 3), np.int32), {}, r"shape \(1, 3\)"),
        (prompt_of(1), {"sampling": Sampling(top_p=2.0)}, "top_p is 2.0"),
        (prompt_of(1), {"sampling": Sampling(min_p=1.0)}, "min_p is 1.0"),
        (prompt_of(1), {"sampling": Sampling(temperature=float("nan"))}, "temperature is nan"),
    ],
)
def test_mistakes_are_named(engine, prompt, options, words):
    with pytest.raises(UserError, match=words):
        engine.generate(prompt, **options)


def test_a_vocabulary_without_room_for_bos_is_refused(model):
    with pytest.raises(UserError, match="120 ids and the tokenizer 120 codes"):
        Engine(model, TOKENS, CODES + 100)
    with pytest.raises(UserError, match="cache dtype 'int4'"):
        Engine(model, TOKENS, CODES, cache_dtype="int4")
    with pytest.raises(UserError, match="the model reads 16 tokens"):
        Engine(model, 17, CODES)
