"""Where metrics go: `metrics.jsonl` (one object a line), TensorBoard, and Weights & Biases if configured."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from lvm_jax import files
from lvm_jax.errors import UserError


class Writer(Protocol):
    """The interface of all writers. A resumed run makes new ones, with the step that it resumes from."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records the numbers of a step."""
        ...

    def close(self) -> None:
        """Writes what is buffered."""
        ...


class JsonlWriter:
    """Appends to WORKDIR/metrics.jsonl.

    A resumed run first drops the lines after its step, so that a step computed twice is written once.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int = 0) -> None:
        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = [line for line in files.read_jsonl(path) if line["step"] <= resume_step]
        files.write(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line, `{"step": 10, "time": 1.7e9, "train/loss": 5.1}`; `time` is Unix seconds."""
        record = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter:
    """Scalars in WORKDIR/tensorboard; a resumed run hides the points after its step."""

    def __init__(self, workdir: epath.PathLike, resume_step: int = 0) -> None:
        # Writes TensorBoard's format without TensorFlow; imported late, because only training needs it.
        from tensorboardX import SummaryWriter

        folder = str(epath.Path(workdir) / "tensorboard")
        self._summaries = SummaryWriter(folder, purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point per name."""
        for name, value in values.items():
            self._summaries.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes."""
        self._summaries.close()


class WandbWriter:
    """A Weights & Biases run. Its id is kept in WORKDIR/wandb_id.txt, so that a restart continues it.

    `WANDB_MODE=offline` writes to WORKDIR/wandb, for `wandb sync` later.

    Raises:
      UserError: the package is not installed.
    """

    def __init__(self, workdir: epath.PathLike, project: str) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                f"config.train.wandb_project is {project!r} and wandb is not installed: pip install wandb, "
                "or leave it empty"
            ) from error
        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "wandb_id.txt"
        if not path.exists():
            files.write(path, secrets.token_hex(8))
        self._run: Any = wandb.init(
            project=project, id=path.read_text(), resume="allow", dir=str(folder), name=folder.name
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one row to the run's history."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


class MetricWriters:
    """Several writers as one. Processes other than the first have none, since metrics are global."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes to each."""
        for writer in self._writers:
            writer.write(step, values)

    def close(self) -> None:
        """Closes each."""
        for writer in self._writers:
            writer.close()


def make_writers(
    workdir: epath.PathLike, resume_step: int = 0, wandb_project: str = ""
) -> MetricWriters:
    """The writers of a run: JSONL, TensorBoard, and Weights & Biases if a project is named.

    Args:
      workdir: the run's folder.
      resume_step: the step from which training goes on; what was written after it is dropped.
      wandb_project: "" for none.
    """
    writers: list[Writer] = [WandbWriter(workdir, wandb_project)] if wandb_project else []
    writers += [JsonlWriter(workdir, resume_step), TensorBoardWriter(workdir, resume_step)]
    return MetricWriters(writers)
