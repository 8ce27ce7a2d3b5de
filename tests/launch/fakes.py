"""Fake commands on PATH: they write down how they were called.

`gcloud` keeps hosts as folders and really runs there what is sent by ssh.
"""

import json
import os
import pathlib
import stat
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKE = """#!{python}
import fcntl, json, os, pathlib, shutil, subprocess, sys
fake = pathlib.Path(os.environ["FAKE"])
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
stdin = sys.stdin.read() if "--filename=-" in words else ""
with open(fake / "calls", "a") as file:
  file.write(json.dumps([name, *words, stdin] if stdin else [name, *words]))
  file.write("\\n")
said = " ".join([name, *words])
answers = json.loads((fake / "answers").read_text())
for index, (part, code, out) in enumerate(answers):
  if part in said:
    del answers[index]
    (fake / "answers").write_text(json.dumps(answers))
    print(out, file=sys.stderr if code else sys.stdout)
    sys.exit(code)
hosts = fake / "hosts"
if name == "gcloud" and "tpu-vm" in words:
  verb = words[3]
  if verb == "create":
    for host in "01":
      (hosts / host).mkdir(parents=True)
  elif not hosts.is_dir():
    sys.exit("ERROR: (gcloud) NOT_FOUND: Resource not found")
  elif verb == "describe":
    print("READY")
  elif verb == "delete":
    shutil.rmtree(hosts)
  elif verb == "scp":
    for host in sorted(hosts.iterdir()):
      shutil.copy(words[4], host / words[5].partition(":")[2])
  elif verb == "ssh":
    (command,) = [w[10:] for w in words if w.startswith("--command=")]
    for host in sorted(hosts.iterdir()):
      code = subprocess.call(["bash", "-c", command], cwd=host)
      if code:
        sys.exit(code)
elif name == "python3.11":  # -m venv .venv
  python = pathlib.Path(words[-1], "bin", "python")
  python.parent.mkdir(parents=True)
  os.symlink(fake / "bin" / "job", python)
elif name == "python":  # of a host
  if words[0] == "launch/run.py":
    os.stat("launch/run.py")
    # Jobs of two hosts may come at once.
    lock = open(fake / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(fake / "jobs", "a") as file:
      file.write(json.dumps([os.environ["JAX_DISTRIBUTED"], *words[1:]]))
      file.write("\\n")
    codes = fake / "codes"
    if codes.exists() and (left := codes.read_text().split()):
      codes.write_text(" ".join(left[1:]))
      sys.exit(int(left[0]))
"""
NAMES = ("gcloud", "kubectl", "docker", "sbatch", "squeue", "scancel")


class Machine:
  """A folder with fake commands, and what they were asked."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    (folder / "bin").mkdir()
    for name in (*NAMES, "python3.11", "job"):
      path = folder / "bin" / name
      path.write_text(FAKE.replace("{python}", sys.executable))
      path.chmod(path.stat().st_mode | stat.S_IXUSR)
    self.answer()

  def answer(self, *answers):
    """(part of a command, exit code, what it says), each used once."""
    (self.folder / "answers").write_text(json.dumps(answers))

  def codes(self, *codes):
    """Exit codes of the jobs that are started, in order; then 0."""
    (self.folder / "codes").write_text(" ".join(map(str, codes)))

  def environment(self) -> dict[str, str]:
    path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    home = str(self.folder)
    return {**os.environ, "PATH": path, "FAKE": home, "HOME": home}

  def call(self, program, *words, stdin=subprocess.DEVNULL):
    """A program of launch/, called."""
    return subprocess.run(
      [sys.executable, f"launch/{program}", *words],
      cwd=ROOT,
      env=self.environment(),
      stdin=stdin,
      capture_output=True,
      text=True,
      timeout=100,
    )

  def calls(self, file="calls") -> list[list[str]]:
    path = self.folder / file
    if not path.exists():
      return []
    return [json.loads(line) for line in path.read_text().splitlines()]

  def verbs(self) -> list[str]:
    """What gcloud was asked to do with TPU VMs."""
    return [w[4] for w in self.calls() if w[:4] == GCLOUD]


GCLOUD = ["gcloud", "compute", "tpus", "tpu-vm"]

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
