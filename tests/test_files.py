"""A file under its final name is whole: the new one after the block, the old one after an exception."""

import pytest

from lvm_jax import files
from lvm_jax.errors import UserError


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


@pytest.fixture
def tree(tmp_path):
    """Folders whose names are patterns too, beside those that the patterns would match."""
    for name in ("a[1]/x1", "a[1]/x2", "a1/x1", "b*/y", "bb/y", "c?/[z]", "cc/z", "a[1]/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a[1]", ["a[1]"]),
        ("a[1]/x1", ["a[1]/x1"]),
        ("a[1]/x*", ["a[1]/x1", "a[1]/x2"]),
        ("a[1]/*", ["a[1]/x1", "a[1]/x2"]),
        ("a[1]/.*", ["a[1]/.hidden"]),
        ("a[0-9]/x?", ["a1/x1"]),
        ("a*/x1", ["a1/x1", "a[1]/x1"]),
        ("b*/y", ["b*/y"]),
        ("b?/y", ["b*/y", "bb/y"]),
        ("c?/[z]", ["c?/[z]"]),
        ("c[c]/[a-z]", ["cc/z"]),
        ("*/nothing", []),
        ("a[1]/x1/*", []),
        ("nowhere/x", []),
    ],
)
def test_a_path_is_first_itself_and_then_a_pattern(tree, pattern, found, monkeypatch):
    assert [str(p.relative_to(tree)) for p in files.expand(tree / pattern)] == found
    monkeypatch.chdir(tree)
    assert [str(p) for p in files.expand(pattern)] == found
    monkeypatch.chdir(
        tree / "a[1]"
    )  # all levels of an absolute path count, not only what was typed
    assert [p.name for p in files.expand("x*")] == ["x1", "x2"]


def test_any_depth_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has a level \*\*: write one \* for each level"):
        files.expand(tmp_path / "**" / "a")


def test_leftovers_of_a_folder_with_brackets(tree):
    (tree / "a[1]" / ".x.tmp").touch()
    assert [p.name for p in files.leftovers(tree / "a[1]")] == [".x.tmp"]
