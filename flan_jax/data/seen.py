"""Seen: which datasets to be evaluated a checkpoint was trained on.

A held-out number is one of a dataset that no training row came from. What a
run was trained on stands in its record; this compares it with what is to be
evaluated, by dataset: two tasks of one family or one source are one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import seqio

from flan_jax.data import catalogue, mixtures, spec
from flan_jax.errors import UserError


def seen(
  records: Iterable[Mapping[str, Any]], evaluated: mixtures.Resolved
) -> dict[str, list[str]]:
  """The evaluated tasks whose dataset was trained on, and by which tasks.

  >>> seen([{"train": {"tasks": {"flan_mnli_matched": {}}}}],
  ...   resolve("flan_mnli_mismatched"))  # doctest: +SKIP
  {'flan_mnli_mismatched': ['flan_mnli_matched']}

  Args:
    records: `data` of the records of the checkpoint's run and of those that
      it began from; none: not known, and nothing is seen.
    evaluated: what is to be evaluated.
  """
  records = list(records)
  trained = {
    name for r in records for name in r.get("train", {}).get("tasks", {})
  }
  known = {name: _task(name) for name in sorted(trained)}
  out = {}
  for task in seqio.get_subtasks(evaluated.mixture):
    ours = catalogue.of_seqio(task)
    by = [
      name
      for name, other in known.items()
      if name == task.name or (ours and other and _same(ours, other))
    ]
    by += _split_otherwise(records, ours, evaluated, task.name)
    if by:
      out[task.name] = by
  return out


def _split_otherwise(records, ours: Any, evaluated, name: str) -> list[str]:
  """Tasks that trained on the same files with other rows held out."""
  split = getattr(ours, "split", "")
  if not split:
    return []
  copy = mixtures.copy_fingerprint(evaluated, name)
  return [
    trained
    for record in records
    for trained, said in record.get("train", {}).get("tasks", {}).items()
    if said and said.get("copy") == copy and said.get("split", split) != split
  ]


def check(seen: Mapping[str, list[str]], mixture: str, allowed: bool) -> None:
  """Refuses an evaluation of datasets that were trained on.

  Raises:
    UserError: there are such and they are not allowed; each is named.
  """
  if seen and not allowed:
    lines = "\n".join(f"  {t}: by {', '.join(by)}" for t, by in seen.items())
    raise UserError(
      f"{mixture}: the checkpoint was trained on {len(seen)} of its datasets,"
      " so they are not held out:\n"
      f"{lines}\nEvaluate another mixture, or add --gin.ALLOW_SEEN=True; the"
      " report then says so."
    )


def _task(name: str) -> Any:
  """Our task under a name of seqio's registry."""
  if name not in seqio.TaskRegistry.names():
    return None
  return catalogue.of_seqio(seqio.TaskRegistry.get(name))


def _same(a: Any, b: Any) -> bool:
  if _names(a) & _names(b) or (a.family is not None and a.family == b.family):
    return True
  # Tasks of a collection say no source.
  mine, other = getattr(a, "source", None), getattr(b, "source", None)
  if isinstance(mine, spec.Tfds) and isinstance(other, spec.Tfds):
    return mine.name == other.name
  return mine is not None and mine == other


def _names(task: Any) -> set[str]:
  """The task's, and of several that are read as one, theirs."""
  return {task.name, *getattr(task, "members", ())}
