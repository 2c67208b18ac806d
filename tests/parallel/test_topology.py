import importlib.util
import os

import pytest

from lvm_jax.errors import UserError
from lvm_jax.parallel import topology
from lvm_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize("name", ["v5p:4x4", "v5e:4x4x4", "v9:2x2", "v5p", "v5litepod-16"])
def test_a_topology_of_another_form_says_how_to_write_one(name):
    with pytest.raises(UserError, match=rf"topology '{name}' does not exist: write v5p:4x4x8"):
        topology.parse(name)


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'not installed: pip install -e "\.\[tpu\]"'):
        topology.absent_chips("v5e:4x4")


needs_libtpu = pytest.mark.skipif(
    "TPU_LIBRARY_PATH" not in os.environ and importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu, the TPU compiler: pip install libtpu",
)


@needs_libtpu
def test_slices_lie_along_the_data_axis():
    devices = topology.absent_chips("v5e:4x4", 2)
    mesh = make_mesh(MeshConfig(data=4), devices)
    assert mesh.devices.shape == (4, 8, 1, 1, 1)
    for half, index in ((mesh.devices[:2], 0), (mesh.devices[2:], 1)):
        assert {device.slice_index for device in half.flat} == {index}
    with pytest.raises(UserError, match=r"data=1 does not divide over 2 slices"):
        make_mesh(MeshConfig(), devices)


@needs_libtpu
def test_a_shape_that_no_slice_has_is_one_line():
    with pytest.raises(UserError, match="libtpu knows no topology 'v5e:1x1'"):
        topology.absent_chips("v5e:1x1")


def test_gpus_are_hosts_and_gpus_of_each(monkeypatch):
    assert topology.parse("h100:8x8") == "h100"
    with pytest.raises(UserError, match="topology 'h100:8' does not exist"):
        topology.parse("h100:8")
    with pytest.raises(UserError, match="num_slices is 2: GPUs have hosts"):
        topology.absent_chips("h200:1x8", 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps jax-cuda12-plugin=="):
        topology.absent_chips("h100:1x8")
