"""OPT and GPT-2 folders: transformers' logits, padding on either side, other prefixes, and the way back."""

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
from lvm_jax.models import Decoder, Llama, presets
from lvm_jax.models.decoder import hf_folder

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
FAMILIES = ["opt", "gpt2"]
NOT_TENSORS = ("config", "tokens", "logits", "mask")


@pytest.fixture(params=FAMILIES)
def theirs(request, tmp_path):
    """A folder as transformers saved it, and what transformers computed."""
    with np.load(FIXTURES / f"hf_{request.param}.npz") as data:
        fixture = dict(data)
    (tmp_path / "config.json").write_text(str(fixture["config"]))
    tensors = {k: v for k, v in fixture.items() if not k.endswith(NOT_TENSORS)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, fixture


forward = nnx.jit(lambda model, *rows: model(*rows))


def test_logits_equal_transformers(theirs):
    folder, fixture = theirs
    assert np.abs(fixture["logits"]).max() > 1
    logits = forward(Decoder.from_pretrained(folder), jnp.asarray(fixture["tokens"], jnp.int32))
    np.testing.assert_allclose(logits, fixture["logits"], atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_transformers(theirs, side):
    """Segment ids keep padding apart; positions count from the first token of the sentence."""
    folder, fixture = theirs
    mask = fixture[f"{side}_mask"]
    positions = np.maximum(mask.cumsum(-1) - 1, 0)
    rows = (jnp.asarray(x, jnp.int32) for x in (fixture[f"{side}_tokens"], mask, positions))
    logits = forward(Decoder.from_pretrained(folder), *rows)
    counted = mask.astype(bool)
    np.testing.assert_allclose(logits[counted], fixture[f"{side}_logits"][counted], atol=1e-4)
    assert jnp.isfinite(logits).all()


def test_a_folder_read_and_written_again_is_the_same(theirs, tmp_path):
    folder, _ = theirs
    model = Decoder.from_pretrained(folder)
    model.save_pretrained(tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    old, new = (
        json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "again")
    )
    spelled_otherwise = {"dtype", "transformers_version", "n_inner"}
    assert {k: old[k] for k in old.keys() & new.keys() - spelled_otherwise} == {
        k: new[k] for k in old.keys() & new.keys() - spelled_otherwise
    }
    assert Decoder.from_pretrained(tmp_path / "again").config == model.config


def test_keys_of_the_bare_model_and_stored_masks_are_read(theirs):
    """OPTModel and GPT2Model save without the outer prefix; older exports of GPT-2 store causal masks."""
    folder, fixture = theirs
    tokens = jnp.asarray(fixture["tokens"], jnp.int32)
    path = folder / "model.safetensors"
    bare = {
        k.removeprefix("model.").removeprefix("transformer."): v for k, v in load_file(path).items()
    }
    if "wte.weight" in bare:
        bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, 26, 26), np.float32))
        bare["h.0.attn.masked_bias"] = np.float32([-1e4])
    bare["lm_head.weight"] = next(
        v for k, v in bare.items() if k.endswith(("tokens.weight", "wte.weight"))
    )
    save_file(bare, path)
    logits = forward(Decoder.from_pretrained(folder), tokens)
    np.testing.assert_allclose(logits, fixture["logits"], atol=1e-4)


def test_settings_come_from_the_folder(theirs):
    config = Decoder.from_pretrained(theirs[0]).config
    assert (config.norm, config.positions, config.tie_word_embeddings) == ("layer", "learned", True)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 2, 1)
    assert (config.max_position_embeddings, config.dropout) == (26, 0.1)
    own = {
        "opt": ("opt", 1e-5, 2, ("relu",), 40, 0.0, 0.0),
        "gpt2": ("gpt2", 1e-12, 0, ("gelu_tanh",), 96, 0.1, 0.1),
    }
    family = hf_folder.family_of(config)
    assert family is not None
    assert (
        family.model_type,
        config.rms_norm_eps,
        config.position_offset,
        config.mlps,
        config.intermediate_size,
        config.attention_dropout,
        config.embedding_dropout,
    ) == own[family.model_type]


@pytest.mark.parametrize("gone", ["absent", "null"])
def test_what_the_folder_does_not_say_is_as_in_transformers(theirs, gone):
    """The published folders leave out what transformers assumes: tied tables, the epsilon, the dropout."""
    path = theirs[0] / "config.json"
    fields = json.loads(path.read_text())
    own = {
        "opt": {"tie_word_embeddings": True, "dropout": 0.1, "attention_dropout": 0.0},
        "gpt2": {"tie_word_embeddings": True, "resid_pdrop": 0.1, "layer_norm_epsilon": 1e-5},
    }[fields["model_type"]]
    rest = {name: value for name, value in fields.items() if name not in own}
    path.write_text(json.dumps(rest | (dict.fromkeys(own) if gone == "null" else {})))
    config = vars(Decoder.from_pretrained(theirs[0]).config)
    family = hf_folder.FAMILIES[fields["model_type"]]
    ours = {theirs_: name for name, theirs_ in family.fields.items()}
    assert {name: config[ours[name]] for name in own} == own


def test_an_untied_head_is_stored(theirs, tmp_path):
    config = dataclasses.replace(
        Decoder.from_pretrained(theirs[0]).config, tie_word_embeddings=False
    )
    model = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()
    model.save_pretrained(tmp_path / "untied")
    assert load_file(tmp_path / "untied" / "model.safetensors")["lm_head.weight"].shape == (50, 24)
    again = Decoder.from_pretrained(tmp_path / "untied")
    for one, other in zip(
        jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bloom"}, r"'bloom': Decoder reads 'llama', .* 'gpt2' and 'lvm_jax'"),
        ({"activation_function": "gelu"}, r"activation_function='gelu': .* only"),
        ({"tensor_parallel": 2}, r"tensor_parallel=2, a setting that .* does not know"),
        ({"vocab_size": "50"}, r"vocab_size='50': it must be an integer"),
    ],
)
def test_unsupported_configurations_are_refused(theirs, change, message):
    path = theirs[0] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Decoder.from_pretrained(theirs[0])


def test_what_the_decoder_does_not_have_is_refused(theirs, tmp_path):
    folder, _ = theirs
    fields = json.loads((folder / "config.json").read_text())
    with pytest.raises(UserError, match="Llama reads 'llama', 'qwen2', 'qwen3' and 'lvm_jax'"):
        Llama.from_pretrained(folder)
    if fields["model_type"] == "opt":
        post_norm = fields | {"do_layer_norm_before": False}
        (folder / "config.json").write_text(json.dumps(post_norm))
        with pytest.raises(UserError, match="do_layer_norm_before=False: OPT supports True only"):
            Decoder.from_pretrained(folder)
        narrow = fields | {"word_embed_proj_dim": 12}
        (folder / "config.json").write_text(json.dumps(narrow))
        with pytest.raises(UserError, match="word_embed_proj_dim=12 and hidden_size=24"):
            Decoder.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"norm": "layer"}, {"positions": "learned"}])
def test_a_mixture_of_families_has_a_folder_of_ours(change, tmp_path):
    config = presets.llama("debug", vocab_size=140, max_position_embeddings=8, **change)
    assert hf_folder.family_of(config) is None
    model = Decoder(config, rngs=nnx.Rngs(0))
    model.save_pretrained(tmp_path)
    again = Llama.from_pretrained(tmp_path)
    assert again.config == config
    tokens = jnp.arange(8)[None]
    np.testing.assert_array_equal(again(tokens), model(tokens))
