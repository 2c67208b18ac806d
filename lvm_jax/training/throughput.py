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
    """Peak FLOP/s of all devices together: from the table, or measured if the device is not listed (a CPU).

    No data sheet gives a CPU's. Its figure is the speed of a large fp32 matrix product on all cores, which simulated
    devices share: the fastest of many short ones, because what else runs on the machine can slow down every long one,
    and MFU would then be above 1. Call it outside `jax.set_mesh`.
    """
    kind = jax.devices()[0].device_kind
    # Longest prefix first: "TPU v5" also begins "TPU v5 lite".
    for prefix, peak in sorted(PEAK_FLOPS.items(), key=lambda item: -len(item[0])):
        if kind.startswith(prefix):
            return peak * jax.device_count()
    x = jax.device_put(jnp.ones((_SIDE, _SIDE), jnp.float32), jax.local_devices()[0])
    matmul = jax.jit(lambda a: a @ a)
    matmul(x).block_until_ready()  # compiles, untimed
    seconds = []
    for _ in range(_PRODUCTS):
        start = time.perf_counter()
        matmul(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / min(seconds) * jax.process_count()
