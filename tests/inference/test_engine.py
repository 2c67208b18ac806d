"""Decoding with a cache gives what the full forward pass says, in one dispatch an image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.inference import engine as engine_module
from lvm_jax.inference.engine import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.llama import Llama, LlamaConfig

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


def test_sampled_images_follow_the_models_distribution(model, engine):
    prompt = prompt_of(3)
    first_codes = engine.generate(prompt, 1, n_candidates=4000, seed=2)[:, 0, 0]
    tokens = jnp.concatenate([jnp.array([BOS]), jnp.asarray(prompt).reshape(-1)])[None]
    expected = np.asarray(jax.nn.softmax(model(tokens)[0, -1, :CODES]))
    error = np.sqrt(expected * (1 - expected) / 4000) + 1e-6
    assert np.all(np.abs(np.bincount(first_codes, minlength=CODES) / 4000 - expected) < 5 * error)


def test_one_compile_for_all_prompts_of_a_length(engine):
    prefill, decode = engine_module._prefill, engine_module._decode_image
    prefill.clear_cache()
    decode.clear_cache()
    for seed in range(3):
        engine.generate(
            prompt_of(2, seed), 2, seed=seed, sampling=Sampling(temperature=0.5 + seed, top_p=0.9)
        )
    assert (prefill._cache_size(), decode._cache_size()) == (1, 1)
    engine.generate(prompt_of(1), 1)  # another prompt length: another prefill, the same decoding
    assert (prefill._cache_size(), decode._cache_size()) == (2, 1)


def test_one_dispatch_an_image(engine, monkeypatch):
    calls = []
    decode = engine_module._decode_image
    monkeypatch.setattr(
        engine_module, "_decode_image", lambda *args: calls.append(1) or decode(*args)
    )
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
    ],
)
def test_mistakes_are_named(engine, prompt, options, words):
    with pytest.raises(UserError, match=words):
        engine.generate(prompt, **options)


def test_a_vocabulary_without_room_for_bos_is_refused(model):
    with pytest.raises(UserError, match="120 ids and the tokenizer 120 codes"):
        Engine(model, TOKENS, CODES + 100)
    with pytest.raises(UserError, match="the model reads 16 tokens"):
        Engine(model, 17, CODES)
