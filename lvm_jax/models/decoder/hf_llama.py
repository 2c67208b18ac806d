"""The decoder's folder: Hugging Face's LLaMA layout, so transformers and vLLM open what is saved here.

Projections are stored (out, in), layer by layer, and the vocabulary tables without their padding. Query and key columns
need no permutation: `rope` pairs dimensions as Hugging Face does. Biases of queries, keys and values make it Qwen2's
layout, which is otherwise the same.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import SingleDeviceSharding

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import LlamaConfig, RopeScaling
from lvm_jax.parallel.sharding import state_shardings
from lvm_jax.weights.model_folder import CONFIG_FILE, check_tensors, read_config, save_folder
from lvm_jax.weights.tensor_files import TensorFiles

# Parameter of a block -> tensor of a layer `model.layers.{i}.`, and how many of its dimensions are inputs.
_BLOCK = {
    "attention_norm.scale": ("input_layernorm.weight", 0),
    "attention.query": ("self_attn.q_proj.weight", 1),
    "attention.key": ("self_attn.k_proj.weight", 1),
    "attention.value": ("self_attn.v_proj.weight", 1),
    "attention.out": ("self_attn.o_proj.weight", 2),
    "mlp_norm.scale": ("post_attention_layernorm.weight", 0),
    "mlp.gate": ("mlp.gate_proj.weight", 1),
    "mlp.up": ("mlp.up_proj.weight", 1),
    "mlp.down": ("mlp.down_proj.weight", 1),
}
_BIASES = {
    "attention.query_bias": ("self_attn.q_proj.bias", 0),
    "attention.key_bias": ("self_attn.k_proj.bias", 0),
    "attention.value_bias": ("self_attn.v_proj.bias", 0),
}
TOKENIZER = "tokenizer_fingerprint"  # a key of config.json that other readers pass over
_EMBEDDING, _NORM, _HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"

# Fields that config.json has under the same name.
_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rms_norm_eps",
    "initializer_range",
    "max_position_embeddings",
    "tie_word_embeddings",
)
_COMPUTED = ("head_dim", "rope_theta", "rope_scaling", "qkv_bias")
_COMPUTE = ("dtype", "scan_layers", "remat", "attention", "quantization")

# Settings with the one value that the decoder computes, by the kind of model.
_FIXED: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
    },
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False, "attention_dropout": 0.0},
}
# Read below, or without a meaning for the weights.
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
_IGNORED = (
    *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
    *("torch_dtype", "dtype", "use_cache", "pretraining_tp", "head_dim", "unk_token_id"),
    *("is_encoder_decoder", "chunk_size_feed_forward", "return_dict", "problem_type"),
    *("output_attentions", "output_hidden_states", "id2label", "label2id"),
    *("max_sequence_length", "_attn_implementation_autoset", TOKENIZER),
)
_WINDOWS = ("sliding_window", "max_window_layers", "layer_types")  # of use_sliding_window: off


def save(
    directory: epath.PathLike,
    config: LlamaConfig,
    tensors: Mapping[str, np.ndarray],
    dtype: str = "float32",
    tokenizer_fingerprint: str = "",
) -> None:
    """Writes the folder.

    Args:
      directory: made if missing.
      config: the decoder.
      tensors: its parameters by dotted path, block parameters stacked over layers.
      dtype: of the tensors.
      tokenizer_fingerprint: of the tokenizer whose codes it was trained on; "" for unknown.
    """
    fields = config_to_json(config) | {"torch_dtype": dtype}
    if tokenizer_fingerprint:
        fields[TOKENIZER] = tokenizer_fingerprint
    save_folder(directory, fields, to_hugging_face(config, tensors))


def load_config(directory: epath.PathLike, **overrides: Any) -> LlamaConfig:
    """The configuration of a LLaMA folder.

    Args:
      directory: holds config.json.
      **overrides: fields about how to compute: dtype, scan_layers, remat, attention, quantization; they are not stored.

    Raises:
      UserError: no such file, another kind of model, or a variant of LLaMA that the decoder does not have.
    """
    return config_from_json(read_config(directory), f"{directory}/{CONFIG_FILE}", **overrides)


def load_tokenizer_fingerprint(directory: epath.PathLike) -> str:
    """Of the tokenizer that the decoder in a folder was trained with; "" where the folder does not say."""
    return str(read_config(directory).get(TOKENIZER, ""))


def check_fits(directory: epath.PathLike, config: LlamaConfig) -> None:
    """Requires a folder to hold weights of the decoder `config`, whatever its special ids are.

    Raises:
      UserError: names the first setting in which they differ; or see `load_config`.
    """
    theirs = load_config(directory)
    for name in (*_SHARED[:6], "rms_norm_eps", "tie_word_embeddings", *_COMPUTED):
        if (here := getattr(config, name)) != (there := getattr(theirs, name)):
            raise UserError(
                f"{directory} has {name}={there} and config.model.{name} is {here}: set it to {there}, or choose the "
                "size that the folder was trained with"
            )


def load(directory: epath.PathLike, config: LlamaConfig, abstract: nnx.State) -> nnx.State:
    """The parameters of a folder, each in the sharding that the rules give it on the mesh of `jax.set_mesh`, if any.

    One parameter at a time, and of it only the slices of this host's devices, is in the host's memory.

    Args:
      directory: of the files.
      config: the decoder.
      abstract: its state, of shapes.

    Raises:
      UserError: a file is missing or damaged; names every tensor that is missing, extra or misshapen.
    """
    mesh = jax.sharding.get_mesh()
    device = SingleDeviceSharding(jax.devices()[0])
    shardings = {} if mesh.empty else dict(nnx.to_flat_state(state_shardings(abstract, mesh)))
    loaded = []
    with TensorFiles(directory) as files:
        check_tensors(tensor_shapes(config), _parameters_of(files, config), str(directory))
        for path, variable in nnx.to_flat_state(abstract):
            sharding = shardings[path].get_raw_value() if shardings else device
            name = ".".join(map(str, path))

            def block(index: Any, name: str = name, variable: Any = variable) -> np.ndarray:
                slices = tuple(
                    slice(*part.indices(size)) for part, size in zip(index, variable.shape)
                )
                return _read(files, config, name, variable.shape, slices).astype(variable.dtype)

            array = jax.make_array_from_callback(variable.shape, sharding, block)
            loaded.append((path, variable.replace(array)))
    return nnx.from_flat_state(loaded)


def _parameters_of(files: TensorFiles, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that are parameters: older exports carry each layer's rotary frequencies, which follow from
    rope_theta, and the head of a tied model.
    """
    tied = {_HEAD} if config.tie_word_embeddings else set()
    return {
        name: shape
        for name, shape in files.shapes.items()
        if name not in tied and not name.endswith(".rotary_emb.inv_freq")
    }


def _read(
    files: TensorFiles,
    config: LlamaConfig,
    name: str,
    shape: tuple[int, ...],
    index: tuple[slice, ...],
) -> np.ndarray:
    """The block `index` of one of our parameters, of `shape`."""
    if name == "norm.scale":
        return files.read(_NORM, index)
    if name == "embedding":
        return _read_rows(files, _EMBEDDING, config.vocab_size, *index)
    if name == "head":
        columns, rows = index
        return _read_rows(files, _HEAD, config.vocab_size, rows, columns).T
    theirs, inputs = _block(config)[name.removeprefix("layers.")]
    layers, *inner = index
    return np.stack(
        [
            _read_kernel(files, f"model.layers.{i}.{theirs}", inputs, shape[1:], tuple(inner))
            for i in range(layers.start, layers.stop)
        ]
    )


def _read_rows(
    files: TensorFiles, name: str, vocab_size: int, rows: slice, columns: slice
) -> np.ndarray:
    """Rows of a vocabulary table; zeros beyond its end, where ours is padded."""
    first, last = (min(end, vocab_size) for end in (rows.start, rows.stop))
    padding = rows.stop - rows.start - (last - first)
    if first == last:
        return np.zeros((padding, columns.stop - columns.start), np.float32)
    return np.pad(files.read(name, (slice(first, last), columns)), ((0, padding), (0, 0)))


def _read_kernel(
    files: TensorFiles, name: str, inputs: int, shape: tuple[int, ...], index: tuple[slice, ...]
) -> np.ndarray:
    """A block of a layer's parameter: theirs is (out, in), ours has the dimensions of both, inputs first."""
    if not inputs:
        return files.read(name, index)
    sides = []  # of the matrix: rows of ours, then columns
    for dims, slices in ((shape[:inputs], index[:inputs]), (shape[inputs:], index[inputs:])):
        step = math.prod(
            dims[1:]
        )  # the outermost dimension is cut in the file, others after reading
        sides.append((slice(slices[0].start * step, slices[0].stop * step), dims[1:], slices))
    (rows, row_dims, row_slices), (columns, column_dims, column_slices) = sides
    block = files.read(name, (columns, rows)).T
    outer = (row_slices[0].stop - row_slices[0].start, *row_dims)
    inner = (column_slices[0].stop - column_slices[0].start, *column_dims)
    whole = slice(None)
    return block.reshape(*outer, *inner)[(whole, *row_slices[1:], whole, *column_slices[1:])]


def config_to_json(config: LlamaConfig) -> dict[str, Any]:
    """The contents of config.json."""
    kind, name = ("qwen2", "Qwen2") if config.qkv_bias else ("llama", "Llama")
    fields = {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": kind,
        **{name: getattr(config, name) for name in _SHARED},
        **_FIXED[kind],
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "torch_dtype": "float32",
    }
    scaling = config.rope_scaling
    if scaling.rope_type == "linear":
        fields["rope_scaling"] = {"rope_type": "linear", "factor": scaling.factor}
    elif scaling.rope_type == "llama3":
        fields["rope_scaling"] = dataclasses.asdict(scaling)
    return fields


def config_from_json(fields: Mapping[str, Any], where: str, **overrides: Any) -> LlamaConfig:
    """A configuration from the contents of a config.json; see `load_config`."""
    kind = fields.get("model_type")
    if kind not in _FIXED:
        raise UserError(
            f"{where} has model_type={kind!r}: Llama reads {' and '.join(map(repr, _FIXED))}"
        )
    for name, supported in _FIXED[kind].items():
        if fields.get(name, supported) != supported:
            raise UserError(
                f"{where} has {name}={fields[name]!r}: Llama supports {supported!r} only"
            )
    windows = _WINDOWS if kind == "qwen2" else ()
    unread = sorted(set(fields) - {*_SHARED, *_FIXED[kind], *_ROPE, *_IGNORED, *windows})
    if unread:
        raise UserError(
            f"{where} has {unread[0]}={fields[unread[0]]!r}, a setting that Llama does not know: "
            "remove it if the weights do not depend on it"
        )
    unknown = sorted(set(overrides) - set(_COMPUTE))
    if unknown:
        raise UserError(
            f"{unknown[0]!r} cannot be changed on loading: only {', '.join(_COMPUTE)} can"
        )
    values = {name: fields[name] for name in _SHARED if fields.get(name) is not None}
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    if isinstance(values.get("eos_token_id"), list) and values["eos_token_id"]:
        values["eos_token_id"] = values["eos_token_id"][0]  # chat models stop at several ids
    if (
        values.get("pad_token_id", -1) == -1
    ):  # either way to say none; transformers then pads with EOS
        values["pad_token_id"] = values.get("eos_token_id")
    for name in _SHARED[:9]:
        if not isinstance(values.get(name), int):
            raise UserError(f"{where} has {name}={values.get(name)!r}: it must be an integer")
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    values["rope_theta"] = float(rope.get("rope_theta", fields.get("rope_theta", 10000.0)))
    head_dim = fields.get("head_dim")
    if head_dim and head_dim * values["num_attention_heads"] != values["hidden_size"]:
        values["attention_head_dim"] = head_dim
    scaling = _rope_scaling(rope, where)
    return LlamaConfig(**values, rope_scaling=scaling, qkv_bias=kind == "qwen2", **overrides)


def _rope_scaling(rope: Mapping[str, Any], where: str) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    names = {"default": (), "linear": ("factor",)}
    names["llama3"] = ("factor", "low_freq_factor", "high_freq_factor")
    names["llama3"] += ("original_max_position_embeddings",)
    if kind not in names:
        raise UserError(f"{where} has rope_type={kind!r}: Llama supports {', '.join(names)}")
    given = set(rope) - {"rope_type", "type", "rope_theta"}
    wrong = sorted(given ^ set(names[kind]))
    if wrong:
        problem = "which it does not take" if wrong[0] in given else "which is missing"
        raise UserError(
            f"{where} has rope_type={kind!r} and {wrong[0]}, {problem}: it takes {', '.join(names[kind]) or 'nothing'}"
        )
    if kind == "default":
        return RopeScaling()
    return RopeScaling(rope_type=kind, **{name: rope[name] for name in names[kind]})


def to_hugging_face(
    config: LlamaConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Renames, unstacks, transposes and cuts; the values stay as they are."""
    rows = config.vocab_size
    named = {_EMBEDDING: tensors["embedding"][:rows], _NORM: tensors["norm.scale"]}
    if not config.tie_word_embeddings:
        named[_HEAD] = tensors["head"][:, :rows].T
    for path, (name, inputs) in _block(config).items():
        for layer, tensor in enumerate(tensors[f"layers.{path}"]):
            if inputs:
                tensor = tensor.reshape(int(np.prod(tensor.shape[:inputs])), -1).T
            named[f"model.layers.{layer}.{name}"] = tensor
    return named


def _block(config: LlamaConfig) -> dict[str, tuple[str, int]]:
    return {**_BLOCK, **(_BIASES if config.qkv_bias else {})}


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the folder."""
    D, F, H = config.hidden_size, config.intermediate_size, config.head_dim
    N, K = config.num_attention_heads, config.num_key_value_heads
    layer = {
        "input_layernorm.weight": (D,),
        "self_attn.q_proj.weight": (N * H, D),
        "self_attn.k_proj.weight": (K * H, D),
        "self_attn.v_proj.weight": (K * H, D),
        "self_attn.o_proj.weight": (D, N * H),
        "post_attention_layernorm.weight": (D,),
        "mlp.gate_proj.weight": (F, D),
        "mlp.up_proj.weight": (F, D),
        "mlp.down_proj.weight": (D, F),
    }
    if config.qkv_bias:
        layer |= {f"self_attn.{name}_proj.bias": (n * H,) for name, n in zip("qkv", (N, K, K))}
    table = (config.vocab_size, D)
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: table, _NORM: (D,)}
    if not config.tie_word_embeddings:
        shapes[_HEAD] = table
    for i in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes
