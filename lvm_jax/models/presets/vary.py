"""Vary's models by name (arXiv 2312.06109), their successors, and small ones for tests and two CPU cores."""

from collections.abc import Callable
from typing import Any

from lvm_jax.models.presets.language import opt, qwen, vicuna
from lvm_jax.models.presets.overrides import entry
from lvm_jax.models.presets.towers import clip, vitdet
from lvm_jax.models.vision_language.config import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    ClipBranch,
    VisionLanguageConfig,
    VitDetBranch,
)

# (patch, start, end): behind OPT's 50,265 tokens, in Qwen's vocabulary as Qwen-VL has them, behind Vicuna's, and where
# `data_pipelines.train_text_tokenizer` puts them.
_OPT_IDS, _QWEN_IDS, _VICUNA_IDS = (
    (50265, 50266, 50267),
    (151859, 151857, 151858),
    (32000, 32001, 32002),
)
_OWN_OPT_IDS, _OWN_MPT_IDS = (2, 3, 4), (3, 4, 5)
_CLIP_COLOURS: dict[str, Any] = {"mean": CLIP_MEAN, "deviation": CLIP_DEVIATION}
# Paper is 0 and ink 4 deviations away. White paper as the usual 2.6 would be one huge constant, and training switches
# the picture off before it has learnt to read.
_INK = {"mean": (1.0, 1.0, 1.0), "deviation": (0.25, 0.25, 0.25)}

# A decoder as narrow as these needs wider matrices than 0.02, or attention stays flat.
_SMALL: dict[str, Any] = {"initializer_range": 0.08}
_LINES: dict[str, Any] = {
    **_SMALL,
    "vocab_size": 512,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "max_position_embeddings": 128,
    "intermediate_size": 256,
}


def _tiny(positions: int = 4096, **colours: Any) -> dict[str, Any]:
    """Section 3.2: all of it is trained. OPT's 2,048 positions are interpolated to 4,096."""
    decoder = opt("125m", vocab_size=50268, max_position_embeddings=positions)
    branch = VitDetBranch(vitdet("vary"), **colours)
    return {"decoder": decoder, "vitdet": branch, "clip": None, **_ids(_OPT_IDS)}


def _base(decoder: Any, ids: tuple[int, int, int]) -> dict[str, Any]:
    """Section 3.3: both vocabularies, each 256 tokens."""
    branches = {"vitdet": VitDetBranch(vitdet("vary")), "clip": ClipBranch(clip("vit-l-14"))}
    return {"decoder": decoder, **branches, **_ids(ids)}


def _got_ocr2() -> dict[str, Any]:
    """arXiv 2409.01704: the new vocabulary alone."""
    decoder = qwen("0.5b", vocab_size=151860)
    branch = VitDetBranch(vitdet("vary"), **_CLIP_COLOURS)
    return {"decoder": decoder, "vitdet": branch, "clip": None, **_ids(_QWEN_IDS)}


def _debug() -> dict[str, Any]:
    decoder = opt(
        "debug",
        **{**_LINES, "vocab_size": 128, "hidden_size": 16, "intermediate_size": 64},
        num_attention_heads=2,
    )
    branch = VitDetBranch(vitdet("debug"), **_INK)
    return {"decoder": decoder, "vitdet": branch, "clip": None, **_ids(_OWN_OPT_IDS)}


def _debug_two() -> dict[str, Any]:
    return {**_debug_old(), "vitdet": VitDetBranch(vitdet("debug"), **_INK)}


def _debug_old() -> dict[str, Any]:
    decoder = qwen(
        "debug",
        **{**_LINES, "vocab_size": 128, "hidden_size": 16, "intermediate_size": 24},
        num_attention_heads=2,
    )
    old = ClipBranch(clip("debug", image_size=(16, 16)))
    return {"decoder": decoder, "vitdet": None, "clip": old, **_ids(_OWN_MPT_IDS)}


def _quickstart() -> dict[str, Any]:
    branch = VitDetBranch(vitdet("lines"), **_INK)
    return {"decoder": opt("debug", **_LINES), "vitdet": branch, "clip": None, **_ids(_OWN_OPT_IDS)}


def _quickstart_two() -> dict[str, Any]:
    return {**_quickstart_old(), "vitdet": VitDetBranch(vitdet("lines"), **_INK)}


def _quickstart_old() -> dict[str, Any]:
    decoder, old = qwen("debug", **_LINES), _old((16, 64))
    return {"decoder": decoder, "vitdet": None, "clip": old, **_ids(_OWN_MPT_IDS)}


def _small() -> dict[str, Any]:
    branch = VitDetBranch(vitdet("blocks"), **_INK)
    decoder = opt("debug", **_LINES)
    return {"decoder": decoder, "vitdet": branch, "clip": None, **_ids(_OWN_OPT_IDS)}


def _small_two() -> dict[str, Any]:
    branches = {"vitdet": VitDetBranch(vitdet("blocks"), **_INK), "clip": _old((32, 80))}
    decoder = qwen("debug", **_LINES)
    return {"decoder": decoder, **branches, **_ids(_OWN_MPT_IDS)}


def _old(image_size: tuple[int, int]) -> ClipBranch:
    """It sees half of the pixels, as a CLIP of 224 of them sees a page; as many patches as the new one has tokens."""
    tower = clip(
        "debug",
        image_size=image_size,
        patch_size=8,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        initializer_range=0.1,
    )
    return ClipBranch(tower, **_INK)


def _ids(ids: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("image_patch_id", "image_start_id", "image_end_id"), ids))


_VARY: dict[str, Callable[[], dict[str, Any]]] = {
    "debug": _debug,
    "debug-two": _debug_two,
    "debug-old": _debug_old,
    "quickstart": _quickstart,
    "quickstart-two": _quickstart_two,
    "quickstart-old": _quickstart_old,
    "small": _small,
    "small-two": _small_two,
    "tiny": _tiny,
    "tiny-plus": lambda: _tiny(**_CLIP_COLOURS),
    # Texts of at most 1,600 tokens: OPT's own positions are enough.
    "tiny-600k": lambda: _tiny(positions=2048, **_CLIP_COLOURS),
    "base": lambda: _base(qwen("7b"), _QWEN_IDS),
    "base-vicuna": lambda: _base(vicuna("7b", vocab_size=32003), _VICUNA_IDS),
    "toy": lambda: _base(qwen("1.8b"), _QWEN_IDS),
    "got-ocr2": _got_ocr2,
}


def vary(name: str, **overrides: Any) -> VisionLanguageConfig:
    """The model `name`.

    | name | towers | decoder |
    |---|---|---|
    | tiny | ViTDet | OPT-125M with 4,096 positions |
    | tiny-plus | the same, CLIP's normalisation (arXiv 2401.12503) | the same |
    | tiny-600k | the same | OPT-125M |
    | base | CLIP ViT-L/14 and ViTDet | Qwen-7B |
    | base-vicuna | the same | Vicuna-7B |
    | toy | the same | Qwen-1.8B (arXiv 2401.12503) |
    | got-ocr2 | ViTDet | Qwen-0.5B |
    | quickstart | ViTDet for lines of 32 x 128 pixels | small, OPT's shape |
    | quickstart-two, quickstart-old | the same and a small CLIP; the CLIP alone | small, Qwen's shape |
    | small | ViTDet for a few rows of text, 64 x 160 pixels | small, OPT's shape |
    | small-two | the same and a small CLIP | small, Qwen's shape |
    | debug, debug-two, debug-old | the same, of 40 x 48 pixels | for tests |

    Args:
      name: a key of the table.
      **overrides: fields of `VisionLanguageConfig` that replace the preset's.

    Raises:
      UserError: an unknown preset or field.
    """
    make = entry("Vary", name, _VARY, VisionLanguageConfig, overrides)
    return VisionLanguageConfig(**{**make(), **overrides})
