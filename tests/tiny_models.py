"""Sentences made up by a seed, shards of them, and a tokenizer and a decoder small enough to run in a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.models.decoder.llama import Llama, LlamaConfig
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

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


@pytest.fixture(scope="session")
def vqgan() -> VQGAN:
    config = VQGANConfig(
        resolution=16,
        hidden_channels=4,
        channel_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        z_channels=4,
        num_embeddings=CODES,
        quantized_embed_dim=4,
        norm_groups=2,
    )
    return VQGAN(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="session")
def write_shards(make_sentence) -> Callable[[Path, dict[str, tuple[str, int]], str], None]:
    """OUT, source -> (layout, category), tokenizer: four sentences a source to train on, three held out."""

    def write(root: Path, layouts: dict[str, tuple[str, int]], fingerprint: str) -> None:
        folder = root / "tiny" / "1.0.0"
        folder.mkdir(parents=True)
        for split, seeds in (("train", range(4)), ("validation", range(4, 7))):
            with SentenceWriter(folder / shard_name("tiny", split, 0, 1)) as writer:
                for seed in seeds:
                    for source, (layout, category) in layouts.items():
                        writer.add(make_sentence(layout, category, seed, source))
        splits = {
            split: {"sentences": n * len(layouts), "images": 13, "shards": 1}
            for split, n in (("train", 4), ("validation", 3))
        }
        about = {"licence": "CC0-1.0", "origin": "made up", "sentences": 7, "images": 7}
        sources = {name: {"category": category, **about} for name, (_, category) in layouts.items()}
        Manifest(fingerprint, CODES, 16, TOKENS, splits, sources).save(folder)

    return write
