"""Writes one corpus of random codes in the format of each loader to compare."""

import dataclasses
import pathlib

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.convert_jsonl import format_line
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.sentences.sentence_record import SentenceWriter
from lvm_jax.data.sentences.visual_sentence import VisualSentence

CODEBOOK_SIZE, TOKENS_PER_IMAGE = 8192, 256
SEQ_LEN = 4096


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Paths of a corpus: shards, and the same sentences as ArrayRecord of raw uint16 and as jsonl."""

    shards: pathlib.Path
    array_record: pathlib.Path
    jsonl: pathlib.Path


def images_of(mixture: str, sentences: int) -> np.ndarray:
    """Images of each sentence: "videos" of 16 images, or "mixed": 70% single images, 10% pairs, 20% videos of 8-16."""
    if mixture == "videos":
        return np.full(sentences, 16)
    rng = np.random.default_rng(0)
    pairs = rng.choice([2, 4, 6, 8, 16], sentences // 10)
    videos = rng.integers(8, 17, sentences // 5)
    singles = np.ones(sentences - len(pairs) - len(videos), int)
    return rng.permutation(np.concatenate([singles, pairs, videos]))


def write_corpus(root: pathlib.Path, images: np.ndarray) -> Corpus:
    """Writes sentences of `images[i]` images in all three formats."""
    folder = pathlib.Path(manifests.dataset_folder(root, "random", "1.0.0"))
    folder.mkdir(parents=True)
    corpus = Corpus(folder, root / "random.array_record", root / "random.jsonl")
    rng = np.random.default_rng(0)
    # grain wants this for random access: one record per group, uncompressed.
    records = ArrayRecordWriter(str(corpus.array_record), "group_size:1,uncompressed")
    shard = folder / manifests.shard_name("random", "train", 0, 1)
    with SentenceWriter(shard) as writer, corpus.jsonl.open("wb") as lines:
        for i, n in enumerate(images.tolist()):
            codes = rng.integers(0, CODEBOOK_SIZE, (n, TOKENS_PER_IMAGE), np.uint16)
            sentence = VisualSentence(codes, "random", 3, str(i), f"frame*{n}")
            writer.add(sentence)
            records.write(codes.astype("<u2").tobytes())
            lines.write(format_line(codes.reshape(-1)))
    records.close()
    write_manifest(folder, len(images), int(images.sum()))
    return corpus


def write_manifest(folder: pathlib.Path, sentences: int, images: int) -> None:
    """Writes the manifest of one shard with one source, both called random."""
    counts = {"sentences": sentences, "images": images}
    manifests.Manifest(
        tokenizer_fingerprint="random",
        codebook_size=CODEBOOK_SIZE,
        image_size=256,
        tokens_per_image=TOKENS_PER_IMAGE,
        splits={"train": manifests.SplitInfo(shards=1, **counts)},
        sources={
            "random": manifests.SourceInfo(category=3, licence="CC0", origin="random", **counts)
        },
    ).save(folder)
