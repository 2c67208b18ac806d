"""Prompts from arrays and files, and whole answers with a tiny decoder and tokenizer."""

import gc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.inference import (
    Engine,
    ImageGenerator,
    Sampling,
    VisualPrompt,
    codec,
    encode_prompt,
    generate_images,
)
from lvm_jax.models.decoder.llama import Llama, LlamaConfig
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig

CODES, SIZE, TOKENS, CONTEXT = 12, 8, 4, 4


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    config = VQGANConfig(
        resolution=SIZE,
        hidden_channels=4,
        channel_mult=(1, 1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        no_attn_mid_block=True,
        z_channels=4,
        num_embeddings=CODES,
        quantized_embed_dim=4,
        norm_groups=2,
    )
    return VQGAN(config, rngs=nnx.Rngs(0))


def decoder(codes: int) -> Llama:
    config = LlamaConfig(
        vocab_size=codes + 100,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=codes,
        eos_token_id=codes + 1,
        pad_token_id=codes + 2,
        initializer_range=0.3,
        max_position_embeddings=CONTEXT * TOKENS,
    )
    return Llama(config, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model() -> Llama:
    return decoder(CODES)


def photo(seed: int, height: int = 11, width: int = 17) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_order_of_images():
    x = [photo(i) for i in range(5)]
    prompt = VisualPrompt.sequential(x[:3])
    assert [np.array_equal(a, b) for a, b in zip(prompt.images, x)] == [True] * 3
    prompt = VisualPrompt.analogy([(x[0], x[1]), (x[2], x[3])], x[4])
    assert [np.array_equal(a, b) for a, b in zip(prompt.images, x)] == [True] * 5
    assert prompt.roles == ("input", "answer", "input", "answer", "input")


def test_several_annotations_and_composed_prompts():
    x = [photo(i) for i in range(9)]
    prompt = VisualPrompt.annotations([x[:3], x[3:6]], x[6:8])
    assert prompt.roles == ("input", "annotation_1", "annotation_2") * 2 + ("input", "annotation_1")
    assert all(np.array_equal(a, b) for a, b in zip(prompt.images, x[:8], strict=True))
    both = VisualPrompt.composed(
        [VisualPrompt.annotations([x[:2]]), VisualPrompt.analogy([x[2:4]], x[4])]
    )
    assert both.roles == ("input", "annotation_1", "input", "answer", "input")
    assert all(np.array_equal(a, b) for a, b in zip(both.images, x[:5], strict=True))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pictures_of_any_mode(mode):
    picture = Image.fromarray(photo(1)).convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(photo(1)[..., 0].astype(np.uint16) * 257)
    (image,) = VisualPrompt.sequential([picture]).images
    assert image.dtype == np.uint8
    if mode in ("L", "I;16"):
        assert (image == image[..., :1]).all()
    assert image.shape == (11, 17, 3)


def test_arrays_of_any_kind_and_turned_photographs():
    grey = photo(0)[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    for array in (grey, grey[..., None], expected, grey / 255, grey.astype(np.uint16) * 257):
        assert np.array_equal(VisualPrompt.sequential([array]).images[0], expected)
    mask = grey > 100
    assert np.array_equal(VisualPrompt.sequential([mask]).images[0][..., 0], mask * 255)
    clear = np.dstack([photo(0), np.zeros_like(grey)])
    assert (VisualPrompt.sequential([clear]).images[0] == 255).all()
    turned = Image.fromarray(photo(0))
    turned.getexif()[0x0112] = 6  # the camera was held upright
    assert np.array_equal(VisualPrompt.sequential([turned]).images[0], np.rot90(photo(0), k=-1))


def test_files_bytes_and_floats_give_the_same_prompt(vqgan, tmp_path):
    image = photo(0)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    forms = [image, image.astype(np.float32) / 255, path, str(path)]
    codes = [encode_prompt(vqgan, VisualPrompt.sequential([form])) for form in forms]
    assert all(np.array_equal(c, codes[0]) for c in codes)
    squashed = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    expected = vqgan.encode(squashed[None].astype(np.float32) / 255)
    assert np.array_equal(codes[0], expected)


def test_answers_are_the_engines_decoded(model, vqgan):
    prompt = VisualPrompt.analogy([(photo(0), photo(1))], photo(2))
    images = generate_images(
        model, vqgan, prompt, 2, 3, temperature=0.7, top_k=5, top_p=0.9, seed=4
    )
    assert images.shape == (3, 2, SIZE, SIZE, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    codes = Engine(model, TOKENS, CODES).generate(
        encode_prompt(vqgan, prompt), 2, n_candidates=3, sampling=Sampling(0.7, 5, 0.9), seed=4
    )
    np.testing.assert_allclose(images[1], vqgan.decode(codes[1]), atol=1e-5)


def test_a_model_is_prepared_once_until_its_weights_change(model, vqgan):
    """The checks and the copy for decoding are those of the first call; a changed weight is seen at once."""
    prompt, changing = VisualPrompt.sequential([photo(0)]), nnx.clone(model)
    first = ImageGenerator(changing, vqgan)
    answer = first(prompt, seed=1)
    assert ImageGenerator(changing, vqgan).engine is first.engine
    assert ImageGenerator(changing, vqgan, context_images=2).engine is not first.engine
    assert np.array_equal(generate_images(changing, vqgan, prompt, seed=1), answer)
    assert ImageGenerator(nnx.clone(model), vqgan).engine is not first.engine

    changing.head[...] = -changing.head[...]
    assert not np.array_equal(generate_images(changing, vqgan, prompt, seed=1), answer)
    changing.head[...] = changing.head[...] * jnp.nan
    with pytest.raises(UserError, match=r"the decoder has NaN or infinite weights in head"):
        generate_images(changing, vqgan, prompt)


def test_a_prepared_model_does_not_outlive_its_model(vqgan):
    model = decoder(CODES)
    engine = weakref.ref(ImageGenerator(model, vqgan).engine)
    assert engine() is not None
    del model
    gc.collect()
    assert engine() is None


def test_an_empty_prompt_gives_an_unconditional_image(model, vqgan):
    assert generate_images(model, vqgan, VisualPrompt.sequential([])).shape == (1, 1, SIZE, SIZE, 3)


def test_any_number_of_images_is_encoded_by_few_programs(vqgan):
    codec._encode.clear_cache()
    images = np.stack([photo(i, SIZE, SIZE) for i in range(11)])
    whole = codec.encode_images(vqgan, images, batch_size=4)
    assert np.array_equal(whole, vqgan.encode(images.astype(np.float32) / 255))
    for count in range(1, 12):
        assert np.array_equal(
            codec.encode_images(vqgan, images[:count], batch_size=4), whole[:count]
        )
    assert codec._encode._cache_size() == 3  # batches of 4, 2 and 1


def test_mistakes_are_named(model, vqgan, tmp_path):
    frame = photo(0)
    with pytest.raises(UserError, match="0 pairs"):
        VisualPrompt.analogy([], frame)
    with pytest.raises(UserError, match="pair 1 has 1 images"):
        VisualPrompt.analogy([(frame, frame), (frame,)], frame)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(UserError, match=r"broken\.png.*cannot be decoded"):
        VisualPrompt.sequential([broken])
    with pytest.raises(UserError, match=r"nowhere\.png"):
        VisualPrompt.sequential([tmp_path / "nowhere.png"])
    with pytest.raises(UserError, match=r"shape \(4, 4, 2\)"):
        VisualPrompt.sequential([np.zeros((4, 4, 2))])
    with pytest.raises(UserError, match=r"shape \(0, 4, 3\)"):
        VisualPrompt.sequential([np.zeros((0, 4, 3))])
    with pytest.raises(UserError, match="its pixels are floats"):
        VisualPrompt.sequential([Image.fromarray(np.zeros((4, 4), np.float32))])
    with pytest.raises(UserError, match=r"examples have \[2, 3\] images"):
        VisualPrompt.annotations([[frame] * 2, [frame] * 3], [frame])
    with pytest.raises(UserError, match=r"examples have \[\] images"):
        VisualPrompt.annotations([], [frame])
    with pytest.raises(UserError, match="query has 3 images: give at most 2"):
        VisualPrompt.annotations([[frame] * 3], [frame] * 3)
    with pytest.raises(UserError, match=r"from 0.0 to 255.0"):
        VisualPrompt.sequential([np.array([0.0, 255.0, 3.0]).reshape(1, 1, 3)])
    with pytest.raises(UserError, match="int64"):
        VisualPrompt.sequential([np.zeros((4, 4, 3), np.int64)])
    with pytest.raises(UserError, match="113 ids and the tokenizer 12 codes, which makes 112"):
        generate_images(decoder(CODES + 1), vqgan, VisualPrompt.sequential([frame]))
    with pytest.raises(UserError, match="4 images: at most 3"):
        generate_images(model, vqgan, VisualPrompt.sequential([frame] * 4))
    broken = nnx.clone(vqgan)
    weights = nnx.to_flat_state(nnx.state(broken, nnx.Param))[0][1]
    weights[...] = weights[...].at[(0,) * weights[...].ndim].set(np.inf)
    with pytest.raises(UserError, match="the tokenizer has NaN or infinite weights"):
        generate_images(model, broken, VisualPrompt.sequential([frame]))
    with pytest.raises(UserError, match="0 candidates"):
        generate_images(model, vqgan, VisualPrompt.sequential([frame]), n_candidates=0)


def test_a_decoder_is_asked_with_the_tokenizer_that_it_was_trained_with(tmp_path, vqgan):
    frame, stranger = photo(0), nnx.clone(vqgan)
    codebook = stranger.quantizer.codebook
    codebook[...] = codebook[...][::-1]  # the same codes under other numbers
    trained = decoder(CODES)
    trained.tokenizer_fingerprint = vqgan.fingerprint()
    trained.save_pretrained(tmp_path)
    loaded = Llama.from_pretrained(tmp_path)
    assert loaded.tokenizer_fingerprint == vqgan.fingerprint()
    generate_images(loaded, vqgan, VisualPrompt.sequential([frame]))
    with pytest.raises(UserError, match="its codes mean other pictures"):
        generate_images(loaded, stranger, VisualPrompt.sequential([frame]))
