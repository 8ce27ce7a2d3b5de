"""launch/tpu_vm.py with a fake gcloud, which runs what is sent to a host."""

import subprocess

from tests.launch.fakes import JOB, TPU


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


def test_a_bucket_is_mounted(machine):
  # Where gcsfuse is there, by it; else the host says so.
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
