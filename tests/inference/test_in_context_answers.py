"""Answers from examples: equal to plain recomputation, alone or together, restricted to what is due, and to files."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tiny_models import CODES as VQGAN_CODES
from tiny_pairs import FORMAT, LENGTH, VOCABULARY, Letters, decoder, pair

from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import Parsed, Words, WordsFormat
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context import InContextEngine, InContextPrompt, drawn_tokens
from lvm_jax.inference.in_context_folder import (
    FolderRequest,
    answer_folder,
    read_folder,
    read_words,
    written,
)
from lvm_jax.inference.in_context_pictures import Example, InContextGenerator
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models import Decoder
from lvm_jax.vocabulary import Vocabulary

MASKS, SAID = Question.SEGMENTATION, Question.CAPTIONING
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model():
    return Decoder(dataclasses.replace(decoder(), initializer_range=0.5), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def engine(model):
    return InContextEngine(model, FORMAT)


def prompt(seed, question=MASKS, examples=2, category=""):
    pairs = [pair(10 * seed + i, question) for i in range(examples + 1)]
    return InContextPrompt(tuple(pairs[:-1]), pairs[-1].picture, question, category)


def recomputed(model, asked, begun=()):
    """Greedy ids from whole forward passes."""
    return [*begun, *(id for id, _ in recomputed_with_nats(model, asked, begun))]


def recomputed_with_nats(model, asked, begun=()):
    """Each greedy id with its log likelihood."""
    row = FORMAT.prompt(asked.examples, dataclasses.replace(asked.query, category=""))
    ids = [*row.tokens.tolist(), *begun]
    attributes = np.full(LENGTH, FORMAT.answer_attribute(asked.question), np.int32)
    attributes[: len(row.attributes)] = row.attributes
    allowed = FORMAT.drawable(asked.question)
    forward = nnx.jit(lambda model, tokens: model(tokens, attributes_BT=attributes[None]))
    drawn = []
    while len(begun) + len(drawn) < FORMAT.tokens_per_image and VOCABULARY.pad not in ids[-1:]:
        tokens = np.zeros((1, LENGTH), np.int32)
        tokens[0, : len(ids)] = ids
        scores = np.where(allowed, forward(model, tokens)[0, len(ids) - 1], -np.inf)
        ids.append(int(scores.argmax()))
        drawn.append((ids[-1], float(jax.nn.log_softmax(scores)[ids[-1]])))
    return drawn


def test_a_mask_is_what_whole_passes_give_and_does_not_depend_on_its_company(model, engine):
    """Prompts of different lengths, and queries that share their examples."""
    some = [prompt(1), prompt(2, examples=0), prompt(3, examples=1)]
    first = FORMAT.codes(np.array(recomputed(model, some[0])))[0]
    together = engine.masks(some, sampling=GREEDY)
    assert together.shape == (3, 1, FORMAT.tokens_per_image)
    np.testing.assert_array_equal(together[0, 0], first)
    shared = [dataclasses.replace(some[0], picture=each.picture) for each in some]
    alike = engine.masks(shared, n_candidates=2, sampling=GREEDY)
    apart = [dataclasses.replace(each, examples=(*each.examples,)) for each in shared]
    np.testing.assert_array_equal(alike, engine.masks(apart, n_candidates=2, sampling=GREEDY))
    np.testing.assert_array_equal(alike[0, 1], first)
    assert (alike[0] != alike[1]).any()


def test_attributes_reach_the_experts(model, engine):
    """With experts chosen for another question, the same prompt is answered otherwise."""
    changed = dataclasses.replace(FORMAT)
    other = InContextEngine(model, changed)
    object.__setattr__(changed, "_attribute", lambda *_: 1)
    asked = [prompt(seed) for seed in range(3)]
    assert (other.masks(asked, sampling=GREEDY) != engine.masks(asked, sampling=GREEDY)).any()


def test_words_end_and_go_on_from_a_category(model, engine):
    asked = prompt(4, SAID, 1)
    drawn, nats = zip(*recomputed_with_nats(model, asked))
    ((found,),) = engine.words([asked], sampling=GREEDY)
    assert said(found) == FORMAT.words.parse(drawn)
    assert found.log_likelihood == pytest.approx(np.mean(nats), rel=1e-4)
    named = dataclasses.replace(asked, category="ox")
    begun = FORMAT.words.category("ox")
    ((found,),) = engine.words([named], sampling=GREEDY)
    assert said(found) == FORMAT.words.parse(recomputed(model, named, begun))
    assert found.words.category == "ox"


def test_the_first_pad_is_drawn_and_the_others_fill():
    ids_RBN = np.array([[[5, 6, 9, 9], [9, 9, 9, 9]], [[1, 2, 3, 4], [1, 2, 3, 9]]])
    assert drawn_tokens(ids_RBN, 9).tolist() == [[3, 1], [4, 4]]


def said(found):
    return Parsed(found.words, found.broken)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], r"0 prompts and 1 candidates"),
        ([prompt(1, SAID)], r"a prompt for segmentation has pairs for captioning"),
        ([prompt(1, examples=3)], r"has 3 examples: the decoder's 57 positions have room for 2"),
        ([prompt(1, category="ox")], r"category 'ox' has no room"),
    ],
)
def test_bad_prompts_are_refused(engine, prompts, message):
    with pytest.raises(UserError, match=message):
        engine.masks(prompts)


@pytest.mark.parametrize("name", ["abcdef", "abcdefghi"])
def test_a_category_that_leaves_no_room_for_words_is_refused(engine, name):
    asked = [prompt(1, SAID, category="ox"), prompt(2, SAID, category=name)]
    with pytest.raises(UserError, match=rf"category '{name}' has \d+ tokens .* have room for 8"):
        engine.words(asked)


def test_another_vocabulary_is_refused(model):
    form = SequenceFormat(WordsFormat(Vocabulary.unified(text=128, image=9), Letters()), 8)
    with pytest.raises(UserError, match=r"the decoder has 160 ids and the format 146"):
        InContextEngine(model, form)


# --- pictures and folders ---


@pytest.fixture(scope="module")
def generator(vqgan):
    words = WordsFormat(Vocabulary.unified(128, VQGAN_CODES, 11), Letters())
    form = SequenceFormat(words, vqgan.tokens_per_image)
    config = decoder(
        vocab_size=words.vocabulary.size,
        bos_token_id=words.vocabulary.bos,
        eos_token_id=words.vocabulary.eos,
        pad_token_id=words.vocabulary.pad,
    )
    return InContextGenerator(Decoder(config, rngs=nnx.Rngs(0)), vqgan, form)


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("examples/a", "examples/a.mask", "queries/x", "queries/y")):
        save(tmp_path / "asked" / f"{name}.png", number)
    return tmp_path / "asked"


def test_a_folder_is_answered_once(folder, generator, tmp_path):
    asked, output = read_folder(folder), tmp_path / "out"
    assert asked.question is MASKS
    request = FolderRequest(n_candidates=2)
    found = answer_folder(generator, asked, request, output, {"model": "m"})
    assert set(found["answers"]) == {"x.png", "y.png"}
    mask = np.asarray(Image.open(output / "x" / "mask_1.png"))
    assert mask.shape == (16, 16, 3)
    assert set(np.unique(mask)) <= {0, 255}
    assert json.loads((output / "answers.json").read_text()) == found
    # Nothing is left to do, so that nothing is asked.
    assert answer_folder(None, asked, request, output, {"model": "m"}) == found


def test_fewer_candidates_leave_none_of_before(folder, generator, tmp_path):
    asked, output = read_folder(folder), tmp_path / "out"
    answer_folder(generator, asked, FolderRequest(n_candidates=2), output, {"model": "m"})
    answer_folder(generator, asked, FolderRequest(), output, {"model": "m"})
    assert {path.name for path in (output / "x").iterdir()} == {"mask_0.png", "decoded_0.png"}


@pytest.mark.parametrize(
    ("changed", "repeated"),
    [("examples/a", "xy"), ("examples/a.mask", "xy"), ("queries/y", "y")],
)
def test_a_changed_picture_is_asked_again(folder, generator, tmp_path, changed, repeated):
    def answered():
        answer_folder(generator, read_folder(folder), FolderRequest(), tmp_path / "out", {})
        return {n: (tmp_path / "out" / n / "mask_0.png").stat().st_mtime_ns for n in "xy"}

    before = answered()
    save(folder / f"{changed}.png", 7)
    after = answered()
    assert {name for name in "xy" if after[name] != before[name]} == set(repeated)


def test_changed_words_are_asked_again(folder, generator, tmp_path):
    (folder / "examples/a.mask.png").unlink()
    said = folder / "examples/a.txt"
    for text, more in (("a", 1), ("a", 0), ("b", 1)):
        said.write_text(text)
        drawn = Counted(generator)
        answer_folder(drawn, read_folder(folder), FolderRequest(), tmp_path / "out", {})
        assert drawn.calls == more


class Counted:
    def __init__(self, generator):
        self._generator, self.calls = generator, 0

    def describe(self, *asked, **how):
        self.calls += 1
        return self._generator.describe(*asked, **how)


def test_words_are_written_as_they_are_read(tmp_path):
    words = Words("a dog", "dog", ((0.1, 0.2, 0.3, 0.4),))
    for mark in ("", "\ufeff"):  # editors of Windows begin UTF-8 with it
        (tmp_path / "a.txt").write_text(mark + written(words))
        assert read_words(tmp_path / "a.txt") == words


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename("queries", "other"), r"queries has 0 pictures"),
        (rename("examples/a.mask.png", "examples/b.mask.png"), r"b.mask.png has no picture b.png"),
        (lambda f: (f / "examples/a.mask.png").unlink(), r"a.png has neither a mask nor a text"),
        (lambda f: (f / "examples/a.txt").write_text("x"), r"a.png has both a mask and a text"),
        (
            lambda f: (save(f / "examples/b.png", 1), (f / "examples/b.txt").write_text("x")),
            r"2 examples of 2 questions",
        ),
        (rename("examples", "none"), r"has 0 examples of 0 questions: .*--question=segmentation"),
        (rename("queries/y.png", "queries/x.jpg"), r"x.jpg and .*x.png would both be answered in x"),
        (lambda f: save(f / "examples/a.jpg", 1), r"a.jpg and .*a.png are both called a: rename one"),
        (lambda f: save(f / "examples/a.mask.bmp", 1), r"a.mask.png are both called a.mask: rename"),
    ],
)  # fmt: skip
def test_bad_folders_are_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_folder(folder)


def test_a_bad_box_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("box: 1 2 3")
    with pytest.raises(UserError, match=r"a.txt has the box '1 2 3': write LEFT TOP RIGHT BOTTOM"):
        read_words(tmp_path / "a.txt")


def test_another_tokenizer_is_refused(generator):
    form = dataclasses.replace(generator.engine.form, tokens_per_image=9)
    model = Decoder(generator.engine.config, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"4 of them a picture, the decoder's rows 24 and 9"):
        InContextGenerator(model, generator.vqgan, form)
    model.tokenizer_fingerprint = "0" * 16
    with pytest.raises(UserError, match=r"was trained with the tokenizer 0{16}"):
        InContextGenerator(model, generator.vqgan, generator.engine.form)


def test_a_mask_of_another_size_is_refused(generator):
    picture, mask = np.zeros((16, 12, 3), np.uint8), np.zeros((16, 13), bool)
    with pytest.raises(UserError, match=r"a mask has 13 x 16 pixels and its picture 12 x 16"):
        generator.segment([Example(picture, mask)], [picture])


def test_unreadable_pictures_are_named(generator, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    picture = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=r"a.png"):
        generator.segment([Example(picture, tmp_path / "a.png")], [picture])
