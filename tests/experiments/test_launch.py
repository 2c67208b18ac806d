"""What the launch scripts would run, to the word: nothing here has a cloud to try it on."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from experiments.launch import cloud_tpu, jobset, slurm
from lvm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
RUN = "experiments/train.py --config=experiments/configs/lvm.py:3b --workdir='gs://b/a run'"
WHERE = ["--project=p", "--zone=z"]


def test_two_spot_slices_are_asked_for_as_one():
    slices = cloud_tpu.Slices("lvm-3b", "p", "z", "v5p-128", count=2, spot=True)
    assert shlex.join(slices.create()) == (
        "gcloud compute tpus queued-resources create lvm-3b --project=p --zone=z --accelerator-type=v5p-128 "
        "--runtime-version=v2-alpha-tpuv5 --node-count=2 --node-prefix=lvm-3b --spot"
    )
    assert slices.nodes == ["lvm-3b-0", "lvm-3b-1"]
    assert slices.delete()[-3:] == ["--zone=z", "--force", "--quiet"]


def test_one_slice_has_the_name_of_the_request():
    slices = cloud_tpu.Slices("a", "p", "z", "v6e-8")
    assert slices.nodes == ["a"]
    assert "--node-id=a" in slices.create()
    assert "--spot" not in slices.create()
    assert slices.copy("a")[4:] == ["scp", "lvm_jax.tar.gz", "a:", "--worker=all", *WHERE]
    assert slices.on_hosts("a", "date")[4:] == [
        "ssh",
        "a",
        "--worker=all",
        "--command=date",
        *WHERE,
    ]


def test_every_host_runs_the_same_command_with_its_quotes_and_keeps_its_exit_code():
    command = cloud_tpu.train_command("a", RUN)
    assert command == (
        "set -o pipefail; cd lvm_jax && .venv/bin/python experiments/train.py "
        "--config=experiments/configs/lvm.py:3b '--workdir=gs://b/a run' 2>&1 | tee -a ~/a.log"
    )
    failing = command.replace(".venv/bin/python", "false").replace("cd lvm_jax", "cd /")
    assert subprocess.run(["bash", "-c", failing.replace("~/a.log", "/dev/null")]).returncode == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "LVM 3b"}, "name is 'LVM 3b'"),
        ({"count": 0}, "slices is 0"),
        ({"type": "v9x-8"}, "type is 'v9x-8': known are v4-SIZE"),
        ({"type": "v5p"}, "type is 'v5p'"),
    ],
)
def test_slices_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        cloud_tpu.Slices(**({"name": "a", "project": "p", "zone": "z", "type": "v5p-8"} | change))


def test_steps_run_in_their_order_and_a_failed_one_stops(capfd, monkeypatch):
    slices = cloud_tpu.Slices("a", "p", "z", "v5p-8", count=2)
    cloud_tpu.launch(slices, RUN, ["delete", "create", "install", "run"], dry_run=True)
    verbs = [shlex.split(line)[1:7] for line in capfd.readouterr().out.splitlines()]
    assert [v[4] if v[0] == "gcloud" else v[0] for v in verbs] == [
        *("delete", "create", "describe", "git", "scp", "scp", "ssh", "ssh", "ssh", "ssh")
    ]
    with pytest.raises(UserError, match="step 'star' does not exist"):
        cloud_tpu.launch(slices, RUN, ["star"], dry_run=True)
    with pytest.raises(UserError, match="--run is empty"):
        cloud_tpu.launch(slices, "", ["run"], dry_run=True)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="gcloud is not installed"):
        cloud_tpu.launch(slices, RUN, ["create"], dry_run=False)


def test_a_slice_that_was_preempted_is_not_waited_for(tmp_path, monkeypatch):
    fake = tmp_path / "gcloud"
    fake.write_text("#!/bin/sh\n[ $4 = describe ] && echo SUSPENDED || true\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    slices = cloud_tpu.Slices("a", "p", "z", "v5p-8")
    with pytest.raises(UserError, match="a is SUSPENDED: launch with --steps=delete,create"):
        cloud_tpu.launch(slices, RUN, ["create"], dry_run=False)


def test_a_batch_job_saves_before_its_limit_and_queues_itself_again(tmp_path):
    script = slurm.Job("lvm", nodes=2, gpus_per_node=4, options=("--partition=gpu",)).script(RUN)
    for option in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--signal=TERM@300"):
        assert f"#SBATCH {option}\n" in script
    assert "#SBATCH --partition=gpu\n" in script
    # Played with a fake srun: only a training that saved and stopped is queued again.
    for name, body in {"srun": "exit $CODE", "scontrol": "echo $* > $OUT"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for code, queued in ((143, True), (1, False), (0, False)):
        out = tmp_path / f"out{code}"
        env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "CODE": str(code), "OUT": str(out)}
        env["SLURM_JOB_ID"] = "7"
        assert subprocess.run(["bash", "-c", script], env=env).returncode == code
        assert out.exists() is queued
    assert (tmp_path / "out143").read_text() == "requeue 7\n"
    with pytest.raises(UserError, match="nodes is 0"):
        slurm.Job("lvm", nodes=0)


def test_a_jobset_of_tpu_slices_has_a_pod_a_host():
    hosts = jobset.TpuSlices("v5p", "4x4x8", slices=2)
    content = jobset.manifest("lvm", "image:1", RUN, hosts)
    (group,) = content["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (group["replicas"], job["parallelism"], job["completions"]) == (2, 32, 32)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x8"
    assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": 4}}
    assert pod["containers"][0]["command"][-1] == "--workdir=gs://b/a run"
    assert "annotations" in content["metadata"]
    for wrong in (("v9", "2x2", 1), ("v5p", "4by4", 1), ("v5p", "1x3", 1), ("v5p", "2x2", 0)):
        with pytest.raises(UserError):
            jobset.TpuSlices(*wrong)


def test_a_jobset_of_gpu_hosts_tells_them_where_they_meet():
    content = jobset.manifest("lvm", "image:1", RUN, jobset.GpuHosts(3, gpus=2))
    job = content["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["JAX_COORDINATOR_ADDRESS"] == "lvm-hosts-0-0.lvm:8476"
    assert variables["JAX_NUM_PROCESSES"] == "3" == str(job["completions"])
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert "annotations" not in content["metadata"]
    with pytest.raises(UserError, match="name is"):
        jobset.manifest("Lvm", "image:1", RUN, jobset.GpuHosts(1))


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("cloud_tpu", "--name=a --project=p --zone=z --type=v5p-8", "queued-resources create a"),
        ("slurm", "--name=a --nodes=2 --partition=gpu", "#SBATCH --partition=gpu"),
        ("jobset", "--name=a --image=i --nodes=2", '"kind": "JobSet"'),
    ],
)
def test_a_dry_run_prints_what_would_be_run(script, arguments, expected):
    command = [sys.executable, "-m", f"experiments.launch.{script}", *arguments.split()]
    done = subprocess.run([*command, f"--run={RUN}", "--dry_run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    if script == "jobset":
        assert json.loads(done.stdout.partition("\n")[2])["metadata"]["name"] == "a"
    done = subprocess.run([*command, "--run="], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("module", "path"), [("cloud_tpu", "tutorials/pod_slice.md"), ("slurm", "scaling.md")]
)
def test_the_docs_show_what_a_dry_run_prints(module, path):
    """The command of the page, run; every line that the page says it prints is printed."""
    page = (ROOT / "docs" / path).read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"```\n(.*?)```", page, re.DOTALL)]
    number = next(i for i, b in enumerate(blocks) if f"experiments.launch.{module} " in b)
    command = shlex.split(re.sub(r" \\\n +", " ", blocks[number]))[1:]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unfolded = re.sub(r" \\\n +", " ", blocks[number + 1])
    shown = [line for line in unfolded.splitlines() if line != "..."]
    assert len(shown) > 4
    assert [line for line in done.stdout.splitlines() if line in shown] == shown
