"""A tokenizer and a decoder that know nothing and answer in a moment."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from data_pipelines.train_text_tokenizer import character_table, small_settings
from lvm_jax.data.image_text.conversation import Conversation, Turn
from lvm_jax.data.image_text.record import ImageText, ImageTextWriter
from lvm_jax.data.in_context.format_folder import save_format
from lvm_jax.data.in_context.pool_record import PoolRecord, PoolWriter
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.records.manifest import Manifest, shard_name
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence, expand_layout
from lvm_jax.data.text_tokenizer import TextTokenizer, save_folder
from lvm_jax.demo.lvm.studio import Studio
from lvm_jax.models import VQGAN, Decoder, Llama, LlamaConfig, VisionLanguage, presets
from lvm_jax.vocabulary import Vocabulary

QUESTIONS = ("Read it.", "Describe it.")
CLASSES = ("disc", "star")


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


@pytest.fixture
def run_card(tmp_path, monkeypatch) -> Callable[[Path, dict[str, bytes]], dict]:
    """(a release, files) -> the names that the card's Python leaves, run beside release/SYSTEM and these files."""

    def run(release: Path, files: dict[str, bytes]) -> dict:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "release").mkdir()
        (tmp_path / "release" / release.name).symlink_to(release)
        monkeypatch.chdir(tmp_path)
        card = (release / "MODEL_CARD.md").read_text()
        names: dict = {}
        exec(card.split("```python\n")[1].split("```")[0], names)
        return names

    return run


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


@pytest.fixture(scope="package")
def vary_run(tmp_path_factory, picture) -> Path:
    """What a finished run of Vary's second stage leaves, as far as the page reads it."""
    root = tmp_path_factory.mktemp("vary")
    folder = root / "two/model"
    settings = small_settings("mpt")
    save_folder(folder, character_table(["abcdefg.", *QUESTIONS], settings), settings)
    config = presets.vary("debug-two")
    model = VisionLanguage(config, rngs=nnx.Rngs(0))
    model.tokenizer_fingerprint = TextTokenizer(folder).fingerprint
    model.save_pretrained(folder)
    records = [
        ImageText(
            (picture(i, (8, 20)),),
            Conversation((Turn(f"<image>\n{QUESTIONS[i % 2]}", "ab" * (i + 1)),)),
            ("lines", "shapes")[i % 2],
            f"{i}",
            "CC0-1.0",
        )
        for i in (0, 1, 2, 3)
    ]
    write_validation(root / "shards", "pages", records, ImageTextWriter, "image_text")
    return root


@pytest.fixture(scope="package")
def unified_run(tmp_path_factory, vqgan: VQGAN) -> Path:
    """What a finished run of the recipe "unified" leaves, as far as the page reads it."""
    root = tmp_path_factory.mktemp("unified")
    vqgan.save_pretrained(root / "tokenizer/model")
    codes, n = vqgan.codebook_size, vqgan.tokens_per_image
    settings = small_settings("opt")
    save_folder(root / "words", character_table(["abcdefgdiscstar 0123456789"], settings), settings)
    tokenizer = TextTokenizer(root / "words")
    vocabulary = Vocabulary.unified(text=tokenizer.size, image=codes, bins=11)
    form = SequenceFormat(WordsFormat(vocabulary, tokenizer), n, category_room=8)
    positions = 4 * form.pair_length
    config = presets.unified("debug", vocabulary, max_position_embeddings=positions)
    model = Decoder(config, rngs=nnx.Rngs(2))
    model.save_pretrained(root / "unified/model")
    save_format(root / "unified/model", form, tokenizer, tuple(Question))
    rng = np.random.default_rng(0)
    records = [
        PoolRecord(
            picture=rng.integers(0, codes, n),
            class_name=CLASSES[i % 2],
            shows=f"scene {i // 2}",  # a disc and a star each
            source="things",
            key=f"{i}",
            licence="CC0-1.0",
            mask=rng.integers(0, codes, n),
            caption=f"a {CLASSES[i % 2]} {i}",
            boxes=((0.0, 0.2, 0.5, 1.0),),
        )
        for i in range(12)
    ]
    sizes = {
        "tokenizer_fingerprint": vqgan.fingerprint(),
        "codebook_size": codes,
        "image_size": vqgan.config.resolution,
        "tokens_per_image": n,
    }
    write_validation(root / "pools", "pool", records, PoolWriter, "pool", **sizes)
    return root


def write_validation(root: Path, name, records, writer_of, encoding, **sizes) -> None:
    """The validation split of a data set, in one shard."""
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    with writer_of(folder / shard_name(name, "validation", 0, 1)) as writer:
        for record in records:
            writer.add(record)
    total = {"sentences": len(records), "images": len(records)}
    about = {"category": 0, "licence": "CC0-1.0", "origin": "made up", **total}
    fields = {
        "tokenizer_fingerprint": "",
        "codebook_size": 0,
        "image_size": 0,
        "tokens_per_image": 0,
        "splits": {"validation": {**total, "shards": 1}},
        "sources": {record.source: about for record in records},
        "encoding": encoding,
        **sizes,
    }
    Manifest(**fields).save(folder)
