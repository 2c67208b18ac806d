"""Reads the config.json of a decoder's folder into a `DecoderConfig`, and writes it.

A setting that is null is absent, and then has transformers' default. A setting of a feature that the decoder lacks may
say that it is off. Any other unknown setting is an error, because the weights might depend on it.
"""

import math
from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder import own_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import Family

TOKENIZER = "tokenizer_fingerprint"  # our own setting, which other readers ignore

# Settings of every family that do not affect the weights, nor what the decoder computes with them.
IGNORED = (
    # Who wrote the folder, and how transformers opens and runs it.
    *(
        "_name_or_path",
        "architectures",
        "auto_map",
        "model_type",
        "transformers_version",
        "_commit_hash",
    ),
    *(
        "torch_dtype",
        "dtype",
        "use_cache",
        "torchscript",
        "use_bfloat16",
        "tf_legacy_loss",
        "is_llama_config",
    ),
    *("_attn_implementation_autoset", "_attn_implementation", "attn_implementation", TOKENIZER),
    *(
        "transformers.js_config",
        "tokenizer_class",
        "tokenizer_name",
        "unk_token_id",
        "sep_token_id",
    ),
    # Of other kinds of models and heads: a decoder is one by its architecture.
    *("is_encoder_decoder", "is_decoder", "tie_encoder_decoder", "decoder_start_token_id"),
    *("problem_type", "id2label", "label2id", "finetuning_task", "task_specific_params"),
    *("chunk_size_feed_forward", "return_dict", "output_attentions", "output_hidden_states"),
    # How transformers would generate; this project's own sampling has its own settings.
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("temperature", "top_k", "top_p", "typical_p", "diversity_penalty", "repetition_penalty"),
    *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
    *("num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id"),
    *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens", "prefix"),
)

# Features that the decoder lacks, with the values that mean they are off; null always does.
OFF: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("rope_interleaved", "use_mrope", "use_sliding_window"), (False,)),
    **dict.fromkeys(("use_qk_norm", "qk_layernorm", "add_cross_attention"), (False,)),
    **dict.fromkeys(("alibi", "use_alibi", "parallel_attn", "use_parallel_residual"), (False,)),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "residual_dropout"), (0.0,)),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "layerdrop"), (0.0,)),
    **dict.fromkeys(("residual_multiplier", "embedding_multiplier", "logits_scaling"), (1.0,)),
    **dict.fromkeys(("partial_rotary_factor", "rope_ratio"), (1.0,)),
    **dict.fromkeys(("num_experts", "num_local_experts"), (0, 1)),
    "pruned_heads": ({},),
}

# Settings that only say what the decoder does anyway, if all layers have this value.
_EACH_LAYER = {"layer_types": "full_attention"}

# Settings about how to compute, which a caller chooses on loading.
COMPUTE = ("dtype", "scan_layers", "remat", "attention", "quantization")
COMPUTE += ("dropout", "embedding_dropout", "attention_dropout")

_INTEGERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
_INTEGERS += ("num_attention_heads", "num_key_value_heads")
_INTEGERS += ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
_FLOATS = ("rms_norm_eps", "initializer_range", "dropout", "embedding_dropout", "attention_dropout")


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
    fields = {name: value for name, value in fields.items() if value is not None}
    kind = str(fields.get("model_type"))
    if kind not in families:
        *others, last = map(repr, (*families, own_folder.MODEL_TYPE))
        raise UserError(
            f"{where} has model_type={fields.get('model_type')!r}: {reader} reads {', '.join(others)} and {last}"
        )
    family = families[kind]
    _check_settings(fields, family, where)
    check_overrides(overrides)
    values = _values(fields, family, where)
    return DecoderConfig(**{**family.structure, **values, **overrides})


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Requires fields of `COMPUTE`.

    Raises:
      UserError: a caller would change a field that the weights depend on.
    """
    unknown = sorted(set(overrides) - set(COMPUTE))
    if unknown:
        raise UserError(
            f"{unknown[0]!r} cannot be changed on loading: only {', '.join(COMPUTE)} can"
        )


def _check_settings(fields: Mapping[str, Any], family: Family, where: str) -> None:
    for name, supported in family.fixed.items():
        if fields.get(name, supported) != supported:
            raise UserError(
                f"{where} has {name}={fields[name]!r}: {family.name} supports {supported!r} only"
            )
    known = {*family.fields.values(), *family.fixed, *family.special, *family.ignored, *IGNORED}
    unread = sorted(name for name in set(fields) - known if not _is_off(name, fields[name]))
    if unread:
        raise UserError(
            f"{where} has {unread[0]}={fields[unread[0]]!r}, a setting that {family.name} does not know: "
            "remove it if the weights do not depend on it"
        )


def _is_off(name: str, value: Any) -> bool:
    if name in _EACH_LAYER:
        return isinstance(value, list) and all(layer == _EACH_LAYER[name] for layer in value)
    return value in OFF.get(name, ())


def _values(fields: Mapping[str, Any], family: Family, where: str) -> dict[str, Any]:
    """Checked fields of `DecoderConfig`."""
    given = {ours: fields[name] for ours, name in family.fields.items() if name in fields}
    values = {**family.defaults, **given}
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    if isinstance(values.get("eos_token_id"), list) and values["eos_token_id"]:
        values["eos_token_id"] = values["eos_token_id"][0]  # chat models stop at several ids
    if values.get("pad_token_id", -1) == -1:
        # Absent, null and -1 all mean none; transformers then pads with EOS.
        values["pad_token_id"] = values.get("eos_token_id")
    for ours, value in values.items():
        _check_type(ours, value, where, family.fields.get(ours, ours))
    values |= family.read(fields, values, where)
    for ours in _INTEGERS:
        if values.get(ours) is None:
            raise UserError(
                f"{where} has {family.fields.get(ours, ours)}=None: it must be an integer"
            )
    return values


def _check_type(ours: str, value: Any, where: str, theirs: str) -> None:
    """Requires the type of a field of `DecoderConfig`. None is left to whoever knows what it then means."""
    if value is None:
        return
    integer = isinstance(value, int) and not isinstance(value, bool)
    if ours in _INTEGERS:
        good, needed = integer, "an integer"
    elif ours in _FLOATS:
        good, needed = integer or (isinstance(value, float) and math.isfinite(value)), "a number"
    else:
        good, needed = isinstance(value, bool), "true or false"
    if not good:
        raise UserError(f"{where} has {theirs}={value!r}: it must be {needed}")
