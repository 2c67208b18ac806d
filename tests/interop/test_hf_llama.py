import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from lvm_jax.errors import UserError
from lvm_jax.interop.hf_llama import from_published
from lvm_jax.models import Llama, presets

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
OWN = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_key_value_heads=2,
)


@pytest.fixture(params=["mha", "gqa"])
def theirs(request, tmp_path):
    """A folder as transformers saved it, with the logits that transformers computed."""
    with np.load(FIXTURES / f"hf_llama_{request.param}.npz") as data:
        fixture = dict(data)
    (tmp_path / "config.json").write_text(str(fixture.pop("config")))
    tokens, logits = fixture.pop("tokens"), fixture.pop("logits")
    save_file(fixture, tmp_path / "model.safetensors")
    return tmp_path, jnp.asarray(tokens, jnp.int32), logits


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
    np.testing.assert_allclose(Llama.from_pretrained(folder)(tokens), logits, atol=1e-4)


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


def test_published_special_ids_are_replaced(theirs, tmp_path):
    folder, _, _ = theirs
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
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, r"model_type='gpt2': Llama supports 'llama' only"),
        ({"attention_bias": True}, r"attention_bias=True: Llama supports False only"),
        (
            {"rope_scaling": {"rope_type": "llama3"}},
            r"rope_type='llama3': Llama supports 'default' only",
        ),
        (
            {"head_dim": 16},
            r"head_dim=16: Llama supports hidden_size / num_attention_heads = 8 only",
        ),
        ({"hidden_size": "32"}, r"hidden_size='32': it must be an integer"),
        ({"eos_token_id": [1, 2]}, r"eos_token_id=\[1, 2\]: it must be an integer"),
    ],
)
def test_unsupported_configurations_are_refused(saved, change, message):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Llama.from_pretrained(saved)
