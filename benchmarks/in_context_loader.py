r"""Rows of examples and a query on one core: how many a second, of the published size and of a small one.

    python benchmarks/in_context_loader.py --rounds=5

The pools lie in the page cache. A row has three examples; half of the batches ask for masks, half for words with their
class and box, which a byte-level BPE splits. The process is pinned to one core, no thread reads ahead, and CPU time
counts, which other load on the machine hardly disturbs.
"""

import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from absl import flags
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from turns import in_turns

from lvm_jax import cli
from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.loader import InContextLoader
from lvm_jax.data.in_context.pool_record import PoolRecord, PoolWriter
from lvm_jax.data.in_context.sequences import SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.records import manifest as manifests
from lvm_jax.vocabulary import Vocabulary

CODES, TEXT_IDS = 1024, 400
SIZES = {"published, 256 codes": 256, "small, 36 codes": 36}
CLASSES = 80


class Pieces:
    """A byte-level BPE of the captions."""

    def __init__(self, captions: list[str]):
        self._pieces = Tokenizer(models.BPE())
        self._pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._pieces.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=TEXT_IDS, initial_alphabet=alphabet, show_progress=False
        )
        self._pieces.train_from_iterator(captions, trainer)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self._pieces.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self._pieces.decode(list(ids))


def write_pool(root: pathlib.Path, codes: int, count: int) -> tuple[str, list[str]]:
    """A pool of noise with captions; gives its folder and the captions."""
    folder = manifests.dataset_folder(root, f"pool{codes}", "1.0.0")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    captions = [f"a small red thing number {i} on the upper left" for i in range(count)]
    with PoolWriter(folder / manifests.shard_name(f"pool{codes}", "train", 0, 1)) as writer:
        for i, caption in enumerate(captions):
            picture, mask = rng.integers(0, CODES, (2, codes))
            name, shows = f"class {i % CLASSES}", f"scene {i}"
            box = (0.1, 0.2, 0.5, 0.75)
            writer.add(
                PoolRecord(
                    *(picture, name, shows, "noise", f"noise/{i}", "CC0-1.0"),
                    mask=mask,
                    caption=caption,
                    boxes=(box,),
                )
            )
    split = manifests.SplitInfo(sentences=count, images=count, shards=1)
    source = manifests.SourceInfo(
        category=2, licence="CC0-1.0", origin="drawn", sentences=count, images=count
    )
    manifests.Manifest(
        tokenizer_fingerprint="0123456789abcdef",
        codebook_size=CODES,
        image_size=256,
        tokens_per_image=codes,
        splits={"train": split},
        sources={"noise": source},
        encoding="pool",
    ).save(folder)
    return str(folder), captions


def rate(loader: InContextLoader, seconds: float) -> dict[str, float]:
    """Rows and tokens per second of CPU time; the first batch does not count."""
    next(loader)
    rows, tokens, spent = 0, 0, 0.0
    while spent < seconds:
        begin = time.process_time()
        batch = next(loader)
        spent += time.process_time() - begin
        rows += len(batch["tokens"])
        tokens += np.count_nonzero(batch["segment_ids"])
    return {
        "rows_per_cpu_second": rows / spent,
        "million_tokens_per_cpu_second": tokens / spent / 1e6,
    }


def main() -> None:
    """Prints every round, and the medians."""
    args = flags.FLAGS
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    style = RowStyle(category={"none": 1, "examples": 1}, boxes="text")
    with tempfile.TemporaryDirectory() as root:
        loaders = {}
        for name, codes in SIZES.items():
            folder, captions = write_pool(pathlib.Path(root), codes, args.records)
            words = WordsFormat(Vocabulary.unified(TEXT_IDS, CODES, bins=1001), Pieces(captions))
            form = SequenceFormat(words, codes, category_room=8)
            loaders[name] = InContextLoader(folder, "train", form, style, args.batch, 0, threads=0)
        medians = in_turns(
            {
                name: functools.partial(rate, loader, args.seconds)
                for name, loader in loaders.items()
            },
            args.rounds,
        )
    for name, median in medians.items():
        print(
            f"{name}, median: "
            + ", ".join(f"{what} {value:,.4g}" for what, value in median.items())
        )


if __name__ == "__main__":
    flags.DEFINE_integer("records", 4000, "of each pool", lower_bound=400)
    flags.DEFINE_integer("batch", 32, "rows", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "of both sizes", lower_bound=1)
    flags.DEFINE_float("seconds", 2.0, "each loader reads, each round", lower_bound=0.01)
    cli.run(main)
