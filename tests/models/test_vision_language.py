"""Towers and a decoder as one model: where image tokens go, what depends on pictures, and published sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import VisionLanguage, presets
from lvm_jax.models.decoder.config import count_parameters
from lvm_jax.models.vision_language.config import CLIP, VITDET

T, NOWHERE = 12, 99


def size(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


# Tower, linear layers, decoder.
TOWER, CLIP_L = 95_569_152, 303_179_776
PUBLISHED = {
    "tiny": (TOWER, 1024 * 768 + 768, 126_809_088),
    "tiny-plus": (TOWER, 1024 * 768 + 768, 126_809_088),
    "tiny-600k": (TOWER, 1024 * 768 + 768, 126_809_088 - 2048 * 768),
    "base": (TOWER + CLIP_L, 2 * (1024 * 2048 + 2048), 7_721_324_544),
    "base-vicuna": (TOWER + CLIP_L, 2 * (1024 * 2048 + 2048), 6_738_415_616 + 2 * 3 * 4096),
    "toy": (TOWER + CLIP_L, 2 * (1024 * 1024 + 1024), 1_836_828_672),
    "got-ocr2": (TOWER, 1024 * 1024 + 1024, 463_909_888),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    config = presets.vary(name)
    model = VisionLanguage.abstract(config)
    towers, linear, decoder = PUBLISHED[name]
    assert size(model) - size(model.decoder) == towers + linear
    assert count_parameters(config.decoder) == decoder
    assert config.image_tokens == 256


def test_image_ids_stand_behind_the_published_vocabularies():
    ids = {name: presets.vary(name).image_ids for name in ("tiny", "base", "base-vicuna")}
    assert ids == {
        "tiny": (50265, 50266, 50267),
        "base": (151859, 151857, 151858),
        "base-vicuna": (32000, 32001, 32002),
    }


def pictures(config, batch, images, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(
            rng.integers(0, 256, (batch, images, *branch.tower.image_size, 3)), jnp.uint8
        )
        for name, branch in config.branches.items()
    }


@pytest.fixture(scope="module", params=["debug", "debug-two"])
def model(request):
    config = presets.vary(request.param)
    return VisionLanguage(config, rngs=nnx.Rngs(0))


def test_image_tokens_take_their_places(model):
    """Three rows: two images, one, and none."""
    shown = pictures(model.config, 3, 2)
    N, patch = model.config.image_tokens, model.config.image_patch_id
    places = np.full((3, 2, N), NOWHERE)
    places[0] = np.arange(2 * N).reshape(2, N) + np.array([[1], [2]])
    places[1, 0] = np.arange(N) + 4
    tokens = np.full((3, T), 7)
    for row, at in enumerate(places):
        tokens[row, at[at < T]] = patch
    x_BTD = nnx.jit(lambda m, *given: m.embed(*given))(
        model, jnp.asarray(tokens), shown, jnp.asarray(places)
    )
    tokens_BIND = nnx.jit(lambda m, images: m.image_tokens(images))(model, shown)
    expected = np.array(model.decoder.embed(jnp.asarray(tokens)))
    for row in range(3):
        for image in range(2):
            for n, place in enumerate(places[row, image]):
                if place < T:
                    expected[row, place] = tokens_BIND[row, image, n]
    np.testing.assert_allclose(x_BTD, expected, atol=1e-6)
    assert np.abs(expected[0, 1] - expected[0, N + 2]).max() > 1e-3


def test_logits_depend_on_the_own_picture_only(model):
    """A row with another picture has other logits behind it; those before it, and other rows, are the same."""
    N = model.config.image_tokens
    tokens = np.full((2, T), 9)
    tokens[:, 3 : 3 + N] = model.config.image_patch_id
    places = np.broadcast_to(np.arange(N) + 3, (2, 1, N))
    call = nnx.jit(lambda m, *given: m(*given))

    def logits(shown):
        return np.asarray(call(model, jnp.asarray(tokens), shown, jnp.asarray(places)))

    one = pictures(model.config, 2, 1)
    other = {name: x.at[0].set(255 - x[0]) for name, x in one.items()}
    before, after = logits(one), logits(other)
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_array_equal(before[0, :3], after[0, :3])
    assert np.abs(before[0, 3:] - after[0, 3:]).max(axis=-1).min() > 1e-4


def test_every_branch_is_looked_at():
    config = presets.vary("debug-two")
    model = VisionLanguage(config, rngs=nnx.Rngs(0))
    shown = pictures(config, 1, 1)
    tokens = model.image_tokens(shown)
    first_half = np.arange(config.decoder.hidden_size) < config.decoder.hidden_size // 2
    for name, own in ((CLIP, first_half), (VITDET, ~first_half)):
        changed = model.image_tokens({**shown, name: 255 - shown[name]})
        moved = np.abs(tokens - changed).max(axis=(0, 1, 2))
        np.testing.assert_array_equal(moved > 0, own)


def test_generation_continues_from_the_same_embeddings(model):
    """A prompt that is prefilled from `embed`, then one id: the logits of the whole row."""
    N = model.config.image_tokens
    tokens = np.array([[1, 3, *[2] * N, 4, 7, 8]])
    places = jnp.asarray(np.arange(N)[None, None] + 2)
    shown = pictures(model.config, 1, 1)
    whole = nnx.jit(lambda m, *given: m(*given))(model, jnp.asarray(tokens), shown, places)

    @nnx.jit
    def continued(model, tokens, shown):
        x_BTD = model.embed(tokens[:, :-1], shown, places)
        prefix = model.decoder.prefill(x_BTD, jnp.array([x_BTD.shape[1]]))
        cache = model.decoder.init_cache(1, 1, prefix=prefix)
        return model.decoder.extend(tokens[:, -1:], cache)[0]

    np.testing.assert_allclose(
        continued(model, jnp.asarray(tokens), shown)[:, 0], whole[:, -1], atol=1e-5
    )


def test_mistakes_are_named():
    config = presets.vary("debug-two")
    model = VisionLanguage(config, rngs=nnx.Rngs(0))
    shown = pictures(config, 1, 1)
    with pytest.raises(UserError, match=r"no pictures 'images', found: images_clip"):
        model.image_tokens({CLIP: shown[CLIP]})
    with pytest.raises(UserError, match=r"'images' are float32 .*give uint8"):
        model.image_tokens({**shown, VITDET: shown[VITDET].astype(jnp.float32)})
    with pytest.raises(UserError, match=r"vitdet and clip are both None"):
        presets.vary("debug", vitdet=None)
    other = dataclasses.replace(config.clip, tower=presets.clip("debug"))
    with pytest.raises(UserError, match=r"gives 6 tokens an image and the vitdet tower 4"):
        presets.vary("debug-two", clip=other)
    with pytest.raises(UserError, match=r"image_end_id=128 is not an id below"):
        presets.vary("debug", image_end_id=128)
    with pytest.raises(UserError, match=r"image ids \(patch, start, end\) are \(2, 3, 3\)"):
        presets.vary("debug", image_end_id=3)
    with pytest.raises(UserError, match=r"deviation=\(0.0, 1.0, 1.0\): give a number"):
        dataclasses.replace(config.clip, deviation=(0.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"Vary preset 'tony' does not exist; known: debug"):
        presets.vary("tony")
