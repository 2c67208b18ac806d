"""Which tabs the page has: those of the systems that have a model here."""

from collections.abc import Sequence

from etils import epath

from lvm_jax.demo.lvm.tab import LvmTab
from lvm_jax.demo.tab import Tab
from lvm_jax.demo.unified.tab import UnifiedTab
from lvm_jax.demo.vary.tab import VaryTab
from lvm_jax.errors import UserError


def find_tabs(
    release: epath.PathLike, workdirs: Sequence[epath.PathLike]
) -> tuple[list[Tab], list[tuple[str, str]]]:
    """Loads what is there.

    Args:
      release: folder of the releases of all systems; a system's is used if it exists.
      workdirs: of finished runs; the first that holds a system's model counts.

    Returns:
      the tabs; and (title, what to do) of the systems without a model.

    Raises:
      UserError: no system has a model, or a folder is damaged.
    """
    found: dict[str, tuple[Tab | None, str]] = {
        LvmTab.title: (LvmTab.find(release, workdirs), "make quickstart"),
        VaryTab.title: (VaryTab.find(release, workdirs), "make quickstart SYSTEM=vary"),
        UnifiedTab.title: (UnifiedTab.find(release, workdirs), "make quickstart SYSTEM=unified"),
    }
    tabs = [tab for tab, _ in found.values() if tab is not None]
    if not tabs:
        raise UserError(
            f"no trained model in {', '.join(map(str, workdirs))}: run `make quickstart` first, or name another "
            "--workdir"
        )
    missing = [
        (title, f"no model here: `{command}` makes one")
        for title, (tab, command) in found.items()
        if tab is None
    ]
    return tabs, missing
