"""Absent chips as compilation targets: the compilers for TPUs and NVIDIA GPUs run without the chips."""

import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from lvm_jax.errors import UserError

# TPU generation -> number of dimensions of its topologies.
TPUS = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}
# GPU -> name, bytes of memory, bytes a second, as in XLA's target descriptions.
GPUS = {
    "h100": ("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000),
    "h200": ("NVIDIA H200 141GB HBM3e", 151_397_597_184, 4_800_000_000_000),
}


def absent_chips(topology: str, n_slices: int = 1) -> list[Any]:
    """Compile-only devices of TPU slices or GPU hosts: programs compile for them but cannot run.

    Args:
      topology: for TPUs the generation and the chips along each axis, such as v5p:4x4x8 or v5e:16x16; for GPUs hosts
        and GPUs a host, such as h100:8x8.
      n_slices: TPU slices of that topology, joined by the network between hosts.

    Raises:
      UserError: the compiler is not installed, or no such topology exists.
    """
    generation = parse(topology)
    if generation in GPUS:
        if n_slices != 1:
            raise UserError(f"num_slices is {n_slices}: GPUs have hosts, as in {generation}:8x8")
        return _absent_gpus(generation, topology.partition(":")[2])
    return _absent_tpus(generation, topology, n_slices)


def parse(topology: str) -> str:
    """The generation of a topology.

    Raises:
      UserError: the name has another form, or its generation is not listed.
    """
    generation, _, shape = topology.partition(":")
    dimensions = 2 if generation in GPUS else TPUS.get(generation, 0)
    if not dimensions or not re.fullmatch(r"\d+" + r"x\d+" * (dimensions - 1), shape):
        raise UserError(
            f"topology {topology!r} does not exist: write v5p:4x4x8 or v4:2x2x4 (three axes), v5e:16x16 or v6e:16x16, "
            "or h100:8x8 or h200:8x8 (hosts, GPUs a host)"
        )
    return generation


def _absent_tpus(generation: str, topology: str, n_slices: int) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            'libtpu, the TPU compiler, is not installed: pip install -e ".[tpu]" (it needs no TPU), '
            "or name its libtpu.so in TPU_LIBRARY_PATH"
        )
    # There is no metadata server to say which host this is, and several compilations may run here at once.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"num_slices": n_slices} if n_slices > 1 else {}
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except (jax.errors.JaxRuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise UserError(f"libtpu knows no topology {topology!r}: {reason}") from error
    return list(described.devices)


def _absent_gpus(generation: str, shape: str) -> list[Any]:
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        version = jax.__version__
        raise UserError(
            "XLA's compiler for NVIDIA GPUs is not installed: pip install --no-deps "
            f"jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version} nvidia-cudnn-cu12 nvidia-cuda-nvcc-cu12 "
            "(it needs no GPU)"
        )
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no CUDA to check
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name=generation,
        target_config=_gpu_description(generation),
        topology=f"1x{shape}",  # slices, hosts, GPUs a host
    )
    return list(described.devices)


def _gpu_description(generation: str) -> str:
    """XLA's GpuTargetConfigProto as text: what its passes must know about a Hopper GPU."""
    name, memory, bandwidth = GPUS[generation]
    return f"""
        platform_name: "CUDA"
        device_description_str: "{name}"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 8 }}
        gpu_device_info {{
          name: "{name}"
          device_vendor: "NVIDIA Corporation"
          cuda_compute_capability {{ major: 9 }}
          device_memory_size: {memory}
          memory_bandwidth: {bandwidth}
          core_count: 132
          fpus_per_core: 128
          clock_rate_ghz: 1.98
          l2_cache_size: 52428800
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          thread_dim_limit_x: 1024
          thread_dim_limit_y: 1024
          thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          device_address_bits: 64
          ecc_enabled: true
        }}
    """
