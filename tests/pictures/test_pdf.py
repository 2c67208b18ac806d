"""Pages of PDF files; and files that are none."""

import numpy as np
import pytest
from pdf_files import ENCRYPTED, pdf, written

from lvm_jax.pictures.decode import BadImage
from lvm_jax.pictures.pdf import BadPdf, count_pages, page_text, render_page

pytest.importorskip("pypdfium2", reason="pypdfium2 renders pages: pip install 'lvm_jax[pdf]'")


def test_pages_are_rendered(tmp_path):
    path = tmp_path / "two.pdf"
    path.write_bytes(pdf(2))
    assert count_pages(path, most=2) == count_pages(pdf(2)) == 2
    for number, rows in enumerate((slice(60, 80), slice(40, 60))):
        picture = render_page(path, number, 80)
        assert picture.shape == (80, 40, 3)
        expected = np.full((80, 40), 255)
        expected[rows, :20] = 0
        assert (np.abs(picture[..., 0].astype(int) - expected) > 8).mean() < 0.02
        assert np.array_equal(render_page(pdf(2), number, 80), picture)


def test_the_longer_side_is_what_was_asked_for_whatever_the_page():
    for longer in (25, 41, 612, 792, 841.89, 841.92, 1008):
        for side in (224, 1024, 1200):
            assert max(render_page(pdf(1, size=(20, longer)), 0, side).shape) == side


def test_the_text_of_a_page_in_the_order_in_which_it_is_written(tmp_path):
    columns = written((10, 120, "left one"), (10, 108, "left two"), (110, 120, "  right  "))
    (tmp_path / "a.pdf").write_bytes(pdf([columns, "0 g 0 0 9 9 re f"], size=(200, 144)))
    assert page_text(tmp_path / "a.pdf", 0) == "left one\nleft two\nright"
    assert page_text(tmp_path / "a.pdf", 1) == ""
    with pytest.raises(BadPdf, match=r"a\.pdf page 9 has no readable text"):
        page_text(tmp_path / "a.pdf", 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pdf(1, trailer=ENCRYPTED), r"a\.pdf is encrypted: save a copy without a password"),
        (pdf(1)[:60], r"a\.pdf cannot be read \(cut or damaged"),
        (b"", r"a\.pdf cannot be read"),
        (pdf(3), r"a\.pdf has 3 pages, at most 2 are read: raise max_pages"),
        (pdf(0), r"a\.pdf (has 0 pages|cannot be read)"),
    ],
    ids=["encrypted", "cut", "empty", "long", "blank"],
)
def test_bad_files_are_named(tmp_path, content, message):
    (tmp_path / "a.pdf").write_bytes(content)
    with pytest.raises(BadPdf, match=message):
        count_pages(tmp_path / "a.pdf", most=2)


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(BadPdf, match="does not exist"):
        count_pages(tmp_path / "none.pdf", most=1)
    (tmp_path / "a.pdf").write_bytes(pdf(1))
    with pytest.raises(BadImage, match=r"a\.pdf page 6: cannot be rendered"):
        render_page(tmp_path / "a.pdf", 5, 80)
