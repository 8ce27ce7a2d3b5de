"""What a run's data are: tasks, rows and rates, and the rows left out."""

from collections.abc import Mapping
from typing import Any

from flan_jax.data import catalogue, collection, mixtures


def described(
  name: str | None, resolved: mixtures.Resolved | None
) -> dict[str, Any]:
  """What identifies the data of a mixture: per task fingerprint, rows, rate.

  Args:
    name: of the mixture.
    resolved: from `mixtures.resolve`; None gives {}.

  Returns:
    `mixture`, its name, and `tasks`: seqio name -> `fingerprint` (of our
    tasks), `form`, `rows` by split, `rate`, `copy` (of the files).
  """
  if resolved is None:
    return {}
  prints = {
    seqio_name: _fingerprint(task)
    for seqio_name, task in mixtures.by_seqio_name(resolved).items()
  }
  return {
    "mixture": name,
    "tasks": {
      task: {
        "fingerprint": prints.get(task, ""),
        "rows": dict(resolved.rows[task]),
        "rate": resolved.rates[task],
        "copy": mixtures.copy_fingerprint(resolved, task),
      }
      for task in resolved.present
    },
  }


def _fingerprint(task) -> str:
  if isinstance(task, collection.CollectionTask):
    return task.fingerprint()
  return catalogue.fingerprint(task)


def left_out(
  training: mixtures.Resolved, lengths: Mapping[str, int]
) -> dict[str, dict[str, int]]:
  """Training rows that are not used, by task and reason; reads all rows.

  >>> left_out(resolve("flan_snli"), lengths)  # doctest: +SKIP
  {'flan_snli': {'not_kept': 12, 'incomplete': 0, 'too_long': 0}}
  """
  counts = mixtures.count(training, "train", lengths)
  return {
    name: {
      "not_kept": c.not_kept,
      "incomplete": c.incomplete,
      "too_long": c.too_long,
    }
    for name, c in counts.items()
  }
