import base64
import dataclasses
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import convert_jsonl
from data_pipelines.convert_jsonl import BadLine, Target, from_jsonl, parse_line, to_jsonl
from data_pipelines.verify import verify
from lvm_jax import files
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError

PER_IMAGE, CODEBOOK = 4, 32
TARGET = Target(
    name="clips",
    source="kinetics",
    category=Category.UNLABELLED_VIDEO,
    layout="frame",
    fingerprint="0123456789abcdef",
    codebook_size=CODEBOOK,
    image_size=16,
    tokens_per_image=PER_IMAGE,
    sentences_per_shard=7,
)


def line(tokens):
    """Written as the published scripts do it."""
    raw = np.array(tokens, np.int32).tobytes()
    return json.dumps({"tokens": base64.b64encode(raw).decode("utf-8")}).encode() + b"\n"


def official_file(path, n=30, bad=()):
    rng = np.random.default_rng(0)
    lines = [line(rng.integers(0, CODEBOOK, PER_IMAGE * k)) for k in rng.integers(1, 5, n)]
    for place, broken in sorted(bad):
        lines.insert(place, broken)
    path.write_bytes(b"".join(lines))
    return path


def test_there_and_back_to_the_bit(tmp_path):
    source = official_file(tmp_path / "a.jsonl")
    manifest = from_jsonl([source], tmp_path / "shards", TARGET)
    assert manifest.splits == {
        "train": {"sentences": 30, "images": manifest.splits["train"]["images"], "shards": 5}
    }
    folder = tmp_path / "shards/clips/1.0.0"
    verify(folder)  # counts, layouts, CRCs
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert to_jsonl(folder, "train", tmp_path / "b.jsonl") == 30
    assert (tmp_path / "b.jsonl").read_bytes() == source.read_bytes()
    sentence = SentenceStore(folder, "train").sentence(8)
    assert (sentence.key, sentence.source, sentence.category) == (
        "clips/0/a.jsonl%3A9",
        "kinetics",
        3,
    )
    assert set(sentence.roles) == {"frame"}


def test_splits_are_by_hash_and_complete(tmp_path):
    source = official_file(tmp_path / "a.jsonl", n=60)
    target = dataclasses.replace(TARGET, validation=0.3)
    from_jsonl([source], tmp_path / "shards", target)
    folder = tmp_path / "shards/clips/1.0.0"
    back = []
    for split in ("train", "validation"):
        to_jsonl(folder, split, tmp_path / split)
        back.append((tmp_path / split).read_bytes().splitlines())
    assert 5 < len(back[1]) < 35
    assert sorted(back[0] + back[1]) == sorted(source.read_bytes().splitlines())


BAD = {
    b"\n": "not JSON",
    b"{]\n": "not JSON",
    b"\xff\xfe\n": "not JSON",
    b"[" * 100_000: "not JSON",
    b'{"token": ""}\n': 'not an object with "tokens"',
    b"[1]\n": 'not an object with "tokens"',
    b'{"tokens": 3}\n': 'not an object with "tokens"',
    b'{"tokens": "a-b="}\n': "not JSON with base64",
    b'{"tokens": ""}\n': "0 bytes are no whole images of 4",
    line([1, 2, 3]): "12 bytes are no whole images of 4",
    line([1, 2, 3, 32]): r"token 32 is no code: codes are 0\.\.31",
    line([1, 2, 3, -1]): "token -1 is no code",
}


@pytest.mark.parametrize("broken", BAD)
def test_bad_lines(broken):
    with pytest.raises(BadLine, match=BAD[broken]):
        parse_line(broken, CODEBOOK, PER_IMAGE)


def encoded(tokens, dtype):
    raw = np.array(tokens).astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return json.dumps({"tokens": base64.b64encode(raw).decode()}).encode()


def test_int64_is_not_read_as_twice_the_images():
    tokens = [5, 0, 7, 31, 1, 2, 3, 4]
    with pytest.raises(BadLine, match=r"every second int32 is 0.*--token_dtype=int64"):
        parse_line(encoded(tokens, "int64"), CODEBOOK, PER_IMAGE)
    for dtype in convert_jsonl.TOKEN_DTYPES:
        read = parse_line(encoded(tokens, dtype), CODEBOOK, PER_IMAGE, dtype)
        assert read.tolist() == [tokens[:4], tokens[4:]]
    # Whoever says int32 means it, and a blank image is no sign of anything.
    zeros_between = [5, 0, 7, 0]
    read = parse_line(encoded(zeros_between, "int32"), CODEBOOK, PER_IMAGE, "int32")
    assert read.tolist() == [zeros_between]
    assert parse_line(encoded([0] * 4, "int32"), CODEBOOK, PER_IMAGE).tolist() == [[0] * 4]


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("uint16", None),
        ("int32", "int64"),
        ("uint16", "int64"),
        ("float32", None),
        ("float64", None),
    ],
)
def test_another_width_than_the_one_read_is_no_code(stored, read):
    tokens = [5, 9, 7, 31] * 4  # whole images at every width
    with pytest.raises(BadLine, match=r"no code"):
        parse_line(encoded(tokens, stored), CODEBOOK, PER_IMAGE, read)


def test_a_file_without_one_good_line_says_why(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b"".join([line([1, 2, 3]), b"{}\n", encoded([99] * 4, "<i4")])
    )
    with pytest.raises(UserError) as caught:
        from_jsonl([tmp_path / "a.jsonl"], tmp_path / "out", TARGET)
    message = str(caught.value)
    assert "split 'train' has no sentence: 3 bad lines, first a.jsonl:1: 12 bytes are" in message
    assert 'a.jsonl:2: not an object with "tokens"' in message
    assert "a.jsonl:3: token 99 is no code" in message
    assert "\n" not in message


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
lines = (
    st.binary(max_size=60)
    | st.binary(max_size=64).map(
        lambda raw: json.dumps({"tokens": base64.b64encode(raw).decode()}).encode()
    )
    | any_json.map(lambda value: json.dumps({"tokens": value}).encode())
    | any_json.map(lambda value: json.dumps(value).encode())
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(lines, st.sampled_from([None, *convert_jsonl.TOKEN_DTYPES]))
def test_any_line_is_refused_or_read_as_struct_reads_it(text, dtype):
    try:
        read = parse_line(text, CODEBOOK, PER_IMAGE, dtype)
    except BadLine:
        return
    raw = base64.b64decode(json.loads(text)["tokens"])
    kind = {"int32": "i", "int64": "q"}[dtype or "int32"]
    size = struct.calcsize(f"<{kind}")
    assert read.reshape(-1).tolist() == list(struct.unpack(f"<{len(raw) // size}{kind}", raw))
    assert read.max() < CODEBOOK


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, CODEBOOK - 1), min_size=4, max_size=16).map(
        lambda x: x[: len(x) // 4 * 4]
    )
)
def test_what_was_written_is_read(tokens):
    for dtype in convert_jsonl.TOKEN_DTYPES:
        read = parse_line(encoded(tokens, dtype), CODEBOOK, PER_IMAGE, dtype)
        assert read.reshape(-1).tolist() == tokens


def test_bad_lines_are_counted_named_and_skipped_up_to_the_limit(tmp_path, capsys):
    places = list(zip((3, 11, 20), list(BAD)[:3], strict=True))
    source = official_file(tmp_path / "a.jsonl", bad=places)
    target = dataclasses.replace(TARGET, max_bad_lines=3)
    assert from_jsonl([source], tmp_path / "out", target).splits["train"]["sentences"] == 30
    printed = capsys.readouterr().out
    assert "skipped a.jsonl:4: not JSON" in printed
    assert "skipped 3 bad lines of at most 3" in printed
    strict = dataclasses.replace(TARGET, max_bad_lines=2)
    with pytest.raises(
        UserError, match=r"more bad lines than --max_bad_lines=2; the last is a\.jsonl:21"
    ):
        from_jsonl([source], tmp_path / "strict", strict)
    assert not list((tmp_path / "strict").rglob("*.tfrecord*"))
    assert not list((tmp_path / "strict").rglob("manifest.json"))


def test_a_line_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_jsonl, "MAX_LINE_BYTES", 1000)
    long = b'{"tokens": "' + b"A" * 5000 + b'"}\n'
    source = official_file(tmp_path / "a.jsonl", bad=[(2, long)])
    target = dataclasses.replace(TARGET, max_bad_lines=1)  # it is one line
    assert from_jsonl([source], tmp_path / "out", target).splits["train"]["sentences"] == 30


def test_a_run_that_was_killed_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    source = official_file(tmp_path / "a.jsonl")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert_jsonl, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            from_jsonl([source], tmp_path / "out", TARGET)
    folder = tmp_path / "out/clips/1.0.0"
    assert all(path.name.startswith(convert_jsonl.PART) for path in folder.iterdir())
    open_when_killed = files.temporary_name(folder / f"{convert_jsonl.PART}train-0")
    open_when_killed.touch()
    from_jsonl([source], tmp_path / "out", TARGET)
    assert not open_when_killed.exists()
    verify(folder)
    with pytest.raises(UserError, match=r"is already there: name another --version"):
        from_jsonl([source], tmp_path / "out", TARGET)


def test_layouts_repeat(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(line(range(4 * PER_IMAGE)) + line(range(PER_IMAGE)))
    target = dataclasses.replace(TARGET, layout="image,depth", max_bad_lines=1)
    manifest = from_jsonl([tmp_path / "a.jsonl"], tmp_path / "out", target)
    assert manifest.sources["kinetics"]["images"] == 4
    folder = tmp_path / "out/clips/1.0.0"
    assert SentenceStore(folder, "train").sentence(0).layout == "image,depth,image,depth"
    assert Manifest.load(folder) == manifest


def test_nothing_to_convert(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UserError, match="split 'train' has no sentence"):
        from_jsonl([tmp_path / "a.jsonl"], tmp_path / "out", TARGET)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/a.jsonl").touch()
    with pytest.raises(UserError, match=r"a\.jsonl is the name of 2 files"):
        from_jsonl([tmp_path / "a.jsonl", tmp_path / "b/a.jsonl"], tmp_path / "out", TARGET)
