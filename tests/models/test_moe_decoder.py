"""A decoder whose every second block has experts: scan, remat, caches, bf16, and its own folders."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, presets
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.vocabulary import Vocabulary

CONFIG = presets.unified(
    "debug",
    Vocabulary.unified(text=40, image=8),
    num_hidden_layers=4,
    hidden_size=8,
    intermediate_size=12,
    max_position_embeddings=16,
    initializer_range=0.3,
    dropout=0.0,
    embedding_dropout=0.0,
    attention_dropout=0.0,
    moe=MoEConfig(experts=4, capacity_factor=0.75),
)
TOKENS = jax.random.randint(jax.random.key(0), (2, 10), 0, 48)
# Spans of 2 and 3 tokens.
ATTRIBUTES = jnp.tile(jnp.array([5, 5, 9, 9, 9, 6, 6, 10, 10, 10])[None], (2, 1))
KEY = jax.random.key(5)
SPANS = {"router": "attribute", "dispatch": "spans", "spans": (2, 3)}


def with_moe(**moe):
    return dataclasses.replace(CONFIG, moe=dataclasses.replace(CONFIG.moe, **moe))


@functools.cache
def model(config=CONFIG):
    return nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()


def variant(module, **changes):
    config = dataclasses.replace(module.config, **changes)
    return nnx.merge(nnx.graphdef(Decoder.abstract(config)), nnx.state(module))


def gradients(module):
    graphdef, params = nnx.split(module)

    def loss(params):
        hidden, losses = nnx.merge(graphdef, params).hidden_and_losses(
            TOKENS, attributes_BT=ATTRIBUTES, dropout_key=KEY
        )
        return jnp.sum(jnp.sin(hidden)) + losses["load_balance"], (hidden, losses)

    grads, (hidden, losses) = jax.jit(jax.grad(loss, has_aux=True))(params)
    return hidden, losses, grads


@pytest.mark.parametrize("config", [CONFIG, with_moe(**SPANS)], ids=["capacity", "spans"])
def test_scan_and_remat_change_nothing(config):
    module = model(config)
    hidden, losses, grads = gradients(variant(module, scan_layers=False, remat="none"))
    for remat in ("none", "dots"):
        found, same, others = gradients(variant(module, remat=remat))
        np.testing.assert_allclose(found, hidden, atol=1e-5)
        for name in losses:
            np.testing.assert_allclose(same[name], losses[name], rtol=1e-5, atol=1e-6)
        for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
            np.testing.assert_allclose(two, one, atol=2e-5, rtol=1e-4)
    reached = {path[-1] for path, g in nnx.to_flat_state(grads) if (np.asarray(g[...]) != 0).any()}
    assert {"gate", "up", "down", "up_bias", "down_bias"} <= reached


@pytest.mark.parametrize(
    "config", [CONFIG, with_moe(**SPANS), with_moe(mix="weights", **SPANS)], ids=str
)
def test_cached_decoding_equals_the_full_pass(config):
    module = model(config)

    @nnx.jit
    def decode(module):
        prefix = module.prefill(TOKENS[:, :5], jnp.array([5, 3]), attributes_RT=ATTRIBUTES[:, :5])
        cache = module.init_cache(2, 5, prefix=prefix)
        first, cache = module.extend(TOKENS[:, 5:9], cache, attributes_BT=ATTRIBUTES[:, 5:9])
        last, _ = module.extend(TOKENS[:, 9:], cache, attributes_BT=ATTRIBUTES[:, 9:])
        return jnp.concatenate([first, last], axis=1)

    full = nnx.jit(lambda m: m(TOKENS, attributes_BT=ATTRIBUTES))(module)[:1, 5:]
    np.testing.assert_allclose(decode(module)[:1], full, atol=1e-5)
    np.testing.assert_allclose(decode(module.unstacked())[:1], full, atol=1e-5)


def test_capacity_keeps_a_decoder_causal():
    """In training too, where tokens are dropped: no later token changes an earlier one."""
    run = nnx.jit(lambda m, t: m.hidden_and_losses(t, dropout_key=KEY))
    hidden, losses = run(model(), TOKENS)
    assert float(losses["dropped"]) > 0
    other, _ = run(model(), TOKENS.at[:, 6:].set(1))
    np.testing.assert_allclose(other[:, :6], hidden[:, :6], atol=1e-5)


def test_routers_stay_fp32_in_bf16():
    narrow = variant(model(), dtype="bfloat16").unstacked()
    dtypes = {
        path[-2:]: v.dtype.name for path, v in nnx.to_flat_state(nnx.state(narrow)) if "mlp" in path
    }
    assert dtypes["router", "gate"] == "float32"
    assert dtypes["mlp", "up"] == "bfloat16"
    wide = nnx.jit(lambda m: m(TOKENS))(model())
    close = nnx.jit(lambda m: m(TOKENS))(variant(model(), dtype="bfloat16"))
    assert np.corrcoef(wide.ravel(), close.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("config", [CONFIG, with_moe(**SPANS)], ids=["token", "attribute"])
def test_a_folder_comes_back(config, tmp_path):
    module = model(config)
    module.tokenizer_fingerprint = "abc"
    module.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["model_type"] == "lvm_jax"
    again = Decoder.from_pretrained(tmp_path, remat="full", dropout=0.1)
    assert again.config == dataclasses.replace(config, remat="full", dropout=0.1)
    assert again.tokenizer_fingerprint == "abc"
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"tokenizer_fingerprint": None}))
    assert Decoder.from_pretrained(tmp_path).tokenizer_fingerprint == ""
    for (path, one), (_, two) in zip(
        nnx.to_flat_state(nnx.state(module)), nnx.to_flat_state(nnx.state(again)), strict=True
    ):
        np.testing.assert_array_equal(one[...], two[...], err_msg=str(path))
    # Training may change how experts are computed, not what they are.
    otherwise = dataclasses.replace(config.moe, dispatch="all_experts", spans=(), noise=1.0)
    hf_folder.check_fits(tmp_path, dataclasses.replace(config, moe=otherwise))
    with pytest.raises(UserError, match=r"has moe.top_k=2 and config.model.moe.top_k is 3"):
        hf_folder.check_fits(
            tmp_path,
            dataclasses.replace(config, moe=dataclasses.replace(config.moe, top_k=3)),
        )


def test_dense_blocks_that_differ_have_a_folder_too(tmp_path):
    config = dataclasses.replace(CONFIG, mlps=("gelu_tanh", "relu"))
    model(config).save_pretrained(tmp_path, dtype="bfloat16")
    assert Decoder.from_pretrained(tmp_path).config == config


def _without_config(fields):
    del fields["decoder"]


def _unknown_field(fields):
    fields["decoder"]["expert_count"] = 3


def _impossible(fields):
    fields["decoder"]["moe"]["top_k"] = 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_config, r"config.json has no 'decoder', the configuration"),
        (_unknown_field, r"decoder.expert_count does not exist in DecoderConfig"),
        (_impossible, r"experts=4, top_k=9: a token uses at least 1"),
    ],
)
def test_damaged_folders_are_refused(change, message, tmp_path):
    model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=message):
        Decoder.from_pretrained(tmp_path)


def test_what_the_weights_depend_on_cannot_be_changed_on_loading(tmp_path):
    model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'moe' cannot be changed on loading"):
        Decoder.from_pretrained(tmp_path, moe=MoEConfig())
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["decoder"]["intermediate_size"] = 13
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"does not fit the model's config; misshapen: layers"):
        Decoder.from_pretrained(tmp_path)


def test_attributes_are_asked_for():
    with pytest.raises(UserError, match=r"and none were given: pass attributes_BT"):
        jax.eval_shape(lambda: Decoder(with_moe(router="attribute"), rngs=nnx.Rngs(0))(TOKENS))
