"""The paper's metrics, by the names that tasks give them.

Each function takes predictions and references of one (dataset, template) and
returns name -> value. Values are per cent (0 to 100) except correlations,
which are multiplied by 100 too, as the paper's tables print them (-100 to 100).
The arithmetic is scikit-learn's, scipy's and rouge-score's.

Source: Wei et al., 2022 (arXiv 2109.01652), tables 1 and 2; for MeanF1 of
three classes Wang et al., 2019 (SuperGLUE, arXiv 1905.00537), section 3.
"""

import difflib
import functools
import importlib.metadata
from collections.abc import Sequence

import numpy as np

from flan_jax.errors import UserError
from flan_jax.eval import extraction, qa_metrics, text_metrics
from flan_jax.eval.metric import (
  Metric,
  Weighted,
  check,
  check_texts,
  counts,
  means,
  ratio,
  sums,
)


def accuracy(
  predictions: Sequence[int], labels: Sequence[int]
) -> dict[str, float]:
  """Share of right predictions, in per cent.

  >>> accuracy([0, 1, 1, 0], [0, 1, 0, 0])
  {'accuracy': 75.0}

  Raises:
    UserError: no rows, or as many predictions as there are not labels.
  """
  return {"accuracy": float(_right(predictions, labels).mean())}


def f1_binary(
  predictions: Sequence[int], labels: Sequence[int]
) -> dict[str, float]:
  """F1 of label 1 (paraphrase, duplicate), in per cent; 0 without any.

  One of two predicted is right, one of two labelled is found:

  >>> f1_binary([1, 1, 0], [1, 0, 1])
  {'f1_binary': 50.0}
  """
  from sklearn import metrics as sklearn_metrics

  check(predictions, labels)
  value = sklearn_metrics.f1_score(
    [int(label == 1) for label in labels],
    [int(p == 1) for p in predictions],
    zero_division=0,
  )
  return {"f1_binary": 100.0 * float(value)}


def mean_3class_f1(
  predictions: Sequence[int], labels: Sequence[int]
) -> dict[str, float]:
  """Unweighted mean of the F1 of labels 0, 1 and 2, in per cent (CB).

  A class that is neither predicted nor present counts as 0:

  >>> round(mean_3class_f1([0, 1, 1], [0, 1, 1])["mean_3class_f1"], 2)
  66.67
  """
  from sklearn import metrics as sklearn_metrics

  check(predictions, labels)
  value = sklearn_metrics.f1_score(
    labels, predictions, labels=[0, 1, 2], average="macro", zero_division=0
  )
  return {"mean_3class_f1": 100.0 * float(value)}


def pearson(
  predictions: Sequence[float], references: Sequence[float]
) -> dict[str, float]:
  """Pearson's linear correlation times 100.

  >>> round(pearson([1, 2, 3, 5], [1, 2, 3, 4])["pearson"], 2)
  98.27

  Constant predictions (or references) have none; they count as 0.
  """
  return {"pearson": _correlation("pearsonr", predictions, references)}


def spearman(
  predictions: Sequence[float], references: Sequence[float]
) -> dict[str, float]:
  """Spearman's rank correlation times 100; ties share their mean rank.

  >>> spearman([1, 2, 3, 50], [1, 2, 3, 4])
  {'spearman': 100.0}

  Constant predictions (or references) have none; they count as 0.
  """
  return {"spearman": _correlation("spearmanr", predictions, references)}


def rouge(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """ROUGE-1, -2, -L and -Lsum F-measures, in per cent.

  Of several references the best counts, for each of the four on its own. Words
  are lower-cased and not stemmed. For ROUGE-Lsum ` . ` ends a sentence.

  Three of three and three of four words, in order; one of two and three pairs:

  >>> {k: round(v, 1) for k, v in
  ...  rouge(["the red cat"], [["the red fat cat"]]).items()}
  {'rougeL': 85.7, 'rouge1': 85.7, 'rouge2': 40.0, 'rougeLsum': 85.7}

  Source: Lin, 2004 (ROUGE); the variants as in rouge-score 0.1.2.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  rows = _rouge_rows(predictions, references)
  return {key: float(values.mean()) for key, values in rows.items()}


_ROUGE = ("rougeL", "rouge1", "rouge2", "rougeLsum")


@functools.cache
def _rouge_scorer():
  from rouge_score import rouge_scorer

  return rouge_scorer.RougeScorer(list(_ROUGE), use_stemmer=False)


def _rouge_rows(predictions, references) -> dict[str, np.ndarray]:
  check_texts("rouge", predictions, references)
  scored = [
    _rouge_scorer().score_multi([_sentences(t) for t in texts], _sentences(p))
    for p, texts in zip(predictions, references, strict=True)
  ]
  return {
    key: np.array([100.0 * s[key].fmeasure for s in scored]) for key in _ROUGE
  }


def _sentences(text: str) -> str:
  return text.replace(" . ", " .\n")


def _right(predictions, labels) -> np.ndarray:
  check(predictions, labels)
  return 100.0 * (np.asarray(predictions) == np.asarray(labels))


def _correlation(name: str, predictions, references) -> float:
  from scipy import stats

  check(predictions, references)
  x = np.asarray(predictions, np.float64)
  y = np.asarray(references, np.float64)
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return 0.0
  return 100.0 * float(getattr(stats, name)(x, y).statistic)


def _f1_of_1(sums_XK) -> dict[str, np.ndarray]:
  _, false, missed, found = np.moveaxis(sums_XK, -1, 0)
  value = ratio(2 * found, 2 * found + false + missed)
  return {"f1_binary": 100.0 * value}


def _mean_f1(sums_XK) -> dict[str, np.ndarray]:
  table_XLP = sums_XK.reshape(*sums_XK.shape[:-1], 3, 3)
  right_XL = np.diagonal(table_XLP, axis1=-2, axis2=-1)
  both_XL = table_XLP.sum(axis=-1) + table_XLP.sum(axis=-2)
  value = ratio(2 * right_XL, both_XL).mean(axis=-1)
  return {"mean_3class_f1": 100.0 * value}


def _weighted_pearson(predictions, references) -> Weighted:
  x_R, y_R = _centred(predictions), _centred(references)
  return lambda weights_XR: {"pearson": _product(weights_XR, x_R, y_R)}


def _weighted_spearman(predictions, references) -> Weighted:
  x, y = _centred(predictions), _centred(references)
  return lambda weights_XR: {
    "spearman": _product(
      weights_XR, _mean_ranks(weights_XR, x), _mean_ranks(weights_XR, y)
    )
  }


def _centred(numbers) -> np.ndarray:
  values_R = np.asarray(numbers, np.float64)
  return values_R - values_R.mean()


def _mean_ranks(weights_XR, values_R) -> np.ndarray:
  """The rank of each row where row r is there `weights_XR[:, r]` times."""
  distinct_U, place_R = np.unique(values_R, return_inverse=True)
  times_XU = weights_XR @ np.eye(len(distinct_U))[place_R]
  last_XU = np.cumsum(times_XU, axis=-1)
  return (last_XU - (times_XU - 1) / 2)[..., place_R]


def _product(weights_XR, x_XR, y_XR) -> np.ndarray:
  """Pearson's correlation times 100 of weighted rows; 0 if one is constant."""
  total_X1 = weights_XR.sum(axis=-1, keepdims=True)

  def deviations(v_XR):
    mean_X1 = (weights_XR * v_XR).sum(axis=-1, keepdims=True) / total_X1
    out_XR = v_XR - mean_X1
    square_X = (weights_XR * out_XR**2).sum(axis=-1)
    # What rounding leaves of a constant is no deviation.
    scale_X = (weights_XR * v_XR**2).sum(axis=-1)
    return out_XR, np.where(square_X > 1e-12 * scale_X, square_X, 0.0)

  (x_XR, xx_X), (y_XR, yy_X) = deviations(x_XR), deviations(y_XR)
  xy_X = (weights_XR * x_XR * y_XR).sum(axis=-1)
  return 100.0 * ratio(xy_X, np.sqrt(xx_X * yy_X))


def _rouge_signature() -> str:
  version = importlib.metadata.version("rouge-score")
  return f"rouge-score {version}, F-measure, no stemming, best reference"


METRICS: dict[str, Metric] = {
  m.name: m
  for m in (
    Metric(
      "accuracy",
      accuracy,
      "labels",
      "accuracy",
      means(lambda p, r: {"accuracy": _right(p, r)}),
    ),
    Metric(
      "f1_binary",
      f1_binary,
      "labels",
      "f1_binary",
      sums(
        lambda p, r: counts(np.equal(p, 1), np.equal(r, 1), (False, True)),
        _f1_of_1,
      ),
    ),
    Metric(
      "mean_3class_f1",
      mean_3class_f1,
      "labels",
      "mean_3class_f1",
      sums(lambda p, r: counts(p, r, (0, 1, 2)), _mean_f1),
    ),
    Metric("pearson", pearson, "numbers", "pearson", _weighted_pearson),
    Metric("spearman", spearman, "numbers", "spearman", _weighted_spearman),
    Metric(
      "rouge", rouge, "texts", "rougeL", means(_rouge_rows), _rouge_signature
    ),
    *qa_metrics.METRICS,
    *text_metrics.METRICS,
    *extraction.METRICS,
  )
}


def get(name: str) -> Metric:
  """The metric called `name`.

  >>> get("accuracy").takes
  'labels'

  Raises:
    UserError: there is none; the message has the nearest name.
  """
  if name not in METRICS:
    near = difflib.get_close_matches(name, METRICS, 1, 0.0)[0]
    raise UserError(
      f"metric {name!r} is unknown; the nearest is {near!r}, known are"
      f" {', '.join(METRICS)}."
    )
  return METRICS[name]
