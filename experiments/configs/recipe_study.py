r"""Recipe studies: what is varied, and what it is judged by.

python experiments/recipe_study.py --config=experiments/configs/recipe_study.py:decoder --workdir=DIR \
    --config.common.data.shards=SHARDS

python experiments/recipe_study.py --config=experiments/configs/recipe_study.py:unified --workdir=DIR \
    --config.common.data.shards=POOLS --config.common.data.text_tokenizer=WORDS --config.evaluate.tokenizer=TOKENIZER

The argument is what is studied: `decoder` (the quickstart's, on shards of 64 codes an image), `tokenizer` (64 codes of
1,024 for 64 pixels), `unified` (the rows of Table 3 in arXiv 2312.02520, on the pools of its quickstart), or
`unified_context` (its Tables 2, 6 and 7: examples, classes, boxes, L_in; pools written with
--config.entries.shapes.composer.boxed=True, since one variant shows pictures with their boxes drawn).
`decoder,leave_out` also takes each change out of all together, `decoder,answers` scores the answers too (name
--config.evaluate.tokenizer and .images), `tokenizer,maps` also trains on a folder with annotation maps in it (name
--config.variants.maps.data.images). `only=muon-qk_norm` keeps these variants and the base. `runlocal` shrinks any of
them to seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lvm_jax.config import parse_arg
from lvm_jax.errors import UserError

_CODES = 64  # of an image of the shards
_OF_ONE_STUDY = {"leave_out": "decoder", "answers": "decoder", "maps": "tokenizer"}  # arguments

# ------------------------------------------------------------------------------------------------------- decoders

# The decoder of LLaMA, under AdamW and a cosine: where every change begins.
_PLAIN = {
    "model": {"look_back": 0, "place_embeddings": False, "tokens_per_image": 0, "qk_norm": False},
    "optimizer": {"kind": "adamw", "schedule": "cosine"},
    "data": {"question_weight": 1.0},
}
# One change each, and all of these together.
_CHANGES = {
    "look_back": {"model": {"look_back": _CODES}},
    "places": {"model": {"place_embeddings": True, "tokens_per_image": _CODES}},
    "qk_norm": {"model": {"qk_norm": True}},
    "muon": {"optimizer": {"kind": "muon"}},
    "wsd": {"optimizer": {"schedule": "wsd", "wsd": {"decay_fraction": 0.3}}},
    "questions": {"data": {"question_weight": 0.1}},
}
# Others by themselves: instead of places, against learning by heart, and shapes of batch and network.
_OTHERS = {
    "rotary_2d": {"model": {"positions": "rotary_2d", "tokens_per_image": _CODES}},
    "noise": {"data": {"code_noise": 0.1}},
    "batch_2": {"train": {"batch_size": 2}},
    "batch_8": {"train": {"batch_size": 8}},
    "row_1024": {
        "train": {"batch_size": 2},
        "data": {"seq_len": 1024},
        "model": {"max_position_embeddings": 1024},
    },
    # About as many parameters as 128 wide and 4 deep; matrices start at 1/sqrt(width), as there.
    "wide": {
        "model": {
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "initializer_range": 0.072,
        }
    },
    "deep": {
        "model": {
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 7,
            "initializer_range": 0.102,
        }
    },
}

# ----------------------------------------------------------------------------------------------------- tokenizers

_ENCODER = {"encoder_blocks": 2, "encoder_reach": 2}
_MOVING = {"loss": {"quantization_weight": 1.0}, "step": {"revive_after": 200}}
_TOKENIZERS = {
    # Codes stay where k-means over patches has put them: only the decoder learns, and hides their edges.
    "patches": {},
    "moving": _MOVING,
    # A VQGAN. Its discriminator runs from the first step, or its speed would be measured without it.
    "vqgan": {
        "recipe": "experiments/configs/tokenizer.py:small",
        "train": {"batch_size": 8},
        "loss": {"discriminator_start": 0},
    },
    "vqgan_causal": {
        "recipe": "experiments/configs/tokenizer.py:small",
        "train": {"batch_size": 8},
        "loss": {"discriminator_start": 0, "causal_weight": 0.1},
    },
    # An encoder that corrects patches, and how many cells away it looks. Its codes have to move with it.
    "encoder_reach_0": {**_MOVING, "model": {"encoder_blocks": 2, "encoder_reach": 0}},
    "encoder_reach_1": {**_MOVING, "model": {"encoder_blocks": 2, "encoder_reach": 1}},
    "encoder_reach_2": {**_MOVING, "model": _ENCODER},
    # The same, made to be foretold.
    "causal_light": {
        "model": _ENCODER,
        "loss": {"quantization_weight": 1.0, "causal_weight": 0.02},
        "step": {"revive_after": 200},
    },
    "causal": {
        "model": _ENCODER,
        "loss": {"quantization_weight": 1.0, "causal_weight": 0.1},
        "step": {"revive_after": 200},
    },
}


def get_config(arg: str | None = None) -> ConfigDict:
    """The study of decoders or of tokenizers."""
    args = parse_arg(
        arg, study="decoder", leave_out=False, answers=False, maps=False, only="", runlocal=False
    )
    config: Any = ConfigDict()
    config.seeds = (0, 1, 2)  # of every variant
    # What all trainings have the same of: "items" (tokens, or images of a tokenizer), or "time".
    config.equal = "items"
    config.budget = 3_072_000  # tokens, rows or images that each training reads; with equal="items"
    config.seconds = 600.0  # of training; with equal="time", on a machine that does nothing else
    config.speed_steps = 50  # of the short training that measures a variant's speed; "time"
    # Settings whose product is the items of a step; they are in `common`.
    config.items_per_step = ("train.batch_size", "data.seq_len")
    # Settings that are given the number of steps: the learning rate's end, evaluations after it.
    config.follow_steps = ("train.eval_every", "optimizer.decay_steps")
    # Settings of every training; `recipe` is its configuration file and argument.
    config.common = ConfigDict()
    # Name of a variant -> settings that override the common ones.
    config.variants = ConfigDict()
    config.base = ""  # the variant that the others are compared with
    config.exported = "model"  # flag of experiments/evaluate.py that takes the trained model
    # Its other flags; empty: it does not run, and the training's own evaluators tell.
    config.evaluate = ConfigDict()
    # Heading -> name of a number; a * stands for any task, and means the mean over all of them.
    config.columns = ()
    # Heading -> name with a *: a table with a column for each task.
    config.tables = ()
    # Variant -> the share of the budget that it reads; those that are not named read all.
    config.shares = ConfigDict()
    # Number -> limit: from which step on the run's own evaluators show no more than the limit.
    config.milestones = ConfigDict()
    # Variant without settings -> the variant whose trained models it evaluates; it trains none.
    config.trained_as = ConfigDict()
    # Variant -> flags of evaluate.py that override those of config.evaluate.
    config.asked = ConfigDict()
    # Name -> flags of one more evaluation of all; its numbers have NAME/ before them.
    config.also = ConfigDict()
    # (heading, name of a number, variants from the lowest to the highest ...): what others found.
    config.orders = ()
    studies = {
        "decoder": _decoder,
        "tokenizer": _tokenizer,
        "unified": _unified,
        "unified_context": _unified_context,
    }
    if args["study"] not in studies:
        raise UserError(f"there is no study {args['study']!r}: name one of {', '.join(studies)}")
    for name, study in _OF_ONE_STUDY.items():
        if args[name] and args["study"] != study:
            raise UserError(f"config argument {name} is of the study {study}: leave it out")
    studies[args["study"]](config, args)
    if args["only"]:
        _keep(config, args["only"].split("-"))
    if args["runlocal"]:
        _runlocal(config, args["study"])
    return config


def _decoder(config: Any, args: Mapping[str, Any]) -> None:
    """Each change to a plain decoder by itself, and together."""
    common = {
        "recipe": "experiments/configs/lvm.py:quickstart",
        "train": {"batch_size": 4},
        "data": {"shards": "", "seq_len": 512},
        "evaluation": {"max_sentences": 0, "control_sentences": 64},
    }
    config.common.update(_merged(_PLAIN, common))
    config.follow_steps += ("evaluators.next_token", "evaluators.controls")
    variants = {"plain": {}, **_CHANGES, **_OTHERS, "together": _merged(*_CHANGES.values())}
    if args["leave_out"]:
        for name in _CHANGES:
            kept = (change for other, change in _CHANGES.items() if other != name)
            variants[f"together_without_{name}"] = _merged(*kept)
    config.variants.update(variants)
    config.base = "plain"
    config.columns = (
        ("loss after the first image", "next_token/after_first_image/code_loss"),
        ("uses_query, mean", "controls/*/uses_query"),
        ("uses_pairs, mean", "controls/*/uses_pairs"),
        ("true answer, mean", "controls/*/right"),
    )
    config.tables = (
        ("What the query is worth, nats a code", "controls/*/uses_query"),
        ("What the pairs are worth, nats a code", "controls/*/uses_pairs"),
        ("The true answer, nats a code", "controls/*/right"),
    )
    if args["answers"]:
        flags = {"tokenizer": "", "images": "", "answer_sentences": 16, "probe_steps": 0}
        config.evaluate.update({"shards": config.common.data.get_ref("shards"), **flags})
        config.tables += (("Scores of the answers", "answers/*/model"),)


def _tokenizer(config: Any, args: Mapping[str, Any]) -> None:
    """Tokenizers, judged by what they keep and by what a small decoder can learn of their codes."""
    config.equal = "time"
    config.budget = 64_000
    config.items_per_step = ("train.batch_size",)
    config.follow_steps = ("train.eval_every", "generator.decay_steps", "critic.decay_steps")
    common = {
        "recipe": "experiments/configs/tokenizer.py:patches",
        "train": {"batch_size": 32},
        "data": {"images": "", "held_out": ""},
    }
    config.common.update(common)
    config.variants.update(_TOKENIZERS)
    config.base = "patches"
    if args["maps"]:
        config.variants.maps = ConfigDict({"data": {"images": "", "held_out": ""}})
    config.exported = "tokenizer"
    config.evaluate.update({"images": "", "held_out": "", "maps": "", "probe_steps": 500})
    config.columns = (
        ("PSNR", "reconstruction/psnr"),
        ("segmentation, mIoU", "ceilings/segmentation/miou"),
        ("edges, F1", "ceilings/edges/f1"),
        ("depth, AbsRel", "ceilings/depth/absrel"),
        ("probe, nats a code", "probe/answers/code_loss"),
        ("probe, bits an image", "probe/answers/bits_per_image"),
        ("probe, uses_query", "probe/answers/uses_query"),
        ("local", "codes/local/cell"),
        ("codes of a flat colour", "codes/flat/codes"),
        ("nats a code beside neighbours", "codes/entropy/left_and_upper"),
    )
    config.tables = (
        ("Ceilings", "ceilings/*"),
        ("The probe's answers, nats a code", "probe/*/code_loss"),
    )


def _unified(config: Any, args: Mapping[str, Any]) -> None:
    """Table 3 of the paper: all tasks in one decoder, experts, attributes that route, unmixed and balanced batches."""
    recipe = "experiments/configs/unified.py:quickstart"
    balanced = {"optimizer": {"balance": True}}
    _of_pools(config, f"{recipe},experts=dense,mt=False")
    config.variants.update(
        {
            "all_tasks": {},
            # Alone, a question gets the tokens that it has in the others.
            "segmentation": {
                "data": {"questions": '("segmentation",)', "shares": "segmentation=1"}
            },
            "captioning": {"data": {"questions": '("captioning",)', "shares": "captioning=1"}},
            "experts": {"recipe": f"{recipe},experts=token,mt=False"},
            "attributes": {"recipe": f"{recipe},experts=attribute,mt=False"},
            "balanced": {"recipe": f"{recipe},experts=dense", **balanced},
            "attributes_balanced": {"recipe": recipe, **balanced},
        }
    )
    config.shares.update({"segmentation": 0.5, "captioning": 0.5})
    config.base = "all_tasks"
    # Of the paper: 21.74, 33.72, 40.48, 42.02, 49.91, 51.91 mIoU; 66.5, 67.9, 77.3, 78.3, 81.1, 88.6 CIDEr.
    experts, both = ("experts", "attributes"), "attributes_balanced"
    masks = ("all_tasks", "balanced", *experts, both, "segmentation")
    words = (*experts, "all_tasks", both, "balanced", "captioning")
    config.orders = (
        ("mIoU as in the paper's Table 3", "segmentation/model/miou", *masks),
        ("CIDEr-D as in the paper's Table 3", "captioning/model/cider_d", *words),
    )


def _unified_context(config: Any, args: Mapping[str, Any]) -> None:
    """Tables 2, 6 and 7 of the paper: what examples, classes and boxes are worth, and the loss of pictures.

    One decoder reads none to three examples, with and without classes: how it is asked needs no other training.
    """
    _of_pools(config, "experiments/configs/unified.py:quickstart,experts=dense")
    asked = {
        "class_only": {"examples": 0, "category": "all"},
        "two_examples": {"examples": 2},
        "three_examples": {"examples": 3},
        "class_in_examples": {"category": "examples"},
        "class_everywhere": {"category": "all"},
    }
    config.variants.update(
        {
            "one_example": {},
            **{name: {} for name in asked},
            "boxes_none": {"rows": {"boxes": "none"}},
            "boxes_drawn": {"rows": {"boxes": "image"}},
            "l_in_01": {"format": {"input_weight": 0.1}},
            "l_in_05": {"format": {"input_weight": 0.5}},
        }
    )
    config.base = "one_example"
    config.trained_as.update(dict.fromkeys(asked, config.base))
    config.asked.update(
        {**asked, "boxes_none": {"boxes": "none"}, "boxes_drawn": {"boxes": "image"}}
    )
    config.also.unseen = {"classes": "unseen"}
    config.columns = (
        *config.columns[:2],
        ("mIoU, unseen classes", "unseen/segmentation/model/miou"),
        ("MAE", "segmentation/model/mae"),
        *config.columns[2:],
    )
    # Of the paper: 45.70, 56.17, 59.21 and 60.85 mIoU with none to three examples, 58.04 with one and the class;
    # captions get worse, 95.9, 52.5 and 51.2 CIDEr; 86.6 with L_in 0.5.
    masks, words = "segmentation/model/miou", "captioning/model/cider_d"
    more, fewer = ("two_examples", "three_examples"), ("three_examples", "two_examples")
    config.orders = (
        ("mIoU by examples, as in the paper", masks, "class_only", "one_example", *more),
        (
            "mIoU by the class, as in the paper",
            masks,
            "class_only",
            "one_example",
            "class_everywhere",
        ),
        ("CIDEr-D by examples, as in the paper", words, *fewer, "one_example"),
        ("CIDEr-D by L_in, as in the paper", words, "l_in_05", "one_example"),
    )


def _of_pools(config: Any, recipe: str) -> None:
    """What studies of answers from examples have in common."""
    config.budget = 3_200  # rows, of which each question gets about half
    config.items_per_step = ("train.batch_size",)
    config.follow_steps = ("optimizer.decay_steps",)
    config.common.update(
        {
            "recipe": recipe,
            "train": {"batch_size": 8, "eval_every": 50},
            "data": {"shards": "", "text_tokenizer": "", "shares": "segmentation=1,captioning=1"},
            # As many episodes as take a third of the time of the steps between.
            "evaluators": {"controls": 50},
            "evaluation": {"rows": 64, "episodes": 32},
        }
    )
    asked = {"shards": config.common.data.get_ref("shards"), "tokenizer": "", "classes": "seen"}
    config.evaluate.update({**asked, "examples": 1, "episodes": 128})
    plateau = "controls/segmentation/uses_other_examples/loss"
    # Within 50 steps any example is worth 0.1: it shows what kind of answer is due. More is its content.
    config.milestones.update({plateau: -0.2})
    config.columns = (
        ("mIoU", "segmentation/model/miou"),
        ("mIoU, other examples", "segmentation/other_examples/miou"),
        ("examples' worth, nats a code", plateau),
        ("reads its examples from step", f"steps_to/{plateau}"),
        ("share of seeds that do", f"reached/{plateau}"),
        ("category", "captioning/model/category"),
        ("box IoU", "captioning/model/box_iou"),
        ("mAP of boxes", "captioning/model/map_boxes"),
        ("BLEU-4", "captioning/model/bleu_4"),
        ("CIDEr-D", "captioning/model/cider_d"),
        ("CIDEr-D, other query", "captioning/other_query/cider_d"),
    )


def _keep(config: Any, names: Sequence[str]) -> None:
    """Leaves out all variants but the base and these."""
    if unknown := sorted(set(names) - set(config.variants)):
        raise UserError(
            f"config argument only={unknown[0]!r}: there is no such variant; known: {', '.join(config.variants)}"
        )
    kept = {config.base, *names}
    for named in (config.variants, config.shares, config.trained_as, config.asked):
        for name in [name for name in named if name not in kept]:
            del named[name]
    config.orders = ()  # of all variants


def _merged(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Several settings in one, nested ones too."""
    merged: dict[str, Any] = {}
    for change in changes:
        for name, value in change.items():
            nested = isinstance(value, Mapping)
            merged[name] = _merged(merged.get(name, {}), value) if nested else value
    return merged


def _runlocal(config: Any, study: str) -> None:
    """Shows that it runs, and learns nothing: two variants, one seed, four steps."""
    config.seeds = (0,)
    config.speed_steps = 3
    config.seconds = 0.5
    other = {
        "decoder": "together",
        "tokenizer": "causal",
        "unified": "balanced",
        "unified_context": "class_only",
    }[study]
    _keep(config, [other])
    config.common.recipe = f"{config.common.recipe},runlocal"
    config.common.train.update({"batch_size": 2, "log_every": 1})
    row = config.common.data.seq_len if study == "decoder" else 1
    config.budget = 4 * 2 * row
    if study == "decoder":
        config.common.optimizer.warmup_steps = 0
        config.common.evaluation.update({"max_sentences": 48, "control_sentences": 4})
    elif study == "tokenizer":
        config.common.generator = ConfigDict({"warmup_steps": 0})
        config.common.critic = ConfigDict({"warmup_steps": 0})
        config.evaluate.update({"probe_steps": 2, "max_images": 8})
    else:
        config.common.train.eval_every = config.common.evaluators.controls = 2
        config.common.evaluation.update({"rows": 8, "episodes": 4})
        config.evaluate.episodes = 4
        if "recipe" in config.variants[other]:
            config.variants[other].recipe = f"{config.variants[other].recipe},runlocal"
