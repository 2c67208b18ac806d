"""Decoders that know images: learned places, rotations by image, row and column, a look back; and norms of heads."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Llama, presets
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import RopeScaling, count_parameters
from lvm_jax.models.decoder.rope import apply_rope, image_rope_table, rope_table

N = 4  # codes of an image: 2 x 2
PLAIN = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=24,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.2,
)
CONFIGS = {
    "places": dataclasses.replace(PLAIN, tokens_per_image=N, place_embeddings=True),
    "rotary_2d": dataclasses.replace(PLAIN, tokens_per_image=N, positions="rotary_2d"),
    "look_back": dataclasses.replace(PLAIN, look_back=N),
    "qk_norm": dataclasses.replace(PLAIN, qk_norm=True),
    "all": dataclasses.replace(
        PLAIN,
        tokens_per_image=N,
        positions="rotary_2d",
        place_embeddings=True,
        look_back=N,
        qk_norm=True,
    ),
}
TOKENS = jax.random.randint(jax.random.key(0), (2, 13), 0, 140)


def build(config) -> Llama:
    """A decoder whose norms are no ones, which would hide a scale that is not read."""
    model = nnx.jit(lambda: Llama(config, rngs=nnx.Rngs(0)))()

    def shake(path, variable):
        if path[-1] != "scale":
            return variable
        return variable.replace(jax.random.uniform(jax.random.key(len(path)), variable.shape) + 0.5)

    nnx.update(model, nnx.map_state(shake, nnx.state(model)))
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param])


@nnx.jit
def forward(model: Llama, tokens, segment_ids=None, positions=None) -> jax.Array:
    return model(tokens, segment_ids, positions)


def test_an_input_gets_the_place_of_the_code_that_it_predicts():
    model = build(CONFIGS["places"])
    x = model.embed(TOKENS)
    # BOS predicts place 0; the last code of an image, place 0 of the next.
    rows = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    table = np.asarray(model.positions.places[...])
    by_hand = np.asarray(x) + np.stack([table[row] for row in rows])
    np.testing.assert_array_equal(model.positions.embed(x, jnp.arange(13)[None]), by_hand)
    without = nnx.clone(model)
    without.positions.places[...] = jnp.zeros((N, 32))
    np.testing.assert_allclose(without.transform(by_hand), model.transform(x), atol=1e-5)
    assert not np.allclose(without.transform(x), model.transform(x), atol=1e-2)


def test_an_input_knows_what_stood_one_image_before_at_its_place_and_at_the_next():
    back = build(CONFIGS["look_back"]).look_back
    x = np.asarray(jax.random.normal(jax.random.key(2), (1, 13, 32)))
    here, ahead = np.asarray(back.here[...]), np.asarray(back.ahead[...])
    by_hand = x.copy()
    for p in range(13):
        # BOS, at position 0, is no code. Position p holds code p - 1, and predicts code p.
        if p - N > 0:
            by_hand[:, p] += x[:, p - N] @ here
        if p + 1 - N > 0:
            by_hand[:, p] += x[:, p + 1 - N] @ ahead
    np.testing.assert_allclose(back.whole_rows(x, jnp.arange(13)[None]), by_hand, atol=1e-5)


def test_cached_decoding_equals_the_full_pass(model):
    lengths = jnp.array([9, 5])

    @nnx.jit
    def decode(model, prompts, own):
        prefix = model.prefill(prompts, lengths)
        first, cache = model.extend(own[:, :3], model.init_cache(4, 4, prefix=prefix))
        return jnp.concatenate([first, model.extend(own[:, 3:4], cache)[0]], axis=1)

    own = TOKENS[:, 9:].repeat(2, axis=0)
    logits = decode(model.unstacked(), TOKENS[:, :9], own)
    for row in range(4):
        start = int(lengths[row // 2])
        sentence = np.zeros((1, 13), np.int32)
        sentence[0, :start], sentence[0, start : start + 4] = TOKENS[row // 2, :start], own[row]
        full = forward(model, sentence)[0, start : start + 4]
        np.testing.assert_allclose(logits[row], full, atol=1e-4)


def test_a_sentence_of_a_row_is_the_sentence_alone(model):
    a, b = TOKENS[:1, :6], TOKENS[1:, :10]
    segments = jnp.asarray([[1] * 6 + [2] * 10])
    positions = jnp.concatenate([jnp.arange(6), jnp.arange(10)])[None]
    packed = forward(model, jnp.concatenate([a, b], axis=1), segments, positions)
    np.testing.assert_allclose(packed[:, :6], forward(model, a), atol=1e-4)
    np.testing.assert_allclose(packed[:, 6:], forward(model, b), atol=1e-4)


def scores(positions, tokens_per_image=9, head_dim=16):
    """Products of one query with one key at every pair of positions."""
    table = image_rope_table(jnp.asarray(positions)[None], head_dim, 100.0, tokens_per_image)
    q, k = jax.random.normal(jax.random.key(1), (2, head_dim))
    q, k = (
        apply_rope(jnp.tile(x, (1, len(positions), 1, 1)), table)[0, :, 0].astype(jnp.float32)
        for x in (q, k)
    )
    return q @ k.T


def test_a_score_depends_on_the_offsets_in_image_row_and_column_only():
    found = scores(range(1, 28))  # three images of 3 x 3
    where = [(i, r, c) for i in range(3) for r in range(3) for c in range(3)]
    by_offset = {}
    for a, at in enumerate(where):
        for b, other in enumerate(where):
            offset = tuple(x - y for x, y in zip(at, other))
            by_offset.setdefault(offset, []).append(float(found[a, b]))
    assert len(by_offset) == 5**3
    for values in by_offset.values():
        np.testing.assert_allclose(values, values[0], atol=1e-5)
    # No two offsets look the same, so each axis is told apart.
    distinct = np.sort([values[0] for values in by_offset.values()])
    assert np.diff(distinct).min() > 1e-5


def test_bos_is_at_the_origin_and_one_image_after_the_other_turns_the_first_pair_only():
    cos, sin = image_rope_table(jnp.array([[0, 1, 10, 4, 2]]), 12, 100.0, 9)
    angles = np.arctan2(sin, cos)[0, :, 0]
    np.testing.assert_array_equal(angles[0], 0)  # BOS
    np.testing.assert_array_equal(angles[1], 0)  # the first code of the first image
    frequencies = 100.0 ** (-np.arange(6) / 6)
    axes = [[0, 3], [1, 4], [2, 5]]  # pairs that turn with the image, the row, the column
    for place, pairs in zip((2, 3, 4), axes):  # the next image, the next row, the next column
        expected = np.zeros(6)
        expected[pairs] = frequencies[pairs]
        np.testing.assert_allclose(angles[place], expected, atol=1e-6)


def test_one_column_of_images_of_one_code_is_plain_rotation_of_every_third_pair():
    """With N = 1 the image's number is the place in the row, less one for BOS."""
    positions = jnp.arange(1, 6)[None]
    ours, plain = image_rope_table(positions, 12, 50.0, 1), rope_table(positions - 1, 12, 50.0)
    for one, other in zip(ours, plain):
        np.testing.assert_allclose(one[..., ::3], other[..., ::3], atol=1e-6)


def test_counts_and_folders(model, tmp_path):
    config = model.config
    padding = 2 * (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model))]
    assert count_parameters(config) == sum(sizes) - padding
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    theirs = not (
        config.tokens_per_image or config.look_back
    )  # a decoder that transformers has too
    assert fields["model_type"] == ("qwen3" if theirs else "lvm_jax")
    assert fields["architectures"] == ["Qwen3ForCausalLM" if theirs else "lvm_jax.models.Decoder"]
    again = Llama.from_pretrained(tmp_path)
    assert again.config == config
    for one, other in zip(
        jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(
        UserError, match=r"config\.model\.(place_embeddings|positions|qk_norm|look_back) is"
    ):
        hf_folder.check_fits(tmp_path, PLAIN)


def test_a_qwen3_folder_without_head_dim_has_heads_of_128(tmp_path):
    build(CONFIGS["qk_norm"]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    del fields["head_dim"]
    path.write_text(json.dumps(fields))
    assert hf_folder.load_config(tmp_path).head_dim == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place_embeddings": True}, r"tokens_per_image=0, place_embeddings=True"),
        ({"look_back": -1}, r"look_back=-1: it must be at least 0"),
        ({"positions": "rotary_2d"}, r"tokens_per_image=0, .*'rotary_2d': set tokens_per_image"),
        ({"tokens_per_image": 4}, r"tokens_per_image=4, place_embeddings=False, .* else to 0"),
        ({"tokens_per_image": 8, "positions": "rotary_2d"}, r"tokens_per_image=8 is no square"),
        (
            {"tokens_per_image": 4, "positions": "rotary_2d", "attention_head_dim": 4},
            r"a head has 4 dimensions: it needs at least 6",
        ),
        (
            {
                "tokens_per_image": 4,
                "positions": "rotary_2d",
                "rope_scaling": RopeScaling("linear", 2.0),
            },
            r"rope_scaling 'linear' stretches",
        ),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(PLAIN, **change)
