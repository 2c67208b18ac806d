r"""Trains the model of a config file; run it again in the same workdir and it resumes.

python experiments/train.py --config=experiments/configs/lvm.py:300m --workdir=DIR --config.data.shards=SHARDS
python experiments/train.py --config=experiments/configs/tokenizer.py:lvm-f16-8192 --workdir=DIR \
    --config.data.images=FOLDER

The config file lists all keys and names the recipe (`config.recipe`) that builds the run from them. WORKDIR gets
config.json, checkpoints/, metrics.jsonl, tensorboard/, and at the end model/, in Hugging Face's format.
"""

from absl import flags
from etils import epath
from ml_collections import config_flags

from lvm_jax import cli
from lvm_jax.config import defaults, from_mapping
from lvm_jax.parallel import runtime
from lvm_jax.recipes import recipe_named
from lvm_jax.training.loop import train


def main() -> None:
    """Lets the recipe build the run, trains it, and exports the model."""
    recipe = recipe_named(_CONFIG.value.get("recipe", ""))
    config = from_mapping(recipe.experiment, _CONFIG.value)
    workdir = epath.Path(_WORKDIR.value)
    runtime.initialize()
    run = recipe.prepare(config, workdir)
    state = train(
        run.task,
        run.batches,
        config.train,
        mesh=run.mesh,
        workdir=workdir,
        evaluations=run.evaluations,
        experiment=run.record,
        defaults=defaults(recipe.experiment),
        warm_start=run.warm_start,
    )
    run.export(state, workdir / "model")


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "config file, FILE.py:ARG")
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "folder of the run; running again there resumes it", required=True
    )
    cli.run(main, required_flags=["config"])
