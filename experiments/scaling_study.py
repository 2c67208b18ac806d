r"""A scaling study on one set of shards: how the loss falls with size, tokens and compute, and what the data is worth.

  python experiments/scaling_study.py --config=experiments/configs/scaling_study.py --shards=SHARDS --workdir=DIR

It trains every size for every length, and one size on some categories only, with experiments/train.py in DIR/runs/NAME.
Finished runs are not repeated, and stopped ones resume. Then it writes the numbers and fitted power laws to
DIR/scaling.json, a page to DIR/scaling.html (the paper's Figures 3, 4, 5 and 7) and the figures as PNG to DIR/figures/.
--dry_run prints the commands, to run them on several machines that share DIR; afterwards this command looks at each run
once, and collects.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from lvm_jax import cli, files
from lvm_jax.config import from_mapping
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.evaluation.lvm.scaling_runs import (
    Study,
    collect,
    images_by_category,
    run_command,
    study_runs,
)
from lvm_jax.evaluation.study_commands import run_missing
from lvm_jax.reporting.scaling_page import write_page

_CONFIG = config_flags.DEFINE_config_file("config", "experiments/configs/scaling_study.py", "study")
_SHARDS = flags.DEFINE_string("shards", None, "token shards to train on", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the study", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands and stop")


def main() -> None:
    """Trains the missing runs, then collects and draws."""
    study, workdir = from_mapping(Study, _CONFIG.value), Path(_WORKDIR.value)
    store = SentenceStore(_SHARDS.value, "train")
    images = images_by_category(store)
    runs = study_runs(study)
    commands = [run_command(study, run, _SHARDS.value, workdir, images) for run in runs]
    if _DRY_RUN.value:
        print("\n".join(f"python {command.line}" for command in commands))
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with cli.only_one_run(workdir) as lock:
        run_missing(commands, workdir, lock)
    result = collect(study, runs, workdir, images, store.manifest.tokens_per_image)
    files.write_json(workdir / "scaling.json", result)
    print(f"open {write_page(workdir)}")


if __name__ == "__main__":
    cli.run(main)
