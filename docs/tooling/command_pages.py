"""The page of commands: what each script says of itself, and its flags, read from the source."""

import ast
import pathlib

_HELP = 2  # absl: DEFINE_x(name, default, help, ...)
_ENUM_HELP = 3  # DEFINE_enum(name, default, values, help)


def page(root: pathlib.Path) -> str:
    """All scripts of experiments/ and the runnable modules of data_pipelines/."""
    lines = [
        "# Commands",
        "",
        "What each command says of itself, and its flags. `COMMAND --help` prints the same.",
        "A flag `--config` takes a configuration file; its keys are flags too, such as `--config.train.steps=10`:",
        "see [the configurations](configs/lvm.md).",
    ]
    for path in _scripts(root):
        lines += ["", *_section(root, path)]
    return "\n".join(lines) + "\n"


def _scripts(root: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for folder in ("experiments", "experiments/launch", "data_pipelines"):
        for path in sorted((root / folder).glob("*.py")):
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
                found.append(path)
    return found


def _section(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    relative = path.relative_to(root)
    module = ".".join(relative.with_suffix("").parts)
    name = str(relative) if relative.parent.name == "experiments" else f"-m {module}"
    lines = [f"## `python {name}` {{ #{path.stem} }}", "", *_plain(ast.get_docstring(tree) or "")]
    rows = [row for node in ast.walk(tree) if (row := _flag(node))]
    if rows:
        lines += ["", "| flag | default | |", "|---|---|---|", *rows]
    return lines


def _plain(docstring: str) -> list[str]:
    """A docstring's first sentence as prose, and the rest as it stands: its commands and tables are aligned by hand."""
    first, _, rest = docstring.partition("\n\n")
    if "python" in first.split("\n")[0] and "--" in first:
        first, rest = "", docstring
    return [first, "", *(["```text", rest, "```"] if rest else [])]


def _flag(node: ast.AST) -> str | None:
    """A row of the table, if the node defines a flag."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    kind = node.func.attr
    if (
        not kind.startswith("DEFINE_")
        or not node.args
        or not isinstance(node.args[0], ast.Constant)
    ):
        return None
    place = _ENUM_HELP if kind == "DEFINE_enum" else _HELP
    if kind == "DEFINE_config_file":
        default, text = _code(node.args, 1), "configuration file, `FILE.py` or `FILE.py:ARG`"
    else:
        default, text = _code(node.args, 1), _text(node.args, place)
    required = any(keyword.arg == "required" for keyword in node.keywords)
    if required or default == "`None`":
        default = "required" if required else ""
    if kind == "DEFINE_enum" and isinstance(node.args[2], ast.List | ast.Tuple):
        text += ": " + ", ".join(f"`{ast.literal_eval(item)}`" for item in node.args[2].elts)
    return f"| `--{node.args[0].value}` | {default} | {_cell(text)} |"


def _code(args: list[ast.expr], place: int) -> str:
    return f"`{ast.unparse(args[place])}`" if len(args) > place else ""


def _text(args: list[ast.expr], place: int) -> str:
    if len(args) <= place:
        return ""
    node = args[place]
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):  # f"SLURM's --{name}"
        return ast.unparse(node)[2:-1]
    return ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
