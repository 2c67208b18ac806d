"""Tests of one device, and of eight simulated ones (tests/devices8), which need a process of their own."""

import os
import pathlib
import signal
import threading
from collections.abc import Iterator

import array_annotations
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A sum of (B, T) and (T,) is more often a bug than a wish: whoever means it writes [None]. In the environment, so that
# the processes that tests start obey it too.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Nine tenths of the suite's time was XLA's, on programs that run for a moment: without LLVM's costly passes they are
# compiled in half of it, and HLO and its partitioning are the same. The processes that tests start obey too, but for
# the quickstart, which is compiled as a user's, and so is the golden step. (XLA's option to do without fusion emitters
# saves as much again, and then takes minutes for some programs, such as Muon's update.)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
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


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """What is compiled now is compiled as a user's programs, and not in haste."""
    import jax

    in_haste = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", in_haste)


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
