"""TPUs that are not here, as targets of a compilation: libtpu's compiler needs no chip."""

import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from lvm_jax.errors import UserError

# Generation -> whether its topologies have three dimensions.
GENERATIONS = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}


def absent_tpus(topology: str, n_slices: int = 1) -> list[Any]:
    """Compile-only devices of TPU slices; programs compile for them, and nothing runs.

    Args:
      topology: generation and chips along each axis, such as v5p:4x4x8 or v5e:16x16.
      n_slices: slices of that topology, joined by the hosts' network.

    Raises:
      UserError: libtpu is not installed, or no such topology exists.
    """
    generation = parse(topology)
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            'libtpu, the TPU compiler, is not installed: pip install -e ".[tpu]" (it needs no TPU), '
            "or name its libtpu.so in TPU_LIBRARY_PATH"
        )
    # There is no metadata server to ask who this host is, and several compilations may share it.
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


def parse(topology: str) -> str:
    """The generation of a topology.

    Raises:
      UserError: a name of another form, or of a generation that is not listed.
    """
    generation, _, shape = topology.partition(":")
    dimensions = GENERATIONS.get(generation, 0)
    if not dimensions or not re.fullmatch(r"\d+" + r"x\d+" * (dimensions - 1), shape):
        raise UserError(
            f"topology {topology!r} does not exist: write v5p:4x4x8 or v4:2x2x4 (three axes), v5e:16x16 or v6e:16x16"
        )
    return generation
