r"""Memory and opening time of TokenLoader against the number of records, from the index alone.

    python benchmarks/loader_memory.py

It writes indices of 10^5, 10^6 and 10^7 records for shards that are sparse files, whose content is never read. Each is
opened in its own process; the loader then goes to step 1,000,000 and finds which sentences its rows hold.
"""

import multiprocessing
import pathlib
import resource
import tempfile
import time
import tracemalloc

import numpy as np
from absl import flags
from token_files import SEQ_LEN, TOKENS_PER_IMAGE, images_of, write_manifest

from lvm_jax import cli
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.record_index import RecordIndex, index_path
from lvm_jax.data.sentences.token_loader import TokenLoader

AROUND = 120  # bytes of a record beside its codes
STEP = 1_000_000


def write_index(root: pathlib.Path, records: int) -> pathlib.Path:
    """Writes a data set of one sparse shard, with the index of a mixture of sentences."""
    folder = pathlib.Path(manifests.dataset_folder(root, "random", "1.0.0"))
    folder.mkdir(parents=True)
    images = images_of("mixed", records)
    codes_bytes = images * 2 * TOKENS_PER_IMAGE
    ends = np.cumsum(codes_bytes + AROUND)
    shard = folder / manifests.shard_name("random", "train", 0, 1)
    with shard.open("wb") as file:
        file.truncate(int(ends[-1]))
    zeros, small = np.zeros(records, "<u4"), np.zeros(records, "<u2")
    columns = {"codes_at": zeros, "codes_bytes": codes_bytes.astype("<u4"), "largest": small}
    offsets = (ends - codes_bytes - AROUND).astype("<u8")
    index = RecordIndex(int(ends[-1]), offsets, zeros, columns, small, (("random", 3),))
    pathlib.Path(index_path(shard)).write_bytes(index.to_bytes())
    write_manifest(folder, records, int(images.sum()))
    return folder


def measure(folder: pathlib.Path, records: int) -> None:
    """Opens the loader, goes to a late step, and prints time and memory."""
    TokenLoader(folder, "train", SEQ_LEN, 64, seed=0, threads=0).close()  # imports, caches
    begin = time.perf_counter()
    loader = TokenLoader(folder, "train", SEQ_LEN, 64, seed=0, threads=0)
    opened = time.perf_counter()
    loader._rows.rows(STEP * 64, 64)
    resumed = time.perf_counter()
    loader.close()
    del loader
    tracemalloc.start()
    loader = TokenLoader(folder, "train", SEQ_LEN, 64, seed=0, threads=0)
    held = tracemalloc.get_traced_memory()[0]
    loader.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{records:,} records: {held / 1e6:.1f} MB held, {held / records:.1f} bytes a record; peak of the process "
        f"{peak / 1e6:.0f} MB; opened in {opened - begin:.3f} s, at step {STEP:,} in {resumed - opened:.3f} s",
        flush=True,
    )


def main() -> None:
    """Measures each size in its own process."""
    context = multiprocessing.get_context("spawn")
    for records in map(int, flags.FLAGS.records):
        with tempfile.TemporaryDirectory() as root:
            folder = write_index(pathlib.Path(root), records)
            process = context.Process(target=measure, args=(folder, records))
            process.start()
            process.join()
        if process.exitcode:
            raise SystemExit(f"the process for {records:,} records ended with {process.exitcode}")


if __name__ == "__main__":
    flags.DEFINE_list("records", ["100000", "1000000", "10000000"], "how many")
    cli.run(main)
