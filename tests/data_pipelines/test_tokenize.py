"""Encoding in bulk: the tokenizer's own codes, one compilation, no image encoded twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipe_fakes import save_tokenizer

from data_pipelines.build.encoding import VqganEncoder, shared_encoder
from lvm_jax.errors import UserError
from lvm_jax.inference import codec
from lvm_jax.models.tokenizer.vqgan import VQGAN


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


def test_codes_are_the_tokenizers_own_in_uint16_and_in_order(tokenizer):
    encoder = VqganEncoder(tokenizer, batch_size=4)
    images = pictures(11)
    codes = encoder.encode(images)
    assert codes.dtype == np.uint16
    assert codes.shape == (11, encoder.vqgan.tokens_per_image) == (11, 64)
    vqgan = VQGAN.from_pretrained(tokenizer)
    expected = jax.jit(lambda x: vqgan.encode(x))(jnp.asarray(np.stack(images)) / 255.0)
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(codes)) > 3, "a tokenizer that maps all to one code would prove nothing"


def test_any_number_of_images_compiles_once(tokenizer):
    encoder = VqganEncoder(tokenizer, batch_size=4)
    codec._encode.clear_cache()
    for count in (1, 4, 5, 9, 3):
        assert len(encoder.encode(pictures(count))) == count
    assert codec._encode._cache_size() == 1


def test_no_images_give_no_codes(tokenizer):
    assert VqganEncoder(tokenizer, batch_size=4).encode([]).shape == (0, 64)


def test_a_process_has_one_encoder(tokenizer):
    assert shared_encoder(tokenizer, 4) is shared_encoder(tokenizer, 4)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        VqganEncoder(str(tmp_path))
