import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from lvm_jax.errors import UserError
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.parallel.sharding import BatchPlacement, constrain, partition_spec, state_shardings
from lvm_jax.tasks.accumulation import cut


def mesh_of(**sizes):
    return make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize(
    ("sizes", "axes", "shape", "spec"),
    [
        ({"fsdp": 8}, ("embed", "mlp"), (16, 24), P("fsdp")),
        ({"fsdp": 2, "tensor": 4}, ("embed", "mlp"), (16, 24), P("fsdp", "tensor")),
        (
            {"fsdp": 2, "tensor": 4},
            ("layers", "mlp", "embed"),
            (3, 24, 16),
            P(None, "tensor", "fsdp"),
        ),
        (
            {"data": 2, "fsdp": 2, "tensor": 2},
            ("batch", "seq", "act_embed"),
            (8, 5, 16),
            P(("data", "fsdp")),
        ),
        ({"data": 8, "fsdp": 1}, ("embed", "mlp"), (16, 24), P()),
    ],
)
def test_rules_place_logical_axes(sizes, axes, shape, spec):
    assert partition_spec(axes, shape, mesh_of(**sizes)) == spec


def test_mistakes_name_array_axis_and_sizes():
    mesh = mesh_of(fsdp=4, tensor=2)
    with pytest.raises(UserError, match=r"kernel: embed=18 does not divide over mesh axes fsdp=4"):
        partition_spec(("embed", "mlp"), (18, 24), mesh, name="kernel")
    with pytest.raises(UserError, match="'embde' is not in the rules"):
        partition_spec(("embde",), (16,), mesh)
    with pytest.raises(UserError, match="'heads' and 'mlp' both map to mesh axis 'tensor'"):
        partition_spec(("heads", "mlp"), (4, 24), mesh)
    with pytest.raises(UserError, match="name each dimension once"):
        partition_spec(("embed",), (16, 16), mesh)


def test_each_microbatch_divides_over_the_mesh():
    """Otherwise every device would compute all its rows."""
    with jax.set_mesh(mesh_of(fsdp=4, tensor=2)):
        rows = jax.ShapeDtypeStruct((8, 3), jnp.float32)
        assert jax.eval_shape(lambda x: cut(x, 2), rows).shape == (2, 4, 3)
        with pytest.raises(UserError, match=r"a batch of 8 in 4 parts .*=4 of .*a multiple of 16"):
            jax.eval_shape(lambda x: cut(x, 4), rows)


def test_state_shardings_follow_metadata_and_replicate_the_rest():
    mesh = mesh_of(fsdp=4, tensor=2)
    param = nnx.Param(jnp.zeros((16, 24)), axes=("embed", "mlp"))
    state = {"step": jnp.zeros((), jnp.int32), "params": nnx.State({"kernel": param})}
    shardings = state_shardings(jax.eval_shape(lambda: state), mesh)
    assert shardings["step"].spec == P()
    assert shardings["params"]["kernel"].get_raw_value().spec == P("fsdp", "tensor")
    with pytest.raises(UserError, match=r"bare.*has no logical axes"):
        state_shardings({"bare": nnx.Param(jnp.zeros(3))}, mesh)


def test_constrain_acts_under_a_mesh_and_is_nothing_without():
    x = jnp.ones((8, 6, 16))
    assert constrain(x, "batch", "seq", "act_embed") is x
    mesh = mesh_of(fsdp=8)
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x * 2, "batch", "seq", "act_embed"))(x)
        odd = jax.jit(lambda x: constrain(x * 2, "batch", "seq", "act_embed"))(x[:3])
    assert y.sharding.spec == P("fsdp")
    assert odd.sharding.is_fully_replicated


def test_batches_are_split_over_every_batch_axis():
    placement = BatchPlacement(mesh_of(data=2, fsdp=2, tensor=2), 8)
    rows = np.arange(16, dtype=np.int32).reshape(8, 2)
    batch = placement.put({"tokens": rows})["tokens"]
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(batch, rows)
    with pytest.raises(UserError, match=r"batch of 6 does not divide over data\*fsdp\*expert=4"):
        BatchPlacement(mesh_of(data=2, fsdp=2, tensor=2), 6)
