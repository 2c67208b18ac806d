"""Speed as it is quoted: items a second, and the fraction of the device's peak that the model's FLOPs use (MFU)."""

import functools
import time

import jax
import jax.numpy as jnp

# Dense bf16 peak FLOP/s of one chip, by prefix of `device_kind`: vendors' data sheets.
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


@functools.cache
def peak_flops() -> float:
    """Peak FLOP/s of all devices together: the data sheet's, or, where none is listed (a CPU), measured.

    A CPU has no honest data sheet; its figure is a large fp32 matrix product's on all cores, shared by however many
    devices are simulated on them. Call it outside `jax.set_mesh`.
    """
    kind = jax.devices()[0].device_kind
    for prefix, peak in sorted(PEAK_FLOPS.items(), key=lambda item: -len(item[0])):
        if kind.startswith(prefix):
            return peak * jax.device_count()
    n = 1024
    x = jax.device_put(jnp.ones((n, n), jnp.float32), jax.local_devices()[0])
    matmul = jax.jit(lambda a: a @ a)
    matmul(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        matmul(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds) * jax.process_count()
