r"""A local page to ask trained models with your own pictures, with a tab for each system that has a model here.

  make demo                                           # release/, else the workdirs of the quickstarts
  python experiments/demo.py --workdir=runs/a,runs/b
  python experiments/demo.py --release=FOLDER         # FOLDER/lvm, FOLDER/vary, FOLDER/unified

It listens on this machine only; stop it with Ctrl-C. docs/release.md lists what it refuses.
"""

import sys

from absl import flags

from lvm_jax import cli
from lvm_jax.demo.found import find_tabs
from lvm_jax.demo.refusals import LOOPBACK
from lvm_jax.errors import UserError
from lvm_jax.parallel import runtime

_WORKDIR = flags.DEFINE_list(
    "workdir",
    ["runs/quickstart", "runs/quickstart_vary", "runs/quickstart_unified"],
    "folders of finished runs; the first that holds a system's model counts",
)
_RELEASE = flags.DEFINE_string(
    "release", "release", "folder of the releases; a system's is used if it exists"
)
_HOST = flags.DEFINE_string("host", LOOPBACK[0], "address to listen on")
_PORT = flags.DEFINE_integer("port", 0, "port; 0 takes a free one from 7860 on", 0, 65535)


def main() -> None:
    """Opens the page and waits."""
    try:
        from lvm_jax.demo.page import build, launch
    except ImportError as error:
        raise UserError(
            f"Gradio cannot be imported ({error}): pip install 'lvm_jax[demo]'"
        ) from error
    runtime.initialize()
    tabs, missing = find_tabs(_RELEASE.value, _WORKDIR.value)
    if _HOST.value not in LOOPBACK:
        print(f"warning: everyone who can reach {_HOST.value} can use this page", file=sys.stderr)
    launch(build(tabs, missing), _HOST.value, _PORT.value)


if __name__ == "__main__":
    cli.run(main)
