"""grain over ArrayRecord: shuffled random access to the same sentences, into the same batches."""

import pathlib
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from grain.experimental import FirstFitPackIterDataset


def rows_of_one(
    path: pathlib.Path, batch: int, row_len: int, bos: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of sentences that fill a row each, so nothing has to be packed: the easiest case."""
    segment_ids = np.ones(row_len, np.int32)
    positions = np.arange(row_len, dtype=np.int32)

    def row(record: bytes) -> dict[str, np.ndarray]:
        tokens = np.empty(row_len, np.int32)
        tokens[0] = bos
        tokens[1:] = np.frombuffer(record, "<u2")  # pyright: ignore[reportCallIssue, reportArgumentType]
        return {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}

    dataset = _shuffled(path).map(row).batch(batch)
    return iter(dataset.to_iter_dataset(_READ))


def packed_rows(
    path: pathlib.Path, batch: int, row_len: int, bos: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of sentences of several lengths, from grain's first-fit packing over 64 open rows."""

    def sentence(record: bytes) -> dict[str, np.ndarray]:
        codes = np.frombuffer(record, "<u2")  # pyright: ignore[reportCallIssue, reportArgumentType]
        tokens = np.empty(min(len(codes) + 2, row_len), np.int32)
        tokens[0], tokens[-1] = bos, bos + 1
        tokens[1 : len(codes) + 1] = codes
        return {"tokens": tokens}

    dataset = FirstFitPackIterDataset(
        _shuffled(path).map(sentence).to_iter_dataset(_READ),
        length_struct={"tokens": row_len},
        num_packing_bins=64,
    )
    for packed in dataset.batch(batch):
        yield {
            "tokens": packed["tokens"],
            "segment_ids": packed["tokens_segment_ids"],
            "positions": packed["tokens_positions"],
        }


_READ = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # on one core, its fastest


def _shuffled(path: pathlib.Path) -> grain.MapDataset:
    source: Any = grain.sources.ArrayRecordDataSource(str(path))
    return grain.MapDataset.source(source).shuffle(seed=0).repeat()
