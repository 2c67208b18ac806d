"""The Beam side of building shards: each element is the order of one shard, and one worker writes it in one call.

An order is a file beside the shard's summary, and Beam passes on its path: the in-process engine damages elements, or
runs out of memory, when those of a run have some megabytes together (seen with Beam 2.77 from 100,000 sentences on).

Beam's DirectRunner first tries Prism, a Go engine that it downloads. Unless the user names a runner (Dataflow, Flink,
Spark), this module asks for the in-process engine instead.
"""

import contextlib
import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from etils import epath

from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import shared_encoder
from data_pipelines.build.recipe import Recipe
from data_pipelines.build.shard_writer import ShardTask, ShardWriter
from lvm_jax import files
from lvm_jax.errors import UserError

IN_PROCESS = "FnApiRunner"
STOP_SECONDS = 60.0

_cache = ItemCache()  # one per process, shared by its worker threads


class Stopped(Exception):
    """Abandons a shard because the launcher is stopping."""


class Launcher:
    """How the launcher talks to the workers of its own process: they report progress, it tells them to stop.

    Workers in other processes have a launcher of their own, and nobody listens to it.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._on_sentence: Callable[[int], object] | None = None
        self._stopping = False
        self.error: UserError | None = None

    def fail(self, error: UserError) -> None:
        """Reports an error that the user must fix: the launcher stops the other workers and raises it.

        A worker that raised it itself would have it wrapped in Beam's traceback. If nobody listens, it is raised here.
        """
        with self._lock:
            # Another process: no launcher will look at `self.error`, so Beam must carry the failure back.
            if self._on_sentence is None:
                raise error
            self._stopping = True
            self.error = self.error or error  # the first one; later ones often follow from it

    def listen(self, on_sentence: Callable[[int], object] | None) -> None:
        """Starts calling `on_sentence` with each count of finished sentences; None ends that."""
        with self._lock:
            self._on_sentence, self._stopping, self.error = on_sentence, False, None

    def stop(self) -> None:
        """Makes the workers drop their shards and start no new ones."""
        with self._lock:
            self._stopping = True

    def report(self, sentences: int) -> None:
        """Reports that this many more sentences are done.

        Raises:
          Stopped: the launcher is stopping.
        """
        with self._lock:
            if self._stopping:
                raise Stopped
            if self._on_sentence is not None:
                self._on_sentence(sentences)


# A global, not a field of WriteShards: Beam pickles the DoFn even for threads, and a lock cannot be pickled.
_launcher = Launcher()


class WriteShards(beam.DoFn):
    """Writes the `ShardTask`s whose orders it gets; the encoder is loaded once per process."""

    def __init__(self, recipe: Recipe, tokenizer: str, batch_size: int, fingerprint: str):
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._fingerprint = fingerprint

    def setup(self) -> None:
        """Called by Beam once in each worker thread."""
        encoder = shared_encoder(self._tokenizer, self._batch_size, self._recipe.encoding)
        self._writer = ShardWriter(
            self._recipe, encoder, self._fingerprint, _cache, _launcher.report
        )

    def process(self, order: str) -> Iterator[None]:
        """Writes one shard, by the path of its order. Its summary file says how that went."""
        # Beam would print a traceback for Stopped, and whoever stopped the launcher knows already.
        with contextlib.suppress(Stopped):
            try:
                _launcher.report(0)  # raises Stopped, so that a queued shard is not begun
                self._writer.write(read_order(order))
            except UserError as error:
                _launcher.fail(error)
        yield from ()  # Beam wants an iterator of outputs; the output is files


def write_shards(
    tasks: Sequence[ShardTask],
    writing: WriteShards,
    beam_flags: Sequence[str],
    on_sentence: Callable[[int], object],
) -> None:
    """Runs the pipeline over `tasks` and waits until it ends.

    Args:
      tasks: the shards to write.
      writing: the step that writes them.
      beam_flags: Beam's pipeline options, such as `--runner=FlinkRunner`.
      on_sentence: called by workers in this process with each count of finished sentences.

    Raises:
      UserError: a worker hit an error that the user must fix.
    """
    options = PipelineOptions(list(beam_flags))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = IN_PROCESS
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    _launcher.listen(on_sentence)
    orders = [_write_order(task) for task in tasks]
    try:
        _run(options, orders, writing)
        if _launcher.error is not None:
            raise _launcher.error
    finally:
        _launcher.listen(None)
        for order in orders:
            epath.Path(order).unlink(missing_ok=True)


def read_order(path: str) -> ShardTask:
    """What a worker is told to write."""
    return pickle.loads(epath.Path(path).read_bytes())


def _write_order(task: ShardTask) -> str:
    # A name by which the next run finds and removes it if this one is killed.
    path = files.temporary_name(f"{task.summary}.order")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(task))
    return str(path)


def _run(options: PipelineOptions, orders: Sequence[str], writing: WriteShards) -> None:
    """Runs the pipeline in another thread, so that Ctrl-C interrupts this thread and not the engine.

    The engine's threads must finish first: if the interpreter exits while one of them computes, it aborts.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            with beam.Pipeline(options=options) as pipeline:
                # Beam creates a folder for artifacts of other languages; a killed run would leave it behind.
                os.rmdir(pipeline.local_tempdir)
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(orders, reshuffle=False)
                    # Otherwise Beam fuses all three steps, and one worker writes every shard.
                    | "Spread" >> beam.Reshuffle()
                    | "Write" >> beam.ParDo(writing)
                )
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    # A daemon, so that an engine that ignores the stop does not keep the process alive.
    threading.Thread(target=run, name="pipeline", daemon=True).start()
    try:
        done.result()
    except KeyboardInterrupt:
        _launcher.stop()
        wait([done], STOP_SECONDS)  # a cluster never hears of it and goes on
        raise
