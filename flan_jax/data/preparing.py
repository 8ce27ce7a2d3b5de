"""Preparing datasets: a process for each, some at a time, tried again.

A dataset is written to a folder of its own and moved to its place at the end,
so that a run that is killed leaves nothing that looks prepared; what it has
downloaded whole is kept and not fetched again. This file is also the program
of the child process: `python -m flan_jax.data.preparing '{"name": ...}'`.
"""

import collections
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from flan_jax.data import copies
from flan_jax.errors import UserError

# Folder of a dataset that is being written, below the dataset's own.
UNFINISHED = "incomplete.flan_jax"
# Seconds without a byte after which a server is given up, and after which a
# download that no process of ours knows of is taken for a dead one's.
SILENCE, STALE = 120, 600

AGAIN, FINAL = "again", "final"
_PARTIAL = re.compile(r".*\.tmp\.[0-9a-f]{32}")


@dataclasses.dataclass(frozen=True)
class Result:
  """How one try ended.

  Attributes:
    kind: `copies.PREPARED`; `copies.BY_HAND`, a file is not there that
      has to be fetched by hand; `AGAIN`, another try may help; `FINAL`.
    reason: TFDS's, of a failure.
    rows: split -> rows, of a prepared dataset.
    size: bytes of a prepared dataset.
  """

  kind: str
  reason: str = ""
  rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
  size: int = 0


class Watcher(Protocol):
  """Is told what happens, for the display."""

  def begun(self, dataset: copies.Dataset): ...

  def working(self, dataset: copies.Dataset, fetched: int, written: int):
    """Bytes downloaded in this try, bytes written of the dataset."""

  def waiting(self, dataset: copies.Dataset, reason: str, seconds: float):
    """A try failed; the next begins in so many seconds."""

  def ended(self, dataset: copies.Dataset, result: Result): ...


class Child:
  """A process that tries once to prepare a dataset."""

  def __init__(
    self,
    dataset: copies.Dataset,
    folder: pathlib.Path,
    modules: Sequence[str] = (),
    command: Sequence[str] = (sys.executable, "-m", "flan_jax.data.preparing"),
  ):
    request = {
      "name": dataset.name,
      "version": dataset.version,
      "folder": str(folder),
      "modules": list(modules),
    }
    log = log_path(dataset, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    # What this process can import, the child can; accelerators are not its.
    paths = os.pathsep.join(os.path.abspath(p) for p in sys.path)
    env = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    with log.open("ab") as out:
      self._process = subprocess.Popen(
        [*command, json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=out,
        env=env,
        start_new_session=True,
      )

  def poll(self) -> Result | None:
    """How it ended; None while it goes on."""
    code = self._process.poll()
    if code is None:
      return None
    self._process.stdin.close()
    with self._process.stdout as out:
      said = out.read().decode(errors="replace").strip()
    if said:
      return Result(**json.loads(said.splitlines()[-1]))
    if code < 0:
      name = signal.Signals(-code).name
      hint = " (out of memory?)" if -code == signal.SIGKILL else ""
      return Result(AGAIN, f"the process was ended by {name}{hint}")
    return Result(AGAIN, f"the process ended with code {code}")

  def stop(self):
    """Ends it; it takes away what it has half written."""
    self._process.terminate()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()


def log_path(dataset: copies.Dataset, folder: pathlib.Path) -> pathlib.Path:
  """Where all that TFDS says of a dataset is kept."""
  name = f"{dataset.name}/{dataset.version}".replace("/", "-")
  return folder / "downloads" / "logs" / f"{name}.log"


def run(
  datasets: Sequence[copies.Dataset],
  folder: pathlib.Path,
  watcher: Watcher,
  *,
  parallel: int = 2,
  retries: int = 3,
  backoff: float = 10.0,
  modules: Sequence[str] = (),
  start: Callable[..., Child] = Child,
) -> dict[str, Result]:
  """Prepares datasets, several at a time; none stops the others.

  Configs of one TFDS dataset share their downloads, so they go one after
  another.

  Args:
    datasets: each once.
    folder: TFDS data directory.
    watcher: is told what happens.
    parallel: processes at a time.
    retries: tries after the first.
    backoff: seconds before the second try; they double with each.
    modules: imported first, for builders of the user's own.
    start: makes the process.

  Returns:
    The last result of each, by `spec`.
  """
  tries = collections.Counter()
  due = {d: 0.0 for d in datasets}
  children: dict[copies.Dataset, Child] = {}
  before: dict[copies.Dataset, int] = {}
  results: dict[str, Result] = {}
  looked = 0.0
  try:
    while due or children:
      busy = {d.builder for d in children}
      for dataset in [d for d, t in due.items() if t <= time.monotonic()]:
        if len(children) < parallel and dataset.builder not in busy:
          del due[dataset]
          busy.add(dataset.builder)
          before[dataset] = fetched(dataset.builder, folder)
          children[dataset] = start(dataset, folder, modules)
          watcher.begun(dataset)
      for dataset, child in list(children.items()):
        result = child.poll()
        if result is None:
          continue
        del children[dataset]
        tries[dataset] += 1
        if result.kind == AGAIN and tries[dataset] <= retries:
          wait = backoff * 2 ** (tries[dataset] - 1)
          due[dataset] = time.monotonic() + wait
          watcher.waiting(dataset, result.reason, wait)
        else:
          results[dataset.spec] = result
          watcher.ended(dataset, result)
      if time.monotonic() - looked > 1:
        looked = time.monotonic()
        for dataset in children:
          got = fetched(dataset.builder, folder) - before[dataset]
          written = _size(folder / dataset.builder / UNFINISHED)
          watcher.working(dataset, max(got, 0), written)
      time.sleep(0.1)
  finally:
    for child in children.values():
      child.stop()
  return results


def fetched(builder: str, folder: pathlib.Path) -> int:
  """Bytes of a TFDS dataset, all its configs, that are downloaded already."""
  return _size(_fetched(builder, folder))


def _fetched(builder: str, folder: pathlib.Path) -> pathlib.Path:
  return folder / "downloads" / builder


def _size(folder: pathlib.Path) -> int:
  """Bytes of all files below a folder that others may be changing."""
  total = 0
  for parent, _, names in os.walk(folder):
    for name in names:
      with contextlib.suppress(OSError):
        total += os.path.getsize(os.path.join(parent, name))
  return total


# ------------------------------------------------------------ in the process


def prepare(name: str, version: str, folder: pathlib.Path) -> Result:
  """Downloads and prepares one dataset in this process, whole or not at all.

  Args:
    name: as TFDS knows it, `super_glue/rte`.
    version: as TFDS serves it.
    folder: TFDS data directory; downloads are kept in its `downloads`.

  Raises:
    UserError: another process is preparing the dataset.
    Exception: TFDS's own.
  """
  import tensorflow_datasets as tfds

  dataset = copies.Dataset(name, version, ())
  config = name.partition("/")[2] or None
  home = folder / dataset.builder
  staging = home / UNFINISHED
  got = _fetched(dataset.builder, folder)
  got.mkdir(parents=True, exist_ok=True)
  with _locked(got.with_name(f"{dataset.builder}.lock"), dataset.spec):
    old = {p for p in _partial(got) if time.time() - _touched(p) < STALE}
    _remove(set(_partial(got)) - old)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
      builder = tfds.builder_cls(dataset.builder)(
        config=config, version=version, data_dir=staging
      )
      written = pathlib.Path(builder.data_dir)
      place = folder / written.relative_to(staging)
      if not (place / "dataset_info.json").is_file():
        builder.download_and_prepare(download_dir=folder / "downloads")
        _keep_default_config(staging / dataset.builder, home)
        place.parent.mkdir(parents=True, exist_ok=True)
        written.rename(place)
    finally:
      shutil.rmtree(staging, ignore_errors=True)
      _remove(set(_partial(got)) - old)
  made = tfds.builder_from_directory(place)
  status = copies.check(dataset, made)
  if status.state != copies.PREPARED:
    return Result(FINAL, status.note)
  rows = {s: int(x.num_examples) for s, x in made.info.splits.items()}
  return Result(copies.PREPARED, "", rows, status.generated or 0)


@contextlib.contextmanager
def _locked(path: pathlib.Path, spec: str):
  with path.open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"another process is preparing {spec} or another config of it in the"
        " same folder; wait for it."
      ) from None
    yield


def _keep_default_config(written: pathlib.Path, home: pathlib.Path):
  """Which config `name` alone means is a file beside the configs."""
  source = written / ".config" / "metadata.json"
  target = home / ".config" / "metadata.json"
  if source.is_file() and not target.is_file():
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _partial(folder: pathlib.Path) -> list[pathlib.Path]:
  """Folders in which TFDS keeps files that are still being downloaded."""
  return [p for p in folder.rglob("*.tmp.*") if _PARTIAL.fullmatch(p.name)]


def _touched(folder: pathlib.Path) -> float:
  return max(p.stat().st_mtime for p in (folder, *folder.glob("*")))


def _remove(folders):
  for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)


def result_of(error: BaseException, folder: pathlib.Path) -> Result:
  """Whether another try may help after an exception of `prepare`.

  >>> result_of(ImportError("no module 'py7zr'"), pathlib.Path("x")).kind
  'final'
  """
  said = copies.reason(error)
  if isinstance(error, UserError):
    return Result(FINAL, str(error))
  if str(copies.manual_folder(folder)) in "".join(
    traceback.format_exception(error)
  ):
    return Result(copies.BY_HAND, said)
  full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
  if (
    isinstance(error, ImportError)
    or getattr(error, "errno", None) in full
    or "Not enough disk space" in said
  ):
    return Result(FINAL, said)
  return Result(AGAIN, said)


def main(argument: str) -> int:
  """The child: one try, its result as a line of JSON; TFDS talks to stderr."""
  out = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  threading.Thread(target=_end_with_parent, daemon=True).start()
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  request = json.loads(argument)
  folder = pathlib.Path(request["folder"])
  try:
    _be_impatient()
    copies.import_builders(request["modules"])
    result = prepare(request["name"], request["version"], folder)
  except BaseException as e:
    traceback.print_exc()
    result = result_of(e, folder)
  out.write(json.dumps(dataclasses.asdict(result)) + "\n")
  out.flush()
  return 0 if result.kind == copies.PREPARED else 1


def _end_with_parent():
  sys.stdin.buffer.read()
  os._exit(1)


def _be_impatient():
  """Gives up silent servers, and leaves trying again to the parent.

  TFDS sets no timeout, and asks a server that does not answer ten times.
  """
  import requests
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import downloader

  tfds.disable_progress_bar()
  downloader.MAX_RETRIES = 2
  send = requests.adapters.HTTPAdapter.send

  def with_timeout(self, request, stream=False, timeout=None, **kwargs):
    return send(self, request, stream, timeout or SILENCE, **kwargs)

  requests.adapters.HTTPAdapter.send = with_timeout


if __name__ == "__main__":
  code = main(sys.argv[1])
  sys.stdout.flush()
  sys.stderr.flush()
  # TFDS's threads may still wait for a server.
  os._exit(code)
