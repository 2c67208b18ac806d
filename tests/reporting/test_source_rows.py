"""Sources of data sets as rows: by kind, and what two data sets say alike once."""

from lvm_jax.reporting.sources import rows


def test_sources_are_sorted_by_kind_and_said_once():
    def source(category, images=3):
        about = {"licence": "CC0-1.0", "origin": "made up"}
        return {"category": category, "sentences": 2, "images": images, **about}

    first = {"sources": {"b": source(1), "a": source(2)}}
    second = {"sources": {"b": source(1), "a": source(2, 9), "c": source(1)}}
    told = ("CC0-1.0", "made up")
    assert rows([first, second]) == [
        ("b", "unlabelled images", 2, 3, *told),
        ("c", "unlabelled images", 2, 3, *told),
        ("a", "annotated images", 2, 3, *told),
        ("a", "annotated images", 2, 9, *told),
    ]
