r"""Writes the results of a run on one self-contained page, report.html, and the loss curves as PNG in figures/.

  python experiments/report.py --workdir=runs/quickstart

It reads what the other commands of a quickstart left in the workdir. Which training is there says whose page it is:

  lvm      LVM: tokenizer/ and lvm/, shards/, evaluation/, prompts/
  tiny     Vary: tiny/, two/ and old/, shards/, evaluation/
  unified  Unified: tokenizer/ and unified/, pools/, evaluation/
"""

from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.reporting.report import write_report
from lvm_jax.reporting.unified_page import write_unified_report
from lvm_jax.reporting.vary_page import write_vary_report

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)


def main() -> None:
    """Writes the page."""
    workdir = epath.Path(_WORKDIR.value)
    write = write_report
    if (workdir / "tiny").is_dir():
        write = write_vary_report
    elif (workdir / "unified").is_dir():
        write = write_unified_report
    print(f"open {write(workdir)}")


if __name__ == "__main__":
    cli.run(main)
