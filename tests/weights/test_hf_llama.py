import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder import hf_config, hf_folder, hf_tensors
from lvm_jax.models.decoder.config import RopeScaling
from lvm_jax.models.decoder.hf_llama import QWEN2
from lvm_jax.models.decoder.published_lvm import from_published
from lvm_jax.weights.tensor_files import TensorFiles

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
OWN = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_key_value_heads=2,
)


MODELS = ["llama_mha", "llama_gqa", "llama3", "llama_linear", "qwen2", "qwen3"]


def _unpack(name, folder):
    """A folder as transformers saved it, with the logits that transformers computed."""
    with np.load(FIXTURES / f"hf_{name}.npz") as data:
        fixture = dict(data)
    (folder / "config.json").write_text(str(fixture.pop("config")))
    tokens, logits = fixture.pop("tokens"), fixture.pop("logits")
    save_file(fixture, folder / "model.safetensors")
    return folder, jnp.asarray(tokens, jnp.int32), logits


@pytest.fixture(params=MODELS)
def theirs(request, tmp_path):
    return _unpack(request.param, tmp_path)


@pytest.fixture(scope="module")
def own():
    return nnx.jit(lambda: Llama(OWN, rngs=nnx.Rngs(0)))()


@pytest.fixture
def saved(own, tmp_path):
    own.save_pretrained(tmp_path)
    return tmp_path


def test_logits_equal_transformers(theirs):
    folder, tokens, logits = theirs
    assert np.abs(logits).max() > 1
    model = nnx.jit(lambda model, tokens: model(tokens))(Llama.from_pretrained(folder), tokens)
    np.testing.assert_allclose(model, logits, atol=1e-4)


def test_settings_of_the_family_come_from_the_folder(tmp_path):
    configs = {}
    for name in ("llama3", "llama_linear", "qwen2"):
        (tmp_path / name).mkdir()
        configs[name] = hf_folder.load_config(_unpack(name, tmp_path / name)[0])
    llama3, linear, qwen2 = configs.values()
    assert (llama3.head_dim, llama3.hidden_size, llama3.tie_word_embeddings) == (16, 24, True)
    assert llama3.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 32)
    assert (linear.rope_scaling, linear.rms_norm_eps) == (RopeScaling("linear", 2.0), 1e-5)
    assert (qwen2.qkv_bias, qwen2.rope_theta, linear.qkv_bias) == (True, 1e6, False)


def test_torch_files_hold_the_same_weights(tmp_path):
    """Two .bin files and their index, in bf16."""
    low = Llama.from_pretrained(FIXTURES / "hf_llama_bin")
    whole = Llama.from_pretrained(_unpack("llama_linear", tmp_path)[0])
    for one, other in zip(jax.tree.leaves(nnx.state(low)), jax.tree.leaves(nnx.state(whole))):
        np.testing.assert_array_equal(one, other.astype(jnp.bfloat16))
        assert one.dtype == jnp.float32


def test_no_read_is_larger_than_a_tensor_of_the_file(own, saved, monkeypatch):
    """Loading asks for one layer's tensor after the other: what is read at once does not grow with the model."""
    sizes = []
    read = TensorFiles.read
    monkeypatch.setattr(
        TensorFiles,
        "read",
        lambda self, name, index=(): sizes.append((block := read(self, name, index)).size) or block,
    )
    Llama.from_pretrained(saved)
    assert max(sizes) == 140 * 32  # a vocabulary table
    assert len(sizes) == 3 + 3 * 9
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(own))) - 2 * 32 * (
        own.config.padded_vocab_size - 140
    )


def test_the_released_7b_fits_by_its_shapes():
    """The header of Emma02/LVM_ckpts as its config.json implies it; no weight is read."""
    config = hf_config.config_from_json(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 11008,
            "max_position_embeddings": 4096,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
            "pad_token_id": -1,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "transformers_version": "4.31.0",
            "use_cache": True,
            "vocab_size": 8292,
        },
        "LVM_ckpts",
        families=Llama.FAMILIES,
        reader="Llama",
    )
    parameters = hf_folder.parameter_shapes(nnx.state(Llama.abstract(config)))
    family = hf_folder.family_of(config)
    assert family is not None
    shapes = hf_tensors.tensor_shapes(family, config, parameters)
    assert sum(2 * math.prod(shape) for shape in shapes.values()) == 13_088_399_360
    assert len(shapes) == 3 + 32 * 9


def test_a_folder_read_and_written_again_has_the_same_tensors(theirs, tmp_path):
    folder, _, _ = theirs
    Llama.from_pretrained(folder).save_pretrained(tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_round_trip_is_bit_exact(own, saved):
    again = Llama.from_pretrained(saved)
    assert again.config == own.config
    for one, other in zip(
        jax.tree.leaves(nnx.state(own)), jax.tree.leaves(nnx.state(again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_tied_model_has_no_head_in_its_folder(tmp_path):
    tied = Llama(dataclasses.replace(OWN, tie_word_embeddings=True), rngs=nnx.Rngs(0))
    tied.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    tokens = jnp.arange(6)[None]
    np.testing.assert_array_equal(Llama.from_pretrained(tmp_path)(tokens), tied(tokens))


def test_config_json_says_what_other_libraries_need(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["model_type"] == "llama"
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (40, 41, 42)
    assert config["vocab_size"] == 140
    assert load_file(saved / "model.safetensors")["model.embed_tokens.weight"].shape == (140, 32)


def test_how_to_compute_is_chosen_on_loading(saved):
    model = Llama.from_pretrained(
        saved, dtype="bfloat16", remat="full", scan_layers=False, attention="xla"
    )
    config = model.config
    assert (config.dtype, config.remat, config.scan_layers, config.attention) == (
        "bfloat16",
        "full",
        False,
        "xla",
    )
    with pytest.raises(UserError, match="'hidden_size' cannot be changed on loading"):
        Llama.from_pretrained(saved, hidden_size=64)


def test_published_special_ids_are_replaced(tmp_path):
    folder, _, _ = _unpack("llama_mha", tmp_path)
    assert Llama.from_pretrained(folder).config.eos_token_id == 2  # a visual code
    model = from_published(folder)
    model.save_pretrained(tmp_path / "right")
    config = json.loads((tmp_path / "right" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (16, 17, 18)


def _change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_extra_and_misshapen_tensors_are_named(saved):
    def damage(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
        tensors["model.norm.weight"] = np.zeros(31, np.float32)

    _change_tensors(saved, damage)
    with pytest.raises(UserError) as error:
        Llama.from_pretrained(saved)
    message = str(error.value)
    assert "missing: model.layers.1.mlp.up_proj.weight" in message
    assert "model.layers.0.self_attn.q_proj.bias" in message
    assert "model.norm.weight (31,) instead of (32,)" in message
    assert "\n" not in message


def test_rotary_frequencies_of_old_exports_are_not_parameters(own, saved):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _change_tensors(saved, lambda tensors: tensors.update({name: np.zeros(4, np.float32)}))
    tokens = jnp.arange(6)[None]
    np.testing.assert_array_equal(Llama.from_pretrained(saved)(tokens), own(tokens))


def test_a_folder_of_several_files_is_read_through_its_index(own, saved):
    tensors = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    names, files = sorted(tensors), ("a.safetensors", "b.safetensors")
    weight_map = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, saved / file)
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    tokens = jnp.arange(6)[None]
    np.testing.assert_array_equal(Llama.from_pretrained(saved)(tokens), own(tokens))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"\xff\xfe{}", r"config\.json is not JSON"),
        ("model.safetensors.index.json", b"\xff\xfe{}", r"is not an index of tensors"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 5}}', r"5 is missing: download"),
    ],
)
def test_damaged_json_is_one_line(saved, name, content, message):
    (saved / "model.safetensors").unlink()
    (saved / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Llama.from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "gpt2"},
            r"model_type='gpt2': Llama reads 'llama', 'qwen2', 'qwen3' and 'lvm_jax'",
        ),
        ({"attention_bias": True}, r"attention_bias=True: Llama supports False only"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=.*does not know"),
        (
            {"rope_scaling": {"rope_type": "yarn"}},
            r"rope_type='yarn': Llama supports default, linear, llama3",
        ),
        ({"rope_scaling": {"type": "linear"}}, r"'linear' and factor, which is missing"),
        ({"rope_scaling": {"factor": 2.0}}, r"'default' and factor, which it does not take"),
        ({"head_dim": 7}, r"attention_head_dim=7: it must be even"),
        ({"hidden_size": "32"}, r"hidden_size='32': it must be an integer"),
        ({"eos_token_id": []}, r"eos_token_id=\[\]: it must be an integer"),
        ({"rope_interleaved": True}, r"rope_interleaved=True, a setting that Llama does not know"),
        ({"use_qk_norm": 1}, r"use_qk_norm=1, a setting"),
        ({"residual_multiplier": 0.5}, r"residual_multiplier=0\.5, a setting"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types=\[.*, a setting"),
        ({"sliding_window": 4096}, r"sliding_window=4096, a setting"),
        ({"rope_theta": "big"}, r"rope_theta='big': it must be a number above 0"),
        ({"rope_theta": 0}, r"rope_theta=0: it must be a number above 0"),
        ({"rope_scaling": "linear"}, r"rope_scaling='linear': it must be an object"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, r"factor='2': it must be a number"),
        ({"rms_norm_eps": "1e-6"}, r"rms_norm_eps='1e-6': it must be a number"),
        ({"rms_norm_eps": math.nan}, r"rms_norm_eps=nan: it must be a number"),
        ({"tie_word_embeddings": "no"}, r"tie_word_embeddings='no': it must be true or false"),
        ({"vocab_size": True}, r"vocab_size=True: it must be an integer"),
        ({"vocab_size": None}, r"vocab_size=None: it must be an integer"),
    ],
)
def test_unsupported_configurations_are_refused(saved, change, message):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Llama.from_pretrained(saved)


HARMLESS = {
    # What published folders of this family say beside what the decoder reads.
    "rope_interleaved": False,
    "is_llama_config": True,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "is_decoder": True,
    "pretraining_tp": 2,
    "torchscript": False,
    "repetition_penalty": 1.2,
    "layer_types": ["full_attention"] * 2,
    "use_sliding_window": False,
    "use_qk_norm": False,
    "pruned_heads": {},
    "residual_multiplier": 1.0,
    "num_experts": 0,
    "a_setting_of_tomorrow": None,
    "quantization_config": None,
    "sliding_window": None,
}


def test_what_is_off_or_null_changes_nothing(saved):
    path = saved / "config.json"
    fields = json.loads(path.read_text())
    expected = hf_folder.load_config(saved)
    for name, value in HARMLESS.items():
        path.write_text(json.dumps(fields | {name: value}))
        assert hf_folder.load_config(saved) == expected, name
    path.write_text(json.dumps(fields | HARMLESS))
    assert hf_folder.load_config(saved) == expected


def test_null_is_absent_and_absent_is_the_default_of_transformers(saved):
    path = saved / "config.json"
    fields = json.loads(path.read_text())
    optional = ("rope_theta", "rope_scaling", "rope_parameters", "head_dim", "rms_norm_eps")
    optional += ("initializer_range", "hidden_act", "attention_bias", "attention_dropout")
    optional += ("tie_word_embeddings", "num_key_value_heads", "pad_token_id")
    for name in optional:
        read = []
        for change in ({name: None}, {}):
            rest = {k: v for k, v in fields.items() if k != name}
            path.write_text(json.dumps(rest | change))
            read.append(hf_folder.load_config(saved))
        assert read[0] == read[1], name
    path.write_text(json.dumps(fields | {"rope_theta": None}))
    assert hf_folder.load_config(saved).rope_theta == 10000.0
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": None, "low_freq_factor": None}
    path.write_text(json.dumps(fields | {"rope_theta": 5e5, "rope_scaling": rope}))
    config = hf_folder.load_config(saved)
    assert (config.rope_theta, config.rope_scaling.factor) == (5e5, 2.0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=3,
)


@pytest.mark.parametrize("kind", [*hf_folder.FAMILIES])
@settings(derandomize=True, max_examples=120, deadline=None)
@given(data=st.data())
def test_any_config_json_is_read_or_refused(kind, data):
    """One or two settings have values of any type; nothing but a UserError of one line leaves the reader."""
    family = hf_folder.FAMILIES[kind]
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"intermediate_size": 48, "bos_token_id": 1, "eos_token_id": 2}
    # What a family does not rename, its `read` handles.
    fields = {family.fields.get(name, name): value for name, value in shape.items()}
    names = st.sampled_from([*family.fields.values(), *family.fixed, *family.special, "use_mrope"])
    fields |= data.draw(st.dictionaries(names, VALUES, max_size=2))
    try:
        config = hf_config.config_from_json(
            {"model_type": kind, **fields}, "config.json", families=hf_folder.FAMILIES, reader="it"
        )
    except UserError as error:
        message = str(error)
    else:
        message = ""
        again = hf_config.config_from_json(
            # The first Qwen is only read.
            hf_config.config_to_json(QWEN2 if kind == "qwen" else family, config),
            "again",
            families=hf_folder.FAMILIES,
            reader="it",
        )
        assert again == config
    assert "\n" not in message
