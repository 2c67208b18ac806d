"""Where numbers go: `metrics.jsonl`, one object a line, and TensorBoard."""

import json
import time
from collections.abc import Mapping
from typing import Any

from etils import epath


class MetricWriter:
    """Appends to WORKDIR/metrics.jsonl and WORKDIR/tensorboard.

    A resumed run first drops the lines past its step: a step that is computed twice is written once.

    Args:
      workdir: the run's folder.
      resume_step: the step from which training goes on; lines beyond it are removed.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int = 0) -> None:
        # TensorBoard's event format without TensorFlow; imported late, as only training needs it.
        from tensorboardX import SummaryWriter

        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in read_jsonl(self._path) if line["step"] <= resume_step]
        partial = folder / "metrics.jsonl.partial"
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self._path)
        self._file = self._path.open("a")
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line, `{"step": 10, "time": 1.7e9, "train/loss": 5.1}`; `time` is Unix seconds."""
        record = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._tensorboard.close()


class NoWriter:
    """What the processes other than the first write to."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing: the metrics are global, so one process writes them."""

    def close(self) -> None:
        """Nothing to flush."""


def read_jsonl(path: epath.PathLike) -> list[dict[str, Any]]:
    """The objects of a JSONL file, in order; a last line cut short by a crash is left out; no file gives []."""
    path = epath.Path(path)
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
