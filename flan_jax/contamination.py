"""Contamination: which evaluation rows share text with a training mixture.

  python launch/run.py --gin_file=gin/contamination.gin

Reads every training row of a mixture once, whatever its rate, and looks for
13-grams of evaluation rows in it (`data/ngrams.py`). Writes a table, the same
as JSON, and for every evaluation set the numbers of its clean rows, the
`index` of predictions.jsonl, so that a score can be given for these alone.

Source: Wei et al., 2022 (arXiv 2109.01652), appendix C; Brown et al., 2020
(arXiv 2005.14165), appendix C.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from flan_jax.data import (
  catalogue,
  mixtures,
  ngrams,
  preprocessors,
  spec,
  template,
)
from flan_jax.data import collection as collection_lib
from flan_jax.data import directory as directory_lib
from flan_jax.data.collection import Collection
from flan_jax.errors import UserError
from flan_jax.training import progress

# Training rows looked at together.
BATCH = 2048


@dataclasses.dataclass(frozen=True)
class Overlap:
  """What one evaluation set shares with the training mixture.

  Attributes:
    task: name of the evaluation task.
    rows: numbers of its rows, int64 [E].
    shared: n-grams of each row that were seen in training, int64 [E].
    unchecked: whether a row has too few words to be looked for, bool [E].
    sources: training task -> rows of the evaluation set that it shares text
      with, most first.
  """

  task: str
  rows: np.ndarray
  shared: np.ndarray
  unchecked: np.ndarray
  sources: dict[str, int]

  @property
  def dirty(self) -> int:
    return int((self.shared > 0).sum())

  @property
  def clean_rows(self) -> np.ndarray:
    """Rows that share nothing; rows that could not be checked count as such."""
    return self.rows[self.shared == 0]

  def to_json(self) -> dict[str, Any]:
    return {
      "task": self.task,
      "rows": len(self.rows),
      "shared": self.dirty,
      "clean": len(self.clean_rows),
      "too_short_to_check": int(self.unchecked.sum()),
      "sources": self.sources,
    }


def contamination(
  *,
  mixture_or_task_name: str,
  eval_mixture_or_task_name: str,
  output_dir: str,
  vocabulary: Any = None,
  task_collection: Collection | None = None,
  tfds_data_dir: str | None = None,
  missing_datasets: str = "error",
  split: str = "test",
  ngram: int = ngrams.N,
) -> pathlib.Path:
  """Reports what evaluation sets share with a training mixture.

  Args:
    mixture_or_task_name: training mixture; every row of its `train` splits
      that may be drawn is read, once.
    eval_mixture_or_task_name: whose tasks are looked at, one by one.
    output_dir: made if it is not there; gets `contamination.json` and
      `clean/<task>.jsonl`, one `{"index": row}` a line.
    vocabulary: of the registered tasks; the numbers do not depend on it.
    task_collection: tasks to register beside the catalogue's, FLAN 2022's say.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    missing_datasets: "error" or "skip", for datasets that are not prepared.
    split: of the evaluation tasks.
    ngram: words of a shared run.

  Returns:
    The path of `contamination.json`.

  Raises:
    UserError: a name or a dataset that is not there, a folder that cannot be
      written, an `ngram` below 1.
  """
  display = progress.Display()
  collection_lib.register(task_collection, vocabulary)
  data = directory_lib.choose(tfds_data_dir, task_collection)
  training = mixtures.resolve(mixture_or_task_name, missing_datasets)
  evaluated = mixtures.resolve(
    eval_mixture_or_task_name, missing_datasets, split=split
  )
  overlaps = measure(training, evaluated, split=split, ngram=ngram)
  folder = pathlib.Path(output_dir)
  report = {
    "data": data.label,
    "train": mixture_or_task_name,
    "eval": eval_mixture_or_task_name,
    "split": split,
    "ngram": ngram,
    "missing": sorted(
      {m.dataset for r in (training, evaluated) for m in r.missing}
    ),
    "tasks": [o.to_json() for o in overlaps],
  }
  path = _write(folder, report, overlaps)
  display.say(f"data: {data.label}")
  if report["missing"]:
    display.say(f"not prepared, not looked at: {', '.join(report['missing'])}")
  display.table(
    f"{ngram}-grams of {eval_mixture_or_task_name} ({split}) in"
    f" {mixture_or_task_name}",
    ("task", "rows", "share text", "%", "clean", "unchecked", "most from"),
    [_row(o) for o in overlaps],
  )
  display.say(f"report: {path}")
  return path


def measure(
  training: mixtures.Resolved,
  evaluated: mixtures.Resolved,
  *,
  split: str = "test",
  ngram: int = ngrams.N,
) -> list[Overlap]:
  """What each evaluation task shares with the training mixture.

  >>> measure(resolve("flan_holdout_nli_train"), resolve("flan_qnli"))
  ... # doctest: +SKIP
  [Overlap(task='flan_qnli', ...)]

  Args:
    training: its `train` splits are read.
    evaluated: its tasks.
    split: of the evaluation tasks.
    ngram: words of a shared run.
  """
  texts: list[str] = []
  numbers: list[int] = []
  spans = {}
  for name in evaluated.present:
    start = len(texts)
    task = mixtures.seqio_task(evaluated, name)
    for number, text in _texts(task, split, answers=False):
      numbers.append(number)
      texts.append(text)
    spans[name] = slice(start, len(texts))
  index = ngrams.Index(texts, n=ngram)
  del texts
  sources: dict[str, np.ndarray] = {}
  for name in training.present:
    hit = np.zeros(len(numbers), bool)
    rows = _texts(mixtures.seqio_task(training, name), "train", answers=True)
    for batch in ngrams.batches((text for _, text in rows), BATCH):
      hit[index.scan(batch)] = True
    sources[name] = hit
  shared, rows = index.shared(), np.array(numbers, np.int64)
  out = []
  for name, span in spans.items():
    counts = {n: int(hit[span].sum()) for n, hit in sources.items()}
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    out.append(
      Overlap(
        name,
        rows[span],
        shared[span],
        index.grams[span] == 0,
        {n: c for n, c in ranked if c},
      )
    )
  return out


def _texts(task, split: str, answers: bool) -> Iterator[tuple[int, str]]:
  """Number and text of every row: its fields, and what they ask for."""
  ours = catalogue.of_seqio(task)
  if not isinstance(ours, spec.Task):
    yield from _foreign_texts(task, split, answers)
    return
  fields = list(ours.inputs)
  if answers and ours.choices is None:
    fields.append(spec.TARGET)
  rows = preprocessors.prepare_rows(ours)(task.source.get_dataset(split))
  for row in template.user_errors(rows.as_numpy_iterator()):
    parts = (row[f].decode("utf-8", "replace") for f in fields)
    yield int(row[template.INDEX]), " ".join(parts)


def _foreign_texts(task, split, answers):
  names = ("inputs", "targets") if answers else ("inputs",)
  dataset = task.get_dataset(None, split, shuffle=False)
  for number, row in enumerate(dataset.as_numpy_iterator()):
    parts = []
    for name in names:
      text = row.get(f"{name}_pretokenized")
      if text is None:
        vocabulary = task.output_features[name].vocabulary
        parts.append(vocabulary.decode(row[name].tolist()))
      else:
        parts.append(text.decode("utf-8", "replace"))
    yield number, " ".join(parts)


def _row(o: Overlap) -> tuple:
  first = next(iter(o.sources.items()), None)
  return (
    o.task,
    len(o.rows),
    o.dirty,
    100.0 * o.dirty / max(len(o.rows), 1),
    len(o.clean_rows),
    int(o.unchecked.sum()),
    f"{first[0]} ({first[1]:,})" if first else "",
  )


def _write(folder: pathlib.Path, report, overlaps) -> pathlib.Path:
  path = folder / "contamination.json"
  try:
    (folder / "clean").mkdir(parents=True, exist_ok=True)
    for o in overlaps:
      lines = "".join(f'{{"index": {int(r)}}}\n' for r in o.clean_rows)
      (folder / "clean" / f"{o.task}.jsonl").write_text(lines)
    path.write_text(json.dumps(report, indent=1))
  except OSError as e:
    raise UserError(
      f"OUTPUT_DIR {str(folder)!r} cannot be written: {e.strerror}."
    ) from None
  return path
