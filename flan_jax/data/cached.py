"""Cached input: tokenised examples on disk, and whether they are a run's own.

  CACHE_DIR/<task>/<key>/manifest.json    what is in the folder, below
                         shard_00000.array_record     examples, by draw
                         shard_00000.sizes.npy        their lengths
                         shard_00000.json             this shard's own lines

The key is a hash of all that decides a task's examples: fingerprint of the
task, form, copy of the dataset, vocabulary, wrapper, lengths. So caches of
several mixtures, vocabularies or lengths share one folder, and a run finds its
own or is told what differs. `cached_shards.py` writes, `cached_batches.py`
reads.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from flan_jax.data import (
  cached_files,
  catalogue,
  collection,
  mixtures,
  remote,
  sample,
  sources,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError

# Of the files; another number makes every cache stale.
FORMAT = 1
MANIFEST = "manifest.json"
# What a difference means to its reader.
_MEANING = {
  "format": "flan_jax writes another format now",
  "fingerprint": "its templates, fields, choices or code",
  "form": "the form of the mixture",
  "templates": "the templates that are drawn from",
  "source": "the dataset or its version",
  "copy": "the prepared files of the dataset",
  "rows": "rows of the dataset",
  "vocabulary": "another vocabulary: its ids would mean other text",
  "wrapper": "PROMPT_PREFIX, PROMPT_SUFFIX, INPUTS_EOS or the SHOT_ options",
  "lengths": "TASK_FEATURE_LENGTHS: prompts were cut to other lengths",
  "split": "the split",
}


def key(
  task: seqio.Task,
  *,
  split: str,
  lengths: Mapping[str, int],
  wrapper: template.Wrapper,
) -> dict[str, Any]:
  """All that decides a task's examples, but what is drawn at random.

  Args:
    task: in seqio's registry.
    split: ours.
    lengths: tokens of inputs and targets at most.
    wrapper: what surrounds its prompts; other projects' tasks have none.

  Returns:
    JSON. Of other projects' tasks `fingerprint` and `copy` are "": that their
    code has changed is not seen, only another number of rows, vocabulary or
    lengths.
  """
  ours = catalogue.of_seqio(task)
  form = None if ours is None else catalogue.form_of(task)
  source = task.source
  copy = ""
  if hasattr(source, "fingerprint"):
    copy = source.fingerprint()
  elif isinstance(source, sources.JsonlSource):
    copy = source.content()
  named = isinstance(source, sources.TfdsSource)
  return {
    "format": FORMAT,
    "task": task.name,
    "fingerprint": _fingerprint(ours),
    "form": "" if form is None else form.name,
    "templates": [] if form is None else [str(t) for t in form.templates],
    # Not the folder: workers and hosts may have it elsewhere.
    "source": repr(source) if named else type(source).__name__,
    "copy": copy,
    "rows": int(task.num_input_examples(split)),
    "vocabulary": vocabulary_lib.fingerprint(
      task.output_features["inputs"].vocabulary
    ),
    "wrapper": {} if ours is None else dataclasses.asdict(wrapper),
    "lengths": {k: int(v) for k, v in sorted(lengths.items())},
    "split": split,
  }


def check_features(task: seqio.Task) -> None:
  """Refuses a task whose examples are more than inputs and targets.

  Raises:
    UserError: naming the other features, such as weights of the loss.
  """
  # Those of conversations are kept beside seqio's (`sft_tasks.py`).
  found = [*task.output_features, *getattr(task, "flan_jax_passthrough", ())]
  if sorted(found) != ["inputs", "targets"]:
    raise UserError(
      f"task {task.name!r} has the features {', '.join(found)};"
      " cached input holds inputs and targets alone. Train on it without"
      " CACHE_DIR."
    )


def digest(value: Any) -> str:
  """Twelve hex digits of JSON.

  >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
  True
  """
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder(cache_dir: str | os.PathLike, key_: Mapping) -> remote.Path:
  """Where the examples of a key are."""
  return remote.as_path(cache_dir) / key_["task"] / digest(key_)


def read_manifest(path: remote.Path) -> dict[str, Any] | None:
  """What a folder holds; None if it is not there or not finished.

  Raises:
    UserError: the manifest is damaged.
  """
  file = path / MANIFEST
  try:
    return json.loads(file.read_text())
  except (FileNotFoundError, NotADirectoryError):
    return None
  except ValueError as e:
    raise UserError(
      f"{file} is damaged ({e}); remove {path} and write the cache anew."
    ) from None


def find(
  cache_dir: str | os.PathLike,
  resolved: mixtures.Resolved,
  *,
  lengths: Mapping[str, int],
  wrapper: template.Wrapper = template.PLAIN,
  split: str = "train",
  rebuild: str = "",
) -> cached_files.Cache:
  """The cache of a mixture, after a check that it is this run's.

  A task that was cached with other lengths serves as well, if nothing in it
  was cut and all of it fits.

  Args:
    cache_dir: that the cache job wrote. Of one in a bucket, what the run reads
      is copied to this machine, once.
    resolved: mixture or task of the run.
    lengths: of the run, in tokens.
    wrapper: of the run.
    split: ours.
    rebuild: the command that writes the cache, for messages.

  Raises:
    UserError: a task is not there, or was cached from another template,
      vocabulary, version or other lengths; names each difference and the
      command that writes the cache anew.
  """
  found, problems, prints = [], [], []
  for name in resolved.present:
    task = mixtures.seqio_task(resolved, name)
    check_features(task)
    wanted = key(task, split=split, lengths=lengths, wrapper=wrapper)
    with remote.looked_at(cache_dir):
      at, manifest, why = _serving(cache_dir, wanted)
    if manifest is None:
      problems.append(f"{name}: {why}")
      continue
    shards = tuple(manifest["shards"])
    one = cached_files.CachedTask(name, str(at), manifest["dtype"], shards)
    if not one.draws().all():
      problems.append(f"{name}: not one example in a draw; leave it out")
      continue
    found.append(one)
    prints.append([name, [shard["sha256"] for shard in shards]])
  if problems:
    shown = "\n  ".join(problems[:12])
    more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
    way_out = f" Write it anew with:\n  {rebuild}" if rebuild else ""
    raise UserError(
      f"CACHE_DIR {str(cache_dir)!r} is not of this run:"
      f" {len(problems)} of {len(resolved.present)} tasks are missing there or"
      f" out of date (cache -> run).\n  {shown}{more}\n"
      f"What is still right is kept.{way_out}"
    )
  copies = sample.copies_directory()
  for i, one in enumerate(found):
    here = remote.local_copy(one.path, copies)
    found[i] = dataclasses.replace(one, path=str(here))
    cached_files.check(found[i])
  rates = tuple(resolved.rates[task.name] for task in found)
  return cached_files.Cache(str(cache_dir), tuple(found), rates, digest(prints))


def _serving(cache_dir, wanted):
  """(folder, manifest, "") that serves, or (None, None, why none does)."""
  at = folder(cache_dir, wanted)
  manifest = read_manifest(at)
  if manifest is not None:
    return at, manifest, ""
  others = []
  for one in sorted(at.parent.glob(f"*/{MANIFEST}")):
    manifest = read_manifest(one.parent)
    differing = _differing(manifest["key"], wanted)
    if differing == ["lengths"] and _fits(manifest, wanted["lengths"]):
      return one.parent, manifest, ""
    others.append((len(differing), differing, manifest["key"]))
  if others:
    _, differing, old = min(others, key=lambda other: other[0])
    return None, None, _said(differing, old, wanted)
  if any(at.glob("*")):
    return None, None, "not finished; the cache job goes on with it"
  return None, None, "not in it"


def _differing(old: Mapping, new: Mapping) -> list[str]:
  return [
    n for n in sorted(old.keys() | new.keys()) if old.get(n) != new.get(n)
  ]


def differences(old: Mapping, new: Mapping) -> str:
  """In what two keys differ, as one sentence."""
  return _said(_differing(old, new), old, new)


def _said(differing: Sequence[str], old: Mapping, new: Mapping) -> str:
  return "; ".join(
    f"{name} {_short(old.get(name))} -> {_short(new.get(name))}"
    f" ({_MEANING.get(name, name)})"
    for name in differing
  )


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 70 else f"{text[:67]}..."


def _fits(manifest: Mapping, lengths: Mapping[str, int]) -> bool:
  """Whether a cache that was made for other lengths holds the same rows."""
  if manifest["only_these_lengths"]:
    return False
  longest = [0, 0]
  for shard in manifest["shards"]:
    if shard["trimmed"]:
      return False
    longest = np.maximum(longest, shard["longest"])
  return longest[0] <= lengths["inputs"] and longest[1] <= lengths["targets"]


def _fingerprint(task) -> str:
  if task is None:
    return ""
  if isinstance(task, collection.CollectionTask):
    return task.fingerprint()
  return catalogue.fingerprint(task)
