import pytest

from lvm_jax.data.records import example
from lvm_jax.data.records.example import CorruptRecord

# {"a": b"xy", "n": [3, 300]} as TensorFlow 2.21 serializes it; by hand, a key is `field << 3 | 2`, then a length:
GOLDEN = bytes.fromhex(
    "0a1b"  # Example.features
    "0a0b 0a0161 1206 0a04 0a02 7879"  # feature: key "a", value Feature.bytes_list [b"xy"]
    "0a0c 0a016e 1207 1a05 0a03 03ac02"  # feature: key "n", value Feature.int64_list, packed varints 3 and 300
)


def test_bytes_are_tensorflows():
    assert example.encode({"a": b"xy", "n": [3, 300]}) == GOLDEN
    assert example.decode(GOLDEN) == {"a": [b"xy"], "n": [3, 300]}


def test_order_of_features_does_not_matter():
    assert example.encode({"n": [3, 300], "a": b"xy"}) == GOLDEN


def test_floats_of_foreign_records_are_read():
    floats = bytes.fromhex("0a0f 0a0d 0a0166 1208 1206 0a04 0000c03f".replace(" ", ""))
    assert example.decode(floats) == {"f": [1.5]}


def test_negative_integers():
    assert example.decode(example.encode({"n": -5})) == {"n": [-5]}


@pytest.mark.parametrize("data", [b"\xff", GOLDEN[:-1], b"not a message"])
def test_other_bytes_are_corrupt(data):
    with pytest.raises(CorruptRecord, match=r"not a tf\.train\.Example"):
        example.decode(data)
