r"""Trains on GPU hosts under SLURM: writes a batch script and submits it.

python -m experiments.launch.slurm --name=lvm-3b --nodes=8 --gpus_per_node=8 --partition=gpu \
    --run="experiments/train.py --config=experiments/configs/lvm.py:3b --workdir=/d/3b --config.data.shards=/d/uvd"

It starts one process per GPU; JAX finds the others through SLURM. Five minutes before the time limit, and on
preemption, SLURM sends SIGTERM: training saves and exits with 143, and the job requeues itself. `--dry_run` prints the
script.
"""

import dataclasses
import re
import shlex

from absl import flags

from experiments.launch import shell
from lvm_jax import cli
from lvm_jax.errors import UserError

# Exit code of a training that SIGTERM stopped, once its checkpoint is on disk.
SAVED_AND_STOPPED = 143


@dataclasses.dataclass(frozen=True)
class Job:
    """A batch job.

    Attributes:
      name: of the job and its log, NAME-JOBID.log.
      nodes: hosts.
      gpus_per_node: GPUs and processes per host.
      time: limit, in SLURM's notation.
      options: more #SBATCH options, such as --partition=gpu.
      grace_seconds: how long before the limit SLURM sends SIGTERM.
    """

    name: str
    nodes: int
    gpus_per_node: int = 8
    time: str = "24:00:00"
    options: tuple[str, ...] = ()
    grace_seconds: int = 300

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise UserError(
                f"name is {self.name!r}: it must be letters, digits, dots, hyphens and underscores"
            )
        for field in ("nodes", "gpus_per_node", "grace_seconds"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}: it must be at least 1")

    def script(self, command: str) -> str:
        """The batch script that runs `command`, a script of this repository and its flags."""
        if not command:
            raise UserError("--run is empty: name a script and its flags")
        options = [
            f"--job-name={self.name}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.gpus_per_node}",
            f"--gpus-per-node={self.gpus_per_node}",
            f"--time={self.time}",
            f"--signal=TERM@{self.grace_seconds}",
            "--requeue",
            "--open-mode=append",
            "--output=%x-%j.log",
            *self.options,
        ]
        return "\n".join(
            [
                "#!/usr/bin/env bash",
                *(f"#SBATCH {option}" for option in options),
                f"srun --kill-on-bad-exit=1 .venv/bin/python {shlex.join(shlex.split(command))}",
                "code=$?",
                f'if [[ $code -eq {SAVED_AND_STOPPED} ]]; then scontrol requeue "$SLURM_JOB_ID"; fi',
                "exit $code",
                "",
            ]
        )


def main() -> None:
    """Reads the flags, writes the script and submits it."""
    options = [f"--{name}={flag.value}" for name, flag in _OPTIONS.items() if flag.value]
    job = Job(_NAME.value, _NODES.value, _GPUS.value, _TIME.value, tuple(options), _GRACE.value)
    print(shell.run(["sbatch"], dry_run=_DRY_RUN.value, stdin=job.script(_RUN.value)), end="")


if __name__ == "__main__":
    _NAME = flags.DEFINE_string("name", None, "of the job", required=True)
    _NODES = flags.DEFINE_integer("nodes", None, "hosts", required=True)
    _GPUS = flags.DEFINE_integer("gpus_per_node", 8, "GPUs of a host, one process each")
    _TIME = flags.DEFINE_string("time", "24:00:00", "limit of the job")
    _GRACE = flags.DEFINE_integer("grace_seconds", 300, "before the limit, to save in")
    _OPTIONS = {
        name: flags.DEFINE_string(name, "", f"SLURM's --{name}")
        for name in ("partition", "account", "qos", "constraint")
    }
    _RUN = flags.DEFINE_string("run", "", "script and flags, relative to the repository")
    _DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the script, submit nothing")
    cli.run(main)
