import dataclasses

import numpy as np
import pytest

from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.sentences.sentence_record import (
    NO_SENTENCE,
    decode_example,
    encode_example,
    outline,
)
from lvm_jax.data.sentences.visual_sentence import (
    Category,
    VisualSentence,
    compact_layout,
    expand_layout,
)
from lvm_jax.errors import UserError

SENTENCE = VisualSentence(
    codes=np.array([[1, 258], [3, 4], [511, 0]], np.uint16),
    source="coco",
    category=Category.ANNOTATED_IMAGE,
    key="val/017-ü",
    layout="image,depth,image",
)
FEATURES = {
    "codes": bytes([1, 0, 2, 1, 3, 0, 4, 0, 255, 1, 0, 0]),  # little-endian
    "source": b"coco",
    "category": 2,
    "key": "val/017-ü".encode(),
    "layout": b"image,depth,image",
}


def decode(features):
    return decode_example(example.encode(features), codebook_size=512, tokens_per_image=2)


def test_record_is_the_documented_schema():
    assert encode_example(SENTENCE) == example.encode(FEATURES)


def test_round_trip():
    sentence = decode(FEATURES)
    np.testing.assert_array_equal(sentence.codes, SENTENCE.codes)
    assert sentence.codes.dtype == np.uint16
    for field in ("source", "category", "key", "layout"):
        assert getattr(sentence, field) == getattr(SENTENCE, field)
    assert sentence.roles == ["image", "depth", "image"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": FEATURES["codes"][:-2]}, "10 bytes of codes: whole images are 4"),
        ({"codes": FEATURES["codes"][:-1]}, "11 bytes of codes"),
        ({"codes": b""}, "0 bytes of codes"),
        ({"codes": bytes([0, 2]) + FEATURES["codes"][2:]}, r"has code 512: codes are 0\.\.511"),
        ({"codes": [1, 2]}, "'codes' is not one value of type bytes"),
        ({"category": 0}, "category 0 is not one of 1 unlabelled_image"),
        ({"category": 6}, "category 6"),
        ({"category": b"2"}, "'category' is not one value of type int"),
        ({"layout": b"image,depth"}, "describes 2 images, its codes are 3"),
        ({"layout": b"image*99999999"}, "write role or role"),
        ({"layout": b""}, "write role or role"),
        ({"key": b"\xff"}, "not UTF-8"),
    ],
)
def test_bad_records(change, message):
    with pytest.raises(CorruptRecord, match=message):
        decode(FEATURES | change)


def test_the_outline_of_a_record():
    record = encode_example(SENTENCE)
    found = outline(record)
    assert record[found.codes_at : found.codes_at + found.codes_bytes] == FEATURES["codes"]
    assert found[2:] == (511, found.period, "coco", 2)
    for layout, period in (("a,b,a,b", 2), ("a*4", 1), ("a,b", 2), ("a,,b", 0)):
        assert outline(example.encode(FEATURES | {"layout": layout.encode()})).period == period
    assert outline(example.encode(FEATURES | {"layout": b"\xff"})).period == 0
    for change in (
        {"codes": [b"ab", b"cd"]},
        {"codes": b"abc"},
        {"codes": b""},
        {"codes": 3},
        {"source": b"\xff"},
        {"source": 3},
        {"category": 6},
        {"category": [1, 2]},
    ):
        assert outline(example.encode(FEATURES | change)) == NO_SENTENCE
    assert outline(b"not a message") == NO_SENTENCE


def test_a_missing_feature_is_corrupt():
    for name in FEATURES:
        with pytest.raises(CorruptRecord, match=name):
            decode({key: value for key, value in FEATURES.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"codes": SENTENCE.codes.astype(np.int32)},
        {"codes": SENTENCE.codes.reshape(-1)},
        {"codes": np.zeros((0, 2), np.uint16)},
        {"category": 7},
        {"layout": "image"},
        {"layout": "image, depth,image"},
    ],
)
def test_bad_sentences_are_not_written(change):
    with pytest.raises(UserError):
        encode_example(dataclasses.replace(SENTENCE, **change))


def test_layouts():
    roles = ["frame"] * 3 + ["mask", "frame"]
    assert expand_layout("frame*3,mask,frame") == roles
    assert compact_layout(roles) == "frame*3,mask,frame"
    assert expand_layout("frame*1,frame") == ["frame", "frame"]
    assert compact_layout(["surface-normals_2"]) == "surface-normals_2"
    for layout in ("frame*0", "frame*-1", "frame**2", "*2", "frame*65536,frame", "frame,"):
        with pytest.raises(UserError):
            expand_layout(layout)
    for bad in ([], ["a,b"], ["a*2"], ["a", ""]):
        with pytest.raises(UserError):
            compact_layout(bad)
