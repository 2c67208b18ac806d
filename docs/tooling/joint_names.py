"""A griffe extension: `name, version: of the data set` documents two names at once, as our docstrings do."""

import re
from typing import Any

import griffe

_JOINT = re.compile(r"^( +)(\w+(?:, \w+)+): (.*)$")


class JointNames(griffe.Extension):
    """Gives each name of a joint entry in `Args:` and `Attributes:` an entry of its own, with the same text."""

    def on_object(self, *, obj: griffe.Object, loader: Any, **kwargs: Any) -> None:
        """Called for every module, class and function that is read."""
        if obj.docstring:
            obj.docstring.value = split_entries(obj.docstring.value)


def split_entries(docstring: str) -> str:
    """The docstring with joint entries repeated, name by name."""
    out: list[str] = []
    lines = docstring.splitlines()
    in_section = False
    for number, line in enumerate(lines):
        if line and not line.startswith(" "):
            in_section = line.strip() in ("Args:", "Attributes:")
        entry = _JOINT.match(line) if in_section else None
        if entry is None:
            out.append(line)
            continue
        indent, names, text = entry.groups()
        more = []
        for follows in lines[number + 1 :]:
            if not follows.startswith(f"{indent} "):
                break
            more.append(follows)
        *first, last = names.split(", ")
        for name in first:
            out += [f"{indent}{name}: {text}", *more]
        out.append(f"{indent}{last}: {text}")  # its further lines follow by themselves
    return "\n".join(out)
