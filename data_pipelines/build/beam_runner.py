"""The Beam side of building shards: an element is one shard, which one worker writes in one call.

Beam's own DirectRunner first looks for Prism, a Go engine that it would download. This module asks for the engine
inside the process instead, unless the user names a runner (Dataflow, Flink, Spark).
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import shared_encoder
from data_pipelines.build.recipe import Recipe
from data_pipelines.build.shard_writer import ShardTask, ShardWriter
from lvm_jax.errors import UserError

IN_PROCESS = "FnApiRunner"
STOP_SECONDS = 60.0

_cache = ItemCache()  # one a process: its worker threads share it


class Stopped(Exception):
    """Ends a shard because the launcher is stopping."""


class Launcher:
    """What the launcher shares with the workers of its own process: they report progress, it tells them to stop.

    Workers in other processes have a launcher of their own that nobody listens to.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._on_sentence: Callable[[int], object] | None = None
        self._stopping = False
        self.error: UserError | None = None

    def fail(self, error: UserError) -> None:
        """A worker reports what the user must mend; the launcher stops the others and raises it.

        If the worker raised it itself, Beam would wrap it in a traceback. If nobody listens, it is raised here.
        """
        with self._lock:
            if self._on_sentence is None:
                raise error
            self._stopping = True
            self.error = self.error or error

    def listen(self, on_sentence: Callable[[int], object] | None) -> None:
        """Starts calling `on_sentence` with each number of sentences done; None stops it."""
        with self._lock:
            self._on_sentence, self._stopping, self.error = on_sentence, False, None

    def stop(self) -> None:
        """Makes the workers drop their shards and start no other."""
        with self._lock:
            self._stopping = True

    def report(self, sentences: int) -> None:
        """A worker reports that so many more sentences are done.

        Raises:
          Stopped: the launcher is stopping.
        """
        with self._lock:
            if self._stopping:
                raise Stopped
            if self._on_sentence is not None:
                self._on_sentence(sentences)


_launcher = Launcher()


class WriteShards(beam.DoFn):
    """Writes each `ShardTask` that it gets; the encoder is loaded once a process."""

    def __init__(self, recipe: Recipe, tokenizer: str, batch_size: int, fingerprint: str):
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._fingerprint = fingerprint

    def setup(self) -> None:
        """Beam calls this once in each worker thread."""
        encoder = shared_encoder(self._tokenizer, self._batch_size, self._recipe.encoding)
        self._writer = ShardWriter(
            self._recipe, encoder, self._fingerprint, _cache, _launcher.report
        )

    def process(self, task: ShardTask) -> Iterator[None]:
        """Writes one shard; what became of it is in its summary file."""
        # Beam would print the traceback of a Stopped; who stopped the launcher knows.
        with contextlib.suppress(Stopped):
            try:
                _launcher.report(0)
                self._writer.write(task)
            except UserError as error:
                _launcher.fail(error)
        yield from ()


def write_shards(
    tasks: Sequence[ShardTask],
    writing: WriteShards,
    beam_flags: Sequence[str],
    on_sentence: Callable[[int], object],
) -> None:
    """Runs the pipeline over `tasks` and waits for its end.

    Args:
      tasks: the shards to write.
      writing: what writes them.
      beam_flags: Beam's pipeline options, such as `--runner=FlinkRunner`.
      on_sentence: called with each number of sentences done, by workers in this process.

    Raises:
      UserError: a worker met what the user must mend.
    """
    options = PipelineOptions(list(beam_flags))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = IN_PROCESS
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    _launcher.listen(on_sentence)
    try:
        _run(options, tasks, writing)
        if _launcher.error is not None:
            raise _launcher.error
    finally:
        _launcher.listen(None)


def _run(options: PipelineOptions, tasks: Sequence[ShardTask], writing: WriteShards) -> None:
    """Runs the pipeline in another thread, so that Ctrl-C interrupts this one and not the engine.

    The engine's threads must end first: an interpreter that exits while one of them computes aborts.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            with beam.Pipeline(options=options) as pipeline:
                # Beam makes a folder for what other languages need; a run that is killed would leave it behind.
                os.rmdir(pipeline.local_tempdir)
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(tasks, reshuffle=False)
                    | "Spread" >> beam.Reshuffle()
                    | "Write" >> beam.ParDo(writing)
                )
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="pipeline", daemon=True).start()
    try:
        done.result()
    except KeyboardInterrupt:
        _launcher.stop()
        wait([done], STOP_SECONDS)  # a cluster hears nothing of it and goes on
        raise
