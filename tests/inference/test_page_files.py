"""Pages of folders: what is found, what is refused, and a run that goes on where it was stopped."""

import json

import numpy as np
import pytest
from PIL import Image

from lvm_jax.errors import UserError
from lvm_jax.inference import page_files
from lvm_jax.inference.page_answers import Reading, read_pages
from lvm_jax.inference.page_files import list_pages
from lvm_jax.inference.text_generator import Written
from lvm_jax.pictures.pdf import BadPdf


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pages"
    (root / "sub").mkdir(parents=True)
    for i, name in enumerate(("page10.png", "page2.png", "page2.jpg", "sub/deep.png")):
        Image.fromarray(np.full((4, 6, 3), 40 * i, np.uint8)).save(root / name)
    (root / "notes.txt").write_text("no page")
    return root


def test_a_folder_in_the_order_of_its_numbers(folder):
    listing = list_pages(folder, max_pages=9)
    assert [page.name for page in listing.pages] == ["page2-jpg", "page2-png", "page10", "sub/deep"]
    assert int(listing.pages[2].picture(99)[0, 0, 0]) == 0
    (alone,) = list_pages(folder / "page10.png", max_pages=9).pages
    assert (alone.name, alone.number) == ("page10", None)


def test_pages_of_pdf_files(folder, monkeypatch):
    (folder / "a.pdf").write_bytes(b"")
    (folder / "z.pdf").write_bytes(b"")

    def count(path, *, most):
        if path.name == "z.pdf":
            raise BadPdf(str(path), "is encrypted")
        return 12

    monkeypatch.setattr(page_files, "count_pages", count)
    listing = list_pages(folder, max_pages=20)
    names = [page.name for page in listing.pages]
    assert names[:2] == ["a-01", "a-02"]
    assert len(names) == 12 + 4
    assert listing.pages[11].number == 11
    assert listing.refused == (f"{folder}/z.pdf is encrypted",)
    with pytest.raises(UserError, match=r"z\.pdf is encrypted"):
        list_pages(folder / "z.pdf", max_pages=20)


def test_no_two_pages_have_one_name(tmp_path, monkeypatch):
    monkeypatch.setattr(page_files, "count_pages", lambda path, *, most: 2)
    for name in ("a.pdf", "a-1.png", "b.png", "b.jpg", "b-png.png", "pages.png"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name)
    names = [page.name for page in list_pages(tmp_path, max_pages=9).pages]
    assert sorted(names) == ["a-1", "a-1 (2)", "a-2", "b-jpg", "b-png", "b-png (2)", "pages (2)"]


def test_answers_are_no_pages(folder):
    for source in (folder, folder / "page10.png"):
        with pytest.raises(UserError, match=r"the answer to NAME\.png would overwrite it"):
            list_pages(source, max_pages=9, output=folder / "sub" / "..")
    pages = list_pages(folder, max_pages=9, output=folder / "sub").pages
    assert [page.name for page in pages] == ["page2-jpg", "page2-png", "page10"]
    assert len(list_pages(folder, max_pages=9, output=folder.parent).pages) == 4
    (folder / "sub" / "out").mkdir()
    (folder / "sub" / "deep.png").rename(folder / "sub" / "out" / "deep.png")
    with pytest.raises(UserError, match="holds no pages but those in"):
        list_pages(folder / "sub", max_pages=9, output=folder / "sub" / "out")


def test_mistakes_are_named(folder, tmp_path):
    for path, message in (
        (tmp_path / "nowhere", "does not exist: name an image, a PDF file or a folder"),
        (folder / "notes.txt", r"notes\.txt is no page: give an image"),
    ):
        with pytest.raises(UserError, match=message):
            list_pages(path, max_pages=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pages"):
        list_pages(tmp_path / "empty", max_pages=9)


class Levels:
    """Stands in for a `TextGenerator`: says the grey of each page."""

    view_size = (4, 6)

    def __init__(self):
        self.batches = []

    def __call__(self, asked, writing):
        self.batches.append([int(one.images[0][0, 0, 0]) for one in asked])
        return [Written(f"level {level}", (level,), ended=True) for level in self.batches[-1]]


def test_answers_lie_beside_pages_and_a_run_goes_on(folder, tmp_path):
    (folder / "page3.png").write_bytes(b"no picture")
    pages = list_pages(folder, max_pages=9).pages
    output, reading, generator = tmp_path / "out", Reading("Read.", batch_size=2), Levels()
    identity = {"model": "m", "question": "Read."}
    records = read_pages(pages, generator, reading, output, identity)
    assert generator.batches == [[80, 40], [0], [120]]  # page3 is bad, and its batch goes on
    assert [record.get("text") for record in records] == [
        "level 80",
        "level 40",
        None,
        "level 0",
        "level 120",
    ]
    assert "page3.png" in records[2]["error"]
    assert (output / "sub" / "deep.txt").read_text() == "level 120\n"
    assert np.asarray(Image.open(output / "sub" / "deep.png")).shape == (4, 6, 3)
    summary = json.loads((output / "pages.json").read_text())
    assert summary["request"] == identity
    assert summary["pages"][0] == {
        "name": "page2-jpg", "file": str(folder / "page2.jpg"), "number": None, "text": "level 80", "ended": True,
        "loop": 0, "content": summary["pages"][0]["content"],
    }  # fmt: skip
    before = (output / "pages.json").read_bytes()

    assert read_pages(pages, generator, reading, output, identity) == records
    assert len(generator.batches) == 3  # nothing was asked again
    (output / "sub" / "deep.json").unlink()  # as if it had been killed there
    read_pages(pages, generator, reading, output, identity)
    assert generator.batches[3:] == [[120]]
    assert (output / "pages.json").read_bytes() == before
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(folder / "page10.png")
    read_pages(pages, generator, reading, output, identity)
    assert generator.batches[4:] == [[7]]  # another picture, so another answer
    read_pages(pages, generator, reading, output, identity | {"model": "other"})
    assert len(generator.batches) == 5 + 3


def test_a_page_that_is_gone_does_not_end_the_run(folder, tmp_path):
    pages = list_pages(folder, max_pages=9).pages
    (folder / "page10.png").unlink()
    records = read_pages(pages, Levels(), Reading("Read.", batch_size=2), tmp_path / "out", {})
    assert ["error" in record for record in records] == [False, False, True, False]
    assert "page10.png" in records[2]["error"]


def test_large_pages_may_be_cut(folder, tmp_path):
    Image.fromarray(np.full((16, 24, 3), 9, np.uint8)).save(folder / "large.png")
    pages = [
        page for page in list_pages(folder, max_pages=9).pages if page.name in ("large", "page10")
    ]
    asked = []

    class Counting(Levels):
        def __call__(self, questions, writing):
            asked.extend(len(one.images) for one in questions)
            return super().__call__(questions, writing)

    read_pages(pages, Counting(), Reading("Read.", crops=4), tmp_path / "out", {})
    assert asked == [5, 1]
