"""What stands in a cell ends neither the cell nor its row."""

from lvm_jax.reporting import markdown


def test_a_cell_stays_in_its_row():
    text = markdown.as_markdown({"answers": {"a|b: next frame": "one\n|two", "loss": 0.12345}})
    assert text.splitlines()[-2:] == ["| a\\|b: next frame | one \\|two |", "| loss | 0.1235 |"]
    assert markdown.table(("x",), [("one\ntwo",)]).splitlines()[-1] == "| one two |"
