"""VOC's lists and annotations."""

import pytest

from lvm_jax.errors import UserError
from lvm_jax.pictures import voc

ANNOTATION = """<annotation><size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>20</ymin><xmax>30</xmax><ymax>375</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>8.5</xmin><ymin>7</ymin><xmax>9</xmax><ymax>10</ymax></bndbox></object>
</annotation>"""


def test_boxes_count_from_0_and_exclude_their_ends(tmp_path):
    (tmp_path / "a.xml").write_text(ANNOTATION)
    image = voc.read_annotation(tmp_path / "a.xml")
    assert (image.width, image.height) == (500, 375)
    assert image.objects == [("cat", (0, 19, 30, 375)), ("dog", (7.5, 6, 9, 10))]


def test_a_list_is_its_lines_without_blank_ones(tmp_path):
    (tmp_path / "val.txt").write_text("2007_1\n\n 2007_2 \n")
    assert voc.read_list(tmp_path / "val.txt") == ["2007_1", "2007_2"]
    with pytest.raises(UserError, match=r"train.txt does not exist: point at the root"):
        voc.read_list(tmp_path / "train.txt")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("a\nb\na\n", ["a", "b"]),
        ("a  1\nb -1\nc  0\r\nd  1\n", ["a", "d"]),
        ("\ufeffa 1\n", ["a"]),
        ("photo 1\nphoto 2\n", ["photo 1", "photo 2"]),  # names with spaces, so no class's list
        ("2007_1\t1\n", ["2007_1"]),
    ],
)
def test_a_class_list_gives_the_images_of_its_class(tmp_path, lines, names):
    (tmp_path / "cat_val.txt").write_bytes(lines.encode())
    assert voc.read_names(tmp_path / "cat_val.txt") == names


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "lists no image: "), (b"a -1\n", "lists no image with 1"), (b"\xe9", "is damaged")],
)
def test_a_list_without_images_is_one_line(tmp_path, content, words):
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        voc.read_names(tmp_path / "val.txt")


def test_an_annotation_is_read_in_its_own_encoding(tmp_path):
    for encoding in ("utf-8-sig", "latin-1", "utf-16"):
        declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
        text = declared + ANNOTATION.replace("cat", "caf\u00e9")
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        assert voc.read_annotation(tmp_path / "a.xml").objects[0].label == "caf\u00e9"


@pytest.mark.parametrize(
    "content",
    [
        "no xml",
        "<html></html>",
        '<?xml version="1.0" encoding="none"?>' + ANNOTATION,
        ANNOTATION.replace("<xmin>1<", "<xmin>left<"),
        ANNOTATION.replace("<xmin>1<", "<xmin>nan<"),
        ANNOTATION.replace("<xmin>1<", "<xmin>1e400<"),
        ANNOTATION.replace("<xmin>1<", "<xmin>31<"),
        ANNOTATION.replace("<xmin>1</xmin>", ""),
        ANNOTATION.replace("<name>cat</name>", ""),
        ANNOTATION.replace("500", "wide"),
        None,
    ],
)
def test_a_damaged_annotation_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "a.xml").write_text(content)
    with pytest.raises(UserError, match=r"a.xml .*download it again"):
        voc.read_annotation(tmp_path / "a.xml")
