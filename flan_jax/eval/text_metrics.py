"""Metrics of translations, corrected texts and verbatim answers; Matthews.

Values are per cent, as in `eval/metrics.py`, which lists them by name. The
arithmetic is sacrebleu's, editdistance's and scikit-learn's.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from flan_jax.eval.metric import Metric, check, check_texts


def bleu(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Corpus BLEU of four n-gram orders, 0 to 100; see `bleu_signature`.

  >>> round(bleu(["the cat sat on the mat"],
  ...            [["the cat sat on a mat"]])["bleu"], 2)
  53.73

  (Matches of 5/6, 3/5, 2/4 and 1/3, and no brevity penalty.) Rows may have
  different numbers of references. Case counts.

  Source: Papineni et al., 2002 (BLEU); Post, 2018 (arXiv 1804.08771), for
  tokens, smoothing and the signature.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  check_texts("bleu", predictions, references)
  # sacrebleu takes one list per reference number; None where a row has fewer.
  columns = [list(column) for column in itertools.zip_longest(*references)]
  scored = _sacrebleu().corpus_score(list(predictions), columns)
  return {"bleu": float(scored.score)}


def bleu_signature() -> str:
  """What a BLEU value is worth nothing without, as sacrebleu prints it.

  >>> bleu_signature()  # doctest: +ELLIPSIS
  'nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:...'
  """
  metric = _sacrebleu()
  metric.corpus_score(["a", "b"], [["a", "b"], ["c", None]])
  return str(metric.get_signature())


@functools.cache
def _sacrebleu():
  from sacrebleu.metrics import BLEU

  return BLEU()


def edit_distance(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """How near predictions come to a reference, by edits of characters.

  A row's similarity is 1 - edits / characters of the longer text, of the
  nearest reference; edits are insertions, deletions and replacements of one
  character. 100 means that all texts are the same.

  >>> edit_distance(["its late"], [["It's late."]])
  {'edit_similarity': 70.0, 'exact_match': 0.0}

  Source: Levenshtein, 1966.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  similarity = float(_similarity(predictions, references).mean())
  return {"edit_similarity": similarity, **exact_match(predictions, references)}


def _similarity(predictions, references) -> np.ndarray:
  import editdistance

  check_texts("edit_distance", predictions, references)

  def one(prediction: str, reference: str) -> float:
    longer = max(len(prediction), len(reference))
    if not longer:
      return 100.0
    edits = editdistance.eval(prediction, reference)
    return 100.0 * (1 - edits / longer)

  return np.array([
    max(one(p, text) for text in texts)
    for p, texts in zip(predictions, references, strict=True)
  ])


def exact_match(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Share of predictions that are one of their references, in per cent.

  White space at both ends does not count; case and punctuation do.

  >>> exact_match(["12 ", "x"], [["12"], ["-12", "X"]])
  {'exact_match': 50.0}

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return {"exact_match": float(_exact(predictions, references).mean())}


def _exact(predictions, references) -> np.ndarray:
  check_texts("exact_match", predictions, references)
  return np.array([
    100.0 * (p.strip() in {text.strip() for text in texts})
    for p, texts in zip(predictions, references, strict=True)
  ])


def matthews(
  predictions: Sequence[int], labels: Sequence[int]
) -> dict[str, float]:
  """Matthews' correlation coefficient times 100 (CoLA).

  0 where predictions, or labels, are all the same.

  >>> round(matthews([1, 1, 0, 0], [1, 1, 0, 1])["matthews"], 2)
  57.74

  Source: Matthews, 1975; for CoLA, Warstadt et al., 2019.

  Raises:
    UserError: no rows, or as many predictions as there are not labels.
  """
  from sklearn import metrics as sklearn_metrics

  check(predictions, labels)
  # scikit-learn warns of a single label and then gives 0 as well.
  if len(set(predictions)) == 1 or len(set(labels)) == 1:
    return {"matthews": 0.0}
  value = sklearn_metrics.matthews_corrcoef(labels, predictions)
  return {"matthews": 100.0 * float(value)}


METRICS = (
  Metric("bleu", bleu, "texts", "bleu"),
  Metric(
    "edit_distance", edit_distance, "texts", "edit_similarity", _similarity
  ),
  Metric("exact_match", exact_match, "texts", "exact_match", _exact),
  Metric("matthews", matthews, "labels", "matthews"),
)
