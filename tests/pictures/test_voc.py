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


@pytest.mark.parametrize("content", ["no xml", ANNOTATION.replace("<xmin>1<", "<xmin>left<"), None])
def test_a_damaged_annotation_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "a.xml").write_text(content)
    with pytest.raises(UserError, match=r"a.xml .*download it again"):
        voc.read_annotation(tmp_path / "a.xml")
