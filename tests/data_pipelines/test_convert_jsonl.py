import base64
import dataclasses
import json

import numpy as np
import pytest

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
