"""A decoder's folder in Hugging Face's format: config.json beside tensors, for any of the `FAMILIES`.

Weights go from files straight into the shards of their parameters, so no host ever holds the whole model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.decoder import hf_config, own_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family
from lvm_jax.models.decoder.hf_gpt2 import GPT2
from lvm_jax.models.decoder.hf_llama import LLAMA, QWEN2, QWEN3
from lvm_jax.models.decoder.hf_opt import OPT
from lvm_jax.models.decoder.hf_qwen import QWEN
from lvm_jax.models.decoder.hf_tensors import Reader, tensor_shapes, to_hugging_face
from lvm_jax.weights.model_folder import CONFIG_FILE, check_tensors, read_config, save_folder
from lvm_jax.weights.streamed import fill
from lvm_jax.weights.tensor_files import TensorFiles, Tensors

AnyReader = Reader | own_folder.OwnReader

# model_type of config.json -> its family.
FAMILIES: Mapping[str, Family] = {
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    # Behind Qwen2, which describes the same decoders: they are saved as that.
    "qwen": QWEN,
    "opt": OPT,
    "gpt2": GPT2,
}


def family_of(config: DecoderConfig) -> Family | None:
    """The published family that a decoder belongs to; None for one that only `own_folder` holds."""
    return next((family for family in FAMILIES.values() if family.describes(config)), None)


def save(
    directory: epath.PathLike,
    config: DecoderConfig,
    tensors: Mapping[str, np.ndarray],
    dtype: str = "float32",
    tokenizer_fingerprint: str = "",
) -> None:
    """Writes the folder, in the format of the decoder's family, or in `own_folder`'s if it has none.

    Args:
      directory: made if missing.
      config: the decoder.
      tensors: its parameters by dotted path; those of blocks are stacked over layers.
      dtype: of the tensors.
      tokenizer_fingerprint: of the tokenizer whose codes it was trained on; "" for unknown.
    """
    family = family_of(config)
    if family is None:
        fields = own_folder.config_to_json(config)
    else:
        fields = hf_config.config_to_json(family, config)
        tensors = to_hugging_face(family, config, tensors)
    fields["torch_dtype"] = dtype
    if tokenizer_fingerprint:
        fields[hf_config.TOKENIZER] = tokenizer_fingerprint
    save_folder(directory, fields, tensors)


def load_config(
    directory: epath.PathLike,
    *,
    families: Mapping[str, Family] = FAMILIES,
    reader: str = "Decoder",
    **overrides: Any,
) -> DecoderConfig:
    """The configuration of a folder.

    Args:
      directory: holds config.json.
      families: model_type -> its family, for those that may be read.
      reader: what messages call the reader.
      **overrides: fields about how to compute, those of `hf_config.COMPUTE`; most are not stored.

    Raises:
      UserError: no such file, another kind of model, or a variant that the decoder does not support.
    """
    fields, where = read_config(directory), f"{directory}/{CONFIG_FILE}"
    if fields.get("model_type") == own_folder.MODEL_TYPE:
        hf_config.check_overrides(overrides)
        return own_folder.config_from_json(fields, where, overrides)
    return hf_config.config_from_json(fields, where, families=families, reader=reader, **overrides)


def load_tokenizer_fingerprint(directory: epath.PathLike) -> str:
    """The fingerprint of the tokenizer that a folder's decoder was trained with; "" if the folder has none."""
    return str(read_config(directory).get(hf_config.TOKENIZER) or "")


def check_fits(directory: epath.PathLike, config: DecoderConfig) -> None:
    """Requires a folder to hold weights of the decoder `config`; special ids may differ.

    Raises:
      UserError: they differ, and it names the first such setting; or see `load_config`.
    """
    theirs = _shape(load_config(directory))
    for name, here in _shape(config).items():
        if here != (there := theirs.get(name)):
            raise UserError(
                f"{directory} has {name}={there} and config.model.{name} is {here}: set it to {there}, or choose the "
                "size that the folder was trained with"
            )


def _shape(config: DecoderConfig) -> dict[str, Any]:
    """The settings that a decoder's weights depend on."""
    shape: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "head_dim": config.head_dim,
        "qkv_bias": config.qkv_bias,
        "dense_bias": config.dense_bias,
        "norm": config.norm,
        "mlps": config.mlps,
        "positions": config.positions,
        "place_embeddings": config.place_embeddings,
        "look_back": config.look_back,
        "tokens_per_image": config.tokens_per_image,
        "qk_norm": config.qk_norm,
    }
    if "moe" in config.mlps:
        # Dispatch, capacity and noise are how to train it.
        names = ("experts", "top_k", "router", "attribute_bits", "mix", "renormalize")
        shape |= {f"moe.{name}": vars(config.moe)[name] for name in names}
    if config.positions != "learned":
        return shape | {"rope_theta": config.rope_theta, "rope_scaling": config.rope_scaling}
    positions = {"max_position_embeddings": config.max_position_embeddings}
    return shape | positions | {"position_offset": config.position_offset}


def load(directory: epath.PathLike, config: DecoderConfig, abstract: nnx.State) -> nnx.State:
    """The parameters of a folder, streamed as `fill` does.

    Args:
      directory: holds the files.
      config: the decoder.
      abstract: its abstract state.

    Raises:
      UserError: a file is missing or damaged; or it names every tensor that is missing, unexpected or misshapen.
    """
    with TensorFiles(directory) as files:
        return fill(abstract, open_reader(files, directory, config, abstract).read)


def open_reader(
    files: TensorFiles, directory: epath.PathLike, config: DecoderConfig, abstract: nnx.State
) -> AnyReader:
    """Reads our parameters from a folder's open files.

    Args:
      files: of the folder.
      directory: of config.json, which says what format the files have.
      config: the decoder that they hold.
      abstract: its abstract state.

    Raises:
      UserError: names every tensor that is missing, unexpected or misshapen.
    """
    parameters, where = parameter_shapes(abstract), str(directory)
    family = FAMILIES.get(str(read_config(directory).get("model_type")))
    if family is None:
        own = own_folder.OwnReader(files)
        own.check(parameters, where)
        return own
    return part_reader(files, family, config, parameters, where)


def part_reader(
    files: Tensors,
    family: Family,
    config: DecoderConfig,
    parameters: Mapping[str, tuple[int, ...]],
    where: str,
) -> Reader:
    """Reads our parameters from tensors of a published family, perhaps a part of a larger model.

    Args:
      files: hold exactly the decoder's tensors.
      family: of their names.
      config: the decoder.
      parameters: its shapes by dotted path.
      where: what errors call the files.

    Raises:
      UserError: names every tensor that is missing, unexpected or misshapen.
    """
    reader = Reader(files, family, config)
    expected = tensor_shapes(family, config, parameters, reader.prefix)
    check_tensors(expected, reader.stored_parameters(), where)
    return reader


def parameter_shapes(state: nnx.State) -> dict[str, tuple[int, ...]]:
    """Shapes of a decoder's parameters by dotted path."""
    return {".".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(state)}
