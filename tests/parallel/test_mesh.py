import pytest

from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import MeshConfig


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
