import dataclasses

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize(
    ("config", "n", "sizes"),
    [
        (MeshConfig(), 8, (1, 8, 1, 1, 1)),
        (MeshConfig(data=2, tensor=2), 8, (2, 2, 1, 2, 1)),
        (MeshConfig(data=-1, fsdp=1), 4, (4, 1, 1, 1, 1)),
        (MeshConfig(data=2, fsdp=4), 8, (2, 4, 1, 1, 1)),
    ],
)
def test_one_size_may_be_left_open(config, n, sizes):
    assert config.sizes(n) == sizes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), "needs a multiple of 3 devices and there are 8"),
        (MeshConfig(data=2, fsdp=2), "needs 4 devices and there are 8"),
        (MeshConfig(data=-1), "at most one of them is -1"),
        (MeshConfig(data=0), "at least 1"),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(config, message):
    with pytest.raises(UserError, match=message):
        config.sizes(8)


@dataclasses.dataclass(frozen=True)
class Chip:
    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "a chip"
    process_index: int = 0


def test_the_data_axis_lies_across_slices_and_all_others_within_one():
    chips = [Chip(i, slice_index=i % 2) for i in range(16)]
    grid = make_mesh(MeshConfig(data=4, tensor=2), chips).devices
    assert grid.shape == (4, 2, 1, 2, 1)
    slices = np.vectorize(lambda chip: chip.slice_index)(grid)
    assert (slices == np.array([0, 0, 1, 1]).reshape(4, 1, 1, 1, 1)).all()
    with pytest.raises(UserError, match="data=1 does not divide over 2 slices"):
        make_mesh(MeshConfig(tensor=2), chips)
