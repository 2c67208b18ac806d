r"""Trains on Kubernetes as a JobSet: TPU slices of GKE, or GPU hosts anywhere.

python -m experiments.launch.jobset --name=lvm-3b --image=REGISTRY/lvm_jax:TAG --tpu=v5p --topology=4x4x8 --slices=2 \
    --run="experiments/train.py --config=experiments/configs/lvm.py:3b --workdir=gs://B/lvm-3b --config.data.shards=gs://B/uvd"
python -m experiments.launch.jobset --name=lvm-3b --image=REGISTRY/lvm_jax:TAG --nodes=8 --gpus_per_node=8 --run="..."

The image has this repository, installed, as its working folder. A pod that fails or is preempted restarts the whole
set, up to `--max_restarts` times, and training resumes from its last checkpoint. `--dry_run` prints the manifest (in
JSON, which Kubernetes accepts like YAML).
"""

import dataclasses
import json
import math
import re
import shlex
from typing import Any

from absl import flags

from experiments.launch import shell
from lvm_jax import cli
from lvm_jax.errors import UserError

# Generation -> GKE's accelerator type for its nodes.
TPUS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
_CHIPS_PER_HOST = 4
_GROUP = "hosts"
_PORT = 8476
_GRACE_SECONDS = 300  # between SIGTERM and SIGKILL: time to save a checkpoint


@dataclasses.dataclass(frozen=True)
class TpuSlices:
    """Slices of one topology, such as 4x4x8 chips, with 4 chips per host."""

    generation: str
    topology: str
    slices: int = 1

    def __post_init__(self) -> None:
        if self.generation not in TPUS:
            raise UserError(f"tpu is {self.generation!r}: known are {', '.join(TPUS)}")
        if not re.fullmatch(r"\d+(x\d+){1,2}", self.topology) or self.slices < 1:
            raise UserError(
                f"topology is {self.topology!r} and slices {self.slices}: write chips such as 4x4x8, and at least 1"
            )
        if self.chips % _CHIPS_PER_HOST:
            raise UserError(
                f"topology {self.topology} has {self.chips} chips: hosts have {_CHIPS_PER_HOST}"
            )

    @property
    def chips(self) -> int:
        """Chips of one slice."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def replicas(self) -> int:
        """One job of the set per slice."""
        return self.slices

    @property
    def hosts(self) -> int:
        """Hosts of one slice; each runs one pod."""
        return self.chips // _CHIPS_PER_HOST

    def pod(self, name: str) -> dict[str, Any]:
        """Places the pod; GKE tells it about the other hosts and slices."""
        del name
        selector = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[self.generation],
            "cloud.google.com/gke-tpu-topology": self.topology,
        }
        return {"nodeSelector": selector}

    def container(self, name: str) -> dict[str, Any]:
        """The container's resources."""
        del name
        return {"resources": {"limits": {"google.com/tpu": _CHIPS_PER_HOST}}}


@dataclasses.dataclass(frozen=True)
class GpuHosts:
    """Hosts with the same number of GPUs each, one process per host."""

    hosts: int
    gpus: int = 8
    replicas: int = 1

    def __post_init__(self) -> None:
        if self.hosts < 1 or self.gpus < 1:
            raise UserError(
                f"nodes is {self.hosts} and gpus_per_node {self.gpus}: both must be at least 1"
            )

    def pod(self, name: str) -> dict[str, Any]:
        """GPU hosts need no selector."""
        del name
        return {}

    def container(self, name: str) -> dict[str, Any]:
        """GPUs, and variables by which the processes find each other: the first pod coordinates."""
        index = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
        variables = [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-{_GROUP}-0-0.{name}:{_PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(self.hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": index}},
        ]
        return {"env": variables, "resources": {"limits": {"nvidia.com/gpu": self.gpus}}}


def manifest(
    name: str, image: str, command: str, hosts: TpuSlices | GpuHosts, max_restarts: int = 100
) -> dict[str, Any]:
    """The JobSet that runs `command`, a script of this repository and its flags.

    Raises:
      UserError: Kubernetes does not accept the name, or there is no command.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name):
        raise UserError(f"name is {name!r}: at most 40 lower-case letters, digits and hyphens")
    if not command:
        raise UserError("--run is empty: name a script and its flags")
    container = {"name": "train", "image": image, "command": ["python", *shlex.split(command)]}
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        **hosts.pod(name),
        "containers": [container | hosts.container(name)],
    }
    job = {
        "completionMode": "Indexed",
        "parallelism": hosts.hosts,
        "completions": hosts.hosts,
        "backoffLimit": 0,  # a pod cannot rejoin a running training: the set restarts as a whole
        "template": {"spec": pod},
    }
    metadata: dict[str, Any] = {"name": name}
    if isinstance(hosts, TpuSlices):  # a slice is one node pool, so one job must have it alone
        topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {topology: "cloud.google.com/gke-nodepool"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {"maxRestarts": max_restarts},
            "replicatedJobs": [
                {"name": _GROUP, "replicas": hosts.replicas, "template": {"spec": job}}
            ],
        },
    }


def main() -> None:
    """Reads the flags and applies the manifest."""
    if bool(_TPU.value) == bool(_NODES.value):
        raise UserError("name either --tpu with --topology, or --nodes of GPUs")
    hosts = (
        TpuSlices(_TPU.value, _TOPOLOGY.value, _SLICES.value)
        if _TPU.value
        else GpuHosts(_NODES.value, _GPUS.value)
    )
    content = manifest(_NAME.value, _IMAGE.value, _RUN.value, hosts, _RESTARTS.value)
    command = ["kubectl", "apply", "--filename=-"]
    print(shell.run(command, dry_run=_DRY_RUN.value, stdin=json.dumps(content, indent=2)), end="")


if __name__ == "__main__":
    _NAME = flags.DEFINE_string("name", None, "of the JobSet", required=True)
    _IMAGE = flags.DEFINE_string(
        "image", None, "container image with this repository", required=True
    )
    _TPU = flags.DEFINE_enum("tpu", None, list(TPUS), "generation of TPU slices")
    _TOPOLOGY = flags.DEFINE_string("topology", "", "chips of a slice, such as 4x4x8")
    _SLICES = flags.DEFINE_integer("slices", 1, "number of slices that train one model")
    _NODES = flags.DEFINE_integer("nodes", 0, "GPU hosts")
    _GPUS = flags.DEFINE_integer("gpus_per_node", 8, "GPUs of a host")
    _RESTARTS = flags.DEFINE_integer("max_restarts", 100, "of the whole set")
    _RUN = flags.DEFINE_string("run", "", "script and flags, relative to the repository")
    _DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the manifest, apply nothing")
    cli.run(main)
