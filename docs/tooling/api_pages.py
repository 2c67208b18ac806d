"""The reference of every public name: a page a package, filled by mkdocstrings from the docstrings.

Nothing is imported: griffe reads the sources. A public name is one without a leading underscore that has a docstring,
in a module without a leading underscore.
"""

import ast
import functools
import pathlib

from generated import GeneratedPage

_PACKAGES = ("lvm_jax", "data_pipelines")
_SKIPPED = {"configs", "assets"}  # recipes, which the pages of configurations show, and pictures


@functools.cache
def pages(root: pathlib.Path) -> tuple[GeneratedPage, ...]:
    """A page for each package with modules of its own, in the order of their names."""
    made = []
    for package in _PACKAGES:
        for folder in sorted({path.parent for path in (root / package).rglob("*.py")}):
            modules = _modules(folder)
            if modules and not _SKIPPED & set(folder.relative_to(root).parts):
                made.append(_page(root, folder, modules))
    return tuple(made)


def overview(root: pathlib.Path) -> str:
    """The table of the packages, each with the first sentence of its docstring."""
    lines = [
        "# Reference",
        "",
        "Generated at build time from the sources, so it says what the code does today.",
        "",
        "- [Configurations](configs/lvm.md): every key, its default, what it means.",
        "- [Commands](commands.md): every script, and its flags.",
        "- Python: every public name, a page a package.",
        "",
        "| package | what it holds |",
        "|---|---|",
    ]
    for page in pages(root):
        folder = root / page.title.replace(".", "/")
        lines.append(
            f"| [`{page.title}`](python/{page.title}.md) | {_summary(folder / '__init__.py')} |"
        )
    return "\n".join(lines) + "\n"


def _modules(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]


def _page(root: pathlib.Path, folder: pathlib.Path, modules: list[pathlib.Path]) -> GeneratedPage:
    name = ".".join(folder.relative_to(root).parts)
    lines = [f"# `{name}`", "", _docstring(folder / "__init__.py"), ""]
    for module in modules:
        lines += [f"::: {name}.{module.stem}", ""]
    return GeneratedPage(f"reference/python/{name}.md", name, "\n".join(lines))


def _docstring(path: pathlib.Path) -> str:
    if not path.exists():
        return ""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _summary(path: pathlib.Path) -> str:
    return _docstring(path).partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")
