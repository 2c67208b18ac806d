"""Ids in, ids out: a decoder that counts shows where a text begins and where it ends."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.inference import generate as generate_module
from lvm_jax.inference import text as text_module
from lvm_jax.inference.beam import Beams
from lvm_jax.inference.generate import Generator, Stop
from lvm_jax.inference.sampling import Sampling, keep_new_ngrams
from lvm_jax.inference.text import Prompts, continue_prompts, search_prompts
from lvm_jax.models.decoder.llama import Llama, LlamaConfig

V = 30
ALL, STOP = np.ones(V, bool), Stop((12, 20), 0)


class Counting(Llama):
    """What follows id i is i + 1, with a little chance of anything else."""

    def extend(self, tokens_BT, cache):
        logits_BTV, cache = super().extend(tokens_BT, cache)
        return 0.01 * logits_BTV + 5 * jax.nn.one_hot((tokens_BT + 1) % V, V), cache


CONFIG = LlamaConfig(
    vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2, attention="xla",
    max_position_embeddings=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(Counting(CONFIG, rngs=nnx.Rngs(0)).unstacked())


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def continue_ids(generator, prompts, max_new, *, stop, **options):
    return continue_prompts(generator, Prompts.of(prompts, stop.pad), max_new, stop=stop, **options)


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


def test_a_long_text_grows_its_cache(generator, monkeypatch):
    prompts = [ids(3, 5, 8), ids(7, 1)]
    options = {"allowed_V": np.arange(V) < 20, "stop": STOP, "seed": 1, "n_candidates": 2}
    at_once = continue_ids(generator, prompts, 20, **options)
    monkeypatch.setattr(text_module, "FIRST_SLOTS", 4)
    grown = continue_ids(generator, prompts, 20, **options)
    assert [[a.tolist() for a in texts] for texts in grown] == [
        [a.tolist() for a in texts] for texts in at_once
    ]
    assert max(len(a) for texts in grown for a in texts) > 8  # it grew more than once


class Talkative(Counting):
    """Stops only when nothing else is left to say."""

    def extend(self, tokens_BT, cache):
        logits_BTV, cache = super().extend(tokens_BT, cache)
        return logits_BTV.at[..., 12].add(-20), cache


@pytest.mark.parametrize("first_slots", [128, 3])
def test_no_ngram_comes_twice(monkeypatch, first_slots):
    monkeypatch.setattr(text_module, "FIRST_SLOTS", first_slots)
    generator = Generator(Talkative(CONFIG, rngs=nnx.Rngs(0)).unstacked())
    options = {
        "allowed_V": np.isin(np.arange(V), [3, 4, 5, 12]),
        "stop": Stop((12,), 0),
        "sampling": Sampling(0.0),
    }
    ((free,),) = continue_ids(generator, [ids(3)], 12, **options)
    ((made,),) = continue_ids(generator, [ids(3)], 12, no_repeat=2, **options)
    free, made = free.tolist(), made.tolist()
    pairs = list(itertools.pairwise(made))
    assert len(set(pairs)) == len(pairs) > 3
    assert len(free) == 12 > len(made)  # of three ids there are nine pairs, so it had to end
    # The first id that the block changed is where the greedy text says a pair again.
    changed = next(i for i, (a, b) in enumerate(zip(made, free)) if a != b)
    assert (free[changed - 1], free[changed]) in itertools.pairwise(free[:changed])


def test_repeating_ids_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    drawn_ZB = rng.integers(0, 4, (9, 5)).astype(np.int32)
    for n in (1, 2, 3):
        for made in (0, n - 1, 4, 9):
            found = keep_new_ngrams(jnp.zeros((5, 6)), jnp.asarray(drawn_ZB), jnp.int32(made), n)
            for row, logits in zip(drawn_ZB[:made].T.tolist(), np.asarray(found)):
                known = {tuple(row[i : i + n]) for i in range(len(row) - n + 1)}
                last = row[len(row) - n + 1 :] if n > 1 else []
                repeats = [(*last, i) in known for i in range(6)]
                assert np.isinf(logits).tolist() == repeats


def test_a_block_needs_a_way_out(generator):
    with pytest.raises(UserError, match="no_repeat=2 may forbid every other id"):
        continue_ids(generator, [ids(3)], 4, allowed_V=np.arange(V) < 5, stop=STOP, no_repeat=2)


@jax.jit
def logp_after(model: Llama, tokens_BT, last):
    """Log-probabilities of what follows, from full passes over one length."""
    return jax.nn.log_softmax(model(tokens_BT)[:, last])


def plain_beams(model, prompt, count, width, penalty, allowed, stop) -> list[list[int]]:
    """Beam search as one would write it down: lists, full passes, no cache."""
    beams, ended = [(0.0, [])], []
    for length in range(1, count + 1):
        tokens = np.zeros((width, 12), np.int32)
        for row, (_, text) in zip(tokens, beams):
            row[: len(prompt) + len(text)] = [*prompt, *text]
        logp = np.asarray(logp_after(model, tokens, len(prompt) + length - 2))
        found = [
            (score + float(logp[beam, i]), [*text, i])
            for beam, (score, text) in enumerate(beams)
            for i in np.flatnonzero(allowed).tolist()
        ]
        found.sort(key=lambda one: -one[0])
        found = found[: width * (len(stop) + 1)]
        ended += [(s / length**penalty, t) for s, t in found[:width] if t[-1] in stop]
        ended = sorted(ended, key=lambda one: -one[0])[:width]
        beams = [one for one in found if one[1][-1] not in stop][:width]
    ended += [(score / count**penalty, text) for score, text in beams]
    best = sorted(ended, key=lambda one: -one[0])[:width]
    return [text[:-1] if text[-1] in stop else text for _, text in best]


@pytest.mark.parametrize(("penalty", "first_slots"), [(0.0, 128), (1.0, 2)])
def test_beams_are_those_of_a_plain_search(monkeypatch, penalty, first_slots):
    monkeypatch.setattr(text_module, "FIRST_SLOTS", first_slots)
    model = Llama(dataclasses.replace(CONFIG, initializer_range=0.4), rngs=nnx.Rngs(2))
    prompts, allowed = [ids(3, 5, 8), ids(19), ids(7, 1, 4, 4, 2)], np.arange(V) < 22
    found = search_prompts(
        Generator(model.unstacked()), Prompts.of(prompts, 0), 6, allowed_V=allowed, stop=STOP,
        beams=Beams(3, penalty),
    )  # fmt: skip
    for prompt, texts in zip(prompts, found):
        expected = plain_beams(model, prompt.tolist(), 6, 3, penalty, allowed, STOP.ids)
        assert [text.tolist() for text in texts] == expected


def test_one_beam_is_greedy(generator):
    prompts = [ids(3, 5, 8), ids(19)]
    greedy = continue_ids(generator, prompts, 8, allowed_V=ALL, stop=STOP, sampling=Sampling(0.0))
    found = search_prompts(
        generator, Prompts.of(prompts, 0), 8, allowed_V=ALL, stop=STOP, beams=Beams(1)
    )
    assert [[t.tolist() for t in texts] for texts in found] == [
        [t.tolist() for t in texts] for texts in greedy
    ]
    blocked = search_prompts(
        generator, Prompts.of(prompts, 0), 20, allowed_V=np.isin(np.arange(V), [3, 4, 5, 12]),
        stop=Stop((12,), 0), beams=Beams(2, no_repeat=2),
    )  # fmt: skip
    for texts in blocked:
        for text in texts:
            pairs = list(itertools.pairwise(text.tolist()))
            assert len(set(pairs)) == len(pairs)
    with pytest.raises(UserError, match="width must be at least 1"):
        Beams(0)
