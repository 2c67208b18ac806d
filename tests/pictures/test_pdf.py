"""Pages of PDF files, written here byte by byte; and files that are none."""

import numpy as np
import pytest

from lvm_jax.pictures.decode import BadImage
from lvm_jax.pictures.pdf import BadPdf, count_pages, render_page

pytest.importorskip("pypdfium2", reason="pypdfium2 renders pages: pip install 'lvm_jax[pdf]'")


def pdf(pages: int, size=(72, 144), trailer: str = "") -> bytes:
    """A file whose page i has a black square, i of the steps from the bottom upwards."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(pages))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>")
    for i in range(pages):
        drawn = f"0 g 0 {36 * i} 36 36 re f"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {4 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    return content + f"{end}startxref\n{len(content)}\n%%EOF\n".encode()


# The standard security handler; no password fits these keys.
ENCRYPTED = (
    f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'00' * 32}> /U <{'11' * 32}> >> "
    f"/ID [<{'22' * 16}> <{'22' * 16}>]"
)


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pdf(1, trailer=ENCRYPTED), r"a\.pdf is encrypted: save a copy without a password"),
        (pdf(1)[:60], r"a\.pdf cannot be read \(cut or damaged"),
        (b"", r"a\.pdf cannot be read"),
        (pdf(3), r"a\.pdf has 3 pages, at most 2 are read: raise --max_pages"),
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
