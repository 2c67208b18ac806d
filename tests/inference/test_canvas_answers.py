"""Answers by filling a canvas: the network sees the right cells, folders are told apart, refusals."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_models import CODES, TOKENS

from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.errors import UserError
from lvm_jax.inference import canvas_answers
from lvm_jax.inference.answerers import read_answerer
from lvm_jax.inference.canvas_answers import MaeVqganAnswerer, SegGptAnswerer
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.in_context import InContextPrompt
from lvm_jax.models import MaeVqgan, SegGpt, presets
from lvm_jax.pictures.pixels import to_uint8

MASKS = Question.SEGMENTATION
MAE = presets.mae_vqgan("debug", codes=CODES)
SEGGPT = presets.seggpt("debug")


def codes(seed):
    return np.random.default_rng(seed).integers(0, CODES, TOKENS)


def prompt(seed, examples=1, question=MASKS):
    answers = [Words("no") if question is not MASKS else codes(seed + 50 + i) for i in range(9)]
    pairs = tuple(Pair(codes(seed + 20 + i), answers[i]) for i in range(examples))
    return InContextPrompt(pairs, codes(seed), question)


@pytest.fixture(scope="module")
def answerers(vqgan):
    return {
        "mae_vqgan": MaeVqganAnswerer(MaeVqgan(MAE, rngs=nnx.Rngs(0)), vqgan),
        "seggpt": SegGptAnswerer(SegGpt(SEGGPT, rngs=nnx.Rngs(0)), vqgan),
    }


@pytest.mark.parametrize("name", ["mae_vqgan", "seggpt"])
def test_prompts_are_answered_in_their_order_whatever_their_examples(answerers, name):
    answerer = answerers[name]
    some = [prompt(0), prompt(1, examples=0), prompt(2), prompt(3, examples=0)]
    together = answerer.draw_masks(some)
    assert {(mask.shape, mask.dtype) for mask in together} == {((16, 16, 3), np.dtype("u1"))}
    for i in (2, 3):
        (alone,) = answerer.draw_masks([some[i]])
        # One grey level of rounding: batches of another size sum in another order.
        assert np.abs(together[i].astype(int) - alone).max() <= 1


class _Copier:
    """In place of MAE-VQGAN: the code of an answer's patch is 3 for a white canvas cell above it, and 5 for another."""

    def __init__(self):
        self.config = MAE

    def __call__(self, canvas, shown):
        assert shown.shape[1] == 12
        bright = canvas[:, :16, 16:].mean((1, 2, 3)) > canvas[:, :16, :16].mean((1, 2, 3))
        return jnp.where(bright[:, None], jnp.eye(CODES)[3], jnp.eye(CODES)[5])[:, None].repeat(
            16, 1
        )


def test_the_codes_of_the_answers_cell_are_decoded(vqgan):
    """The likeliest code of each patch, from a canvas whose cells stand where they should."""
    one = prompt(4)
    ((example,),) = (one.examples,)
    mask, picture = (
        decode_codes(vqgan, x[None])[0].mean() for x in (example.answer, example.picture)
    )
    found = canvas_answers._filled.__wrapped__(_Copier(), vqgan, canvas_answers._codes(one)[None])
    expected = decode_codes(vqgan, np.full((1, TOKENS), 3 if mask > picture else 5))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_examples_are_for_seggpt_only(answerers):
    several = prompt(7, examples=2)
    two = answerers["seggpt"].draw_masks([several])[0]
    one = answerers["seggpt"].draw_masks(
        [InContextPrompt(several.examples[:1], several.picture, MASKS)]
    )
    assert (two != one[0]).any()
    with pytest.raises(UserError, match=r"has 2 examples, and the canvas room for 1: give fewer"):
        answerers["mae_vqgan"].draw_masks([several])
    with pytest.raises(UserError, match=r"asks for captioning: this network draws masks only"):
        answerers["seggpt"].draw_masks([prompt(0, question=Question.CAPTIONING)])


def test_folders_are_told_apart_by_their_model_type(answerers, vqgan, tmp_path):
    for name, answerer in answerers.items():
        answerer.model.save_pretrained(tmp_path / name)
        found = read_answerer(tmp_path / name, vqgan)
        assert type(found) is type(answerer)
        assert found.model.config == answerer.model.config
        assert not found.names_classes
    vqgan.save_pretrained(tmp_path / "vqgan")
    with pytest.raises(UserError, match=r"model_type='vqgan' and no in_context.json lies beside"):
        read_answerer(tmp_path / "vqgan", vqgan)
    other = MaeVqgan(MAE, rngs=nnx.Rngs(0))
    other.tokenizer_fingerprint = "0123456789abcdef"
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"trained with the tokenizer 0123456789abcdef, this one"):
        read_answerer(tmp_path / "other", vqgan)


def test_what_is_painted_is_a_picture(vqgan):
    """A SegGPT that paints what it is shown gives the mask of its prompt."""

    def echo(pictures, masks, hidden, *, semantic):
        assert semantic
        assert hidden.tolist() == [[False] * 4 + [True] * 4]
        assert pictures.shape == masks.shape == (1, 1, 32, 16, 3)
        upper = masks[:, :, :16]
        return jnp.concatenate([upper, upper], axis=2)

    echo.config = SEGGPT
    one = prompt(9)
    found = canvas_answers._painted.__wrapped__(echo, vqgan, canvas_answers._codes(one)[None])
    expected = decode_codes(vqgan, one.examples[0].answer[None])
    np.testing.assert_array_equal(to_uint8(np.asarray(found)), to_uint8(expected))
