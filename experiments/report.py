r"""Writes the results of a run on one self-contained page, report.html, and the loss curves as PNG in figures/.

  python experiments/report.py --workdir=runs/quickstart

It reads what the other commands left in the workdir: tokenizer/ and lvm/ (trainings), shards/, evaluation/, prompts/.
Where the workdir has the training unified/, the page is of that system.
"""

from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.reporting.report import write_report
from lvm_jax.reporting.unified_page import write_unified_report

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)


def main() -> None:
    """Writes the page."""
    is_unified = (epath.Path(_WORKDIR.value) / "unified").exists()
    written = write_unified_report if is_unified else write_report
    print(f"open {written(_WORKDIR.value)}")


if __name__ == "__main__":
    cli.run(main)
