"""What stands beside the weights of a checkpoint is read past, and nothing of it is run; mutated files are refused."""

import argparse
import collections
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import random
import tracemalloc
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm_jax.errors import UserError
from lvm_jax.weights import torch_pickle

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


class Storage:
    """What a pickle refers to; `kind` is the name of its class in torch."""

    def __init__(self, array, kind="FloatStorage"):
        self.array, self.kind = array, kind


class Global:
    """A name of a module that need not be installed, as a pickle writes it."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """An object that a pickle makes by calling `function`, and then changes by `state`."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state


class Pickler(pickle._Pickler):
    """Writes these three as pickles of torch hold them."""

    def __init__(self, file, protocol=2):
        super().__init__(file, protocol)
        self.storages = []

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages.append(obj.array)
        kind = Global("torch", obj.kind)
        return ("storage", kind, str(len(self.storages) - 1), "cpu", obj.array.size)

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def tensor(array=WEIGHT, *, offset=0, size=None, stride=None, kind="FloatStorage", state=None):
    size = array.shape if size is None else size
    stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    storage = Storage(array, kind)
    return Call(rebuild, storage, offset, size, stride, False, {}, state=state)


def save(tree, path, protocol=2):
    buffer = io.BytesIO()
    pickler = Pickler(buffer, protocol)
    pickler.dump(tree)
    write(path, buffer.getvalue(), pickler.storages)
    return buffer.getvalue()


def write(path, content, arrays, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for key, array in enumerate(arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())


class Colour(enum.Enum):
    RED = 1


BESIDE = {
    "namespace": argparse.Namespace(lr=0.1, inner=argparse.Namespace(x=[1])),
    "numpy scalars": [np.float64(3), np.int32(1), np.bool_(True)],
    "numpy array": np.zeros(3),
    "torch.dtype": Global("torch", "float32"),
    "torch.device": Call(Global("torch", "device"), "cuda", 0),
    "torch.Size": Call(Global("torch", "Size"), (1, 2)),
    "ordered": collections.OrderedDict(a=1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2]),
    "set": {1, 2},
    "path": pathlib.PurePosixPath("/a/b"),
    "time": datetime.datetime(2024, 1, 1),
    "enum": Colour.RED,
    "enum of 3.11": Call(Global("builtins", "getattr"), Global("a.b", "Colour"), "RED"),
    "simple namespace": types.SimpleNamespace(a=1),
    "partial": functools.partial(datetime.date, 1),
    "bytes": b"\xff",
    "config": Call(Global("omegaconf.dictconfig", "DictConfig"), {"a": 1}, state={"b": 2}),
    "a class": Global("some_framework.models", "Model"),
    "a lambda's module": Call(Call(Global("operator", "attrgetter"), "x"), 1),
    "another tensor": tensor(np.zeros(2, np.float32)),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["sibling", "entry"])
@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_weights_is_read_past(tmp_path, name, place, protocol):
    state = collections.OrderedDict(w=tensor())
    beside = BESIDE[name]
    tree = {"state_dict": state, "args": beside} if place == "sibling" else {**state, "x": beside}
    save(tree, tmp_path / "a.ckpt", protocol)
    read = torch_pickle.read_tensors(tmp_path / "a.ckpt")
    np.testing.assert_array_equal(read.pop("w"), WEIGHT)
    assert [*read] == (["x"] if (name, place) == ("another tensor", "entry") else [])


RUNS = [("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval")]
RUNS += [("__builtin__", "exec"), ("builtins", "open"), ("builtins", "__import__")]
RUNS += [("importlib", "import_module"), ("sys", "exit"), ("pickle", "loads"), ("os.path", "join")]


@pytest.mark.parametrize(("module", "name"), RUNS)
def test_what_runs_code_refuses_the_file(tmp_path, module, name):
    tree = {"state_dict": {"w": tensor()}, "args": Call(Global(module, name), "touch mark")}
    save(tree, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=rf"evil\.ckpt asks for {module}\.{name}, .* nothing of it"):
        torch_pickle.read_tensors(tmp_path / "evil.ckpt")


def test_a_placeholder_calls_nothing(tmp_path):
    """Names that no list of dangers knows do nothing either, however they are called, filled and changed."""
    mark = tmp_path / "mark"
    makers = [Call(Global("pathlib", "Path.touch"), str(mark)), Call(Global("tests_of", "x"), 1)]
    makers += [Call(Global("webbrowser_", "open"), str(mark), state={"__class__": 1})]
    makers += [Call(Call(Global("operator", "methodcaller"), "touch"), str(mark))]
    save({"w": tensor(), "beside": makers}, tmp_path / "a.ckpt")
    np.testing.assert_array_equal(torch_pickle.read_tensors(tmp_path / "a.ckpt")["w"], WEIGHT)
    assert not mark.exists()


SPARSE = Call(Global("torch._utils", "_rebuild_sparse_tensor"), "coo", (tensor(), tensor()))
QUANTISED = Call(Global("torch._utils", "_rebuild_qtensor"), Storage(WEIGHT, "QInt8Storage"), 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (SPARSE, "w is a weight of the kind torch._utils._rebuild_sparse_tensor"),
        (QUANTISED, "w is a weight of the kind torch._utils._rebuild_qtensor"),
        (tensor(kind="ComplexFloatStorage"), "w is a weight of the kind torch.ComplexFloatStorage"),
        (
            Call(Global("a.b", "Subclass"), state={"data": tensor()}),
            "w is a weight of the kind a.b",
        ),
        (
            Call(Global("torch.nn", "Holder"), [{"inner": tensor()}]),
            "w is a weight of the kind torch",
        ),
    ],
)
def test_a_weight_inside_a_placeholder_is_refused_by_name(tmp_path, value, message):
    save({"v": tensor(), "w": value}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=message):
        torch_pickle.read_tensors(tmp_path / "a.ckpt")


@pytest.mark.parametrize("nested", [False, True])
def test_a_whole_model_is_named(tmp_path, nested):
    model = Call(Global("their.models", "Net"), state={"_parameters": {"w": tensor()}})
    save({"state_dict": model} if nested else model, tmp_path / "a.pt")
    with pytest.raises(
        UserError, match=r"an object of their\.models\.Net in place of a state dict"
    ):
        torch_pickle.read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "changed",
    [
        tensor(state={"stride": (1 << 20, 1)}),
        tensor(state={"shape": (1 << 20, 3)}),
        tensor(state=(None, {"offset": 1 << 20})),
        Call(Global("torch", "FloatStorage"), state={"dtype": 1}),
    ],
)
def test_what_was_checked_cannot_be_changed(tmp_path, changed):
    """BUILD writes into an object's attributes, frozen or not: a stride could then point anywhere in memory."""
    save({"w": changed}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt is not a file of tensors"):
        torch_pickle.read_tensors(tmp_path / "evil.pt")


def peak_bytes(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


CLAIMS = {
    "a memo of 2^31": b"\x80\x02}r\xff\xff\xff\x7f.",
    "bytes of 2^40": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a bytearray of 2^40": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a frame of 2^40": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"}.",
    "a string of 2^31": b"\x80\x02X\xff\xff\xff\x7fx.",
    "an int of 2^31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "100,000 nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claimed_size_takes_no_memory(tmp_path, claim):
    write(tmp_path / "a.pt", CLAIMS[claim], [])

    def read():
        with pytest.raises(
            UserError, match=r"a\.pt (is not a file of tensors|holds no state dict)"
        ):
            torch_pickle.read_tensors(tmp_path / "a.pt")

    assert peak_bytes(read) < 64 << 20


@pytest.mark.parametrize(
    ("size", "stride"), [((1 << 40,), (0,)), ((0, 1 << 40), (1, 1)), ((1,) * 40, (1,) * 40)]
)
def test_a_tensor_that_repeats_its_storage_is_bounded(tmp_path, size, stride):
    save({"w": tensor(size=size, stride=stride)}, tmp_path / "a.pt")
    with pytest.raises(
        UserError, match=r"a\.pt: a tensor has \d+ dimensions and repeats a storage of 6"
    ):
        torch_pickle.read_tensors(tmp_path / "a.pt")
    save({"w": tensor(size=(4, 3), stride=(0, 1))}, tmp_path / "b.pt")
    read = torch_pickle.read_tensors(tmp_path / "b.pt")["w"]
    np.testing.assert_array_equal(read, np.broadcast_to(WEIGHT[0], (4, 3)))
    save({"w": tensor(size=(1, 6), stride=(1 << 70, 1))}, tmp_path / "c.pt")
    assert torch_pickle.read_tensors(tmp_path / "c.pt")["w"].shape == (1, 6)


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    write(tmp_path / "a.pt", b"\0" * (1 << 26), [], zipfile.ZIP_DEFLATED)
    assert os.path.getsize(tmp_path / "a.pt") < 1 << 20

    def read():
        with pytest.raises(UserError, match=r"a\.pt is compressed"):
            torch_pickle.read_tensors(tmp_path / "a.pt")

    assert peak_bytes(read) < 4 << 20


def mutated(content, rng):
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.choice((1, 2, 8))]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        else:
            data[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(seed=st.integers(0, 1 << 30), whole=st.booleans())
def test_a_mutated_file_is_refused_or_read(tmp_path_factory, seed, whole):
    """Of the pickle inside, or of the whole zip. What is read lies inside its storage."""
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    beside = {name: BESIDE[name] for name in rng.sample(sorted(BESIDE), 3)}
    content = save(
        {"state_dict": {"w": tensor(), "v": tensor()}, **beside}, path, rng.choice((2, 4))
    )
    if whole:
        path.write_bytes(mutated(path.read_bytes(), rng))
    else:
        write(path, mutated(content, rng), [WEIGHT] * 3)
    try:
        read = torch_pickle.read_tensors(path)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert all(array.size <= 1 << 24 for array in read.values())
        assert all(np.isin(a, WEIGHT).all() for a in read.values() if a.dtype == np.float32)
    assert "\n" not in message
    assert len(message) < 1000
