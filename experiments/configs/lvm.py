r"""Pretraining of the decoder on token shards.

python experiments/train_lvm.py --config=experiments/configs/lvm.py:3b --workdir=gs://BUCKET/lvm-3b \
    --config.data.shards=gs://BUCKET/uvd

The argument is a size (debug, 100m, 300m, 600m, 1b, 3b, 7b, 13b, 20b, 30b, quickstart, small); `3b,runlocal` shrinks
any of them to a laptop. The recipe is the published one (LVM, arXiv 2312.00785, and its code's README), with two
differences: sentences are kept apart by segment ids, and norms are not decayed.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.evaluation.lvm import while_training
from lvm_jax.models import presets
from lvm_jax.parallel.mesh import MeshConfig
from lvm_jax.training.loop import TrainConfig
from lvm_jax.training.optimizer import OptimizerConfig


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe of one size."""
    args = parse_arg(arg, size="300m", runlocal=False)
    config = ConfigDict()
    config.model = dataclasses.asdict(presets.llama(args["size"]))
    config.model.update({"dtype": "bfloat16", "remat": "dots"})

    # Fine-tuning: a model folder of this shape, ours or Hugging Face's; "": fresh weights. config.model.lora.rank sets
    # the rank of adapters that are trained beside frozen weights; 0: all weights are trained.
    config.init_from = ""

    config.data = ConfigDict()
    config.data.shards = ""  # a folder of shards or a glob; several with commas between them
    config.data.weights = (
        ""  # shares of the images, such as "laion=9,coco=1"; "": every sentence once an epoch
    )
    config.data.seq_len = 4096  # 16 images of 256 tokens; a row has one token more, for the labels
    config.data.packing = "packed"  # "concat" is the paper's: concatenate and cut

    config.train = dataclasses.asdict(
        TrainConfig(
            steps=200_000,  # x 2M tokens = 420B, the paper's one epoch
            batch_size=512,  # rows; 2,097,152 tokens
            log_every=20,
            eval_every=2_000,
            checkpoint_every=1_000,
        )
    )

    config.optimizer = dataclasses.asdict(
        OptimizerConfig(
            learning_rate=1.5e-4,
            end_learning_rate=3e-5,
            warmup_steps=8_000,
            decay_steps=200_000,  # the published 288,000 were never reached
            b1=0.9,
            b2=0.95,
            weight_decay=0.1,
            decay="matrices",
            clip_norm=1.0,
        )
    )

    config.loss = ConfigDict()
    config.loss.z_loss = 0.0
    config.loss.chunk = 0  # tokens of a row whose logits are alive at a time; 0: all
    config.loss.accumulation = 1  # parts that a batch is computed in, one after the other

    # Evaluators and their periods in steps, 0: never; each also after the last step. See docs/evaluation.md.
    config.evaluators = dict.fromkeys(while_training.NAMES, 0)
    config.evaluation = dataclasses.asdict(while_training.EvaluationConfig())

    config.mesh = dataclasses.asdict(MeshConfig())

    if args["size"] in ("quickstart", "small"):
        _quickstart(config)
    if args["size"] == "small":
        _small(config)
    if args["runlocal"]:
        _runlocal(config)
    return config


def _quickstart(config: Any) -> None:
    """About three minutes on two CPU cores: 8 images of 64 tokens a row."""
    config.model.dtype = "float32"
    config.data.seq_len = 512
    config.train.update({"steps": 1000, "batch_size": 4, "log_every": 10})
    config.train.update({"eval_every": 500, "checkpoint_every": 100, "print_config": False})
    config.optimizer.update({"learning_rate": 5e-3, "end_learning_rate": 1e-4})
    config.optimizer.update({"warmup_steps": 40, "decay_steps": 1000})


def _small(config: Any) -> None:
    """About 40 minutes on two CPU cores: 16 images of 64 tokens a row."""
    config.data.seq_len = 1024
    config.train.update({"steps": 3000, "eval_every": 1000})
    config.optimizer.update({"learning_rate": 4e-3, "warmup_steps": 60, "decay_steps": 3000})


def _runlocal(config: Any) -> None:
    """Any size on a laptop in seconds: two thin layers, a few steps."""
    config.model.update({"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2})
    config.model.update({"num_attention_heads": 4, "num_key_value_heads": 4})
    config.model.update({"dtype": "float32", "remat": "none"})
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2})
    config.train.update({"eval_every": 3, "checkpoint_every": 3})
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 2, "decay_steps": 6})
