"""Pools and rows: what is drawn for a row, and batches that depend on seed and step alone."""

import contextlib
import dataclasses

import numpy as np
import pytest
from pool_fakes import CODES, FORM, PER_IMAGE, VOCABULARY, Letters, record, records, write_pool

from lvm_jax.data.in_context.episodes import EpisodeDrawer, RowStyle, _chosen
from lvm_jax.data.in_context.loader import QUESTIONS, InContextEvalLoader, InContextLoader
from lvm_jax.data.in_context.pool import Pool, PoolStore
from lvm_jax.data.in_context.pool_record import (
    POOL,
    decode_pool_record,
    encode_pool_record,
)
from lvm_jax.data.in_context.question_order import QuestionOrder, shares_of
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_index import NOTHING
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

SEGMENTATION, CAPTIONING = QUESTIONS
STYLE = RowStyle(shots=(1, 1, 1, 1), category={"none": 1, "examples": 1, "all": 1}, boxes="text")
IMAGE = VOCABULARY["image"].start


def loader(folder, **changes):
    arguments = {
        "shards": folder,
        "split": "train",
        "form": FORM,
        "style": STYLE,
        "global_batch": 4,
        "seed": 7,
        "threads": 0,
        **changes,
    }
    return InContextLoader(**arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 records of three classes that answer both questions, and 15 of masks only."""
    masks = [
        record(i, ("disc", "star", "ring")[i % 3], caption="", boxes=()) for i in range(30, 45)
    ]
    return write_pool(tmp_path_factory.mktemp("pool"), records(30) + masks)


def read(row):
    """(number of the record, answer, category before it) of each pair of a row."""
    found = []
    for at, (picture, answer) in enumerate(FORM.pairs(row)):
        begin = at * FORM.pair_length
        named = FORM.words.parse(row[begin : begin + FORM.category_room].tolist()).words.category
        found.append((int(picture[0]) - IMAGE, answer, named))
    return found


def test_a_record_comes_back():
    for one in (
        record(3),
        record(3, mask=None, unseen=True),
        record(3, caption="", boxed=None, boxes=()),
    ):
        content, facts = encode_pool_record(one)
        again = decode_pool_record(content)
        for field in dataclasses.fields(one):
            mine, theirs = vars(one)[field.name], vars(again)[field.name]
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert POOL.describe(content) == facts
        assert encode_pool_record(again)[0] == content
    assert facts.origin == ("shapes", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros(9, int)}, "its mask has 9 codes, its picture 24"),
        ({"boxed": np.zeros(9, int)}, "its boxed has 9 codes"),
        ({"boxes": ((0.0, 0.0, 1.2, 1.0),)}, "box .* lies outside its picture"),
        ({"boxes": ((0.5, 0.0, 0.2, 1.0),)}, "left to right"),
        ({"boxes": ((float("nan"), 0.0, 0.2, 1.0),)}, "lies outside"),
        ({"mask": None, "caption": ""}, "neither a mask nor a caption"),
        ({"class_name": ""}, "names no class"),
        ({"picture": np.full(PER_IMAGE, 1 << 16)}, "codes are 65536..65536"),
    ],
)
def test_what_cannot_be_asked_about_is_not_written(change, message):
    with pytest.raises(UserError, match=message):
        encode_pool_record(record(3, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"picture": b""}, "has no picture"),
        ({"picture": b"abc"}, "codes have two each"),
        ({"mask": b"abcd"}, "its mask has 2 codes"),
        ({"boxes": b"abcd"}, "boxes have 16 each"),
        ({"caption": b"\xff"}, "caption is not UTF-8"),
        ({"class": [b"a", b"b"]}, "'class' is not one value"),
        ({"area": b"a"}, "'area' is not one value of type int"),
    ],
)
def test_a_wrong_record_is_told(change, message):
    features = example.decode(encode_pool_record(record(3))[0])
    content = example.encode({**features, **change})
    with pytest.raises(CorruptRecord, match=message):
        decode_pool_record(content)
    assert POOL.describe(content) == NOTHING


def test_any_damage_is_a_corrupt_record():
    content, rng = encode_pool_record(record(3))[0], np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(len(damaged), size=rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        with contextlib.suppress(CorruptRecord):
            decode_pool_record(bytes(damaged[: rng.integers(1, len(damaged) + 1)]))


def test_rows_are_what_was_drawn(folder):
    """Over many rows: pairs of one class, other pictures, their own answers, and the modes that were asked for."""
    shots, modes, asked = set(), set(), []
    for step in range(60):
        batch = loader_of(folder).batch_at(step)
        question = QUESTIONS[int(batch["question"])]
        asked.append(question)
        assert len({len(read(row)) for row in batch["tokens"]}) == 1, "rows are not alike"
        for row, attributes in zip(batch["tokens"], batch["attributes"], strict=True):
            pairs = read(row)
            numbers = [number for number, _, _ in pairs]
            assert len(set(numbers)) == len(numbers), "a picture is in its row twice"
            assert len({number % 3 for number in numbers}) == 1, "a row mixes classes"
            assert all(value & question.value for value in attributes if value)
            shots.add(len(pairs) - 1)
            named = [category for _, _, category in pairs]
            name = ("disc", "star", "ring")[numbers[0] % 3]
            assert set(named) <= {"", name}
            if len(pairs) > 1:
                modes.add((bool(named[0]), bool(named[-1])))
            for number, answer, _ in pairs:
                if question is SEGMENTATION:
                    assert (answer == number + 1 + IMAGE).all()
                else:
                    words = FORM.words.parse(answer.tolist()).words
                    assert words.caption == f"no {number}"
                    assert words.category == name
                    assert words.boxes == ((0.0, 0.2, 0.5, 1.0),)  # a quarter is bin 2 of 10
    assert shots == {0, 1, 2, 3}
    assert modes == {(False, False), (True, False), (True, True)}
    assert set(asked) == {SEGMENTATION, CAPTIONING}


_LOADERS = {}


def loader_of(folder):
    return _LOADERS.setdefault(folder, loader(folder))


def test_batches_have_the_arrays_of_a_task(folder):
    batch = loader(folder).batch_at(0)
    length = 4 * FORM.pair_length
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        **{
            name: ((4, length), "int32")
            for name in ("tokens", "segment_ids", "positions", "attributes")
        },
        "loss_weights": ((4, length), "float32"),
        "question": ((), "int32"),
    }


def test_each_record_is_the_query_once_a_round(folder):
    store = PoolStore(folder, "train")
    pool = Pool.of(store, SEGMENTATION, examples=3)
    drawer = EpisodeDrawer(store, pool, RowStyle(), seed=3)
    rounds = [
        [drawn.query for drawn in drawer.draw(np.arange(45) + 45 * number)] for number in range(3)
    ]
    assert all(sorted(found) == list(range(45)) for found in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_examples_of_a_small_class_never_show_the_query(tmp_path):
    """Many records of few pictures, so that most draws are of a picture that is taken."""
    crowded = [record(i, "disc", shows=f"scene{i % 4}") for i in range(40)]
    store = PoolStore(write_pool(tmp_path, crowded), "train")
    drawer = EpisodeDrawer(store, Pool.of(store, SEGMENTATION, examples=3), RowStyle(), seed=3)
    order = [int(one.picture[0]) for i in range(40) if (one := store.record(i))]
    for drawn in drawer.draw(np.arange(200)):
        shown = [order[i] % 4 for i in (*drawn.examples, drawn.query)]
        assert sorted(shown) == [0, 1, 2, 3]


def test_a_pool_that_was_made_for_fewer_examples_is_refused(tmp_path):
    store = PoolStore(write_pool(tmp_path, records(9)), "train")
    with pytest.raises(UserError, match="has 3 pictures, the style shows 3 examples"):
        EpisodeDrawer(store, Pool.of(store, SEGMENTATION, examples=2), RowStyle(), seed=0)


def test_what_has_no_chance_is_not_drawn():
    """A row with more examples than the style's most would not fit, and become padding in silence."""
    last = np.array([0.0, np.nextafter(1.0, 0.0)])
    for count in range(1, 200):
        chances = np.array([0.0] + [0.1] * count + [0.0])
        assert _chosen(chances, last).tolist() == [1, count]


def test_draws_are_even(folder):
    store = PoolStore(folder, "train")
    style = RowStyle(shots=(1, 0, 3), category={"none": 1, "all": 1})
    drawer = EpisodeDrawer(store, Pool.of(store, SEGMENTATION, examples=2), style, seed=1)
    drawn = drawer.draw(np.arange(4000))
    assert np.mean([len(one.examples) == 2 for one in drawn]) == pytest.approx(0.75, abs=0.03)
    assert np.mean([one.category == "all" for one in drawn]) == pytest.approx(0.5, abs=0.03)
    seen = np.bincount([i for one in drawn for i in one.examples], minlength=45)
    assert seen.min() > 0.7 * seen.mean()


@pytest.mark.parametrize("one_question", [True, False])
def test_hosts_read_slices_of_one_batch(folder, one_question):
    whole = loader(folder, one_question=one_question)
    parts = [
        loader(folder, process_index=i, process_count=2, one_question=one_question)
        for i in range(2)
    ]
    for step in (0, 1, 17):
        batch, halves = whole.batch_at(step), [part.batch_at(step) for part in parts]
        assert ("question" in batch) == one_question
        for name, array in batch.items():
            if name == "question":
                assert all(half[name] == array for half in halves)
            else:
                np.testing.assert_array_equal(
                    np.concatenate([half[name] for half in halves]), array
                )


def test_a_loader_resumes(folder):
    with loader(folder, threads=2) as straight:
        batches = [next(straight) for _ in range(7)]
    with loader(folder) as resumed:
        resumed.set_state(4)
        for expected in batches[4:]:
            batch = next(resumed)
            for name, array in expected.items():
                np.testing.assert_array_equal(batch[name], array)
        assert resumed.get_state() == 7
    assert any(
        (loader(folder, seed=8).batch_at(s)["tokens"] != batches[s]["tokens"]).any()
        for s in range(3)
    )


@pytest.mark.parametrize("seed", [-1, 1 << 63, 1 << 64])
def test_a_seed_that_no_key_takes_is_refused(folder, seed):
    with pytest.raises(UserError, match=f"seed is {seed}: it must be from 0 to"):
        loader(folder, seed=seed)


def test_mixed_batches_ask_both_questions(folder):
    batch = loader(folder, one_question=False, global_batch=32).batch_at(0)
    asked = batch["attributes"][:, 0] & 3
    assert set(asked.tolist()) == {1, 2}


def test_a_style_changes_at_its_step(folder):
    """Classes before all pairs, then before examples, then none; and the queries go on as they would."""
    shots = (0, 1, 0, 0)
    later = [(mode, RowStyle(shots=shots, category={mode: 1})) for mode in ("examples", "none")]
    changing = loader(
        folder,
        style=RowStyle(shots=(1, 0, 0, 1), category={"all": 1}),
        later=[(3, later[0][1]), (5, later[1][1])],
    )
    named = []
    for step in range(7):
        batch = changing.batch_at(step)
        assert batch["tokens"].shape[1] == 4 * FORM.pair_length
        pairs = [read(row) for row in batch["tokens"]]
        named.append({(bool(p[0][2]), bool(p[-1][2])) for p in pairs})
        queries = [p[-1][0] for p in pairs]
        assert queries == [read(row)[-1][0] for row in loader_of(folder).batch_at(step)["tokens"]]
    assert named == [{(True, True)}] * 3 + [{(True, False)}] * 2 + [{(False, False)}] * 2
    with pytest.raises(UserError, match=r"styles change at steps \[5, 3\]"):
        loader(folder, later=[(5, STYLE), (3, STYLE)])


def test_questions_come_by_the_root_of_their_records(folder):
    found = loader(folder)
    root = np.sqrt([45, 30])
    assert found.records == (45, 30)
    assert found.shares == pytest.approx((root / root.sum()).tolist(), abs=2e-4)
    asked = [int(found.batch_at(step)["question"]) for step in range(40)]
    assert 0.3 < np.mean(asked) < 0.6
    only = loader(folder, questions=[CAPTIONING])
    assert {int(only.batch_at(step)["question"]) for step in range(5)} == {1}


def test_the_order_of_questions_counts_itself():
    order = QuestionOrder(np.array([0.7, 0.3]), seed=5)
    questions, nths = order.at(range(0, 20_100))
    for number in range(2):
        np.testing.assert_array_equal(
            nths[questions == number], np.arange((questions == number).sum())
        )
    assert np.mean(questions == 0) == pytest.approx(0.7, abs=1e-3)
    for start in (0, 99, 9_990, 12_345):
        parts = order.at(range(start, start + 30))
        np.testing.assert_array_equal(parts[0], questions[start : start + 30])
        np.testing.assert_array_equal(parts[1], nths[start : start + 30])


@pytest.mark.parametrize(
    "given", [{"segmentation": 1}, {"segmentation": 1, "captioning": 0}, {"masks": 1}]
)
def test_wrong_shares_are_refused(given):
    with pytest.raises(UserError, match="give each of segmentation, captioning a number above 0"):
        shares_of(QUESTIONS, (1, 1), given)
    with pytest.raises(UserError, match="ask at least one"):
        shares_of((), (), None)


def test_boxes_are_said_or_drawn(folder):
    def pictures(boxes):
        style = RowStyle(boxes=boxes)
        found = loader(folder, style=style, questions=[CAPTIONING]).batch_at(0)["tokens"]
        return [FORM.pairs(row) for row in found]

    plain, drawn, said = (pictures(mode) for mode in ("none", "image", "text"))
    for a, b, c in zip(plain, drawn, said, strict=True):
        for (p, words), (q, same), (r, more) in zip(a, b, c, strict=True):
            assert (q == p + 2).all()
            assert (r == p).all()
            assert (words == same).all()
            assert len(FORM.words.parse(words.tolist()).words.boxes) == 0
            assert len(FORM.words.parse(more.tolist()).words.boxes) == 1


def test_evaluation_sees_each_query_once(folder):
    def evaluated(**changes):
        return InContextEvalLoader(folder, "train", FORM, RowStyle(), CAPTIONING, 8, **changes)

    batches = list(evaluated())
    assert len(batches) == len(evaluated()) == 4
    rows = np.concatenate([batch["tokens"] for batch in batches])
    used = np.concatenate([batch["segment_ids"] for batch in batches]).any(1)
    assert used.sum() == 30
    queries = [read(row)[-1][0] for row in rows[used]]
    assert sorted(queries) == list(range(30))
    episodes = list(evaluated().episodes())
    assert [one.query.picture[0] for one in episodes] == queries
    assert all(len(one.examples) == 3 for one in episodes)
    halves = [list(evaluated(process_index=i, process_count=2)) for i in range(2)]
    np.testing.assert_array_equal(
        np.concatenate([half[1]["tokens"] for half in halves]), batches[1]["tokens"]
    )
    assert len(evaluated(limit=9)) == 2
    with pytest.raises(UserError, match="-1 queries are asked for: at least 1, or 0 for all"):
        evaluated(limit=-1)


def test_a_query_has_a_rival_in_its_picture(tmp_path):
    """Scenes of two things: the other one is the rival, and its examples show other scenes."""
    written = [
        record(i, ("disc", "star", "ring")[(i + i // 8) % 3], shows=f"scene{i // 2}")
        for i in range(24)
    ]
    lone = record(24, "disc", shows="scene99")
    folder = write_pool(tmp_path, [*written, lone])
    style = RowStyle(shots=(0, 0, 1), boxes="text")
    found = list(
        InContextEvalLoader(folder, "train", FORM, style, Question.SEGMENTATION, 4).episodes()
    )
    assert len(found) == 25
    for episode in found:
        rival = episode.rival
        if episode.query.key == lone.key:
            assert rival is None
            continue
        assert rival is not None
        assert rival.query.shows == episode.query.shows
        assert rival.query.class_name != episode.query.class_name
        assert {one.class_name for one in rival.examples} == {rival.query.class_name}
        shown = [one.shows for one in (*rival.examples, rival.query)]
        assert len(set(shown)) == 3


def test_classes_that_are_kept_from_training(tmp_path):
    seen, unseen = records(12, ("disc", "star")), records(12, ("ring", "moon"), unseen=True)
    written = [*seen, *(dataclasses.replace(r, key=f"u{r.key}") for r in unseen)]
    store = PoolStore(write_pool(tmp_path, written), "train")
    names = {
        side: {
            store.class_name(int(found))
            for found in Pool.of(store, SEGMENTATION, examples=1, side=side).class_hashes
        }
        for side in ("seen", "unseen", "all")
    }
    assert names == {
        "seen": {"disc", "star"},
        "unseen": {"ring", "moon"},
        "all": {"disc", "star", "ring", "moon"},
    }


def test_a_class_with_too_few_pictures(tmp_path):
    written = [*records(20, ("disc", "star")), record(30, "ring"), record(31, "ring")]
    folder = write_pool(tmp_path, written)
    with pytest.raises(UserError, match=r"1 of 3 classes .* such as 'ring' with 2: .*fewest=4"):
        loader(folder)
    assert loader(folder, fewest=4).records == (20, 20)
    with pytest.raises(UserError, match="no record for segmentation of classes that are seen"):
        loader(folder, fewest=40)
    with pytest.raises(UserError, match="classes that are unseen"):
        loader(folder, side="unseen")


def test_a_record_that_does_not_fit_is_counted(tmp_path):
    written = records(12, ("disc",))
    written[5] = record(5, "disc", caption="many words " * 9)
    written[6] = record(6, "disc", caption="naïve")  # no id below 128
    folder = write_pool(tmp_path, written, raw=(b"no record",))
    found = loader(folder, questions=[CAPTIONING], style=RowStyle(shots=(0, 1)), global_batch=12)
    batch = found.batch_at(0)
    empty = ~batch["segment_ids"].any(1)
    assert 2 <= empty.sum() < 12
    shown = {number for row in batch["tokens"][~empty] for number, _, _ in read(row)}
    assert shown
    assert not shown & {5, 6}
    assert (batch["loss_weights"][empty] == 0).all()
    assert (batch["tokens"][empty] == VOCABULARY.pad).all()
    assert found.corrupt == 3
    with pytest.raises(UserError, match=r"more bad records than the limit of 1: .*'shapes/00"):
        loader(
            folder, questions=[CAPTIONING], style=RowStyle(), global_batch=12, max_corrupt=1
        ).batch_at(0)


def test_other_tokenizers_and_sizes_are_refused(folder):
    words = FORM.words
    other = WordsFormat(Vocabulary.unified(text=128, image=99, bins=11), Letters())
    for form, message in (
        (
            dataclasses.replace(FORM, tokens_per_image=9),
            "tokens_per_image is 24 in the shards and 9",
        ),
        (dataclasses.replace(FORM, words=other), f"codebook_size is {CODES} in the shards and 99"),
    ):
        with pytest.raises(UserError, match=message):
            loader(folder, form=form)
    with pytest.raises(UserError, match="tokenizer_fingerprint is '0123"):
        loader(folder, tokenizer_fingerprint="feedfeedfeedfeed")
    length = 4 * FORM.pair_length
    with pytest.raises(
        UserError, match=f"have {length} tokens, the decoder {length - 1} positions"
    ):
        loader(folder, positions=length - 1)
    loader(folder, positions=length)
    without_room = SequenceFormat(words, PER_IMAGE)
    with pytest.raises(UserError, match="no room for them: set category_room"):
        loader(folder, form=without_room)
    bare = WordsFormat(Vocabulary.unified(text=128, image=CODES), Letters())
    with pytest.raises(UserError, match="has no brackets"):
        loader(folder, form=SequenceFormat(bare, PER_IMAGE), style=RowStyle())
    loader(folder, form=SequenceFormat(bare, PER_IMAGE), style=RowStyle(), questions=[SEGMENTATION])
    with pytest.raises(UserError, match="is in the encoding 'vqgan'"):
        PoolStore(write_pool(folder.parent.parent / "o", records(2), encoding="vqgan"), "train")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shots": ()}, "shots has the chances"),
        ({"shots": (0.0, -1.0)}, "none may be negative"),
        ({"shots": (0.0, 0.0)}, "one must be above 0"),
        ({"category": {"some": 1}}, "the mode 'some': modes are none, examples, all"),
        ({"category": {"none": 0}}, "one must be above 0"),
        ({"boxes": "lines"}, "boxes is 'lines'"),
    ],
)
def test_wrong_styles_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        RowStyle(**fields)


def test_boxes_that_records_lack_are_told(tmp_path):
    folder = write_pool(tmp_path, records(8, ("disc",), boxes=(), boxed=None))
    for mode, message in (("text", "8 of 8 records have no boxes"), ("image", "boxes drawn")):
        with pytest.raises(UserError, match=message):
            loader(folder, style=RowStyle(boxes=mode))
    assert loader(folder, style=RowStyle()).batch_at(0)["tokens"].any()


def test_every_question_has_a_pool_of_its_own():
    assert len(QUESTIONS) == len(Question)
