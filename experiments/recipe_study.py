r"""A recipe study: variants of one recipe with several seeds, trained on equally much and compared.

  python experiments/recipe_study.py --config=experiments/configs/recipe_study.py:decoder --workdir=DIR \
      --config.common.data.shards=SHARDS

  python experiments/recipe_study.py --config=experiments/configs/recipe_study.py:tokenizer --workdir=DIR \
      --config.common.data.images=IMAGES --config.common.data.held_out=LIST \
      --config.evaluate.images=IMAGES --config.evaluate.held_out=LIST --config.evaluate.maps=MAPS

Each variant trains with experiments/train.py in DIR/runs/VARIANT-sSEED, and is evaluated. Runs that are done are not
repeated, and stopped ones resume. Then it writes means and standard errors to DIR/study.json, tables to DIR/study.md
and a page to DIR/study.html. --dry_run prints the commands, to run them on several machines that share DIR; afterwards
this command looks at each run once, and collects.

--config.equal=items gives all trainings the same tokens or images, and is exact. --config.equal=time gives them the
same seconds by their measured speed, and needs a machine that does nothing else.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from lvm_jax import cli, files
from lvm_jax.config import from_mapping
from lvm_jax.evaluation.recipe_results import collect
from lvm_jax.evaluation.recipe_study import (
    Study,
    run_commands,
    speed_commands,
    study_runs,
)
from lvm_jax.evaluation.study_commands import is_done, run_missing
from lvm_jax.reporting.recipe_page import write_page

_CONFIG = config_flags.DEFINE_config_file("config", "experiments/configs/recipe_study.py", "study")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the study", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands and stop")


def main() -> None:
    """Runs what is missing, then collects and writes the tables."""
    study, workdir = from_mapping(Study, _CONFIG.value), Path(_WORKDIR.value)
    speeds = speed_commands(study, workdir)
    if _DRY_RUN.value and not all(is_done(command, workdir) for command in speeds):
        print("\n".join(f"python {command.line}" for command in speeds))
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with cli.only_one_run(workdir) as lock:
        run_missing(speeds, workdir, lock)
        runs = study_runs(study, workdir)
        commands = [command for run in runs for command in run_commands(study, run, workdir)]
        if _DRY_RUN.value:
            print("\n".join(f"python {command.line}" for command in commands))
            return
        run_missing(commands, workdir, lock)
    files.write_json(workdir / "study.json", collect(study, runs, workdir))
    print(f"open {write_page(workdir)}")


if __name__ == "__main__":
    cli.run(main)
