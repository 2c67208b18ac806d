r"""A scaling study: which sizes to train, for how long, and on what data.

python experiments/scaling_study.py --config=experiments/configs/scaling_study.py --shards=SHARDS --workdir=DIR

The argument is a family: `quickstart` (three sizes for two CPU cores, on shards of the quickstart's tokenizer) or
`published` (the paper's four); `quickstart,runlocal` shrinks it to seconds.
"""

from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError


def get_config(arg: str | None = None) -> ConfigDict:
    """The study of one family."""
    args = parse_arg(arg, family="quickstart", runlocal=False)
    config: Any = ConfigDict()
    # Every size trains for each of these lengths, with a learning rate that decays by then: three points per line.
    config.steps = (250, 500, 1000)
    # Every run repeats for each seed; the figures show the mean.
    config.seeds = (0,)
    # The ablation trains one size for the longest length on some categories only, besides all of them.
    config.ablation_size = "d128"
    # Name of a mixture -> its categories.
    config.mixtures = ConfigDict(
        {
            "videos": ("unlabelled_video",),
            "annotated": ("annotated_image", "annotated_video"),
            "images": ("unlabelled_image",),
        }
    )
    # Flags of experiments/train.py for every run; `recipe` is the config file and its argument.
    config.common = ConfigDict()
    config.common.recipe = "experiments/configs/lvm.py:quickstart"
    config.common.evaluation = ConfigDict({"shots": 3, "max_sentences": 0, "context_sentences": 0})
    # Name of a size -> flags of its runs, which override the common ones.
    config.sizes = ConfigDict(
        {
            "d32": _narrow(32, layers=2, initializer_range=0.18),
            "d64": _narrow(64, layers=3, initializer_range=0.12),
            "d128": ConfigDict(),
        }
    )
    if args["family"] not in ("quickstart", "published"):
        raise UserError(
            f"config argument family={args['family']!r} does not exist; known: quickstart, published"
        )
    if args["family"] == "published":
        _published(config)
    if args["runlocal"]:
        _runlocal(config)
    return config


def _narrow(width: int, layers: int, initializer_range: float) -> ConfigDict:
    """The quickstart's decoder, narrower; matrices start at 1/sqrt(width), as there."""
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "initializer_range": initializer_range,
    }
    return ConfigDict({"model": shape})


def _published(config: Any) -> None:
    """The paper's sizes at the paper's batch: 52B, 157B and 420B tokens."""
    config.steps = (25_000, 75_000, 200_000)
    config.ablation_size = "3b"
    config.common.evaluation = ConfigDict({"shots": 5, "max_sentences": 4096})
    config.sizes = ConfigDict(
        {
            size: ConfigDict({"recipe": f"experiments/configs/lvm.py:{size}"})
            for size in ("300m", "600m", "1b", "3b")
        }
    )


def _runlocal(config: Any) -> None:
    """Shows that it runs, and learns nothing."""
    recipe = next(iter(config.sizes.values())).get("recipe", config.common.recipe)
    config.common.recipe = f"{recipe},runlocal"
    config.common.train = ConfigDict({"batch_size": 2, "log_every": 1})
    config.common.optimizer = ConfigDict({"warmup_steps": 1})
    config.common.evaluation = ConfigDict({"shots": 1, "max_sentences": 48})
    config.steps = (2, 4, 6)
    config.sizes = ConfigDict({f"d{width}": _narrow(width, 1, 0.2) for width in (16, 32, 64)})
    config.ablation_size = "d16"
