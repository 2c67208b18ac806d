"""Pairs made up by a seed, as rows and as batches of one question, and a decoder with experts for them."""

import dataclasses

import numpy as np

from lvm_jax.data.in_context.sequences import Pair, Question, SequenceFormat, stacked
from lvm_jax.data.in_context.words import Words, WordsFormat
from lvm_jax.models import presets
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.vocabulary import Vocabulary

CODES, N, PAIRS = 8, 8, 3


class Letters:
    """A text tokenizer whose ids are code points."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


VOCABULARY = Vocabulary.unified(text=128, image=CODES, bins=11)
WORDS = WordsFormat(VOCABULARY, Letters())
FORMAT = SequenceFormat(WORDS, tokens_per_image=N)
LENGTH = PAIRS * FORMAT.pair_length


def pair(seed, question=Question.SEGMENTATION):
    """The mask is the picture, seen through the class: a shift of its codes."""
    rng = np.random.default_rng(seed)
    kind = int(rng.integers(2))
    picture = rng.integers(0, CODES, N)
    if question is Question.CAPTIONING:
        return Pair(picture, Words(chr(97 + int(picture[0])), "xy"[kind]))
    return Pair(picture, (picture + kind) % CODES)


def row(seed, question, pairs=PAIRS):
    return FORMAT.row([pair(100 * seed + i, question) for i in range(pairs)], PAIRS)


def batch(seed, rows=4, question=Question.SEGMENTATION, pairs=PAIRS):
    made = stacked([row(1000 * seed + i, question, pairs) for i in range(rows)])
    return {**made, "question": np.int32(list(Question).index(question))}


class Batches:
    """Batches of one question each, a pure function of (seed, step), of a fixed number of different ones."""

    def __init__(self, rows=4, different=1_000_000, seed=0):
        self.rows, self.different, self.seed, self.step = rows, different, seed, 0

    def __iter__(self):
        return self

    def __next__(self):
        number = self.seed + self.step % self.different
        self.step += 1
        rng = np.random.default_rng(number)
        question = (Question.SEGMENTATION, Question.CAPTIONING)[int(rng.integers(2))]
        return batch(number, self.rows, question, int(rng.integers(1, PAIRS + 1)))

    def get_state(self):
        return self.step

    def set_state(self, step):
        self.step = step


def decoder(**fields) -> DecoderConfig:
    """Two layers, the second with four experts; `moe` replaces fields of its configuration."""
    moe = MoEConfig(
        **{"experts": 4, "router": "attribute", "dispatch": "all_experts"} | fields.pop("moe", {})
    )
    fields = {
        "max_position_embeddings": LENGTH,
        "hidden_size": 32,
        "attention": "xla",
        "moe": moe,
    } | fields
    config = presets.unified("debug", VOCABULARY, **fields)
    return dataclasses.replace(config, initializer_range=0.1)
