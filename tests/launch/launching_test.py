"""Programs of launch/ besides tpu_vm.py, and what all of them have in common."""

import os
import pathlib
import pty
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from tests.launch import fakes, jobset
from tests.launch.fakes import FILE, FOLDER, GKE, JOB, TPU

ROOT = fakes.ROOT


@pytest.mark.parametrize(
  ("program", "words", "deleting"),
  [
    ("tpu_vm.py", ("delete", *TPU), "tpu-vm delete"),
    ("gke.py", ("delete", *GKE[:4]), "delete jobset/flan-nli"),
    ("slurm.py", ("cancel", "--name=flan-nli"), "scancel"),
  ],
)
def test_nothing_is_deleted_unasked(machine, program, words, deleting):
  def deleted():
    return [c for c in machine.calls() if deleting in " ".join(c)]

  (machine.folder / "hosts").mkdir()
  done = machine.call(program, *words)
  assert done.returncode == 2
  assert "say --yes to delete flan-nli unasked" in done.stderr
  for answer, happens in (("other\n", 0), ("flan-nli\n", 1)):
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = machine.call(program, *words, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert "Type its name" in done.stdout
    assert len(deleted()) == happens, done.stderr
  (machine.folder / "hosts").mkdir(exist_ok=True)
  assert machine.call(program, *words, "--yes").returncode == 0
  assert len(deleted()) == 2


DRY = [
  ("tpu_vm.py", ("train", *TPU, "--type=v4-16", "--delete", *JOB), 8),
  ("tpu_vm.py", ("watch", *TPU, "--type=v4-16", *JOB), 2),
  ("tpu_vm.py", ("delete", *TPU), 1),
  ("gke.py", ("submit", *GKE, *JOB), 2),
  ("gke.py", ("status", *GKE), 3),
  ("gke.py", ("delete", *GKE), 2),
  ("slurm.py", ("submit", "--name=a", "--nodes=2", *JOB), 1),
  ("slurm.py", ("cancel", "--name=a"), 1),
  ("docker.py", ("build", "--image=flan_jax:v1", "--extra=tpu"), 1),
  ("docker.py", ("run", "--image=flan_jax:v1", *JOB), 1),
]


@pytest.mark.parametrize(("program", "words", "count"), DRY)
def test_a_dry_run_prints_the_commands_and_runs_none(
  machine, program, words, count
):
  done = machine.call(program, words[0], "--dry-run", *words[1:])
  assert done.returncode == 0, done.stderr
  shown = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
  assert len(shown) == count, done.stdout
  assert machine.calls() == []
  # Nor is a file made.
  assert {p.name for p in machine.folder.iterdir()} == {"bin", "answers"}


def test_what_a_dry_run_prints_is_what_is_run(machine):
  words = ("submit", *GKE, *JOB)
  dry = machine.call("gke.py", "--dry-run", *words).stdout
  assert machine.call("gke.py", *words).returncode == 0
  (credentials, create) = machine.calls()
  assert create[:3] == [
    *("kubectl", "--context=gke_my-project-123_us-central2_c1", "create"),
  ]
  for call in (credentials, create[:-1]):
    assert f"$ {' '.join(call)}" in dry
  shown = [
    line.removeprefix("  | ").removeprefix("  |")
    for line in dry.splitlines()
    if line.startswith("  |")
  ]
  assert shown == create[-1].splitlines()
  machine.answer(("kubectl", 1, "already exists"))
  done = machine.call("gke.py", *words)
  assert done.returncode == 2
  assert "`status` says whether flan-nli is there" in done.stderr


@pytest.mark.parametrize(
  ("kind", "topology", "hosts", "chips"),
  [
    ("v4", "4x4x8", 32, 4),
    ("v5e", "2x4", 1, 8),
    ("v5e", "1x1", 1, 1),
    ("v6e", "16x16", 64, 4),
  ],
)
def test_the_manifest_is_a_jobset(machine, kind, topology, hosts, chips):
  more = (f"--type={kind}", f"--topology={topology}")
  # As Kubernetes would expand it, and as YAML would read it.
  flag = "--gin.X='$(HOME)': \"no\" # {}"
  done = machine.call("gke.py", "manifest", *GKE, *more, *JOB, flag)
  assert done.returncode == 0, done.stderr
  made = yaml.safe_load(done.stdout)
  jobset.check(made)
  job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert (job["parallelism"], job["completions"]) == (hosts, hosts)
  pod = job["template"]["spec"]
  container = pod["containers"][0]
  assert container["resources"]["limits"] == {"google.com/tpu": chips}
  assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
  assert container["args"] == [FILE, FOLDER, flag.replace("$(", "$$(")]
  assert container["env"][0]["value"] == str(int(hosts > 1))


def test_a_bucket_is_mounted(machine):
  words = ("manifest", *GKE, "--bucket=my-bucket", *JOB)
  made = yaml.safe_load(machine.call("gke.py", *words).stdout)
  jobset.check(made)
  job = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
  assert job["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
  (volume,) = job["spec"]["volumes"]
  (mount,) = job["spec"]["containers"][0]["volumeMounts"]
  assert mount == {"name": volume["name"], "mountPath": "/bucket"}
  assert volume["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"


def test_a_manifest_with_a_wrong_field_is_refused(machine):
  done = machine.call("gke.py", "manifest", *GKE, *JOB)
  for path, value in (
    (("spec", "replicas"), 1),
    (("spec", "failurePolicy", "maxRestarts"), "3"),
    (("kind",), "Job"),
  ):
    made = yaml.safe_load(done.stdout)
    inner = made
    for key in path[:-1]:
      inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(jobset.Invalid):
      jobset.check(made)


@pytest.mark.parametrize(
  ("program", "words", "message"),
  [
    ("tpu_vm.py", (*TPU, "--type=v5-8"), "no TPU is called 'v5'; the nearest"),
    ("tpu_vm.py", (*TPU, "--type=v4-13"), "the nearest is v4-8"),
    ("tpu_vm.py", (*TPU, "--type=v6e-512"), "size of a v6e is 1 to 256"),
    ("tpu_vm.py", (*TPU, "--type=v4-8", "--name=Flan"), "'Flan' is no name"),
    ("tpu_vm.py", (*TPU, "--type=v4-8", "--zone=us"), "'us' is no zone"),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-8", "--project=x; rm -rf /"),
      "is no project id; one looks like my-project-123",
    ),
    ("tpu_vm.py", TPU, "train needs --type"),
    ("tpu_vm.py", (*TPU, "--type=v4-8", "--"), "with a --gin_file"),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-8", "--", "--gin_file=gin/flan_holdout_nl.gin"),
      "the nearest is gin/flan_holdout_nli.gin",
    ),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-16", "--", FILE),
      "2 processes write one run: give a folder that all of them see",
    ),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-16", *JOB, "--gin_file=gin/hardware/v4_256.gin"),
      "v4_256.gin is for 128 chips of v4; here are 8 of v4",
    ),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-16", "--", FILE, "--gin.MODEL_DIR=s3://b/run"),
      "a run needs a bucket of Cloud Storage (gs://) or a folder",
    ),
    ("tpu_vm.py", (*TPU, "--type=v4-8", "--bucket=gs://b"), "is no bucket"),
    (
      "tpu_vm.py",
      (*TPU, "--type=v4-8", "--startup-script=nope.sh"),
      "'nope.sh' is no file",
    ),
    ("gke.py", (*GKE[:4], *JOB), "submit needs --type"),
    ("gke.py", (*GKE, "--topology=4x4", *JOB), "of a v4 it looks like 2x2x2"),
    ("gke.py", (*GKE, "--topology=3x3x3", *JOB), "has 27 chips"),
    ("gke.py", (*GKE, "--image=a b", *JOB), "'a b' is no container image"),
    ("slurm.py", ("--name=a", "--nodes=0", *JOB), "'0' is no number above 0"),
    ("slurm.py", ("--name=a", "--time=soon", *JOB), "'soon' is no time limit"),
    ("slurm.py", ("--name=a", "--", FILE), "8 processes write one run"),
    ("docker.py", ("--image=flan_jax:v1",), "names no registry"),
  ],
)
def test_mistakes_are_said_before_anything_is_run(
  machine, program, words, message
):
  action = {"tpu_vm.py": "train", "docker.py": "push"}.get(program, "submit")
  done = machine.call(program, action, *words)
  assert done.returncode == 2
  assert message in " ".join(done.stderr.split())
  assert "Traceback" not in done.stderr
  assert machine.calls() == []


def test_a_command_that_is_not_installed_is_named(machine):
  (machine.folder / "bin" / "sbatch").unlink()
  done = machine.call("slurm.py", "submit", "--name=a", *JOB)
  assert done.returncode == 2
  assert "sbatch is not installed" in done.stderr


def test_slurm_gets_one_task_for_every_gpu(machine):
  words = ("--name=a", "--nodes=2", "--partition=gpu", "--time=1-00:00:00")
  done = machine.call("slurm.py", "submit", *words, *JOB)
  assert done.returncode == 0, done.stderr
  (call,) = machine.calls()
  assert {"--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=8"} < {*call}
  assert {"--requeue", "--signal=B:USR1@120", "--partition=gpu"} < {*call}
  assert call[-3:] == ["launch/slurm.sh", FILE, FOLDER]


@pytest.mark.parametrize(
  ("srun", "signal_it", "code", "requeued"),
  [
    ("exit 0", False, 0, False),
    ("exit 3", False, 3, False),
    # Cancelled: saved, and not put into the queue again.
    ("exit 75", False, 75, False),
    ("trap 'sleep 1; exit 75' TERM; touch up; sleep 9 & wait", True, 75, True),
    ("trap 'exit 1' TERM; touch up; sleep 9 & wait", True, 1, False),
  ],
)
def test_the_batch_script_of_slurm(tmp_path, srun, signal_it, code, requeued):
  for name, text in (
    ("srun", f'echo "$JAX_DISTRIBUTED $*" >args; {srun}'),
    ("scontrol", 'echo "$*" >requeued'),
  ):
    path = tmp_path / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
  env = {
    **os.environ,
    "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    "SLURM_SUBMIT_DIR": str(tmp_path),
    "SLURM_JOB_ID": "17",
    "SLURM_NTASKS": "16",
  }
  script = ROOT / "launch" / "slurm.sh"
  job = subprocess.Popen(["bash", script, FILE, "--gin.A='b c'"], env=env)
  if signal_it:
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
      time.sleep(0.05)
    job.send_signal(10)  # SIGUSR1
  assert job.wait(30) == code
  assert (tmp_path / "args").read_text() == (
    "1 --kill-on-bad-exit=1 .venv/bin/python launch/run.py"
    f" {FILE} --gin.A='b c'\n"
  )
  assert (tmp_path / "requeued").exists() == requeued


def test_shell_scripts_have_nothing_for_shellcheck(tmp_path):
  beside = pathlib.Path(sys.executable).parent / "shellcheck"
  shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
  if shellcheck is None:
    pytest.skip("needs shellcheck, of the test extra")
  scripts = [*(ROOT / "launch").glob("*.sh"), ROOT / ".ci" / "run"]
  # What is sent to the hosts of a TPU is a script too.
  code = "import tpu_vm as t; print('\\0'.join((t.INSTALL, t.MOUNT, t.RUN, t.STOP, t.ENDED)))"
  sent = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT / "launch", capture_output=True, text=True, check=True,
  ).stdout  # fmt: skip
  for index, text in enumerate(sent.split("\0")):
    script = tmp_path / f"{index}.sh"
    script.write_text(f"#!/bin/bash\n{text}\n".replace("%d", "1"))
    scripts.append(script)
  done = subprocess.run(
    [shellcheck, "--external-sources", *map(str, scripts)],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout


def test_the_image_has_what_the_project_is_installed_from():
  text = (ROOT / "launch" / "Dockerfile").read_text()
  copied = [
    word
    for line in text.splitlines()
    if line.startswith("COPY")
    for word in line.split()[1:-1]
  ]
  let_in = {
    line[1:]
    for line in (ROOT / "launch" / "Dockerfile.dockerignore")
    .read_text()
    .splitlines()
    if line.startswith("!")
  }
  assert {*copied} == let_in
  assert all((ROOT / name).exists() for name in copied)


def test_examples_in_docstrings():
  done = subprocess.run(
    [sys.executable, "-m", "doctest", "commands.py", "gke.py"],
    cwd=ROOT / "launch",
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout
