"""Weights go from files to their places on a mesh: each device's slices are read, and nothing else."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from lvm_jax.models import Llama, presets
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.weights.tensor_files import TensorFiles

CONFIG = presets.llama(
    "debug",
    vocab_size=140,
    hidden_size=32,
    intermediate_size=48,
    num_key_value_heads=2,
    qkv_bias=True,
)


@pytest.fixture
def blocks(monkeypatch):
    """Shapes of what is read, by tensor."""
    seen: dict[str, set[tuple[int, ...]]] = {}
    read = TensorFiles.read

    def spy(self, name, index=()):
        block = read(self, name, index)
        seen.setdefault(name, set()).add(block.shape)
        return block

    monkeypatch.setattr(TensorFiles, "read", spy)
    return seen


def test_only_the_slices_of_each_device_are_read(tmp_path, blocks):
    own = nnx.jit(lambda: Llama(CONFIG, rngs=nnx.Rngs(0)))()
    own.layers.attention.query_bias[...] += np.arange(2 * 32).reshape(2, 32)
    own.save_pretrained(tmp_path)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        loaded = Llama.from_pretrained(tmp_path)
    for (path, one), (_, other) in zip(
        nnx.to_flat_state(nnx.state(own)), nnx.to_flat_state(nnx.state(loaded)), strict=True
    ):
        np.testing.assert_array_equal(one[...], other[...], err_msg=str(path))
    query = loaded.layers.attention.query[...]
    assert query.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    layer = "model.layers.0."
    assert blocks[f"{layer}self_attn.q_proj.weight"] == {(16, 16)}  # half of (32, 32), twice
    assert blocks[f"{layer}self_attn.q_proj.bias"] == {(16,)}
    assert blocks[f"{layer}self_attn.o_proj.weight"] == {(16, 16)}
    assert blocks[f"{layer}mlp.down_proj.weight"] == {(16, 24)}
    assert blocks["model.embed_tokens.weight"] == {(128, 16), (12, 16)}  # 256 padded rows, halved
    assert blocks["lm_head.weight"] == {(128, 16), (12, 16)}
