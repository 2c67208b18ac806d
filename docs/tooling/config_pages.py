"""The reference of every configuration key: its default, and what it means.

Defaults come from running a file's `get_config()`, so they are the ones that a run gets. What a key means comes from
the file's comments, behind the line that sets it or on the lines above; where the file says nothing, from the
`Attributes:` of the dataclass that the recipe reads it into. In a file that names its recipe, a key that nothing
explains fails the build.
"""

import ast
import dataclasses
import functools
import io
import logging
import pathlib
import re
import runpy
import tokenize
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from generated import GeneratedPage

_LOG = logging.getLogger("mkdocs.plugins.config_pages")  # a warning here fails a strict build
_FOLDER = "experiments/configs"
# Keys that name a setting of an open set; their children are the reader's own and are not listed one by one.
_OPEN = {"sizes", "mixtures", "repeats", "variants"}


@dataclasses.dataclass(frozen=True)
class Comments:
    """What a file says of its keys.

    Attributes:
      of_key: dotted key, such as "train.steps" -> text. A section has the comment above its first line.
    """

    of_key: Mapping[str, str]

    @classmethod
    def read(cls, source: str) -> "Comments":
        """The comments of a configuration file.

        Understood are statements inside its functions of the forms

            config.train.steps = 100  # what it means
            config.train = ConfigDict({"steps": 100})  # and calls with keywords or dicts, at any depth
            train = config.train = ConfigDict()  # `train.steps = 100` then means the same

        A comment belongs to the key on its line; lines of comments alone belong to the key on the line below them. Only
        the first line that sets a key counts: later ones change it for one variant, and say why there.
        """
        trailing, own_line = _comments(source)
        found: dict[str, str] = {}
        for key, node in _keys(ast.parse(source)):
            text = _above(node.lineno, own_line, trailing)
            # A call over several lines: what stands behind its first or last line is about all of it.
            inner = isinstance(node, ast.Assign) and _is_container(node.value)
            lines = {node.lineno} if inner else {node.lineno, node.end_lineno or node.lineno}
            text += [trailing[line] for line in sorted(lines) if line in trailing]
            if not inner and not text:
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                text = [trailing.get(line, own_line.get(line, "")) for line in lines]
            found.setdefault(key, " ".join(part for part in text if part))
        return cls(found)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key: "train.steps", its default, what it means ("" for nothing known)."""

    name: str
    default: Any
    text: str


@functools.cache
def pages(root: pathlib.Path) -> tuple[GeneratedPage, ...]:
    """A page for each configuration file."""
    made = []
    for path in sorted((root / _FOLDER).glob("*.py")):
        if not path.name.startswith("_"):
            made.append(_page(root, path))
    return tuple(made)


def keys_of(path: pathlib.Path) -> list[Key]:
    """All keys of a file with their defaults, in the order in which the file sets them."""
    module = _load(path)
    comments = Comments.read(path.read_text(encoding="utf-8")).of_key
    documented = _documented_fields(_experiment(module))
    defaults = dict(_leaves(module["get_config"]().to_dict()))
    # A ConfigDict forgets the order of its keys; the file groups them for a reader.
    ordered = [name for name in comments if name in defaults]
    ordered += [name for name in defaults if name not in comments]
    sections = list(dict.fromkeys(_section(name) for name in ordered))
    ordered.sort(key=lambda name: sections.index(_section(name)))
    return [
        Key(name, defaults[name], comments.get(name) or documented.get(name, ""))
        for name in ordered
    ]


def is_read_by_a_recipe(path: pathlib.Path) -> bool:
    """Whether `experiments/train.py` takes the file: then every key of it must be explained."""
    return "recipe" in _load(path)["get_config"]()


def _page(root: pathlib.Path, path: pathlib.Path) -> GeneratedPage:
    relative = path.relative_to(root)
    docstring = _load(path)["__doc__"] or ""
    comments = Comments.read(path.read_text(encoding="utf-8")).of_key
    lines = [f"# `{relative}`", "", "```text", docstring.strip(), "```", ""]
    lines += [
        "Each key is a flag: `--config.KEY=VALUE`. Defaults are those of the file without an argument.",
        "",
    ]
    checked = is_read_by_a_recipe(path)
    section = None
    for key in keys_of(path):
        if not key.text and checked:
            _LOG.warning("%s: no comment says what %s means", relative, key.name)
        head = _section(key.name)
        if head != section:
            section = head
            lines += ["", f"## `{head or 'config'}`", ""]
            if head and head in comments:
                lines += [comments[head], ""]
            lines += ["| key | default | |", "|---|---|---|"]
        lines.append(f"| `{key.name}` | `{_shown(key.default)}` | {_cell(key.text)} |")
    return GeneratedPage(
        f"reference/configs/{path.stem}.md", str(path.stem), "\n".join(lines) + "\n"
    )


@functools.cache
def _load(path: pathlib.Path) -> Mapping[str, Any]:
    """The names that the file defines."""
    return runpy.run_path(str(path))


def _experiment(module: Mapping[str, Any]) -> Any:
    """The dataclass that the file's recipe reads the configuration into, or None."""
    config = module["get_config"]()
    if "recipe" not in config:
        return None
    from lvm_jax.recipes import RECIPES

    return RECIPES[config.recipe].experiment


def _documented_fields(cls: Any, prefix: str = "") -> dict[str, str]:
    """Dotted field -> what the `Attributes:` of its dataclass say, nested dataclasses included."""
    if not dataclasses.is_dataclass(cls):
        return {}
    found = {prefix + name: text for name, text in attributes(cls.__doc__ or "").items()}
    for name, hint in typing.get_type_hints(cls).items():
        found |= _documented_fields(hint, f"{prefix}{name}.")
    return found


def attributes(docstring: str) -> dict[str, str]:
    """The entries of a Google-style `Attributes:` section."""
    section = re.search(r"^ *Attributes:\n((?:.*\n?)*)", docstring, re.MULTILINE)
    if not section:
        return {}
    found: dict[str, str] = {}
    names: list[str] = []
    indent = None
    for line in section[1].splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        entry = re.match(r"([\w, ]+): (.*)", line.strip())
        if depth < indent:
            break
        if depth == indent and entry:
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Line -> comment behind code, and line -> comment alone on its line."""
    trailing: dict[int, str] = {}
    own_line: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            text = token.string.lstrip("#").strip()
            if not text.startswith(("noqa", "fmt:", "pyright:", "type:")):
                (own_line if alone else trailing)[token.start[0]] = text
    return trailing, own_line


def _above(line: int, own_line: Mapping[int, str], trailing: Mapping[int, str]) -> list[str]:
    """The block of comment lines that ends just above a line."""
    block: list[str] = []
    while (line := line - 1) in own_line and line not in trailing:
        block.insert(0, own_line[line])
    return block


def _keys(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every (dotted key, node that sets it) in the functions of a file, in order."""
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            names = {"config": ""}
            for node in ast.walk(function):
                if isinstance(node, ast.Assign):
                    yield from _assigned(node, names)


def _assigned(node: ast.Assign, names: dict[str, str]) -> Iterator[tuple[str, ast.AST]]:
    targets = [key for target in node.targets if (key := _dotted(target, names))]
    for target in node.targets:
        if isinstance(target, ast.Name) and targets:
            names[target.id] = f"{targets[0]}."  # another name for the section
    for key in targets:
        yield key, node
        yield from _inside(node.value, key)


def _dotted(target: ast.expr, names: Mapping[str, str]) -> str | None:
    parts: list[str] = []
    while isinstance(target, ast.Attribute):
        parts.insert(0, target.attr)
        target = target.value
    if parts and isinstance(target, ast.Name) and target.id in names:
        return names[target.id] + ".".join(parts)
    return None


def _is_container(value: ast.expr) -> bool:
    return next(_inside(value, ""), None) is not None or isinstance(value, ast.Call)


def _inside(value: ast.expr, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """The keys that a dict or a call with keywords gives, at any depth."""
    if isinstance(value, ast.Dict):
        for key, item in zip(value.keys, value.values):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield from _entry(f"{prefix}.{key.value}", key, item)
    elif isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg:
                yield from _entry(f"{prefix}.{keyword.arg}", keyword, keyword.value)
        for argument in value.args:
            yield from _inside(argument, prefix)


def _entry(
    name: str, where: ast.expr | ast.keyword, value: ast.expr
) -> Iterator[tuple[str, ast.AST]]:
    end = value.lineno if _is_container(value) else value.end_lineno
    yield name, ast.Expr(value, lineno=where.lineno, end_lineno=end, col_offset=0)
    yield from _inside(value, name)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value and name not in _OPEN:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(str, value)) or "{}"
    return repr(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
