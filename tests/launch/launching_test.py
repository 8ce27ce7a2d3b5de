"""Programs of launch/, with fake commands that write down their calls."""

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

ROOT = fakes.ROOT
TPU = (
  "--name=flan-nli",
  "--project=my-project-123",
  "--zone=us-central2-b",
)
GKE = (
  "--name=flan-nli",
  "--project=my-project-123",
  "--location=us-central2",
  "--cluster=c1",
  "--type=v4",
  "--topology=4x4x8",
  "--image=eu.gcr.io/my-project-123/flan_jax:v1",
)
FILE = "--gin_file=gin/flan_holdout_nli.gin"
FOLDER = "--gin.MODEL_DIR=/bucket/run"
JOB = ("--", FILE, FOLDER)


@pytest.fixture
def machine(tmp_path):
  return fakes.Machine(tmp_path)


def train(machine, *more, job=JOB):
  words = ("train", *TPU, "--type=v4-16", "--poll=1", *more, *job)
  return machine.call("tpu_vm.py", *words)


def test_a_slice_is_made_used_and_named_at_the_end(machine):
  flags = (*JOB, "--gin.TASK_FEATURE_LENGTHS={'inputs': 8}", "--gin.A=$HOME")
  done = train(machine, "--spot", job=flags)
  assert done.returncode == 0, done.stderr
  # The state is asked before, while the job runs, and at the end.
  order = [verb for verb in machine.verbs() if verb != "describe"]
  assert order[:4] == ["create", "scp", "ssh", "ssh"]
  assert "delete" not in order
  (create,) = (w for w in machine.calls() if w[4:5] == ["create"])
  assert create[5:] == [
    *("flan-nli", "--project=my-project-123", "--zone=us-central2-b"),
    *("--accelerator-type=v4-16", "--version=tpu-ubuntu2204-base", "--spot"),
  ]
  # Both hosts have the checkout, and got the flags as they were written.
  assert machine.calls("jobs") == 2 * [["1", *flags[1:]]]
  assert "the job ended well on all hosts" in done.stdout
  assert "flan-nli is still there (READY) and costs money" in done.stderr
  assert "delete --name=flan-nli --project=my-project-123" in done.stderr


def test_a_slice_is_deleted_where_that_is_said(machine):
  done = train(machine, "--delete")
  assert done.returncode == 0, done.stderr
  assert "there is no slice flan-nli any more" in done.stderr
  assert machine.verbs()[-2:] == ["delete", "describe"]
  # Also when the job cannot run.
  machine.codes(2, 2)
  done = train(machine, "--delete")
  assert done.returncode == 2
  assert "exit code 2" in done.stderr
  assert machine.verbs()[-2:] == ["delete", "describe"]
  # A slice that cannot be deleted is not passed over.
  machine.answer(("tpu-vm delete", 1, "no permission"))
  done = train(machine, "--delete")
  assert done.returncode == 2
  assert "flan-nli is still there" in done.stderr


def test_what_fails_says_what_is_left(machine):
  machine.answer(("tpu-vm create", 1, "There is no more capacity"))
  done = train(machine)
  assert done.returncode == 2
  assert machine.verbs() == ["describe", "create", "describe"]
  assert "gcloud ended with exit code 1" in done.stderr
  assert "there is no slice flan-nli any more" in done.stderr

  machine.answer(("tpu-vm scp", 1, "connection lost"))
  done = train(machine)
  assert done.returncode == 2
  assert "is still there (READY)" in done.stderr
  assert machine.calls("jobs") == []

  done = train(machine)
  assert "flan-nli is there already" in done.stderr
  done = machine.call("tpu_vm.py", "create", *TPU, "--type=v4-16")
  assert done.returncode == 2
  assert "is still there" in done.stderr


def test_a_slice_that_is_taken_away_is_made_again(machine):
  # Asked before `create`, then while the job runs.
  machine.answer(
    ("tpu-vm describe", 1, "NOT_FOUND"),
    ("tpu-vm describe", 0, "PREEMPTED"),
    ("tpu-vm describe", 0, "PREEMPTED"),
  )
  done = train(machine)
  assert done.returncode == 0, done.stderr
  assert "flan-nli was taken away (PREEMPTED): restart 1" in done.stdout
  order = [v for v in machine.verbs() if v != "describe"]
  first = ["create", "scp", "ssh", "ssh"]
  assert order[:9] == [*first, "delete", *first]
  assert len(machine.calls("jobs")) == 4


def test_no_room_for_a_slice_is_waited_for(machine):
  gone = ("tpu-vm describe", 1, "NOT_FOUND")
  machine.answer(gone, gone, gone)
  words = ("watch", *TPU, "--type=v4-16", "--poll=1", *JOB)
  full = [["tpu-vm create", 1, "There is no more capacity"]] * 2
  machine.answer(*full)
  done = machine.call("tpu_vm.py", *words)
  assert done.returncode == 0, done.stderr
  assert machine.verbs().count("create") == 3
  assert done.stdout.count("Trying again in 1 s") == 2


def test_a_job_is_started_again_unless_that_cannot_help(machine):
  machine.codes(75, 75)
  done = train(machine, "--delete")
  assert done.returncode == 0, done.stderr
  assert "told to stop, and saved: restart 1" in done.stdout
  assert machine.verbs().count("create") == 1
  assert len(machine.calls("jobs")) == 4
  machine.codes(2, 1)
  done = train(machine, "--delete")
  assert done.returncode == 2
  assert "cannot run as it is" in done.stderr
  assert len(machine.calls("jobs")) == 6
  machine.codes(*[134] * 6)
  done = train(machine, "--delete", "--restarts=1")
  assert "exit codes 134, after 1 restarts" in done.stderr
  assert len(machine.calls("jobs")) == 10


def test_logs_stop_and_a_second_job_reach_the_hosts(machine):
  assert train(machine).returncode == 0
  host = machine.folder / "hosts" / "0" / "flan_jax"
  assert (host / "job.exit").read_text() == "0\n"
  # A job that runs: its own process, and the shell that waits for it.
  with subprocess.Popen(["sleep", "60"]) as job:
    for name in ("job.pid", "job.shell"):
      for one in host.parent.parent.glob(f"*/flan_jax/{name}"):
        one.write_text(str(job.pid))
    done = machine.call("tpu_vm.py", "run", *TPU, "--type=v4-16", *JOB)
    assert done.returncode == 2
    assert "a job is running here already" in done.stderr
    machine.call("tpu_vm.py", "stop", *TPU)
    assert job.wait(20) == -15
  machine.answer(("tail -n 50", 0, "step 3"))
  done = machine.call("tpu_vm.py", "logs", *TPU, "--worker=1")
  assert "step 3" in done.stdout
  assert "--worker=1" in machine.calls()[-1]


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
  # On TPU VMs: where gcsfuse is there, by it; else the host says so.
  log, script = machine.folder / "mounted", machine.folder / "start.sh"
  script.write_text("apt-get install -y gcsfuse")
  (machine.folder / "bin" / "mountpoint").write_text("#!/bin/sh\nexit 1\n")
  sudo = "#!/bin/sh\nexit 0\n"
  (machine.folder / "bin" / "sudo").write_text(sudo)
  for name in ("mountpoint", "sudo"):
    (machine.folder / "bin" / name).chmod(0o755)
  more = ("--bucket=my-bucket", f"--startup-script={script}", "--delete")
  done = train(machine, *more)
  assert done.returncode == 2
  assert "gcsfuse is not installed on this host" in done.stderr
  (create,) = (w for w in machine.calls() if w[4:5] == ["create"])
  assert f"--metadata-from-file=startup-script={script}" in create
  gcsfuse = machine.folder / "bin" / "gcsfuse"
  gcsfuse.write_text(f'#!/bin/sh\necho "$*" >>{log}\n')
  gcsfuse.chmod(0o755)
  assert train(machine, *more).returncode == 0
  line = "--implicit-dirs --rename-dir-limit=200000 my-bucket /bucket\n"
  assert log.read_text() == 2 * line


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
      (*TPU, "--type=v4-16", "--", FILE, "--gin.MODEL_DIR=gs://b/run"),
      "mount the bucket (/bucket) and give a path in that folder",
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
