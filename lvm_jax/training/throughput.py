"""Peak FLOP/s of the devices: the denominator of MFU."""

import functools
import time

import jax
import jax.numpy as jnp

# Prefix of `device_kind` -> dense bf16 peak FLOP/s of one device, from the vendors' data sheets.
PEAK_FLOPS = {
    "TPU v3": 123e12 / 2,  # a JAX device is one of the chip's two cores
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
# A product takes 3 ms of one core, less than the slice of time that a scheduler gives.
_SIDE, _PRODUCTS = 512, 40


@functools.cache
def peak_flops() -> float:
    """Peak FLOP/s of all devices together: from the table, or measured if the device is not listed.

    No data sheet gives a CPU's. Its figure is the speed of an fp32 matrix product on all cores, which simulated devices
    share. An accelerator's is that of a large bf16 product. Call it outside `jax.set_mesh`.
    """
    kind = jax.devices()[0].device_kind
    # Longest prefix first: "TPU v5" also begins "TPU v5 lite".
    for prefix, peak in sorted(PEAK_FLOPS.items(), key=lambda item: -len(item[0])):
        if kind.startswith(prefix):
            return peak * jax.device_count()
    if jax.default_backend() == "cpu":
        return product_flops(_SIDE, jnp.float32, _PRODUCTS) * jax.process_count()
    return product_flops(8192, jnp.bfloat16, _PRODUCTS) * jax.device_count()


def product_flops(side: int, dtype: jax.typing.DTypeLike, products: int) -> float:
    """FLOP/s of a square matrix product on one device: the fastest of many.

    Whatever else runs on the machine can slow down most of them, and MFU would then be above 1.
    """
    x = jax.device_put(jnp.ones((side, side), dtype), jax.local_devices()[0])
    matmul = jax.jit(lambda a: a @ a)
    matmul(x).block_until_ready()  # compiles, untimed
    seconds = []
    for _ in range(products):
        start = time.perf_counter()
        matmul(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)
