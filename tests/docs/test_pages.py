"""What pages say of files, flags and keys is so. `make docs` checks the rest: links, anchors and references."""

import pathlib
import re
import runpy
import shlex

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
_FILES = re.compile(
    r"(?<![\w/.])((?:lvm_jax|data_pipelines|experiments|benchmarks|tests|docs)/[\w/.-]*\w\.(?:py|md|png))"
)
_MODULES = re.compile(r"(?<![\w./])((?:data_pipelines|experiments)(?:\.(?!md\b)\w+)+)")
# Examples of what a reader would add.
_TO_BE_MADE = {"lvm_jax/models/decoder/hf_starcoder2.py"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_line_is_longer_than_140_characters(page):
    long = [n for n, line in enumerate(page.read_text().splitlines(), 1) if len(line) > 140]
    assert not long


def test_every_region_of_an_example_is_on_a_page():
    """The formatter has rewritten snippet lines once: they must stand alone, letter by letter."""
    regions = {
        f"{path.relative_to(ROOT)}:{name}"
        for path in (ROOT / "docs/examples").glob("*.py")
        for name in re.findall(r"--8<-- \[start:(\w+)\]", path.read_text())
    }
    shown = [
        name
        for page in PAGES
        for name in re.findall(r'^--8<-- "([\w/.:]+)"$', page.read_text(), re.MULTILINE)
    ]
    assert sorted(shown) == sorted(regions)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
        # The reference is made when the site is built.
        if not target.startswith("reference/") and "/reference/" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_and_modules_exist(page):
    text = page.read_text()
    for name in set(_FILES.findall(text)) - _TO_BE_MADE:
        assert (ROOT / name).exists(), name
    for name in set(_MODULES.findall(text)):
        path = ROOT / name.replace(".", "/")
        known = (
            path.is_dir()
            or path.with_suffix(".py").exists()
            or path.parent.with_suffix(".py").exists()
        )
        assert known, name


def commands(page):
    """The commands of a page's code blocks, as lists of words."""
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if line.lstrip().startswith("python "):
                yield from nested(shlex.split(line, comments=True))


def nested(words):
    """A command, and the one that a launch script is given by `--run`."""
    yield words
    for word in words:
        if word.startswith("--run="):
            yield shlex.split(word.removeprefix("--run="))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_keys_of_commands_exist(page):
    """`--config.a.b=...` of a command is a key of the file that its `--config=` names."""
    for words in commands(page):
        named = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
        path, _, arg = named[0].partition(":") if named else ("", "", "")
        if not (ROOT / path).is_file():
            continue  # a reader's own recipe, or none
        # Only what pages write in capitals stands for something else: PRESET, RECIPE.
        variant = None if re.search(r"[A-Z]{3}", arg) else arg or None
        keys = runpy.run_path(str(ROOT / path))["get_config"](variant)
        for word in words:
            if word.startswith("--config."):
                node = keys
                for part in word.removeprefix("--config.").partition("=")[0].split("."):
                    assert part in node, f"{word} is no key of {named[0]}"
                    node = node[part]


def with_neighbours(script: pathlib.Path) -> str:
    """The text of a script, and of what it imports from its own folder."""
    text = script.read_text()
    imported = re.findall(r"^(?:import|from) ([\w.]+)", text, re.MULTILINE)
    beside = [script.parent / f"{name.replace('.', '/')}.py" for name in imported]
    return text + "".join(with_neighbours(path) for path in beside if path.is_file())


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_flags_of_commands_exist(page):
    """`--flag=...` of a command is defined by the script that it runs."""
    for words in commands(page):
        module = (
            words[2].replace(".", "/") + ".py" if words[1:2] == ["-m"] else (words[1:2] or [""])[0]
        )
        if words[0] == "python" and (ROOT / module).is_file():
            source = with_neighbours(ROOT / module)
            for word in words[2:]:
                flag = re.match(r"--(\w+)", word)
                if flag and not word.startswith("--config."):
                    spelled = {flag[1], flag[1].removeprefix("no")}  # --noFLAG turns a boolean off
                    known = any(f'"{name}"' in source for name in spelled)
                    assert known, f"{module} has no flag {word}"
