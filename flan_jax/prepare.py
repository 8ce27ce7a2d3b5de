"""Preparation: the datasets of a mixture, fetched and written for training.

  python launch/run.py --gin_file=gin/prepare_data.gin \
      --gin.TFDS_DATA_DIR=/data/tfds

Shows which are prepared, which can be downloaded and how large they are, which
need files that are fetched by hand and how, and which TFDS no longer serves;
then prepares what it can. Run again, it goes on with what is left.
"""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import rich.filesize
import rich.markup
import rich.progress

from flan_jax.data import collection as collection_lib
from flan_jax.data import copies, downloads, mixtures, preparing, remote
from flan_jax.data.collection import Collection
from flan_jax.errors import UserError
from flan_jax.training import progress

# Bytes of unpacked and generated files for each byte of a download, where TFDS
# knows no sizes: most catalogue pages have 0.5 to 4 for the generated alone.
UNPACKED = 4


def prepare_data(
  *,
  mixture_or_task_name: str,
  task_collection: Collection | None = None,
  tfds_data_dir: str | None = None,
  parallel: int = 2,
  retries: int = 3,
  backoff: float = 10.0,
  builder_modules: Sequence[str] = (),
  dry: bool = False,
) -> dict[str, str]:
  """Prepares the datasets of a mixture, and says what it cannot prepare.

  Args:
    mixture_or_task_name: whose datasets.
    task_collection: tasks to register beside the catalogue's, FLAN 2022's say.
    tfds_data_dir: where to; None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    parallel: processes at a time.
    retries: tries of a dataset after the first.
    backoff: seconds before the second try; they double with each.
    builder_modules: imported first, for TFDS builders of your own.
    dry: whether to show the table only.

  Returns:
    Dataset -> its state now, one of `copies.STATES`.

  Raises:
    UserError: no such mixture, too little disk for the downloads, or a
      dataset failed; the message lists all that failed, with TFDS's reasons.
  """
  _check(parallel, retries, backoff)
  display = progress.Display()
  collection_lib.register(task_collection)
  copies.import_builders(builder_modules)
  folder = _folder(tfds_data_dir, display)
  import seqio

  seqio.set_tfds_data_dir_override(str(folder))
  tasks = seqio.get_subtasks(mixtures.registered(mixture_or_task_name))
  statuses = [downloads.ask(d, folder) for d in downloads.of_tasks(tasks)]
  _show(display, mixture_or_task_name, statuses, folder)
  needed = _show_disk(display, statuses, folder)
  states = {s.dataset.spec: s.state for s in statuses}
  todo = [s.dataset for s in statuses if s.try_it]
  if not dry and todo:
    _check_disk(needed, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _Watch(display, statuses) as watch, _interrupted():
      results = preparing.run(
        todo,
        folder,
        watch,
        parallel=parallel,
        retries=retries,
        backoff=backoff,
        modules=builder_modules,
      )
  else:
    results = {}
  failed = {s.dataset: s.note for s in statuses if s.state == copies.DAMAGED}
  for dataset in todo:
    result = results.get(dataset.spec)
    if result is None:
      continue
    if result.kind == copies.PREPARED:
      states[dataset.spec] = copies.PREPARED
    elif result.kind != copies.BY_HAND:
      log = preparing.log_path(dataset, folder)
      failed[dataset] = f"{result.reason} (log: {log})"
  if dry:
    return states
  _show_end(display, states)
  if failed:
    lines = "\n".join(f"  {d.spec}: {why}" for d, why in failed.items())
    raise UserError(
      f"{len(failed)} of {len(states)} datasets could not be prepared; the same"
      f" command goes on with them.\n{lines}"
    )
  return states


def _check(parallel: int, retries: int, backoff: float):
  for name, value, least in (
    ("PARALLEL", parallel, 1),
    ("RETRIES", retries, 0),
    ("BACKOFF", backoff, 0),
  ):
    if value < least:
      raise UserError(f"{name} is {value}; give {least} or more.")


def _folder(given: str | None, display: progress.Display) -> pathlib.Path:
  """Where datasets go; there need be nothing yet."""
  named = given or os.environ.get("TFDS_DATA_DIR")
  if named and remote.is_remote(named):
    raise UserError(
      f"TFDS_DATA_DIR {named!r}: datasets are prepared in a folder of this"
      " machine; copy it into the bucket afterwards, from where jobs read it."
    )
  folder = pathlib.Path(named or "~/tensorflow_datasets").expanduser().resolve()
  if folder.exists() and not folder.is_dir():
    raise UserError(f"TFDS_DATA_DIR {str(folder)!r} is a file, not a folder.")
  why = "" if named else " (TFDS's default, as no TFDS_DATA_DIR is given)"
  display.say(f"data: {folder}{why}")
  return folder


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
  try:
    yield
  except KeyboardInterrupt:
    raise KeyboardInterrupt(
      "stopped; prepared datasets and whole downloads stay, and the same"
      " command goes on with the rest."
    ) from None


# ------------------------------------------------------------------ the table


def _show(display: progress.Display, name: str, statuses, folder):
  order = {state: i for i, state in enumerate(copies.STATES)}
  ranked = sorted(statuses, key=lambda s: order[s.state])
  display.table(
    f"datasets of {name}",
    ("dataset", "state", "download", "generated", ""),
    [_row(s, folder) for s in ranked],
  )
  for status in ranked:
    if status.state == copies.BY_HAND:
      steps = "\n".join(f"  {line}" for line in status.note.splitlines())
      display.say(f"\n{status.dataset.spec}, by hand:\n{steps}")


def _row(status: copies.Status, folder: pathlib.Path) -> tuple[str, ...]:
  download = generated = ""
  if status.state in (copies.DOWNLOADABLE, copies.BY_HAND):
    known = status.download
    download = "unknown"
    if known is not None:
      download = f"{status.bound} {_bytes(known)}".strip()
    generated = "unknown"
  if status.generated is not None:
    generated = _bytes(status.generated)
  note = status.note
  if status.state == copies.PREPARED:
    # The folder itself is said above; a whole path would be folded.
    inside = status.where.is_relative_to(folder)
    note = str(status.where.relative_to(folder) if inside else status.where)
  elif status.state == copies.BY_HAND:
    note = "see below"
    if status.try_it:
      note = "files are there and are tried; see below"
  return (status.dataset.spec, status.state, download, generated, note)


def _bytes(size: int) -> str:
  return rich.filesize.decimal(size)


def _show_disk(display, statuses, folder: pathlib.Path) -> int:
  """Says how much disk is needed; returns the bytes that are certain."""
  todo = [s for s in statuses if s.try_it]
  if not todo:
    return 0
  builders: dict[str, dict[str, int]] = {}
  for s in todo:
    builders.setdefault(s.dataset.builder, {}).update(s.urls)
  there = {b: preparing.fetched(b, folder) for b in builders}
  fetch = {
    b: max(sum(urls.values()) - there[b], 0) for b, urls in builders.items()
  }
  certain = sum(
    fetch[b]
    for b in builders
    if all(s.bound != copies.AT_MOST for s in todo if s.dataset.builder == b)
  )
  known = sum(s.generated or 0 for s in todo)
  unsized = {s.dataset.builder for s in todo if s.generated is None}
  guessed = UNPACKED * sum(
    sum(urls.values()) for b, urls in builders.items() if b in unsized
  )
  total, free = sum(fetch.values()) + known + guessed, _free(folder)
  display.say(
    f"\n{len(todo)} to prepare: about {_bytes(total)} of disk, {_bytes(free)}"
    f" free in {folder}"
  )
  display.say(
    f"  {_bytes(sum(fetch.values()))} to download"
    + (f", {_bytes(known)} generated" if known else "")
    + (
      f", {_bytes(guessed)} unpacked and generated (an estimate, {UNPACKED} x"
      " the downloads, where TFDS knows no size)"
      if guessed
      else ""
    )
  )
  unknown = [s.dataset.spec for s in todo if s.download is None]
  if unknown:
    display.say(f"  and what TFDS knows no size of: {', '.join(unknown)}")
  if total > free:
    display.say("  this may be too little; what is prepared by then stays")
  return certain


def _free(folder: pathlib.Path) -> int:
  there = next(p for p in (folder, *folder.parents) if p.exists())
  return shutil.disk_usage(there).free


def _check_disk(needed: int, folder: pathlib.Path):
  free = _free(folder)
  if needed > free:
    raise UserError(
      f"the downloads alone are {_bytes(needed)}, and {folder} has"
      f" {_bytes(free)} free. Make room, give another TFDS_DATA_DIR, or a"
      " smaller MIXTURE_OR_TASK_NAME."
    )


def _show_end(display, states):
  counts = [
    f"{sum(s == state for s in states.values())} {state}"
    for state in copies.STATES
    if state in states.values()
  ]
  display.say(f"\nnow: {', '.join(counts)}")


# ------------------------------------------------------------- while it runs


class _Watch:
  """A bar for all datasets and a line for each that is being prepared."""

  def __init__(self, display: progress.Display, statuses):
    self._display = display
    self._known = {s.dataset: s for s in statuses}
    self._began: dict[copies.Dataset, float] = {}
    self._lines: dict[copies.Dataset, Any] = {}
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn("{task.description}"),
      rich.progress.BarColumn(bar_width=30),
      rich.progress.TextColumn("{task.fields[status]}"),
      rich.progress.TimeElapsedColumn(),
      console=display.console,
      disable=not display.console.is_terminal,
    )
    total = sum(s.try_it for s in statuses)
    self._all = self._bar.add_task("datasets", total=total, status=f"0/{total}")
    self._total, self._done = total, 0

  def __enter__(self) -> "_Watch":
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()

  def begun(self, dataset: copies.Dataset):
    self._began.setdefault(dataset, time.monotonic())
    known = self._known[dataset]
    self._lines[dataset] = self._bar.add_task(
      f"  {dataset.spec}",
      total=None if known.bound else known.download,
      status="starting",
    )
    if not self._display.console.is_terminal:
      self._display.say(f"{dataset.spec}: begun")

  def working(self, dataset: copies.Dataset, fetched: int, written: int):
    status = f"{_bytes(fetched)} downloaded"
    if written:
      status += f", {_bytes(written)} written"
    self._bar.update(self._lines[dataset], completed=fetched, status=status)

  def waiting(self, dataset: copies.Dataset, reason: str, seconds: float):
    self._bar.remove_task(self._lines.pop(dataset))
    self._display.say(
      f"{dataset.spec}: {reason}; tried again in {seconds:,.0f} s"
    )

  def ended(self, dataset: copies.Dataset, result: preparing.Result):
    self._bar.remove_task(self._lines.pop(dataset))
    self._done += 1
    self._bar.update(
      self._all,
      completed=self._done,
      status=f"{self._done}/{self._total}",
    )
    seconds = time.monotonic() - self._began[dataset]
    if result.kind == copies.PREPARED:
      rows = ", ".join(f"{n:,} {split}" for split, n in result.rows.items())
      said = f"prepared, {rows} rows, {_bytes(result.size)}"
    elif result.kind == copies.BY_HAND:
      said = f"needs files that are fetched by hand: {result.reason}"
    else:
      said = f"failed: {result.reason}"
    self._display.say(f"{dataset.spec}: {said} ({seconds:,.0f} s)")
