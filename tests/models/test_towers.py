"""Vision towers without weights of others: shapes, windows, ways to compute, folders, costs, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.analysis.flops import count_flops
from lvm_jax.errors import UserError
from lvm_jax.models import ClipVision, Projector, ProjectorConfig, VitDet, presets
from lvm_jax.models.attention import attend as attention
from lvm_jax.models.attention import kernels
from lvm_jax.models.towers import clip_config, vitdet_config
from lvm_jax.models.towers.windows import from_windows, into_windows

VITDET = presets.vitdet("debug")  # a grid of 5 x 6 patches, windows of 4
CLIP = presets.clip("debug")
TOWERS = {"vitdet": (VitDet, VITDET), "clip": (ClipVision, CLIP)}


def _shaken(model):
    """A tower whose zeros are none, which would hide what is not added."""

    def shake(path, variable):
        if str(path[-1]) not in ("bias", "positions", "rows", "columns", "cls"):
            return variable
        key = jax.random.key(len(str(path)))
        return variable.replace(0.3 * jax.random.normal(key, variable.shape))

    nnx.update(model, nnx.map_state(shake, nnx.state(model)))
    return model


def _init(cls, config):
    return _shaken(nnx.jit(lambda: cls(config, rngs=nnx.Rngs(0)))())


def _images(config, batch=2, dtype="float32"):
    shape = (batch, *config.image_size, config.num_channels)
    return jax.random.normal(jax.random.key(1), shape, dtype)


def _variant(model, **changes):
    """The same parameters, computed in another way."""
    config = dataclasses.replace(model.config, **changes)
    return nnx.merge(nnx.graphdef(type(model).abstract(config)), nnx.state(model))


def _value_and_grad(model):
    graphdef, params = nnx.split(model)
    images = _images(model.config)

    def loss(params):
        tokens = nnx.merge(graphdef, params)(images)
        return jnp.sum(tokens * jnp.cos(jnp.arange(tokens.size).reshape(tokens.shape)))

    return jax.jit(jax.value_and_grad(loss))(params)


def _forward(cls, config):
    graphdef, params = nnx.split(cls.abstract(config))
    images = jax.ShapeDtypeStruct((1, *config.image_size, config.num_channels), jnp.float32)
    return lambda p, x: nnx.merge(graphdef, p)(x), params, images


@pytest.fixture(scope="module", params=TOWERS)
def model(request):
    return _init(*TOWERS[request.param])


def _parameters(cls, config):
    state = nnx.state(cls.abstract(config))
    return sum(variable.size for _, variable in nnx.to_flat_state(state))


def test_published_sizes():
    """The counts of the checkpoints: SAM's encoder, with the two convolutions, and OpenAI's ViT-L/14."""
    vary, clip = presets.vitdet("vary"), presets.clip("vit-l-14")
    assert _parameters(VitDet, vary) == 95_569_152
    merge = 9 * 256 * 512 + 9 * 512 * 1024
    assert _parameters(VitDet, vary) - merge == 89_670_912
    assert _parameters(ClipVision, clip) == 303_179_776
    assert (vary.tokens_per_image, vary.token_width, vary.period) == (256, 1024, 3)
    assert (clip.tokens_per_image, clip.feature_blocks) == (256, 23)
    tokens = jax.eval_shape(*_forward(VitDet, vary))
    assert (tokens.shape, tokens.dtype) == ((1, 256, 1024), jnp.float32)


def test_lines_of_text_are_wider_than_high():
    config = presets.vitdet("lines")
    assert (config.grid, config.grids[1:], config.period) == ((4, 16), [(2, 16), (1, 16)], 3)
    tower = VitDet.abstract(config)
    shapes = {
        name: value.shape
        for name in ("rows", "columns")
        for value in (getattr(tower.layers.places[1].attention.positions, name),)
    }
    assert shapes == {"rows": (1, 7, 32), "columns": (1, 31, 32)}
    assert tower.positions.shape == (4, 16, 128)
    assert jax.eval_shape(*_forward(VitDet, config)).shape == (1, 16, 128)


def test_windows_are_cut_in_order_and_put_back():
    x = jnp.arange(2 * 5 * 6, dtype=float).reshape(2, 30, 1)
    windows = into_windows(x, (5, 6), 4)
    assert windows.shape == (2 * 4, 16, 1)
    first = x[0, :, 0].reshape(5, 6)
    np.testing.assert_array_equal(windows[0, :, 0].reshape(4, 4), first[:4, :4])
    right = np.pad(first[:4, 4:], ((0, 0), (0, 2)))
    np.testing.assert_array_equal(windows[1, :, 0].reshape(4, 4), right)
    below = np.pad(first[4:, :4], ((0, 3), (0, 0)))
    np.testing.assert_array_equal(windows[2, :, 0].reshape(4, 4), below)
    np.testing.assert_array_equal(from_windows(windows, (5, 6), 4), x)


def test_a_pixel_reaches_its_window_first_and_then_the_whole_grid():
    """Without a global block no patch of another window depends on it; the neck's 3 x 3 reaches one patch further."""
    reach = {}
    for name, indexes in (("window", ()), ("global", (0,))):
        changes = {"num_hidden_layers": 1, "global_attn_indexes": indexes}
        model = _init(VitDet, dataclasses.replace(VITDET, image_size=(64, 64), **changes))

        @jax.jit
        def far(images, model=model):
            return model.features(images)[0, 6, 6, 0]

        gradient = jax.grad(far)(_images(model.config, 1))[0]
        patches = np.abs(gradient).reshape(8, 8, 8, 8, 3).max(axis=(1, 3, 4)) > 0
        reach[name] = patches
    assert reach["global"].all()
    assert not reach["window"][:4, :].any()
    assert reach["window"][4:, 4:].all()


@pytest.mark.parametrize(
    "changes",
    [
        {"scan_layers": True, "remat": "dots", "attention": "chunked"},
        {"scan_layers": False, "remat": "full", "attention": "splash"},
    ],
    ids=["scan", "unrolled"],
)
def test_ways_to_compute_change_neither_value_nor_gradients(model, changes, monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRET", True)
    monkeypatch.setattr(attention, "CHUNK", 8)
    plain = _value_and_grad(_variant(model, attention="xla", scan_layers=False, remat="none"))
    ours = _value_and_grad(_variant(model, **changes))
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-5)
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(ours[1]), nnx.to_flat_state(plain[1]), strict=True
    ):
        norm = np.linalg.norm(other[...])
        assert np.linalg.norm(one[...] - other[...]) <= 1e-5 * max(norm, 1), path
        assert norm > 0 or path[0] in ("layers", "post_norm")


def test_bf16_computes_close_to_fp32_with_fp32_parameters(model):
    images = _images(model.config)
    exact = nnx.jit(lambda m, x: m(x))(model, images)
    half = _variant(model, dtype="bfloat16")
    assert {v.dtype for _, v in nnx.to_flat_state(nnx.state(half))} == {jnp.dtype("float32")}
    tokens = nnx.jit(lambda m, x: m(x))(half, images)
    assert tokens.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(tokens, np.float32) - exact)
    assert error <= 0.02 * np.linalg.norm(exact)


def test_a_folder_holds_the_tower(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, remat="full")
    assert again.config == dataclasses.replace(model.config, remat="full")
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(nnx.state(model)), nnx.to_flat_state(nnx.state(again)), strict=True
    ):
        np.testing.assert_array_equal(one[...], other[...], err_msg=str(path))


def test_a_projector_is_linear_and_has_a_folder(tmp_path):
    projector = _init(Projector, ProjectorConfig(6, 10))
    tokens = jax.random.normal(jax.random.key(0), (2, 3, 6))
    kernel, bias = projector.linear.kernel[...], projector.linear.bias[...]
    np.testing.assert_allclose(projector(tokens), tokens @ kernel + bias[None, None], atol=1e-6)
    assert projector.linear.kernel.get_metadata()["axes"] == ("vision", "embed")
    projector.save_pretrained(tmp_path)
    again = Projector.from_pretrained(tmp_path, dtype="bfloat16")
    np.testing.assert_array_equal(again.linear.bias[...], bias)
    assert again(tokens).dtype == jnp.bfloat16
    with pytest.raises(UserError, match=r"mm_projector.weight must have 2 dimensions.*no such"):
        Projector.from_pretrained(tmp_path, prefix="mm_projector.")
    with pytest.raises(UserError, match=r"'remat' cannot be changed on loading: only dtype can"):
        Projector.from_pretrained(tmp_path, remat="full")


def test_the_formula_counts_what_the_program_has():
    lines = presets.vitdet("lines")
    for cls, config, flops in (
        (VitDet, VITDET, vitdet_config.forward_flops(VITDET)),
        (VitDet, lines, vitdet_config.forward_flops(lines)),
        (ClipVision, CLIP, clip_config.forward_flops(CLIP)),
    ):
        forward = _forward(cls, dataclasses.replace(config, attention="xla"))
        assert flops == count_flops(*forward)


def test_xla_counts_as_much_at_full_size():
    """XLA counts elementwise work too, and leaves out products with a convolution's padding."""
    vary, clip = presets.vitdet("vary"), presets.clip("vit-l-14")
    for cls, config, flops in (
        (VitDet, vary, vitdet_config.forward_flops(vary)),
        (ClipVision, clip, clip_config.forward_flops(clip)),
    ):
        plain = dataclasses.replace(config, attention="xla", scan_layers=False, remat="none")
        forward, *arguments = _forward(cls, plain)
        costs = jax.jit(forward).lower(*arguments).cost_analysis()
        assert costs is not None
        assert costs["flops"] == pytest.approx(flops, rel=0.03)


@pytest.mark.parametrize(
    ("cls", "config", "changes", "message"),
    [
        (VitDet, VITDET, {"image_size": (40, 47)}, r"image_size=\(40, 47\) does not divide into"),
        (VitDet, VITDET, {"num_attention_heads": 3}, r"=3 must divide hidden_size=16"),
        (VitDet, VITDET, {"global_attn_indexes": (1, 4)}, r"names block 4: num_hidden_layers=4"),
        (VitDet, VITDET, {"merge_channels": (8,)}, r"give one of each for every convolution"),
        (VitDet, VITDET, {"merge_strides": ((2, 2), (0, 1))}, r"all must be at least 1"),
        (VitDet, VITDET, {"window_size": 0}, r"window_size=0: it must be at least 1"),
        (VitDet, VITDET, {"attention": "flash"}, r"attention='flash' does not exist; known: auto"),
        (ClipVision, CLIP, {"hidden_act": "relu"}, r"hidden_act='relu' does not exist"),
        (ClipVision, CLIP, {"feature_layer": -4}, r"from -1, the last, to -3, the first"),
    ],
)
def test_impossible_configurations_are_refused(cls, config, changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config, **changes)


def test_images_of_another_size_or_kind_are_refused(model):
    config = model.config
    height, width = config.image_size
    for images, message in (
        (jnp.zeros((1, height, width + 8, 3)), rf"takes \(batch, {height}, {width}, 3\)"),
        (jnp.zeros((1, height, width, 1)), r"images have shape"),
    ):
        with pytest.raises(UserError, match=message):
            model(images)


def test_unknown_presets_are_refused():
    with pytest.raises(
        UserError, match=r"'huge' does not exist; known: debug, lines, blocks, vary"
    ):
        presets.vitdet("huge")
    with pytest.raises(UserError, match=r"'huge' does not exist; known: debug, vit-l-14"):
        presets.clip("huge")
    with pytest.raises(UserError, match=r"no field 'depth'"):
        presets.vitdet("vary", depth=3)
