"""Reads the config.json of a decoder's folder into a `DecoderConfig`, and writes it.

An unknown setting is an error, because the weights might depend on it.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family

TOKENIZER = "tokenizer_fingerprint"  # our own setting, which other readers ignore

# Settings of every family that do not affect the weights.
IGNORED = (
    *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
    *("torch_dtype", "dtype", "use_cache", "unk_token_id"),
    *("is_encoder_decoder", "chunk_size_feed_forward", "return_dict", "problem_type"),
    *("output_attentions", "output_hidden_states", "id2label", "label2id"),
    *("_attn_implementation_autoset", TOKENIZER),
)

# Settings about how to compute, which a caller chooses on loading.
COMPUTE = ("dtype", "scan_layers", "remat", "attention", "quantization")
COMPUTE += ("dropout", "embedding_dropout", "attention_dropout")

_INTEGERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
_INTEGERS += ("num_attention_heads", "num_key_value_heads")
_INTEGERS += ("bos_token_id", "eos_token_id", "pad_token_id")


def config_to_json(family: Family, config: DecoderConfig) -> dict[str, Any]:
    """The contents of config.json."""
    fields = vars(config)
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{theirs: fields[ours] for ours, theirs in family.fields.items()},
        **family.fixed,
        "torch_dtype": "float32",
        **family.write(config),
    }


def config_from_json(
    fields: Mapping[str, Any],
    where: str,
    *,
    families: Mapping[str, Family],
    reader: str,
    **overrides: Any,
) -> DecoderConfig:
    """A configuration from the contents of a config.json.

    Args:
      fields: the contents.
      where: what messages call the file.
      families: model_type -> its family, for those that may be read.
      reader: what messages call the reader.
      **overrides: fields of `COMPUTE`.

    Raises:
      UserError: another model_type, a variant that the decoder does not support, an unknown setting, or a value that is
        missing or has the wrong type.
    """
    kind = str(fields.get("model_type"))
    if kind not in families:
        *others, last = map(repr, families)
        raise UserError(
            f"{where} has model_type={fields.get('model_type')!r}: {reader} reads {', '.join(others)} and {last}"
        )
    family = families[kind]
    _check_settings(fields, family, where)
    unknown = sorted(set(overrides) - set(COMPUTE))
    if unknown:
        raise UserError(
            f"{unknown[0]!r} cannot be changed on loading: only {', '.join(COMPUTE)} can"
        )
    values = _values(fields, family, where)
    return DecoderConfig(**{**family.structure, **values, **overrides})


def _check_settings(fields: Mapping[str, Any], family: Family, where: str) -> None:
    for name, supported in family.fixed.items():
        if fields.get(name, supported) != supported:
            raise UserError(
                f"{where} has {name}={fields[name]!r}: {family.name} supports {supported!r} only"
            )
    known = {*family.fields.values(), *family.fixed, *family.special, *family.ignored, *IGNORED}
    unread = sorted(set(fields) - known)
    if unread:
        raise UserError(
            f"{where} has {unread[0]}={fields[unread[0]]!r}, a setting that {family.name} does not know: "
            "remove it if the weights do not depend on it"
        )


def _values(fields: Mapping[str, Any], family: Family, where: str) -> dict[str, Any]:
    """Checked fields of `DecoderConfig`."""
    values = {
        ours: fields[theirs]
        for ours, theirs in family.fields.items()
        if fields.get(theirs) is not None
    }
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    if isinstance(values.get("eos_token_id"), list) and values["eos_token_id"]:
        values["eos_token_id"] = values["eos_token_id"][0]  # chat models stop at several ids
    if values.get("pad_token_id", -1) == -1:
        # Absent, null and -1 all mean none; transformers then pads with EOS.
        values["pad_token_id"] = values.get("eos_token_id")
    for ours in (*_INTEGERS, "tokens_per_image"):
        if values.get(ours) is not None and not isinstance(values[ours], int):
            raise _no_integer(where, family.fields.get(ours, ours), values[ours])
    values |= family.read(fields, values, where)
    for ours in _INTEGERS:
        if values.get(ours) is None:
            raise _no_integer(where, family.fields.get(ours, ours), None)
    return values


def _no_integer(where: str, name: str, value: Any) -> UserError:
    return UserError(f"{where} has {name}={value!r}: it must be an integer")
