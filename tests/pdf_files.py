"""PDF files for the tests, written byte by byte."""

from collections.abc import Sequence

FONT = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"


def pdf(pages: int | Sequence[str], size=(72, 144), trailer: str = "") -> bytes:
    """A file whose page i has a black square, i of the steps from the bottom upwards; or what the streams draw."""
    if isinstance(pages, int):
        pages = [f"0 g 0 {36 * i} 36 36 re f" for i in range(pages)]
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    for i, drawn in enumerate(pages):
        box = f"/MediaBox [0 0 {size[0]} {size[1]}] /Resources {FONT}"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {4 + 2 * i} 0 R >>")
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    return content + f"{end}startxref\n{len(content)}\n%%EOF\n".encode()


def written(*lines: tuple[int, int, str]) -> str:
    """A stream that writes lines of text, each at (x, y) from the bottom left, in this order."""
    return "".join(f"BT /F1 9 Tf {x} {y} Td ({text}) Tj ET\n" for x, y, text in lines)


# The standard security handler; no password fits these keys.
ENCRYPTED = (
    f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'00' * 32}> /U <{'11' * 32}> >> "
    f"/ID [<{'22' * 16}> <{'22' * 16}>]"
)
