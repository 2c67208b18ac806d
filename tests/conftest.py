"""Tests of one device, and of eight simulated ones (tests/devices8), which need a process of their own."""

import os
import pathlib
import signal
import threading

import array_annotations
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A sum of (B, T) and (T,) is more often a bug than a wish: whoever means it writes [None]. In the environment, so that
# the processes that tests start obey it too.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Nine tenths of the suite's time was XLA's, on programs that run for a moment: they are compiled plainly, which takes a
# quarter of it. HLO and its partitioning are the same. The golden step and the quickstart are compiled as a user's.
# What the caller's XLA_FLAGS say comes last and wins; the processes that tests start obey too.
PLAIN = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
if PLAIN not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{PLAIN} {os.environ.get('XLA_FLAGS', '')}"
# Compiled programs are kept between runs of the suite.
_CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "xla-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# The shapes and dtypes that these rooms annotate are checked at each call. The hook has to be in place before the first
# import of lvm_jax.
array_annotations.install(("models", "losses", "pictures", "inference", "metrics", "data"))

# A suite that a shell started in the background ignores Ctrl-C, and so would the processes that tests press it in.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need eight devices are left out, with the reason, where there are fewer."""
    eight = [item for item in items if "devices8" in item.path.parts]
    if not eight:
        return
    import jax

    if jax.device_count() < 8:
        reason = "needs XLA_FLAGS=--xla_force_host_platform_device_count=8: run `make test`"
        for item in eight:
            item.add_marker(pytest.mark.skip(reason=reason))
