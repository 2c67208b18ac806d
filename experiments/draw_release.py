r"""Draws what a release answers to all the held-out questions in its folder, beside the truth, as one PNG.

python experiments/draw_release.py --system=vary --output=docs/images/vary_released.png --font=WITH_HAN.ttc
"""

from absl import flags

from lvm_jax import cli
from lvm_jax.parallel import runtime
from lvm_jax.release.sheet import draw
from lvm_jax.reporting.figures import save_png

_RELEASE = flags.DEFINE_string("release", "release", "folder of the releases of all systems")
_SYSTEM = flags.DEFINE_enum("system", "lvm", ["lvm", "vary", "unified"], "whose release")
_OUTPUT = flags.DEFINE_string("output", None, "the PNG to write", required=True)
_FONT = flags.DEFINE_string(
    "font", None, "a TrueType file for words; default: one with Latin letters"
)


def main() -> None:
    """Asks, draws and writes."""
    runtime.initialize()
    save_png(_OUTPUT.value, draw(_RELEASE.value, _SYSTEM.value, _FONT.value))
    print(f"the picture is {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
