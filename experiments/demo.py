r"""A local page to play with a trained model: drop images into a strip, ask for the next one, continue from an answer.

  make demo                                           # release/ if it exists, else runs/quickstart
  python experiments/demo.py --workdir=runs/quickstart
  python experiments/demo.py --release=FOLDER         # packed by experiments/release.py

It listens on this machine only; stop it with Ctrl-C. docs/prompting.md lists what it refuses.
"""

import sys

from absl import flags

from lvm_jax import cli
from lvm_jax.demo.models import find_models
from lvm_jax.demo.refusals import LOOPBACK
from lvm_jax.demo.studio import Studio
from lvm_jax.errors import UserError
from lvm_jax.parallel import runtime

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "folder of a finished run")
_RELEASE = flags.DEFINE_string("release", "release", "a release; used if it exists")
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
    found = find_models(_RELEASE.value, _WORKDIR.value)
    studio = Studio(found.vqgan, found.model)
    examples = [studio.example(case, other) for case, other in zip(found.cases, found.others)]
    if _HOST.value not in LOOPBACK:
        print(f"warning: everyone who can reach {_HOST.value} can use this page", file=sys.stderr)
    page = build(studio, examples, found.drawing, found.model_words, found.data_words)
    launch(page, _HOST.value, _PORT.value)


if __name__ == "__main__":
    cli.run(main)
