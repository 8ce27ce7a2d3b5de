"""A run that is killed again and again, and one that is not, bit for bit.

Each start is a process of its own that runs the job of `launch/run.py`; the
parent watches the run's folder and kills:

    start     before its first step: imports are over, data and parameters are
              being made, a checkpoint is being read, a step compiled
    step      at a random moment some steps on
    save      while a checkpoint has files, and not yet the manifest that makes
              it count
    term      by SIGTERM at a random moment: it must save and exit with 75

A kill is survived if the next start goes on from the newest checkpoint that
was whole when the process died, and if at the end parameters, optimiser and
the curve of losses have the same bits as without any kill.
"""

import dataclasses
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JOB = "gin/flan_holdout_nli.gin"
KINDS = ("start", "step", "save", "term")
PERIOD = 3
# One small task and a tiny model with dropout: a step takes milliseconds.
SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 64},
  "BATCH_SIZE": 2,
  "CHECKPOINT_PERIOD": PERIOD,
  "LOG_PERIOD": 2,
  "EVAL_PERIOD": 1000,
  "DROPOUT_RATE": 0.1,
  "t5.T5Config.emb_dim": 8,
  "t5.T5Config.mlp_dim": 16,
  "t5.T5Config.num_encoder_layers": 1,
  "t5.T5Config.num_decoder_layers": 1,
}
# No start of a tiny run takes as long, however busy the machine.
PATIENCE_SECONDS = 600.0


@dataclasses.dataclass
class Kill:
  """What was done to one start, and what came of it.

  Attributes:
    kind: of `KINDS`.
    whole: the newest checkpoint that counted when the process had died; 0:
      there was none.
    reached: the last step in the log then.
    resumed: the step that the next start went on from.
    code: the exit status.
  """

  kind: str
  whole: int = 0
  reached: int = 0
  resumed: int | None = None
  code: int = 0

  @property
  def survived(self) -> bool:
    if self.kind == "term":
      ended_well = self.code == 75
    else:
      ended_well = self.code == -signal.SIGKILL
    return ended_well and self.resumed == self.whole


def start(folder: pathlib.Path, steps: int, quiet: bool = True):
  """The body of a process: what `launch/run.py` does with its flags."""
  if quiet:
    log = os.open(
      folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
  sys.path.insert(0, str(ROOT / "launch"))
  import run

  os.chdir(ROOT)
  options = {**SMALL, "TRAIN_STEPS": steps, "MODEL_DIR": str(folder)}
  flags = [f"--gin.{name}={value!r}" for name, value in options.items()]
  code = run.main([f"--gin_file={JOB}", *flags])
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def processes():
  """A server that has imported everything and forks, so a start is cheap."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(
    [__name__, "flan_jax.train", "flan_jax.tasks", "clu.metric_writers"]
  )
  return context


class Chaos:
  """One run in a folder, killed as the dice say."""

  def __init__(self, folder: pathlib.Path, steps: int, seed: int, context):
    self.folder = folder
    self.steps = steps
    self.dice = random.Random(seed)
    self._context = context
    self.kills: list[Kill] = []

  def kill_once(self, kind: str) -> bool:
    """Starts, kills and looks; False: the run ended before it was killed."""
    process = self._start()
    base = self._wait_for_start(process, kind)
    if process.is_alive():
      self._wait_for_moment(process, kind, base)
    killed = process.is_alive()
    if killed:
      os.kill(
        process.pid, signal.SIGTERM if kind == "term" else signal.SIGKILL
      )
    process.join(PATIENCE_SECONDS)
    if not killed:
      assert process.exitcode == 0, self._said(process)
      return False
    # It may have ended by itself while the signal was under way.
    if process.exitcode == 0:
      return False
    self.kills.append(
      Kill(kind, self.newest(), self.reached(), code=process.exitcode)
    )
    return True

  def finish(self):
    """The last start, which nobody kills."""
    process = self._start()
    self._note_resumed(process)
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0, self._said(process)

  def newest(self) -> int:
    """The newest checkpoint with a manifest, 0 if there is none."""
    found = (self.folder / "checkpoints").glob("checkpoint_*/manifest.json")
    names = (p.parent.name.removeprefix("checkpoint_") for p in found)
    return max((int(name) for name in names if name.isdigit()), default=0)

  def reached(self) -> int:
    """The last step in the log."""
    from flan_jax.training import writers

    rows = writers.read(self.folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0

  def _said(self, process) -> str:
    log = self.folder.with_suffix(".log").read_text()
    return f"a start ended with {process.exitcode}:\n{log[-3000:]}"

  def _start(self):
    process = self._context.Process(
      target=start, args=(self.folder, self.steps)
    )
    process.start()
    return process

  def _note_resumed(self, process) -> int:
    """The step that this start goes on from; -1: it is gone before that."""
    from flan_jax.training import accounting, writers

    for _ in self._looking(process):
      for row in writers.read(self.folder / accounting.FILE):
        if row["process"] == process.pid:
          for kill in self.kills:
            if kill.resumed is None:
              kill.resumed = row["step"]
          return row["step"]
    return -1

  def _wait_for_start(self, process, kind: str) -> int:
    if kind == "start" and self.dice.random() < 0.5:
      # Before it has read anything: what comes after looks at the same files.
      deadline = time.monotonic() + self.dice.uniform(0.0, 1.0)
      for _ in self._looking(process):
        if time.monotonic() > deadline:
          return -1
    return self._note_resumed(process)

  def _wait_for_moment(self, process, kind: str, base: int):
    if kind == "start":
      if base >= 0:
        time.sleep(self.dice.uniform(0.0, 0.5))
      return
    if kind == "save":
      # The second of them at times: then there is one to fall back to.
      wanted = self.dice.choice((1, 2))
      seen = set()
      for _ in self._looking(process, pause=0.0005):
        for path in (self.folder / "checkpoints").glob("checkpoint_*"):
          number = path.name.removeprefix("checkpoint_")
          if number.isdigit() and int(number) > base and not (
            path / "manifest.json"
          ).exists():
            seen.add(number)
        if len(seen) >= wanted:
          return
      return
    goal = base + self.dice.randint(1, 2 * PERIOD)
    for _ in self._looking(process):
      if self.reached() >= goal:
        time.sleep(self.dice.uniform(0.0, 0.05))
        return

  def _looking(self, process, pause: float = 0.005):
    end = time.monotonic() + PATIENCE_SECONDS
    while process.is_alive():
      assert time.monotonic() < end, "a start hangs"
      yield
      time.sleep(pause)


def losses(folder: pathlib.Path) -> list[tuple[int, float]]:
  from flan_jax.training import writers

  rows = writers.read(folder / "metrics.jsonl")
  return [(r["step"], r["train/loss"]) for r in rows if "train/loss" in r]


def state(folder: pathlib.Path, step: int) -> dict[str, bytes]:
  """Every array of a checkpoint, optimiser and counters too."""
  import jax
  import numpy as np

  from flan_jax.training import integrity, restore

  path = folder / "checkpoints" / f"checkpoint_{step}"
  manifest = integrity.check(path)
  tree: dict = {}
  for name, array in manifest["arrays"].items():
    *scopes, last = name.split("/")
    node = tree
    for scope in scopes:
      node = node.setdefault(scope, {})
    node[last] = jax.ShapeDtypeStruct(tuple(array["shape"]), array["dtype"])
  _, arrays = restore.named(restore.read(path, manifest, tree))
  return {name: np.asarray(x).tobytes() for name, x in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a run that was killed.

  Attributes:
    kills: in their order.
    differing: names of arrays that differ from the undisturbed run's.
    same_curve: whether the losses of all steps are the same.
  """

  kills: tuple[Kill, ...]
  differing: tuple[str, ...]
  same_curve: bool

  @property
  def survived(self) -> int:
    """Kills that were; none if the run came to another end."""
    if self.differing or not self.same_curve:
      return 0
    return sum(kill.survived for kill in self.kills)


def tried(
  folder: pathlib.Path,
  kills: int,
  seed: int,
  seconds: float | None = None,
  say=lambda kill: None,
) -> Outcome:
  """Kills a run so many times and compares it with an undisturbed one.

  Args:
    folder: for both runs.
    kills: how many; of every kind as many, in an order by `seed`.
    seed: of all choices.
    seconds: after which no further kill is begun; None: all are.
    say: told of every kill.
  """
  # A kill of kind `step` gets at most 2 x PERIOD steps on.
  steps = 2 * PERIOD * kills + PERIOD
  end = None if seconds is None else time.monotonic() + seconds
  context = processes()
  chaos = Chaos(folder / "killed", steps, seed, context)
  kinds = [KINDS[i % len(KINDS)] for i in range(kills)]
  chaos.dice.shuffle(kinds)
  for kind in kinds:
    if end is not None and time.monotonic() > end:
      break
    if not chaos.kill_once(kind):
      break
    say(chaos.kills[-1])
  chaos.finish()
  plain = Chaos(folder / "plain", steps, seed, context)
  plain.finish()
  a, b = (state(chaos.folder, steps), state(plain.folder, steps))
  differing = tuple(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
  return Outcome(
    tuple(chaos.kills),
    differing,
    losses(chaos.folder) == losses(plain.folder),
  )
