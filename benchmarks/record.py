"""What a benchmark says of the machine that it ran on, and the file of its numbers."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the numbers")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def announce() -> None:
    """Prints how many cores there are, and how busy they are with other work."""
    print(f"{cores()} cores, load average {os.getloadavg()[0]:.1f} before the start", flush=True)


def versions(others: Mapping[str, str]) -> dict[str, str]:
    """Package -> version: those of a peer, and of JAX and Python here."""
    return {**others, "jax": jax.__version__, "python": sys.version.split()[0]}


def write(numbers: Any) -> None:
    """Writes the numbers as JSON, if --output names a file."""
    if _OUTPUT.value:
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(numbers, indent=2) + "\n")
