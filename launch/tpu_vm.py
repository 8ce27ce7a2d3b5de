r"""Trains on a TPU VM or a pod slice of them, by Google's `gcloud`.

  python launch/tpu_vm.py train --name=flan-nli --project=my-project-123 \
      --zone=us-central2-b --type=v4-256 --spot --bucket=my-bucket -- \
      --gin_file=gin/flan_holdout_nli.gin --gin_file=gin/hardware/v4_256.gin \
      --gin.MODEL_DIR=/bucket/nli --gin.TFDS_DATA_DIR=gs://my-bucket/tfds

`train` does one after the other what these do alone:
  create   makes the slice
  install  copies the last commit of this checkout to all hosts, installs it,
           and mounts --bucket at /bucket
  run      starts launch/run.py on all hosts; it goes on when you leave
  watch    waits for the job to end; makes the slice again if it was taken
           away (--spot), and starts the job again, which goes on
and besides:
  logs     follows the log of one host (--worker)
  stop     asks the job to save and stop (SIGTERM)
  delete   deletes the slice, asking first

Nothing deletes a slice but `delete` and `train --delete` (and `watch`, one
that was taken away). When a command fails, it says what is still there.
"""

import re
import shlex
import sys
import time

import commands
from commands import Failed

# Folder on every host, in the home of the user that gcloud logs in as.
FOLDER = "flan_jax"
# States of a TPU VM that was taken away or is on its way out.
LOST = ("PREEMPTED", "TERMINATED", "STOPPED", "DELETING", "STOPPING", "HIDDEN")
INSTALL = f"""set -eu
mkdir -p {FOLDER} && tar xzf {FOLDER}.tar.gz -C {FOLDER} && cd {FOLDER}
if ! command -v python3.11 >/dev/null; then
  sudo add-apt-repository -y ppa:deadsnakes/ppa
  sudo apt-get update -q && sudo apt-get install -y -q python3.11-venv
fi
[ -x .venv/bin/python ] || python3.11 -m venv .venv
.venv/bin/python -m pip install -q -c constraints.txt -e '.[tpu]'"""
MOUNT = """set -eu
mountpoint -q FOLDER && exit
if ! command -v gcsfuse >/dev/null; then
  echo 'gcsfuse is not installed on this host; install it (Cloud Storage' >&2
  echo 'FUSE) by the commands of a --startup-script=FILE' >&2
  exit 1
fi
sudo mkdir -p FOLDER && sudo chown "$(id -un)" FOLDER
gcsfuse OPTIONS BUCKET FOLDER"""
# A shell of its own writes the exit code; while it lives, the job runs.
RUN = f"""set -eu
cd {FOLDER}
if [ -f job.shell ] && kill -0 "$(cat job.shell)" 2>/dev/null; then
  echo 'a job is running here already; stop it first' >&2; exit 1
fi
rm -f job.exit
export JAX_DISTRIBUTED=%d
nohup bash -c '.venv/bin/python launch/run.py "$@" & echo $! >job.pid
  wait $!; echo $? >job.exit' run %s >>job.log 2>&1 </dev/null &
echo $! >job.shell"""
STOP = f'kill -TERM "$(cat {FOLDER}/job.pid)"'
ENDED = f"""cd {FOLDER} || exit
if kill -0 "$(cat job.shell)" 2>/dev/null; then echo job=running
else echo "job=$(cat job.exit 2>/dev/null || echo lost)"; fi"""
# Says of a slice that it is not there.
ABSENT = ("NOT_FOUND", "was not found", "notFound")
# Questions in a row that may go unanswered.
UNANSWERED = 5


class Enough(Failed):
  """What trying again would not mend."""


class Ended(Exception):
  """The job ended well on all hosts."""


class Slice:
  """One TPU slice and what is done with it."""

  def __init__(self, arguments, flags, run):
    self.given, self.flags, self.commands = arguments, flags, run
    self.where = [
      arguments.name,
      f"--project={arguments.project}",
      f"--zone={arguments.zone}",
    ]

  def gcloud(self, verb, *words, run=None):
    run = run or self.commands.run
    head = ("gcloud", "compute", "tpus", "tpu-vm", verb)
    return run(*head, *self.where, *words)

  def everywhere(self, command):
    self.gcloud("ssh", "--worker=all", f"--command={command}")

  def state(self) -> str | None:
    """READY, PREEMPTED, ...; None: there is no such slice.

    Raises:
      Failed: gcloud cannot say.
    """
    try:
      return self.ask("describe", "READY", "--format=value(state)")
    except Failed as error:
      if any(word in str(error) for word in ABSENT):
        return None
      raise

  def ask(self, verb, otherwise, *words):
    def run(*all_words):
      return self.commands.ask(*all_words, otherwise=otherwise)

    return self.gcloud(verb, *words, run=run)

  def create(self):
    given = self.given
    extra = ["--spot"] if given.spot else []
    if given.startup_script:
      script = given.startup_script.resolve()
      extra.append(f"--metadata-from-file=startup-script={script}")
    if given.network:
      extra.append(f"--network={given.network}")
    self.gcloud(
      "create",
      f"--accelerator-type={given.type}",
      f"--version={given.version}",
      *extra,
    )

  def install(self):
    commands.uncommitted()
    # gcloud copies files; one of a fixed name, so that a dry run can print it.
    archive = commands.scratch(f"{self.given.name}.tar.gz", self.commands)
    self.commands.run(
      "git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"
    )
    name, *where = self.where
    self.commands.run(
      *("gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive)),
      *(f"{name}:{FOLDER}.tar.gz", *where, "--worker=all"),
    )
    self.everywhere(INSTALL)
    if self.given.bucket:
      options = " ".join(f"--{o}" for o in commands.MOUNT_OPTIONS)
      self.everywhere(
        MOUNT.replace("FOLDER", commands.BUCKET)
        .replace("OPTIONS", options)
        .replace("BUCKET", self.given.bucket)
      )

  def run(self):
    several = commands.hosts(self.given.type) > 1
    self.everywhere(RUN % (several, shlex.join(self.flags)))

  def logs(self):
    command = f"tail -n 50 -F {FOLDER}/job.log"
    self.gcloud("ssh", f"--worker={self.given.worker}", f"--command={command}")

  def stop(self):
    self.everywhere(STOP)

  def delete(self):
    name = self.given.name
    if not self.commands.dry_run:
      commands.agreed(f"Delete the TPU slice {name}?", name, self.given.yes)
    self.gcloud("delete", "--quiet")

  def watch(self):
    """Returns when the job has ended well on all hosts."""
    restarts = unanswered = 0
    while True:
      try:
        why = self.trouble()
        unanswered = 0
        if why is not None:
          if restarts >= self.given.restarts:
            raise Enough(f"{why}, after {restarts} restarts (--restarts).")
          restarts += 1
          print(f"{why}: restart {restarts}.", flush=True)
          self.start_again()
      except Ended:
        print(f"the job ended well on all hosts of {self.given.name}.")
        return
      except Enough:
        raise
      except Failed as error:
        # A slice that is being taken away, and one for which there is no
        # room yet, is asked for again.
        unanswered += 1
        if unanswered > UNANSWERED:
          raise
        print(f"{error} Trying again in {self.given.poll} s.", flush=True)
      if self.commands.dry_run:
        print(f"(again every {self.given.poll} s until the job ends)")
        return
      time.sleep(self.given.poll)

  def trouble(self) -> str | None:
    """Why the job must be started again; None: it runs."""
    state = self.state()
    if state is None or state in LOST:
      return f"{self.given.name} was taken away ({state or 'not there'})"
    if state != "READY":
      return None
    said = self.ask("ssh", "", "--worker=all", f"--command={ENDED}")
    # gcloud may say something of its own.
    codes = set(re.findall(r"^job=(\w+)$", said, re.MULTILINE)) or {"running"}
    if codes == {"0"}:
      raise Ended
    if "2" in codes:
      raise Enough("the job cannot run as it is (exit code 2): see `logs`.")
    if "running" in codes:
      return None
    if codes <= {"0", str(commands.STOPPED)}:
      return "the job was told to stop, and saved"
    return f"the job ended with exit codes {', '.join(sorted(codes))}"

  def start_again(self):
    state = self.state()
    if state is not None and state in LOST:
      self.gcloud("delete", "--quiet")
      state = None
    if state is None:
      self.create()
      self.install()
    self.run()

  def train(self):
    if not self.commands.dry_run and self.state() is not None:
      raise Failed(
        f"{self.given.name} is there already: `run` starts a job on it,"
        " `delete` removes it."
      )
    try:
      self.create()
      self.install()
      self.run()
      self.watch()
    finally:
      try:
        if self.given.delete:
          self.gcloud("delete", "--quiet")
      finally:
        self.say_what_is_left()

  def say_what_is_left(self):
    if self.commands.dry_run:
      return
    name = self.given.name
    try:
      state = self.state()
    except Failed as error:
      state = f"gcloud cannot say its state: {error}"
    if state is None:
      print(f"note: there is no slice {name} any more.", file=sys.stderr)
      return
    print(
      f"warning: the slice {name} is still there ({state}) and costs money"
      " until it is deleted:\n  python launch/tpu_vm.py delete"
      f" --name={name} --project={self.given.project} --zone={self.given.zone}",
      file=sys.stderr,
    )


ACTIONS = ("train", "create", "install", "run", "watch", "logs", "stop")
WITH_JOB = ("train", "run", "watch")
WITH_TYPE = ("create", *WITH_JOB)


def parser():
  made = commands.parser(__doc__)
  made.add_argument("action", choices=(*ACTIONS, "delete"))
  made.add_argument("--name", type=commands.name, required=True)
  made.add_argument("--project", type=commands.project, required=True)
  made.add_argument("--zone", type=commands.zone, required=True)
  made.add_argument("--type", type=commands.slice_type, help="such as v4-256")
  made.add_argument(
    "--version",
    type=commands.version,
    default="tpu-ubuntu2204-base",
    help="of the software that the VMs start with (v6e: v2-alpha-tpuv6e)",
  )
  made.add_argument("--network", type=commands.name, help="not the default one")
  made.add_argument(
    "--bucket", type=commands.bucket, help="mounted at /bucket on all hosts"
  )
  made.add_argument(
    "--startup-script", type=commands.file, help="root runs it on new hosts"
  )
  made.add_argument("--spot", action="store_true", help="may be taken away")
  made.add_argument(
    "--worker", type=commands.worker, default="0", help="host of `logs`"
  )
  made.add_argument(
    "--restarts", type=int, default=10, help="of the job, at most"
  )
  made.add_argument("--poll", type=commands.count, default=60, help="seconds")
  made.add_argument(
    "--delete", action="store_true", help="`train` deletes the slice at its end"
  )
  made.add_argument("--yes", action="store_true", help="delete without asking")
  return made


def act(arguments, flags, run):
  action = arguments.action
  if action in WITH_TYPE and arguments.type is None:
    raise Failed(f"{action} needs --type, such as --type=v4-256.")
  if flags and action not in WITH_JOB:
    raise Failed(f"{action} takes no flags of launch/run.py after `--`.")
  if action in WITH_JOB:
    kind = commands.GENERATIONS[arguments.type.partition("-")[0]][0]
    commands.check_job(
      flags,
      processes=commands.hosts(arguments.type),
      machine=(kind, commands.chips(arguments.type)),
    )
  one = Slice(arguments, flags, run)
  try:
    getattr(one, action)()
  except (Failed, KeyboardInterrupt):
    # `train` has said it.
    if action not in ("train", "logs"):
      one.say_what_is_left()
    raise


if __name__ == "__main__":
  sys.exit(commands.main(sys.argv[1:], parser(), act))
