"""Pictures in, words out: greedy answers are those of full passes, alone or in a batch, and mistakes are named."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.train_text_tokenizer import character_table, small_settings
from lvm_jax.data.image_text.conversation import BadConversation
from lvm_jax.data.image_text.templates import render
from lvm_jax.data.text_tokenizer import TextTokenizer, UnknownCharacters, save_folder
from lvm_jax.errors import UserError
from lvm_jax.inference import generate_text
from lvm_jax.inference.sampling import Sampling
from lvm_jax.inference.text_generator import Asked, TextGenerator, Writing, views_of
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.presets.language import opt
from lvm_jax.models.towers.clip_config import ClipVisionConfig

HEIGHT, WIDTH, N, CONTEXT = 4, 8, 3, 64
LETTERS = "abcdefgh ?\n"


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    image_ids: tuple[int, int, int] = (2, 3, 4)
    image_tokens: int = N

    @property
    def branches(self):
        tower = types.SimpleNamespace(image_size=(HEIGHT, WIDTH))
        return {"images": types.SimpleNamespace(tower=tower)}


class FakeReader(nnx.Module):
    """Stands in for towers: each of N bands of a picture through one matrix."""

    def __init__(self, vocab_size: int):
        self.config, self.tokenizer_fingerprint = FakeConfig(), ""
        config = opt(
            "debug", vocab_size=vocab_size, hidden_size=32, num_attention_heads=2, num_hidden_layers=2,
            bos_token_id=1, eos_token_id=1, pad_token_id=0, max_position_embeddings=CONTEXT, initializer_range=0.5,
        )  # fmt: skip
        self.decoder = Decoder(config, rngs=nnx.Rngs(3))
        shape = HEIGHT * WIDTH * 3 // N, 32
        self.matrix = nnx.Param(0.3 * jax.random.normal(jax.random.key(1), shape))

    def embed(self, tokens_BT, images, image_places_BIN):
        B, I = images["images"].shape[:2]  # noqa: E741
        pixels = images["images"].astype(jnp.float32).reshape(B, I, N, -1) / 255
        seen = (pixels @ self.matrix[...]).reshape(B, I * N, -1)
        x_BTD = self.decoder.embed(tokens_BT)
        rows = jnp.arange(B)[:, None]
        return x_BTD.at[rows, image_places_BIN.reshape(B, -1)].set(seen, mode="drop")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    settings = dataclasses.replace(small_settings("vicuna_v1"), bos="</s>")
    save_folder(folder, character_table([LETTERS], settings), settings)
    return TextTokenizer(folder)


@pytest.fixture(scope="module")
def model(tokenizer) -> FakeReader:
    return FakeReader(tokenizer.size + 3)


@pytest.fixture(scope="module")
def generator(model, tokenizer) -> TextGenerator:
    return TextGenerator(model, tokenizer)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@jax.jit
def logits_of(model, tokens_BT, pictures, places):
    x_BTD = model.embed(tokens_BT, {"images": pictures}, places)
    return model.decoder.logits(model.decoder.transform(x_BTD))


def plain_greedy(model, tokenizer, asked: Asked, count: int, dull: tuple[int, ...]) -> list[int]:
    """The likeliest word after all before it, from a full pass each time."""
    row = render(asked.conversation, tokenizer, N, CONTEXT)
    made: list[int] = []
    pictures = np.zeros((1, 2, HEIGHT, WIDTH, 3), np.uint8)
    places = np.full((1, 2, N), CONTEXT, np.int32)
    for i, image in enumerate(asked.images):
        pictures[0, i], places[0, i] = image, row.image_places[i]
    while len(made) < count:
        tokens = np.zeros((1, CONTEXT), np.int32)
        known = [*row.tokens.tolist(), *made]
        tokens[0, : len(known)] = known
        logits = np.array(logits_of(model, tokens, pictures, places)[0, len(known) - 1])
        logits[list(dull)] = -np.inf
        made.append(int(logits.argmax()))
        if made[-1] == tokenizer.ids["eos"]:
            return made[:-1]
    return made


def questions() -> list[Asked]:
    return [
        Asked.of([picture(0)], "a?"),
        Asked.of([picture(1)]),
        Asked.of([picture(2), picture(3)], "abc"),
        Asked.of([picture(4)], "hgf <image>?"),
        Asked.of([], "gab?"),
        *(Asked.of([picture(seed)], "b") for seed in (5, 6, 7)),
    ]


def test_greedy_answers_are_those_of_full_passes(model, tokenizer, generator):
    # Only letters and the end: no other special token, no <unk>, no row of the table without a token.
    dull = (0, 2, 3, 4, 5, *range(tokenizer.size, tokenizer.size + 3))
    writing = Writing(max_new=10)
    together = generator(questions(), writing)
    for asked, written in zip(questions(), together):
        assert list(written.ids) == plain_greedy(model, tokenizer, asked, 10, dull)
        assert written.ended == (len(written.ids) < 10)
        (alone,) = generator([asked], writing)
        assert alone == written
    assert len({written.text for written in together}) > 2


def test_only_words_and_the_end_can_be_drawn(tokenizer, generator):
    words = {
        *tokenizer.encode("".join(sorted(set(LETTERS + "USER: ASSISTANT")))),
        tokenizer.ids["eos"],
    }
    assert set(np.flatnonzero(generator._allowed()).tolist()) == words
    assert tokenizer.unknown is not None


def test_the_picture_counts(model, tokenizer):
    options = {"prompt": "a?", "max_new": 8}
    first, again, other = (
        generate_text(model, tokenizer, picture(seed), **options) for seed in (0, 0, 9)
    )
    assert first == again != other
    # A picture of any size is seen as the tower sees it.
    large = np.repeat(np.repeat(picture(0), 3, axis=0), 3, axis=1)
    assert isinstance(generate_text(model, tokenizer, [large], **options), str)


def test_answers_fill_the_context_unless_told(generator):
    (written,) = generator([Asked.of([picture(0)], "a")], Writing(no_repeat=1))
    assert len(set(written.ids)) == len(written.ids)  # every letter once at most, so it had to end
    assert written.ended
    row = generator._row(Asked.of([picture(0)], "a"))
    (full,) = generator([Asked.of([picture(0)], "a")], Writing())
    assert full.ended or len(full.ids) == CONTEXT - len(row.tokens)


@pytest.mark.parametrize("beams", [1, 2])
def test_the_longest_question_does_not_cut_the_answers_to_others(generator, beams):
    asked, writing = questions()[:4], Writing(beams=beams)
    together = generator(asked, writing)
    assert together == [generator([one], writing)[0] for one in asked]
    lengths = {len(written.ids) for written in together if not written.ended}
    assert len(lengths) > 2  # each filled the context behind its own question


def test_beams_and_sampling(generator):
    asked = questions()[:2]
    greedy, one = generator(asked, Writing(6)), generator(asked, Writing(6, beams=1))
    assert greedy == one
    assert [w.text for w in generator(asked, Writing(6, beams=3))]
    sampled = Writing(6, Sampling(1.0), seed=5)
    assert generator(asked, sampled) == generator(asked, sampled)


def test_views_follow_the_towers():
    old = types.SimpleNamespace(tower=ClipVisionConfig(image_size=(28, 28)))
    config = types.SimpleNamespace(branches={"images_clip": old, **FakeConfig().branches})
    found = {name: (v.height, v.width, v.fit) for name, v in views_of(config).items()}
    assert found == {"images_clip": (28, 28, "crop"), "images": (HEIGHT, WIDTH, "squash")}


def test_mistakes_are_named(model, tokenizer, generator):
    with pytest.raises(UserError, match="0 questions"):
        generator([])
    with pytest.raises(BadConversation, match="1 pictures for 2 placeholders"):
        Asked.of([picture(0)], "<image><image>")
    with pytest.raises(UnknownCharacters, match="no token for 'z'"):
        generator([Asked.of([picture(0)], "z")])
    with pytest.raises(BadConversation, match="context"):
        generator.room(Asked.of([picture(0)], "a" * CONTEXT))
    room = generator.room(Asked.of([picture(0)], "a"))
    assert (
        room == generator.room(Asked.of([picture(0)])) - 2
    )  # the letter, and a new line before it
    with pytest.raises(
        UserError, match=r"max_new is 60 and the longest question has \d+ tokens: .* at most"
    ):
        generator([Asked.of([picture(0)], "a")], Writing(60))
    with pytest.raises(UserError, match="beam search draws nothing"):
        Writing(beams=2, sampling=Sampling(1.0))
    with pytest.raises(UserError, match="max_new is -1"):
        Writing(-1)
    other = FakeReader(tokenizer.size)
    other.tokenizer_fingerprint = "0123456789abcdef"
    with pytest.raises(UserError, match="trained with the text tokenizer 0123456789abcdef"):
        TextGenerator(other, tokenizer)
    other.tokenizer_fingerprint, other.config = "", FakeConfig(image_ids=(2, 3, 6))
    with pytest.raises(UserError, match=r"image_end '</img>' of .* has id 4, the model's is 6"):
        TextGenerator(other, tokenizer)
    with pytest.raises(UserError, match="embedding has 5 rows"):
        TextGenerator(FakeReader(5), tokenizer)
