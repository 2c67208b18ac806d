"""A tokenizer and a decoder that know nothing and answer in a moment."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence, expand_layout
from lvm_jax.demo.studio import Studio
from lvm_jax.models import VQGAN, Llama, LlamaConfig, presets


@pytest.fixture(scope="package")
def vqgan() -> VQGAN:
    return VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))


@pytest.fixture(scope="package")
def model(vqgan: VQGAN) -> Llama:
    codes = vqgan.codebook_size
    config = LlamaConfig(
        vocab_size=codes + 100,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=codes,
        eos_token_id=codes + 1,
        pad_token_id=codes + 2,
        initializer_range=0.3,
        max_position_embeddings=5 * vqgan.tokens_per_image,
        attention="xla",
    )
    return Llama(config, rngs=nnx.Rngs(1))


@pytest.fixture(scope="package")
def studio(vqgan: VQGAN, model: Llama) -> Studio:
    return Studio(vqgan, model)


@pytest.fixture(scope="package")
def picture() -> Callable[..., bytes]:
    def make(seed: int, size: tuple[int, int] = (40, 24), kind: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format=kind)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="package")
def bomb() -> bytes:
    """8 kilobytes that would be decoded to 64 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="package")
def workdir(tmp_path_factory, vqgan: VQGAN, model: Llama) -> Path:
    """What a finished run leaves, as far as the page reads it."""
    root = tmp_path_factory.mktemp("run")
    vqgan.save_pretrained(root / "tokenizer/model")
    model.save_pretrained(root / "lvm/model")
    folder = root / "shards/tiny/1.0.0"
    folder.mkdir(parents=True)
    with SentenceWriter(folder / shard_name("tiny", "validation", 0, 1)) as writer:
        for source, category, layout in (
            ("clips", 3, "frame*3"),
            ("pairs", 2, "image,depth,image,depth"),
        ):
            for seed in range(2):
                images = len(expand_layout(layout))
                codes = np.random.default_rng(seed).integers(
                    0, vqgan.codebook_size, (images, vqgan.tokens_per_image)
                )
                writer.add(
                    VisualSentence(
                        codes.astype(np.uint16), source, category, f"{source}/{seed}", layout
                    )
                )
    about = {"licence": "CC0-1.0", "origin": "made up", "sentences": 2}
    split = {"sentences": 4, "images": 14, "shards": 1}
    Manifest(
        vqgan.fingerprint(), vqgan.codebook_size, vqgan.config.resolution, vqgan.tokens_per_image,
        {"validation": split},
        {"clips": about | {"category": 3, "images": 6}, "pairs": about | {"category": 2, "images": 8}},
    ).save(folder)  # fmt: skip
    return root
