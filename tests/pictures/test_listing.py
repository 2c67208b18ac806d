"""Files below a folder, by their suffixes."""

import pytest
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import by_numbers, list_files, list_frames


def test_files_are_relative_sorted_and_not_hidden(tmp_path):
    for name in ("b/2.TAR", "b/.x/9.tar", "a.tar", ".c.tar", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    assert list_files(tmp_path, (".tar",), "tars") == ["a.tar", "b/2.TAR", "linked/2.TAR"]
    with pytest.raises(UserError, match=r"b holds no videos, nor .*put some there \(.mp4, .webm\)"):
        list_files(tmp_path / "b", (".mp4", ".webm"), "videos")
    with pytest.raises(
        UserError, match="gone is not a folder: give the folder that holds the videos"
    ):
        list_files(tmp_path / "gone", (".mp4",), "videos")


def test_a_folder_whose_name_fits_a_suffix_without_dot_is_still_a_folder(tmp_path):
    (tmp_path / "x_ids").mkdir()
    (tmp_path / "x_ids" / "y_ids").touch()
    assert list_files(tmp_path, ("_ids",), "masks") == ["x_ids/y_ids"]


def test_buckets_are_listed_too(remote):
    for name in ("a.png", "sub/b.png"):
        epath.Path(f"gs://bucket/images/{name}").parent.mkdir(parents=True, exist_ok=True)
        epath.Path(f"gs://bucket/images/{name}").write_bytes(b"")
    assert list_files("gs://bucket/images", (".png",), "images") == ["a.png", "sub/b.png"]


def test_frames_come_by_their_numbers_and_equal_numbers_by_their_characters(tmp_path):
    names = ["1.png", "01.png", "2.JPG", "10.png", "a2.png", "a10.png"]
    for name in (*names, "._1.png", "notes.txt"):
        (tmp_path / name).touch()
    found = [path.name for path in list_frames(tmp_path)]
    assert found == ["01.png", "1.png", "2.JPG", "10.png", "a2.png", "a10.png"]
    assert sorted(["x9", "x10", "x"], key=by_numbers) == ["x", "x9", "x10"]
