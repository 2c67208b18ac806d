"""Which system a run is of, by its trainings."""

from pathlib import Path

from lvm_jax.errors import UserError
from lvm_jax.release.lvm import LvmRun
from lvm_jax.release.pack import Run
from lvm_jax.release.stored import StoredTypes
from lvm_jax.release.unified import UnifiedRun
from lvm_jax.release.vary import VaryRun


def open_run(workdir: str | Path, model_dtype: str, tokenizer_dtype: str | None = None) -> Run:
    """Reads a finished run.

    Args:
      workdir: W of a quickstart, or of its commands run by hand.
      model_dtype: of the stored weights of what answers; see `StoredTypes`.
      tokenizer_dtype: of those of the image tokenizer; None: float32, where there is one.

    Raises:
      UserError: the folder has no training of a system, the run is not finished, or it has no image tokenizer.
    """
    run = Path(workdir)
    types = StoredTypes(model_dtype, *([tokenizer_dtype] if tokenizer_dtype else []))
    if (run / "lvm").is_dir():
        return LvmRun(run, types)
    if (run / "unified").is_dir():
        return UnifiedRun(run, types)
    if (run / "two").is_dir():
        if tokenizer_dtype:
            raise UserError(
                f"tokenizer_dtype is {tokenizer_dtype}, and {run} is a run of Vary, which has no image tokenizer: "
                "leave it out"
            )
        return VaryRun(run, model_dtype)
    raise UserError(
        f"{run} has none of lvm, two and unified: name the workdir of a run that was trained and evaluated"
    )
