r"""Reading shards: tokens/s of TokenLoader beside grain's TFRecordIterDataset, in turns, in one run.

    python benchmarks/data_loader.py --rounds=5

Both give batches of int32 rows of 4097 tokens from the same shards. TokenLoader reads at random, checks CRCs and the
schema, packs with segment ids; the peer reads one file from its beginning, checks nothing, and has one sentence a row.
"""

import importlib.metadata
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from absl import flags
from grain.experimental import TFRecordIterDataset

from lvm_jax import cli
from lvm_jax.data import example, manifest
from lvm_jax.data.loader import TokenLoader
from lvm_jax.data.tfrecord import TFRecordWriter
from lvm_jax.data.visual_sentence import VisualSentence, encode_example

ROW_TOKENS = 4097
TOKENS_PER_IMAGE = 256
CODEBOOK_SIZE = 8192


def write_shard(root: pathlib.Path, sentences: int) -> pathlib.Path:
    """Sentences of 16 images of random codes; returns the data set's folder."""
    folder = pathlib.Path(manifest.dataset_folder(root, "random", "1.0.0"))
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with TFRecordWriter(folder / manifest.shard_name("random", "train", 0, 1)) as writer:
        for i in range(sentences):
            codes = rng.integers(0, CODEBOOK_SIZE, (16, TOKENS_PER_IMAGE), np.uint16)
            writer.write(encode_example(VisualSentence(codes, "random", 3, str(i), "frame*16")))
    counts = {"sentences": sentences, "images": 16 * sentences}
    manifest.Manifest(
        tokenizer_fingerprint="random",
        codebook_size=CODEBOOK_SIZE,
        image_size=256,
        tokens_per_image=TOKENS_PER_IMAGE,
        splits={"train": manifest.SplitInfo(shards=1, **counts)},
        sources={
            "random": manifest.SourceInfo(category=3, licence="CC0", origin="random", **counts)
        },
    ).save(folder)
    return folder


def peer(folder: pathlib.Path, batch: int) -> Iterator[np.ndarray]:
    """grain's sequential reader, one sentence a row."""

    def row(record: bytes) -> np.ndarray:
        (codes,) = example.decode(record)["codes"]
        tokens = np.full(ROW_TOKENS, CODEBOOK_SIZE, np.int32)
        tokens[1:] = np.frombuffer(codes, "<u2")  # pyright: ignore[reportCallIssue, reportArgumentType]
        return tokens

    (shard,) = folder.glob("*.tfrecord-00000-of-00001")
    return iter(TFRecordIterDataset(str(shard)).map(row).batch(batch))


def tokens_per_second(batches: Iterator, batch: int, steps: int) -> float:
    """Over `steps` batches, the first one not counted."""
    next(batches)
    begin = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * batch * ROW_TOKENS / (time.perf_counter() - begin)


def main() -> None:
    """Prints each round, and the medians with their ratio."""
    args = flags.FLAGS
    steps = args.sentences // args.batch - 2
    with tempfile.TemporaryDirectory() as root:
        folder = write_shard(pathlib.Path(root), args.sentences)
        ours, theirs = [], []
        for number in range(args.rounds):
            with TokenLoader(folder, "train", ROW_TOKENS - 1, args.batch, seed=0) as loader:
                ours.append(tokens_per_second(loader, args.batch, steps))
            theirs.append(tokens_per_second(peer(folder, args.batch), args.batch, steps))
            print(
                f"round {number}: TokenLoader {ours[-1] / 1e6:.1f}, grain {theirs[-1] / 1e6:.1f} million tokens/s"
            )
    ratio = np.median(ours) / np.median(theirs)
    print(
        f"median: {np.median(ours) / 1e6:.1f} and {np.median(theirs) / 1e6:.1f}, ratio {ratio:.2f}"
        f" (grain {importlib.metadata.version('grain')})"
    )


if __name__ == "__main__":
    flags.DEFINE_integer("sentences", 4000, "16 images each", lower_bound=100)
    flags.DEFINE_integer("batch", 16, "rows", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "of both readers", lower_bound=1)
    cli.run(main)
