"""Files below a folder, by their suffixes."""

import os

import pytest
from absl import logging
from etils import epath

from data_pipelines.sources.annotated import AnnotatedImages
from data_pipelines.sources.frames import FrameFolders
from data_pipelines.sources.images import ImageFolder
from data_pipelines.sources.paired import PairedClips
from lvm_jax.data.images.sources import open_images, split_source
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.readers.folders import class_folders
from lvm_jax.pictures.listing import by_numbers, find_images, list_files, list_folder, list_frames


@pytest.fixture
def warnings(monkeypatch):
    """What is logged as a warning."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_are_relative_sorted_and_not_hidden(tmp_path):
    for name in ("b/2.TAR", "b/.x/9.tar", "a.tar", ".c.tar", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path, (".tar",), "tars") == ["a.tar", "b/2.TAR"]
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


def test_a_linked_folder_is_listed_once_and_the_tokenizer_and_the_shards_agree(tmp_path, warnings):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root / "z" / "a.png", elsewhere / "b.png", elsewhere / "deep" / "c.png")
    (root / "far").symlink_to(elsewhere)
    (root / "first").symlink_to(root / "z")  # sorts before it, but is the link
    (root / "further").symlink_to(elsewhere / "deep")
    (root / "linked.png").symlink_to(elsewhere / "b.png")
    listed = ["far/b.png", "far/deep/c.png", "linked.png", "z/a.png"]
    assert ImageFolder(str(root)).keys() == listed
    assert open_images(str(root)).names == [str(root / name) for name in listed]
    (told,) = warnings
    assert told == f"skipped in {root}: 2 folders listed already, behind links (first, further)"


def test_links_that_loop_are_cut_and_named(tmp_path, warnings):
    touch(tmp_path / "a.png", tmp_path / "one" / "b.png", tmp_path / "two" / "c.png")
    (tmp_path / "one" / "up").symlink_to(tmp_path)
    (tmp_path / "one" / "other").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "other").symlink_to(tmp_path / "one")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list_files(tmp_path, (".png",), "images") == ["a.png", "one/b.png", "two/c.png"]
    (told,) = warnings
    assert "3 folders listed already, behind links (one/other, one/up, two/other)" in told
    assert "2 links that lead nowhere (gone.png, self)" in told


def test_the_root_may_be_a_link(tmp_path):
    touch(tmp_path / "real" / "a.png")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "root")
    assert list_files(tmp_path / "root", (".png",), "images") == ["a.png"]


def test_only_files_are_files(tmp_path, warnings):
    touch(tmp_path / "a.png" / "b.png")
    os.mkfifo(tmp_path / "c.png")
    assert list_files(tmp_path, (".png",), "images") == ["a.png/b.png"]
    assert warnings == [f"skipped in {tmp_path}: 1 neither file nor folder (c.png)"]


def test_files_of_other_formats_are_counted_and_named_once(tmp_path, warnings):
    names = ["a.png", "b.TIF", "c.tif", "d.gif", "e.avif", "f.heic", "sub/g.heic", "README"]
    touch(*(tmp_path / name for name in names))
    for _ in range(2):
        assert ImageFolder(str(tmp_path)).keys() == ["a.png"]
    assert find_images(tmp_path) == [str(tmp_path / "a.png")]
    told = (
        "1 *.avif (e.avif); 1 *.gif (d.gif); 2 *.heic (f.heic, sub/g.heic); 2 *.tif (b.TIF, c.tif)"
    )
    assert warnings == [f"skipped in {tmp_path}: {told}; 1 without a suffix (README)"]
    warnings.clear()
    list_files(tmp_path, (".gif",), "videos", others=False)
    assert warnings == []


def test_long_lists_are_cut(tmp_path, warnings):
    touch(*(tmp_path / f"{i}.txt" for i in range(9)), tmp_path / "a.png")
    find_images(tmp_path)
    assert warnings == [f"skipped in {tmp_path}: 9 *.txt (0.txt, 1.txt, 2.txt, ...)"]


def test_names_that_are_not_utf8_are_named_and_skipped_by_every_reader(tmp_path, warnings):
    odd = os.fsdecode(b"caf\xe9")
    folders = tmp_path / "folders"
    touch(folders / "clip" / "1.png", folders / "clip" / f"{odd}.png", folders / odd / "1.png")
    assert ImageFolder(str(folders)).keys() == ["clip/1.png"]
    images = open_images(str(folders))
    assert images.names == [str(folders / "clip" / "1.png")]
    assert warnings == [
        f"skipped in {folders}: 2 names that are not UTF-8 (caf\\xe9, clip/caf\\xe9.png)"
    ]
    assert [path.name for path in list_folder(folders / "clip")] == ["1.png"]
    for source in (FrameFolders(str(folders)), AnnotatedImages(str(folders))):
        assert source.keys() == ["clip"]
    roles = (("frame", "{key}/{frame}.png"),)
    assert PairedClips(str(folders), roles).keys() == ["clip"]
    assert class_folders(folders) == [(epath.Path(folders / "clip" / "1.png"), "clip")]
    assert all(line.isprintable() and line.encode() for line in warnings)


def test_a_tar_may_hold_names_that_are_not_utf8(tmp_path):
    class Names:
        names = tuple(os.fsdecode(b"\xff%d.png" % i) for i in range(5))

    train, held_out = split_source(Names(), "x.tar", None, 0.2)
    assert len(train.names) + len(held_out.names) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "shut" / "b.png")
    (tmp_path / "shut").chmod(0)
    with pytest.raises(UserError, match=r"shut cannot be listed \(Permission denied\)"):
        find_images(tmp_path)


def test_frames_come_by_their_numbers_and_equal_numbers_by_their_characters(tmp_path):
    names = ["1.png", "01.png", "2.JPG", "10.png", "a2.png", "a10.png"]
    for name in (*names, "._1.png", "notes.txt"):
        (tmp_path / name).touch()
    found = [path.name for path in list_frames(tmp_path)]
    assert found == ["01.png", "1.png", "2.JPG", "10.png", "a2.png", "a10.png"]
    assert sorted(["x9", "x10", "x"], key=by_numbers) == ["x", "x9", "x10"]
