r"""One page with the results of a run: report.html, self-contained, and the loss curves as PNG in figures/.

  python experiments/report.py --workdir=runs/quickstart

Reads what the other steps left in the workdir: tokenizer/ and lvm/ (trainings), shards/, evaluation/, prompts/.
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
