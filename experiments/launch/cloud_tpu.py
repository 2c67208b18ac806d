r"""Trains on Cloud TPU: a slice, or several that train one model (multislice), through queued resources.

python -m experiments.launch.cloud_tpu --name=lvm-3b --project=P --zone=us-east5-a --type=v5p-128 \
    --run="experiments/train.py --config=experiments/configs/lvm.py:3b --workdir=gs://B/lvm-3b --config.data.shards=gs://B/uvd"

It creates the slices, copies the committed code to every host, installs it, and runs the command on all hosts at once;
each host logs to its ~/NAME.log. `--dry_run` only prints the commands. After a preemption, when a spot slice is
SUSPENDED, `--steps=delete,create,install,run` resumes from the last checkpoint, since --workdir is in a bucket.
"""

import dataclasses
import re
import shlex
import time

from absl import flags

from experiments.launch import shell
from lvm_jax import cli
from lvm_jax.errors import UserError

# Accelerator type without its size -> image of the VM.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
STEPS = ("create", "install", "run", "delete")
_POLL_SECONDS = 30
_ARCHIVE = "lvm_jax.tar.gz"


@dataclasses.dataclass(frozen=True)
class Slices:
    """TPU slices requested under one name.

    Attributes:
      name: of the queued resource and its nodes.
      project, zone: where.
      type: accelerator type, such as v5p-128.
      count: number of slices.
      spot: preemptible capacity.
      runtime: image of the VMs; by default the one for the type.
    """

    name: str
    project: str
    zone: str
    type: str
    count: int = 1
    spot: bool = False
    runtime: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,58}[a-z0-9])?", self.name):
            raise UserError(
                f"name is {self.name!r}: it must be lower-case letters, digits and hyphens"
            )
        if self.count < 1:
            raise UserError(f"slices is {self.count}: it must be at least 1")
        family, _, size = self.type.rpartition("-")
        if not size.isdigit() or (family not in RUNTIMES and not self.runtime):
            known = ", ".join(f"{name}-SIZE" for name in RUNTIMES)
            raise UserError(
                f"type is {self.type!r}: known are {known}; name the --runtime of another"
            )

    @property
    def nodes(self) -> list[str]:
        """Names of the TPU VMs, one per slice."""
        return [self.name] if self.count == 1 else [f"{self.name}-{i}" for i in range(self.count)]

    def create(self) -> shell.Command:
        """Requests the slices."""
        nodes = ["--node-id=" + self.name]
        if self.count > 1:
            nodes = [f"--node-count={self.count}", f"--node-prefix={self.name}"]
        runtime = self.runtime or RUNTIMES[self.type.rpartition("-")[0]]
        wanted = [f"--accelerator-type={self.type}", f"--runtime-version={runtime}", *nodes]
        return self._queued("create", *wanted, *(["--spot"] if self.spot else []))

    def state(self) -> shell.Command:
        """Asks for the state of the request."""
        return self._queued("describe", "--format=value(state.state)")

    def delete(self) -> shell.Command:
        """Gives everything back."""
        return self._queued("delete", "--force", "--quiet")

    def copy(self, node: str) -> shell.Command:
        """Copies the code to every host of a slice."""
        return [*self._vm("scp"), _ARCHIVE, f"{node}:", "--worker=all", *self._where()]

    def on_hosts(self, node: str, command: str) -> shell.Command:
        """Runs a shell command on every host of a slice."""
        return [*self._vm("ssh"), node, "--worker=all", f"--command={command}", *self._where()]

    def _queued(self, verb: str, *arguments: str) -> shell.Command:
        return [
            "gcloud",
            "compute",
            "tpus",
            "queued-resources",
            verb,
            self.name,
            *self._where(),
            *arguments,
        ]

    def _vm(self, verb: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb]

    def _where(self) -> list[str]:
        return [f"--project={self.project}", f"--zone={self.zone}"]


def install_command() -> str:
    """Installs a recent Python and this package with TPU support on a host."""
    return (
        f"mkdir -p lvm_jax && tar xzf {_ARCHIVE} -C lvm_jax && cd lvm_jax && pip install --quiet --user uv && "
        "~/.local/bin/uv venv --quiet --python 3.12 .venv && "
        "~/.local/bin/uv pip install --quiet --python .venv -e '.[tpu,gs]'"
    )


def train_command(name: str, command: str) -> str:
    """Runs the training on one host, and keeps a log there."""
    # pipefail: without it the status would be that of tee, and a crash would look like success.
    arguments = shlex.join(shlex.split(command))
    return f"set -o pipefail; cd lvm_jax && .venv/bin/python {arguments} 2>&1 | tee -a ~/{name}.log"


def launch(slices: Slices, command: str, steps: list[str], *, dry_run: bool) -> None:
    """Runs the steps in the given order.

    Raises:
      UserError: a step is unknown, a command fails, or the slices do not become available.
    """
    for step in steps:
        if step not in STEPS:
            raise UserError(f"step {step!r} does not exist; known: {', '.join(STEPS)}")
    if "run" in steps and not command:
        raise UserError("--run is empty: name a script and its flags")
    for step in steps:
        if step == "create":
            shell.run(slices.create(), dry_run=dry_run)
            _wait(slices, dry_run)
        elif step == "install":
            shell.run(["git", "archive", f"--output={_ARCHIVE}", "HEAD"], dry_run=dry_run)
            shell.run_together([slices.copy(node) for node in slices.nodes], dry_run=dry_run)
            installs = [slices.on_hosts(node, install_command()) for node in slices.nodes]
            shell.run_together(installs, dry_run=dry_run)
        elif step == "run":
            train = train_command(slices.name, command)
            shell.run_together([slices.on_hosts(n, train) for n in slices.nodes], dry_run=dry_run)
        else:
            shell.run(slices.delete(), dry_run=dry_run)


def _wait(slices: Slices, dry_run: bool) -> None:
    while True:
        state = shell.run(slices.state(), dry_run=dry_run).strip()
        if dry_run or state == "ACTIVE":
            return
        if state in ("FAILED", "SUSPENDING", "SUSPENDED"):
            raise UserError(
                f"{slices.name} is {state}: launch with --steps=delete,create,install,run, or elsewhere"
            )
        time.sleep(_POLL_SECONDS)


def main() -> None:
    """Reads the flags and launches."""
    slices = Slices(
        _NAME.value,
        _PROJECT.value,
        _ZONE.value,
        _TYPE.value,
        _SLICES.value,
        _SPOT.value,
        _RUNTIME.value,
    )
    launch(slices, _RUN.value, _STEPS.value, dry_run=_DRY_RUN.value)


if __name__ == "__main__":
    _NAME = flags.DEFINE_string("name", None, "of the slices and the log", required=True)
    _PROJECT = flags.DEFINE_string("project", None, "of Google Cloud", required=True)
    _ZONE = flags.DEFINE_string("zone", None, "such as us-east5-a", required=True)
    _TYPE = flags.DEFINE_string("type", None, "accelerator type, such as v5p-128", required=True)
    _SLICES = flags.DEFINE_integer("slices", 1, "number of slices that train one model")
    _SPOT = flags.DEFINE_bool("spot", False, "preemptible capacity")
    _RUNTIME = flags.DEFINE_string("runtime", "", "image of the VMs; default: that of the type")
    _RUN = flags.DEFINE_string("run", "", "script and flags, relative to the repository")
    _STEPS = flags.DEFINE_list(
        "steps", "create,install,run", f"any of {', '.join(STEPS)}, in order"
    )
    _DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands, run none")
    cli.run(main)
