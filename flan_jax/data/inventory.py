"""What a run's data are: tasks, rows and rates, and the rows left out."""

from collections.abc import Mapping
from typing import Any

from flan_jax.data import catalogue, collection, counts, mixtures

# Rows of a task that are looked at. FLAN's tasks have fewer; of the millions
# that some of FLAN 2022's have, reading all would take hours.
MOST_COUNTED = 100_000


def described(
  name: str | None, resolved: mixtures.Resolved | None
) -> dict[str, Any]:
  """What identifies the data of a mixture: per task fingerprint, rows, rate.

  Args:
    name: of the mixture.
    resolved: from `mixtures.resolve`; None gives {}.

  Returns:
    `mixture`, its name, and `tasks`: seqio name -> `fingerprint` (of our
    tasks), `form`, `rows` by split, `rate`, `copy` (of the files), `lines`
    (of files of instruction data) and `split` (what holds rows of them out).
    Where the mixture has sub-mixtures, `submixtures`: name -> `share`, that
    `wanted`, tasks that are here and `known`, and why it is `absent`.
  """
  if resolved is None:
    return {}
  ours = mixtures.by_seqio_name(resolved)
  prints = {name: _fingerprint(task) for name, task in ours.items()}
  parts = {
    name: {
      "wanted": share.weight,
      "share": share.share,
      "tasks": len(share.tasks),
      "known": share.known,
      "absent": share.absent,
    }
    for name, share in resolved.parts.items()
  }
  return {
    "mixture": name,
    **({"submixtures": parts} if parts else {}),
    "tasks": {
      task: {
        "fingerprint": prints.get(task, ""),
        "rows": dict(resolved.rows[task]),
        "rate": resolved.rates[task],
        "copy": mixtures.copy_fingerprint(resolved, task),
        **_lines(ours.get(task)),
      }
      for task in resolved.present
    },
  }


def _fingerprint(task) -> str:
  if isinstance(task, collection.CollectionTask):
    return task.fingerprint()
  return catalogue.fingerprint(task)


def _lines(task) -> dict[str, Any]:
  if not isinstance(task, collection.CollectionTask):
    return {}
  found = {"lines": task.lines(), "split": task.split}
  return {name: value for name, value in found.items() if value}


def left_out(
  training: mixtures.Resolved, lengths: Mapping[str, int]
) -> dict[str, dict[str, int]]:
  """Training rows that are not used, by task and reason.

  Reads the first `MOST_COUNTED` rows of each.

  >>> left_out(resolve("flan_snli"), lengths)  # doctest: +SKIP
  {'flan_snli': {'not_kept': 12, 'incomplete': 0, 'too_long': 0}}
  """
  counted = counts.count(training, "train", lengths, MOST_COUNTED)
  return {
    name: {
      "not_kept": c.not_kept,
      "incomplete": c.incomplete,
      "too_long": c.too_long,
      **({"turns": c.turns} if c.turns else {}),
    }
    for name, c in counted.items()
  }
