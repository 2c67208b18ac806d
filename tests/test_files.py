"""A file under its final name is whole: the new one after the block, the old one after an exception."""

import pytest

from lvm_jax import files


def write_half(path):
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError


def test_a_name_is_given_at_the_end_only(tmp_path):
    path = tmp_path / "a.bin"
    files.write(path, b"old")
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_bytes() == b"old"
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert files.leftovers(tmp_path) == [temporary]
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_two_writers_of_one_path_have_two_names(tmp_path):
    assert files.temporary_name(tmp_path / "a") != files.temporary_name(tmp_path / "a")


def test_text_and_json(tmp_path):
    files.write(tmp_path / "a", "é")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9"
    files.write_json(tmp_path / "a", {"b": 1})
    assert (tmp_path / "a").read_text() == '{\n "b": 1\n}\n'
