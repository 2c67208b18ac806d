r"""Reading tokens on one core: TokenLoader against grain + ArrayRecord and the published jsonl reader, in turns.

    python benchmarks/data_loader.py --rounds=5

All read the same sentences from the page cache into batches of int32 rows of 4097 tokens, with segment ids and
positions if the reader makes them. TokenLoader shuffles globally, checks every CRC and packs; grain shuffles and packs;
the jsonl reader does neither. There are two corpora: videos of 16 images, each of which fills a row, and a mixture that
needs packing. The process is pinned to one core, no thread reads ahead, and CPU time counts, which other load on the
machine hardly disturbs. Padding does not count as tokens.
"""

import functools
import importlib.metadata
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags
from peers import grain_array_record, jsonl_reader
from token_files import CODEBOOK_SIZE, SEQ_LEN, Corpus, images_of, write_corpus
from turns import in_turns

from lvm_jax import cli
from lvm_jax.data.sentences.token_loader import TokenLoader

Batches = Iterator[dict[str, np.ndarray]]
OURS, GRAIN, JSONL = "TokenLoader", "grain + ArrayRecord", "jsonl"


def readers(corpus: Corpus, mixture: str, batch: int) -> dict[str, Callable[[], Batches]]:
    """Name of a reader -> function that starts a new iteration over its batches."""
    peer = grain_array_record.rows_of_one if mixture == "videos" else grain_array_record.packed_rows
    return {
        OURS: lambda: TokenLoader(corpus.shards, "train", SEQ_LEN, batch, seed=0, threads=0),
        GRAIN: lambda: peer(corpus.array_record, batch, SEQ_LEN + 1, CODEBOOK_SIZE),
        JSONL: lambda: jsonl_reader.rows(corpus.jsonl, batch, SEQ_LEN, CODEBOOK_SIZE),
    }


def tokens_per_second(batches: Batches, seconds: float) -> float:
    """Tokens (without padding) per second of CPU time, over `seconds` of it; the first batch does not count."""
    next(batches)
    tokens, spent = 0, 0.0
    while spent < seconds:
        begin = time.process_time()
        batch = next(batches)
        spent += time.process_time() - begin
        used = batch.get("segment_ids")
        tokens += batch["input_tokens"].size if used is None else np.count_nonzero(used)
    return tokens / spent


def compare(mixture: str) -> None:
    """Prints every round, and the medians with their ratios."""
    args = flags.FLAGS

    def rate(start: Callable[[], Batches]) -> dict[str, float]:
        return {"million_tokens_per_cpu_second": tokens_per_second(start(), args.seconds) / 1e6}

    with tempfile.TemporaryDirectory() as root:
        corpus = write_corpus(pathlib.Path(root), images_of(mixture, args.sentences))
        starts = readers(corpus, mixture, args.batch)
        medians = in_turns(
            {name: functools.partial(rate, start) for name, start in starts.items()}, args.rounds
        )
        loader = TokenLoader(corpus.shards, "train", SEQ_LEN, args.batch, seed=0)
        print(f"{mixture}: {loader.fill:.1%} of positions used")
        loader.close()
    for name, median in medians.items():
        (value,), (best,) = median.values(), medians[OURS].values()
        ratio = f", ratio {best / value:.1f}" if name != OURS else ""
        print(f"{mixture}, median: {name} {value:.2f} million tokens/CPU-s{ratio}")


def main() -> None:
    """Compares the readers on both corpora."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    versions = {name: importlib.metadata.version(name) for name in ("grain", "array_record")}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for mixture in ("videos", "mixed"):
        compare(mixture)


if __name__ == "__main__":
    flags.DEFINE_integer("sentences", 8000, "of each corpus", lower_bound=100)
    flags.DEFINE_integer("batch", 16, "rows", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "of all readers", lower_bound=1)
    flags.DEFINE_float("seconds", 2.0, "each reader reads, each round", lower_bound=0.01)
    cli.run(main)
