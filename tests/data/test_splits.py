import pytest

from lvm_jax.data.splits import read_held_out, split_numbers, stable_fraction
from lvm_jax.errors import UserError

FILES = ["/d/photos/a.png", "/d/photos/b.png", "/d/scenes/01/image.png", "/d/scenes/012/image.png"]


def split_files(files, *rest):
    return tuple([files[number] for number in part] for part in split_numbers(files, *rest))


def test_a_list_holds_out_files_and_whole_folders():
    held_out = frozenset({"photos/b.png", "scenes/01"})
    train, validation = split_files(FILES, "/d", held_out, 0.1)
    assert train == ["/d/photos/a.png", "/d/scenes/012/image.png"]
    assert validation == ["/d/photos/b.png", "/d/scenes/01/image.png"]


def test_without_a_list_the_hash_decides_and_new_files_change_nothing():
    files = [f"/d/{i}.png" for i in range(200)]
    _, validation = split_files(files, "/d", None, 0.1)
    assert len(validation) == 20
    limit = max(stable_fraction(f"{i}.png") for i in range(200) if f"/d/{i}.png" in validation)
    _, of_more = split_files([*files, "/d/new.png"], "/d", None, 0.1)
    assert all(stable_fraction(file.removeprefix("/d/")) <= limit for file in of_more)


def test_a_split_without_images_is_an_error():
    with pytest.raises(UserError, match="0 held out"):
        split_files(FILES, "/d", frozenset({"elsewhere"}), 0.1)
    with pytest.raises(UserError, match="0 images for training"):
        split_files(FILES[:1], "/d", None, 0.1)


def test_a_missing_or_empty_list_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_held_out(tmp_path / "validation.txt")
    (tmp_path / "validation.txt").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_held_out(tmp_path / "validation.txt")
    (tmp_path / "validation.txt").write_text("photos/a.png\n\nscenes/01\n")
    assert read_held_out(tmp_path / "validation.txt") == {"photos/a.png", "scenes/01"}
    (tmp_path / "validation.txt").write_bytes("é.png".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 .*: save it as UTF-8"):
        read_held_out(tmp_path / "validation.txt")


def test_a_list_means_the_same_however_a_tool_wrote_it(tmp_path):
    """With the mark of Windows's editors, the ./ of `find`, and the / that ends a folder."""
    content = "\ufeffphotos/a.png\r\n./photos/b.png\r\nscenes/01/\r\n"
    (tmp_path / "validation.txt").write_bytes(content.encode())
    held_out = read_held_out(tmp_path / "validation.txt")
    train, _ = split_files(FILES, "/d", held_out, 0.1)
    assert train == ["/d/scenes/012/image.png"]


def test_a_small_folder_holds_out_four_images_or_half():
    files = [f"/d/{i}.png" for i in range(30)]
    assert len(split_files(files, "/d", None, 0.01)[1]) == 4
    assert len(split_files(files[:5], "/d", None, 0.01)[1]) == 2
