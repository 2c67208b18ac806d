"""Writes hlo/scan_on_8_devices.txt: the compiled text of LAYERS layers under FSDP, as XLA's CPU backend prints it.

XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python tests/analysis/make_hlo.py
"""

import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

LAYERS, ROWS, WIDTH = 5, 64, 32


def loss(w_LDD: jax.Array, x_BD: jax.Array) -> jax.Array:
    y_BD, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x_BD, w_LDD)
    return jnp.sum(y_BD)


if __name__ == "__main__":
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        w = jax.device_put(jnp.ones((LAYERS, WIDTH, WIDTH)), P(None, "fsdp"))
        x = jax.device_put(jnp.ones((ROWS, WIDTH)), P("fsdp"))
        compiled = jax.jit(jax.grad(loss), out_shardings=w.sharding).lower(w, x).compile()
    here = pathlib.Path(__file__).parent
    text = compiled.as_text().replace(str(here.parents[1]) + "/", "")  # no path of this machine
    (here / "hlo" / "scan_on_8_devices.txt").write_text(text)
