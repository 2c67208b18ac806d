"""Records of pictures and words, what a tower sees of them, and batches."""

import collections
import dataclasses
import io

import numpy as np
import pytest
from image_text_fakes import picture, record, write_shards
from PIL import Image
from text_fakes import FOLDER, MPT, with_settings

from lvm_jax.data.image_text.augment import NO_AUGMENTATION, Augmentation, augment
from lvm_jax.data.image_text.conversation import Conversation, Turn
from lvm_jax.data.image_text.loader import (
    ImageTextEvalLoader,
    ImageTextLoader,
    RowShape,
)
from lvm_jax.data.image_text.record import IMAGE_TEXT, decode_image_text, encode_image_text
from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.image_text.views import TooLarge, View
from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import NOTHING
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError

KEEP = View(6, 9, fit="keep")
SHAPE = RowShape(seq_len=20, max_images=2, image_tokens=3, views={"images": KEEP})


def loader(folder, **changes):
    arguments = {
        "shards": folder,
        "split": "train",
        "tokenizer": TextTokenizer(FOLDER),
        "shape": SHAPE,
        "global_batch": 4,
        "seed": 7,
        "threads": 0,
        **changes,
    }
    return ImageTextLoader(**arguments)


def answers(batch):
    """The digits of each row's answer; -1 for padding."""
    words = [TextTokenizer(FOLDER).decode(row[row > 4].tolist()).strip() for row in batch["tokens"]]
    return [int(word) if word else -1 for word in words]


def test_a_record_comes_back():
    for one in (record(3), record(3, pictures=0, facets=()), record(3, pictures=2, answer="")):
        content, facts = encode_image_text(one)
        assert decode_image_text(content) == one
        assert IMAGE_TEXT.describe(content) == facts
        assert encode_image_text(one)[0] == content
    assert facts.values == (1, 2, 0)
    assert facts.origin == ("lines", 2)


def test_a_record_that_cannot_be_trained_on_is_not_written():
    with pytest.raises(UserError, match="record 'lines/003' of 'lines': it has 2 pictures for 1"):
        encode_image_text(record(3, images=(picture(1), picture(2))))
    asked = Conversation((Turn("A?", None),))
    with pytest.raises(UserError, match="last turn has no answer"):
        encode_image_text(record(3, images=(), conversation=asked))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "it has 0 pictures for 1 placeholders"),
        ({"images": [3]}, "'images' is not a list of bytes"),
        ({"conversation": b"["}, "is not JSON"),
        ({"conversation": b"\xff"}, "conversation is not UTF-8"),
        ({"conversation": b'[{"from": "human", "value": "<image>"}]'}, "has no answer"),
        ({"key": [b"a", b"b"]}, "'key' is not one text"),
        ({"category": b"a"}, "'category' is not one integer"),
        ({"facets": b"\xff"}, "facets are not UTF-8"),
    ],
)
def test_a_wrong_record_is_told(change, message):
    features = example.decode(encode_image_text(record(3))[0])
    content = example.encode({**features, **change})
    with pytest.raises(CorruptRecord, match=message):
        decode_image_text(content)
    assert IMAGE_TEXT.describe(content) == NOTHING
    with pytest.raises(CorruptRecord):
        decode_image_text(b"\xff\xff")


def test_the_index_says_what_is_needed_before_reading(tmp_path):
    folder = write_shards(tmp_path, [record(i, answer="x" * i) for i in range(5)], shards=1)
    (path,) = (p for p in folder.glob("*tfrecord*") if p.suffix != ".index")
    index = RecordFile(path, IMAGE_TEXT).index
    assert index["characters"].tolist() == [0, 1, 2, 3, 4]
    assert index["pictures"].tolist() == [1] * 5
    assert index.origins == (("lines", 2),)


PAGE = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)


def test_views():
    assert View(4, 8).of(PAGE, None) is PAGE
    assert View(6, 5).of(PAGE, None).shape == (6, 5, 3)
    kept = View(5, 9, fit="keep", background=(1, 2, 3)).of(PAGE, None)
    np.testing.assert_array_equal(kept[:4, :8], PAGE)
    assert (kept[4] == (1, 2, 3)).all()
    assert (kept[:, 8] == (1, 2, 3)).all()
    padded = View(8, 8, fit="pad", background=(1, 2, 3)).of(PAGE, None)
    np.testing.assert_array_equal(padded[2:6], PAGE)
    assert (padded[[0, 1, 6, 7]] == (1, 2, 3)).all()
    cropped = View(4, 4, fit="crop").of(PAGE, None)
    np.testing.assert_array_equal(cropped, PAGE[:, 2:6])
    with pytest.raises(TooLarge, match="4 x 8 pixels does not fit a view of 4 x 7"):
        View(4, 7, fit="keep").of(PAGE, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 0, "width": 3}, "a view is 0 x 3"),
        ({"height": 3, "width": 3, "fit": "stretch"}, "fit is 'stretch'"),
        ({"height": 3, "width": 3, "background": (0, 0, 256)}, "background is"),
    ],
)
def test_wrong_views_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        View(**fields)


@pytest.mark.parametrize("kind", [f.name for f in dataclasses.fields(Augmentation)])
def test_each_augmentation_changes_a_page_a_little_and_repeatably(kind):
    page = np.full((40, 60, 3), 255, np.uint8)
    page[10:30, 10:50] = 0
    only = dataclasses.replace(NO_AUGMENTATION, **{kind: 1.0})
    changed = [augment(page, only, np.random.default_rng(seed)) for seed in range(8)]
    assert all(one.shape == page.shape and one.dtype == np.uint8 for one in changed)
    assert any((one != page).any() for one in changed)
    again = augment(page, only, np.random.default_rng(3))
    np.testing.assert_array_equal(again, changed[3])
    # Still the same page: its dark and its light parts are where they were.
    assert all(
        np.corrcoef(one.mean(axis=(1, 2)), page.mean(axis=(1, 2)))[0, 1] > 0.5 for one in changed
    )


def test_blur_keeps_the_brightness():
    page = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    only = dataclasses.replace(NO_AUGMENTATION, blur=1.0)
    for seed in range(8):
        blurred = augment(page, only, np.random.default_rng(seed))
        assert blurred.mean() == pytest.approx(page.mean(), abs=0.1)
        white = augment(np.full_like(page, 255), only, np.random.default_rng(seed))
        assert white.min() == 255


def test_nothing_is_augmented_by_default():
    assert augment(PAGE, NO_AUGMENTATION, np.random.default_rng(0)) is PAGE
    with pytest.raises(UserError, match=r"augmentation.blur is 2"):
        Augmentation(blur=2)


def test_a_batch(tmp_path):
    records = [record(11), record(12, pictures=2), record(13, pictures=0), record(14)]
    (batch,) = ImageTextEvalLoader(
        write_shards(tmp_path, records, shards=1), "train", TextTokenizer(FOLDER), SHAPE, 4
    )
    assert {name: (a.dtype.name, a.shape) for name, a in batch.items()} == {
        "tokens": ("int32", (4, 21)),
        "segment_ids": ("int32", (4, 21)),
        "positions": ("int32", (4, 21)),
        "loss_weights": ("float32", (4, 21)),
        "image_places": ("int32", (4, 2, 3)),
        "images": ("uint8", (4, 2, 6, 9, 3)),
    }
    assert batch["tokens"][1].tolist() == (
        [1, 3, 2, 2, 2, 4, 3, 2, 2, 2, 4, 6, 11, 12, 6, 1] + [0] * 5
    )
    assert batch["loss_weights"][1].tolist() == [0] * 12 + [1] * 4 + [0] * 5
    assert batch["segment_ids"][1].tolist() == [1] * 16 + [0] * 5
    assert batch["positions"][1].tolist() == [*range(16)] + [0] * 5
    assert batch["image_places"].tolist() == [
        [[2, 3, 4], [21] * 3],
        [[2, 3, 4], [7, 8, 9]],
        [[21] * 3] * 2,
        [[2, 3, 4], [21] * 3],
    ]
    assert batch["images"][:, :, 0, 0, 0].tolist() == [[11, 255], [12, 12], [255, 255], [14, 255]]


def test_a_pass_has_every_record_once_in_an_order_of_its_own(tmp_path):
    folder = write_shards(tmp_path, [record(i) for i in range(10, 22)])
    with loader(folder) as batches:
        assert batches.records_per_pass == 12
        passes = [[n for _ in range(3) for n in answers(next(batches))] for _ in range(2)]
    assert [sorted(one) for one in passes] == [list(range(10, 22))] * 2
    assert passes[0] != passes[1]


def test_a_batch_is_a_function_of_seed_and_step(tmp_path):
    folder = write_shards(tmp_path, [record(i) for i in range(10, 21)])
    noisy = dataclasses.replace(
        SHAPE, views={"images": dataclasses.replace(KEEP, augmentation=Augmentation(noise=1))}
    )
    with loader(folder, shape=noisy) as one, loader(folder, shape=noisy, threads=2) as other:
        first = [next(one) for _ in range(6)]
        other.set_state(3)
        for name, array in next(other).items():
            np.testing.assert_array_equal(array, first[3][name])
    with loader(folder, shape=noisy, seed=8) as another:
        assert answers(next(another)) != answers(first[0])
    halves = [loader(folder, shape=noisy, process_index=p, process_count=2) for p in (0, 1)]
    for step in range(3):
        parts = [half.batch_at(step) for half in halves]
        for name, array in first[step].items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), array)
    # The same page is another one in the next pass.
    pictures = collections.defaultdict(list)
    for batch in first:
        for number, image in zip(answers(batch), batch["images"], strict=True):
            pictures[number].append(image)
    twice = [seen for seen in pictures.values() if len(seen) > 1]
    assert twice
    assert all((seen[0] != seen[1]).any() for seen in twice)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match="seed is -1: it must be from 0 to"):
        loader(write_shards(tmp_path, [record(10)]), seed=-1)


def test_weights_are_shares_of_sources(tmp_path):
    records = [record(i) for i in range(10, 16)]
    records += [record(i, source="charts") for i in range(20, 44)]
    folder = write_shards(tmp_path, records)
    with loader(folder, weights={"lines": 1, "charts": 1}) as batches:
        seen = [n for _ in range(15) for n in answers(next(batches))]
    assert sum(number < 20 for number in seen) == 30
    counts = collections.Counter(seen)
    assert {counts[number] for number in range(10, 16)} == {5}


def test_a_run_can_begin_with_short_answers(tmp_path):
    folder = write_shards(tmp_path, [record(i) for i in (1, 2, 3, 30, 444)])
    with loader(folder, max_characters=1) as batches:
        assert batches.records_per_pass == 3
        assert set(answers(next(batches))) <= {1, 2, 3}
    with pytest.raises(UserError, match="no record is left"):
        loader(write_shards(tmp_path / "long", [record(30)], shards=1), max_characters=1)


def test_bad_records_are_counted_and_their_rows_weigh_nothing(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (99, 99)).save(file, "PNG")
    records = [
        record(10),
        record(11, answer="é"),
        record(12, images=(b"no picture",)),
        record(13, images=(file.getvalue(),)),
        record(14, pictures=3),
        record(15, answer="7" * 30, pictures=2),
        record(16, pictures=2, answer="8"),
    ]
    folder = write_shards(tmp_path, records, raw=[example.encode({"codes": b"ab"})])
    with loader(folder, global_batch=7) as batches:
        batch = next(batches)
        assert (batches.corrupt, batches.truncated) == (5, 1)
    assert sorted(answers(batch)) == [-1, -1, -1, -1, 8, 10, 77777777]
    empty = batch["segment_ids"].sum(axis=1) == 0
    assert empty.sum() == 4
    assert not batch["loss_weights"][empty].any()
    with (
        pytest.raises(UserError, match="more bad records than the limit of 2"),
        loader(folder, global_batch=7, max_corrupt=2) as batches,
    ):
        next(batches)


def test_the_end_of_a_split_is_filled_up_alike_on_every_process(tmp_path):
    folder = write_shards(tmp_path, [record(i) for i in range(10, 15)], shards=1)
    parts = [
        list(ImageTextEvalLoader(folder, "train", TextTokenizer(FOLDER), SHAPE, 4, p, 2))
        for p in (0, 1)
    ]
    assert [[answers(batch) for batch in part] for part in parts] == [
        [[10, 11], [14, -1]],
        [[12, 13], [-1, -1]],
    ]


def test_two_towers_see_two_views(tmp_path):
    views = {"images": View(6, 9), "images_clip": View(4, 4, fit="crop")}
    folder = write_shards(tmp_path, [record(10)], shards=1)
    with loader(folder, shape=dataclasses.replace(SHAPE, views=views), global_batch=1) as batches:
        batch = next(batches)
    assert batch["images_clip"].shape == (1, 2, 4, 4, 3)
    assert batch["images"].shape == (1, 2, 6, 9, 3)


def test_shards_of_another_kind_or_tokenizer_are_refused(tmp_path):
    own = TextTokenizer(FOLDER).fingerprint
    folder = write_shards(tmp_path / "own", [record(10)], shards=1, tokenizer_fingerprint=own)
    loader(folder).close()
    other = with_settings(tmp_path / "tokenizer", MPT)
    with pytest.raises(
        UserError, match=f"checked with the text tokenizer {own}, .* {other.fingerprint}"
    ):
        loader(folder, tokenizer=other)
    codes = write_shards(tmp_path / "codes", [record(10)], shards=1, encoding="vqgan")
    with pytest.raises(UserError, match="is in the encoding 'vqgan': this loader reads"):
        loader(codes)
    with pytest.raises(UserError, match="seq_len is 0"):
        dataclasses.replace(SHAPE, seq_len=0)
    with pytest.raises(UserError, match=r"the views are \['tokens'\]"):
        dataclasses.replace(SHAPE, views={"tokens": KEEP})
    with pytest.raises(UserError, match="the views are none"):
        dataclasses.replace(SHAPE, views={})


def test_a_store_knows_its_records_without_reading_them(tmp_path):
    folder = write_shards(tmp_path, [record(10), record(11, pictures=2)], shards=1)
    store = ImageTextStore(folder, "train")
    assert store.pictures.tolist() == [1, 2]
    assert [origin.source for origin in store.origins] == ["lines"]
    assert store.record(1) == record(11, pictures=2)
