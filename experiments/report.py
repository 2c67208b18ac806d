r"""Writes the results of a run on one self-contained page, report.html, and the loss curves as PNG in figures/.

  python experiments/report.py --workdir=runs/quickstart

It reads what the other commands left in the workdir: tokenizer/ and lvm/ (trainings), shards/, evaluation/, prompts/.
"""

from absl import flags

from lvm_jax import cli
from lvm_jax.reporting.report import write_report

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)


def main() -> None:
    """Writes the page."""
    print(f"open {write_report(_WORKDIR.value)}")


if __name__ == "__main__":
    cli.run(main)
