"""Whole models as others publish them: GOT-OCR2 in transformers' format, Vary and GOT-OCR2 in their authors'.

Each part is read on its own, out of the same files: towers and projectors by `lvm_jax.models.towers`, the decoder as a
folder of its family whose tensors have other names.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.decoder import hf_config, hf_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.towers import folders
from lvm_jax.models.towers.clip import ClipVision
from lvm_jax.models.towers.projectors import Projector
from lvm_jax.models.towers.vitdet import VitDet
from lvm_jax.models.vision_language.config import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    ClipBranch,
    VisionLanguageConfig,
    VitDetBranch,
)
from lvm_jax.weights.streamed import fill
from lvm_jax.weights.tensor_files import Renamed, TensorFiles

_HEAD = "lm_head.weight"
# What Vary's authors add to the decoder's settings. The ids of pictures are read; their code fixes the rest.
_VARY_IDS = ("im_patch_token", "im_start_token", "im_end_token")
_VARY_IGNORED = ("vision_tower", "image_token_len", "use_im_start_end", "vision_select_layer")
_VARY_IGNORED += ("freeze_vision_tower", "mm_vision_tower", "sep_image_conv_front")


@dataclasses.dataclass(frozen=True)
class Parts:
    """A model in pieces.

    Attributes:
      config: of the whole.
      branches: attribute of the model -> its tower and projector.
      decoder: parameters.
    """

    config: VisionLanguageConfig
    branches: Mapping[str, tuple[VitDet | ClipVision, Projector]]
    decoder: nnx.State


def read(
    directory: epath.PathLike, fields: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Parts:
    """The model of a published folder, streamed into shards.

    Args:
      directory: of the files.
      fields: of config.json.
      overrides: how to compute, for towers and decoder.

    Raises:
      UserError: a kind of model that is not known, a setting that is not supported, or tensors that do not fit.
    """
    kind = str(fields.get("model_type"))
    if kind not in READERS:
        raise UserError(
            f"{directory}/config.json has model_type={kind!r}: VisionLanguage reads 'vision_language', "
            + ", ".join(map(repr, READERS))
        )
    return READERS[kind](directory, dict(fields), overrides)


def _got_ocr2(
    directory: epath.PathLike, fields: dict[str, Any], overrides: Mapping[str, Any]
) -> Parts:
    """transformers' format. Start and end of an image stand before the patch's id, as in Qwen-VL's vocabulary."""
    settings = dict(fields.get("text_config") or {})
    settings["tie_word_embeddings"] = fields.get("tie_word_embeddings", True)
    decoder, weights = _decoder(directory, settings, _part_of_got_ocr2, overrides)
    projector = "multi_modal_projector.multimodal_projector."
    tower, linear = _branch(VitDet, directory, projector, overrides)
    patch = fields.get("image_token_index", 151859)
    config = VisionLanguageConfig(
        decoder=decoder,
        vitdet=VitDetBranch(tower.config, CLIP_MEAN, CLIP_DEVIATION),
        clip=None,
        image_patch_id=patch,
        image_start_id=patch - 2,
        image_end_id=patch - 1,
    )
    return Parts(config, {"vitdet": (tower, linear)}, weights)


def _authors(
    directory: epath.PathLike, fields: dict[str, Any], overrides: Mapping[str, Any]
) -> Parts:
    """Vary's and GOT-OCR2's authors' format: the decoder's own, with towers and projectors in it."""
    ids = [fields.pop(name, None) for name in _VARY_IDS]
    if not all(isinstance(id, int) for id in ids):
        raise UserError(
            f"{directory}/config.json has {dict(zip(_VARY_IDS, ids))}: add the ids of a picture's tokens"
        )
    settings = {name: value for name, value in fields.items() if name not in _VARY_IGNORED}
    got = fields["model_type"] == "GOT"
    settings["model_type"] = "qwen2" if got else _family_of_vary(fields)
    decoder, weights = _decoder(directory, settings, _part_of_authors, overrides)
    with TensorFiles(directory) as files:
        two = any(name.endswith("mm_projector.weight") for name in files.shapes) and any(
            name.endswith("mm_projector_vary.weight") for name in files.shapes
        )
    linear = "mm_projector_vary." if two or got else "mm_projector."
    tower, projector = _branch(VitDet, directory, linear, overrides)
    branches: dict[str, tuple[Any, Projector]] = {"vitdet": (tower, projector)}
    if two:
        branches["clip"] = _branch(ClipVision, directory, "mm_projector.", overrides)
    config = VisionLanguageConfig(
        decoder,
        VitDetBranch(tower.config, CLIP_MEAN, CLIP_DEVIATION)
        if got
        else VitDetBranch(tower.config),
        ClipBranch(branches["clip"][0].config) if two else None,
        *ids,  # pyright: ignore[reportArgumentType] - checked above
    )
    return Parts(config, branches, weights)


READERS: Mapping[str, Callable[[epath.PathLike, dict[str, Any], Mapping[str, Any]], Parts]] = {
    "got_ocr2": _got_ocr2,
    "vary": _authors,
    "GOT": _authors,
}


def _family_of_vary(fields: Mapping[str, Any]) -> str:
    """Which decoder the settings of a model of Vary are about; their model_type does not say."""
    if "ffn_dim" in fields:
        return "opt"
    return "qwen" if "kv_channels" in fields or "rotary_emb_base" in fields else "llama"


def _branch(
    kind: Any, directory: epath.PathLike, projector: str, overrides: Mapping[str, Any]
) -> tuple[Any, Projector]:
    """A tower and its projector, whose tensors have any prefix before `projector`."""
    with TensorFiles(directory) as files:
        found = [name for name in files.shapes if name.endswith(f"{projector}weight")]
    if len(found) != 1:
        raise UserError(f"{directory} has {len(found)} tensors {projector}weight: it must have one")
    dtype = {"dtype": overrides["dtype"]} if "dtype" in overrides else {}
    linear = Projector.from_pretrained(directory, prefix=found[0].removesuffix("weight"), **dtype)
    towers = {name: value for name, value in overrides.items() if name in folders.COMPUTE}
    return kind.from_pretrained(directory, **towers), linear


def _decoder(
    directory: epath.PathLike,
    settings: Mapping[str, Any],
    rename: Callable[[str], str | None],
    overrides: Mapping[str, Any],
) -> tuple[DecoderConfig, nnx.State]:
    """The decoder within a larger model; `rename` gives its tensors the names of their family."""
    config = hf_config.config_from_json(
        settings,
        f"{directory}/config.json",
        families=hf_folder.FAMILIES,
        reader="VisionLanguage",
        **overrides,
    )
    abstract = nnx.state(Decoder.abstract(config))
    family = hf_folder.FAMILIES[settings["model_type"]]
    with TensorFiles(directory) as files:
        parameters = hf_folder.parameter_shapes(abstract)
        tensors = Renamed(files, rename)
        reader = hf_folder.part_reader(tensors, family, config, parameters, str(directory))
        return config, fill(abstract, reader.read)


def _part_of_got_ocr2(name: str) -> str | None:
    """Stored as language_model.model.X, in memory model.language_model.X."""
    if name.endswith(_HEAD):
        return _HEAD
    _, inside, rest = name.partition("language_model.")
    return f"model.{rest.removeprefix('model.')}" if inside else None


def _part_of_authors(name: str) -> str | None:
    return None if "vision_tower" in name or "mm_projector" in name else name
