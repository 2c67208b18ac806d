"""Published folders and PyTorch files, read without PyTorch; a pickle cannot make the reader do anything."""

import collections
import io
import json
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from lvm_jax.errors import UserError
from lvm_jax.models import VQGAN, presets
from lvm_jax.models.tokenizer.published_vqgan import torch_name, torch_shape
from lvm_jax.weights import model_folder, torch_pickle

CONFIG = presets.vqgan(
    "debug",
    resolution=256,
    channel_mult=(1, 2),
    attn_resolutions=(128,),
    num_res_blocks=1,
    norm_groups=32,
    pixel_range="-1_1",
    hidden_channels=4,
)


class FakeTensor:
    """What torch.Tensor tells a pickler."""

    def __init__(self, array: np.ndarray, offset: int = 0):
        self.array, self.offset = array, offset

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        storage = FakeStorage(self.array)
        arguments = (storage, self.offset, self.array.shape, strides, False)
        return rebuild, (*arguments, collections.OrderedDict())


class FakeStorage:
    def __init__(self, array: np.ndarray):
        self.array = array


class Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, obj):
        if not isinstance(obj, FakeStorage):
            return None
        self.storages.append(np.ascontiguousarray(obj.array))
        kind = sys.modules["torch"].FloatStorage
        return ("storage", kind, str(len(self.storages) - 1), "cpu", obj.array.size)


@pytest.fixture
def torch_save(monkeypatch):
    """torch.save, as far as these tests need it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild(*arguments):
        raise AssertionError("torch's own function was called")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    lightning = types.ModuleType("pytorch_lightning")
    lightning.Callback = type("Callback", (), {"__module__": "pytorch_lightning"})
    for module in (torch, utils, lightning):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def save(tree, path, *, cut=False):
        buffer = io.BytesIO()
        pickler = Pickler(buffer)
        pickler.dump(tree)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", buffer.getvalue())
            archive.writestr("archive/byteorder", "little")
            for key, array in enumerate(pickler.storages):
                archive.writestr(f"archive/data/{key}", array.tobytes()[: -4 if cut else None])

    return save


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    parameters = model_folder.named_parameters(VQGAN.abstract(CONFIG))
    return {
        torch_name(CONFIG, k): generator.random(torch_shape(v.shape), np.float32)
        for k, v in parameters.items()
    }


def same(vqgan: VQGAN, expected: dict[str, np.ndarray]) -> bool:
    ours = model_folder.to_tensors(vqgan)
    return all(
        np.array_equal(
            t.transpose(3, 2, 0, 1) if t.ndim == 4 else t, expected[torch_name(CONFIG, k)]
        )
        for k, t in ours.items()
    )


def test_a_taming_checkpoint_tells_its_own_shape(tmp_path, torch_save):
    published = tensors()
    callbacks = {sys.modules["pytorch_lightning"].Callback: {"best": 0.1}}
    state = {name: FakeTensor(array) for name, array in published.items()}
    state["loss.perceptual_loss.net.weight"] = FakeTensor(np.zeros((2, 2), np.float32))
    torch_save(
        {"epoch": 3, "callbacks": callbacks, "state_dict": collections.OrderedDict(state)},
        tmp_path / "last.ckpt",
    )
    vqgan = VQGAN.from_pretrained(tmp_path / "last.ckpt")
    assert vqgan.config == CONFIG
    assert same(vqgan, published)


@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "model.safetensors", "diffusion_pytorch_model.safetensors"]
)
def test_an_open_muse_folder(tmp_path, torch_save, file):
    muse = {
        "_class_name": "VQGANModel",
        "_version": "0.0.1",
        **{name: getattr(CONFIG, name) for name in ("resolution", "channel_mult", "z_channels")},
        **{name: getattr(CONFIG, name) for name in ("attn_resolutions", "num_embeddings")},
        **{name: getattr(CONFIG, name) for name in ("hidden_channels", "num_res_blocks")},
        "quantized_embed_dim": CONFIG.quantized_embed_dim,
        "no_attn_mid_block": CONFIG.no_attn_mid_block,
        "dropout": 0.0,
        "commitment_cost": 0.25,
    }
    (tmp_path / "config.json").write_text(json.dumps(muse))
    with pytest.raises(UserError, match=r"has no weights beside its config\.json"):
        VQGAN.from_pretrained(tmp_path)
    published = tensors()
    if file.endswith(".bin"):
        torch_save({k: FakeTensor(v) for k, v in published.items()}, tmp_path / file)
    else:
        save_file(published, tmp_path / file)
    vqgan = VQGAN.from_pretrained(tmp_path, dtype="bfloat16")
    assert vqgan.config.pixel_range == "0_1"
    assert vqgan.config.dtype == "bfloat16"
    assert same(vqgan, published)
    vqgan.save_pretrained(tmp_path / "ours")
    assert same(VQGAN.from_pretrained(tmp_path / "ours"), published)


def test_misfits_in_a_checkpoint_are_named(tmp_path, torch_save):
    published = tensors()
    del published["decoder.conv_out.bias"]
    published["quant_conv.bias"] = np.zeros(3, np.float32)
    published["encoder.more"] = np.zeros(3, np.float32)
    torch_save({k: FakeTensor(v) for k, v in published.items()}, tmp_path / "model.pt")
    with pytest.raises(UserError) as caught:
        VQGAN.from_pretrained(tmp_path / "model.pt")
    for part in ("missing: decoder.conv_out.bias", "not part of the model: encoder.more"):
        assert part in str(caught.value)
    assert "quant_conv.bias (3,) instead of" in str(caught.value)
    torch_save({"weights": FakeTensor(np.zeros((2, 2), np.float32))}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="is no taming-transformers VQGAN"):
        VQGAN.from_pretrained(tmp_path / "other.pt")


class Command:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir])
def test_a_malicious_pickle_runs_nothing(tmp_path, torch_save, function):
    mark = tmp_path / "mark"
    code = {os.system: f"touch {mark}", os.mkdir: str(mark)}.get(
        function, f"open({str(mark)!r}, 'w')"
    )
    torch_save({"state_dict": {"a": Command(function, code)}}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"evil\.ckpt asks for .* nothing of it was run"):
        VQGAN.from_pretrained(tmp_path / "evil.ckpt")
    assert not mark.exists()


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path, torch_save):
    path = tmp_path / "evil.pt"
    torch_save({"a": FakeTensor(np.zeros(4, np.float32), offset=1)}, path)
    with pytest.raises(UserError, match="reaches beyond its storage of 4"):
        torch_pickle.read_tensors(path)
    torch_save({"a": FakeTensor(np.zeros(4, np.float32), offset=-1)}, path)
    with pytest.raises(UserError, match="the file is damaged"):
        torch_pickle.read_tensors(path)
    torch_save({"a": FakeTensor(np.zeros(4, np.float32))}, path, cut=True)
    with pytest.raises(UserError, match="storage 0 is cut short"):
        torch_pickle.read_tensors(path)


def test_transposed_views_are_rebuilt(tmp_path, torch_save):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    view = FakeTensor(matrix)
    view.array = np.lib.stride_tricks.as_strided(matrix, (3, 2), (4, 12))
    path = tmp_path / "a.pt"
    torch_save({"a": view}, path)
    stored = np.ascontiguousarray(view.array).ravel()  # what the file's storage holds
    expected = np.lib.stride_tricks.as_strided(stored, (3, 2), (4, 12))
    np.testing.assert_array_equal(torch_pickle.read_tensors(path)["a"], expected)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04 cut"])
def test_older_or_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ckpt is damaged, or older than torch 1\.6"):
        VQGAN.from_pretrained(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"b\.ckpt cannot be read"):
        VQGAN.from_pretrained(tmp_path / "b.ckpt")
