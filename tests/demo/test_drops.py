"""Files that were dropped: which become pictures, and one line for each that does not."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lvm_jax.demo import drops
from lvm_jax.demo.drops import Dropped, dropped_files, pages_of
from lvm_jax.errors import UserError


def pdf(pages: int) -> bytes:
    buffer = io.BytesIO()
    first, *rest = (Image.new("RGB", (20, 30), (40 * i, 0, 0)) for i in range(pages))
    first.save(buffer, "PDF", save_all=True, append_images=rest)
    return buffer.getvalue()


def test_files_arrive_in_one_message():
    content = base64.b64encode(b"abc").decode()
    assert dropped_files({"files": [{"name": "a", "content": content}]}) == [Dropped("a", b"abc")]
    with pytest.raises(UserError, match="arrived damaged"):
        dropped_files({"files": [{"name": "a", "content": "?"}]})
    with pytest.raises(UserError, match="60 MB at once: at most 48 MB"):
        dropped_files({"files": [], "refused": 60 << 20})


def test_the_first_pages_of_a_pdf_file_are_pictures(picture):
    pages = list(pages_of(Dropped("a.pdf", pdf(3)), most=2))
    assert [name for name, _ in pages] == ["a.pdf, page 1 of 3", "a.pdf, page 2 of 3"]
    assert pages[0][1].shape[0] == 1600  # the longer side
    assert abs(int(np.median(pages[1][1][..., 0])) - 40) < 3
    ((name, alone),) = pages_of(Dropped("b.png", picture(0)), most=2)
    assert (name, alone.shape) == ("b.png", (40, 24, 3))


def test_a_bad_pdf_file_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"^a\.pdf: cannot be read \(cut or damaged, or no PDF\)"):
        list(pages_of(Dropped("a.pdf", pdf(1)[:40]), most=2))
    monkeypatch.setattr(drops, "MAX_PDF_PAGES", 2)
    with pytest.raises(UserError, match=r"a\.pdf has 3 pages: at most 2 are opened, and the first"):
        list(pages_of(Dropped("a.pdf", pdf(3)), most=2))
