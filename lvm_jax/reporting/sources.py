"""Where data come from: the sources of data sets with their licences, as rows of a table."""

from collections.abc import Iterable, Mapping
from typing import Any

CATEGORIES = {
    1: "unlabelled images",
    2: "annotated images",
    3: "unlabelled videos",
    4: "annotated videos",
    5: "turntables of 3D objects",
}
HEADER = ("source", "kind", "records", "images", "licence", "origin")
_TOLD = ("sentences", "images", "licence", "origin")  # in a manifest


def rows(manifests: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """The sources of all data sets by kind and name; what two data sets say alike is said once."""
    found = [
        (info["category"], source, *(info[name] for name in _TOLD))
        for manifest in manifests
        for source, info in manifest["sources"].items()
    ]
    return [
        (source, CATEGORIES.get(category, category), *told)
        for category, source, *told in sorted(set(found))
    ]
