"""Metrics of translations, corrected texts and verbatim answers; Matthews.

Values are per cent, as in `eval/metrics.py`, which lists them by name. The
arithmetic is sacrebleu's, editdistance's and scikit-learn's.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import string
from collections.abc import Callable, Sequence

import numpy as np

from flan_jax.eval.metric import (
  Metric,
  check,
  check_texts,
  counts,
  means,
  ratio,
  sums,
)

_PUNCTUATION = str.maketrans("", "", string.punctuation)


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
def _sacrebleu(**options):
  from sacrebleu.metrics import BLEU

  return BLEU(**options)


def _bleu_parts(predictions, references) -> np.ndarray:
  """What each row adds: matches and n-grams of four orders, two lengths."""
  check_texts("bleu", predictions, references)
  # sacrebleu advises against single rows without it; counts are the same.
  scorer = _sacrebleu(effective_order=True)
  scored = [
    scorer.sentence_score(p, list(texts))
    for p, texts in zip(predictions, references, strict=True)
  ]
  return np.array(
    [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scored]
  )


def _bleu_values(sums_XK) -> dict[str, np.ndarray]:
  def one(sums_K):
    ints = [round(v) for v in sums_K]
    return (
      _sacrebleu()
      .compute_bleu(ints[:4], ints[4:8], *ints[8:], smooth_method="exp")
      .score
    )

  flat_NK = sums_XK.reshape(-1, sums_XK.shape[-1])
  values_N = np.array([one(sums_K) for sums_K in flat_NK])
  return {"bleu": values_N.reshape(sums_XK.shape[:-1])}


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

  return np.array(
    [
      max(one(p, text) for text in texts)
      for p, texts in zip(predictions, references, strict=True)
    ]
  )


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
  rows_R = _exact_rows(predictions, references)["exact_match"]
  return {"exact_match": float(rows_R.mean())}


def _exact_rows(predictions, references) -> dict[str, np.ndarray]:
  check_texts("exact_match", predictions, references)
  rows_R = np.array(
    [
      100.0 * (p.strip() in {text.strip() for text in texts})
      for p, texts in zip(predictions, references, strict=True)
    ]
  )
  return {"exact_match": rows_R}


def super_ni(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Super-NaturalInstructions' ROUGE-L and exact match, in per cent.

  Words are lower-cased and cut to their stems (Porter); exact match is
  without case, punctuation and repeated blanks. The best reference counts.

  >>> super_ni(["Running fast!"], [["runs slowly", "run fast"]])
  {'rougeL': 100.0, 'exact_match': 0.0}

  Texts in other scripts than Latin have no words in it; the cross-lingual
  track takes another tokenizer, see `super_ni_tokens`.

  Source: Wang et al., 2022 (Super-NaturalInstructions, arXiv 2204.07705),
  section 5.2.

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  rows = _super_ni_rows(_stemmed(), predictions, references)
  return {name: float(rows_R.mean()) for name, rows_R in rows.items()}


def super_ni_tokens(tokens: Callable[[str], list[str]]) -> Metric:
  """`super_ni` over the tokens of a tokenizer, as its cross-lingual track has.

  >>> metric = super_ni_tokens(list)
  >>> round(metric.function(["今天"], [["今夜"]])["rougeL"], 1)
  50.0

  Args:
    tokens: a text's tokens; published numbers are with GPT-2's, without the
      mark of a space.
  """
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Tokens(tokens))
  rows = functools.partial(_super_ni_rows, scorer)

  def function(predictions, references):
    named = rows(predictions, references)
    return {name: float(rows_R.mean()) for name, rows_R in named.items()}

  return Metric("super_ni", function, "texts", "rougeL", means(rows))


def _characters(text: str) -> list[str]:
  return [c for c in text.lower() if not c.isspace()]


def super_ni_characters(
  predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """`super_ni` over characters, for texts of any script.

  >>> super_ni_characters(["今 天"], [["今天"]])
  {'rougeL': 100.0, 'exact_match': 0.0}

  Raises:
    UserError: no rows, other counts, or a row without a reference.
  """
  return super_ni_tokens(_characters).function(predictions, references)


@dataclasses.dataclass(frozen=True)
class _Tokens:
  """rouge-score's form of a tokenizer."""

  tokens: Callable[[str], list[str]]

  def tokenize(self, text: str) -> list[str]:
    return self.tokens(text)


@functools.cache
def _stemmed():
  from rouge_score import rouge_scorer

  return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def _super_ni_rows(scorer, predictions, references) -> dict[str, np.ndarray]:
  check_texts("super_ni", predictions, references)
  rouge_R, exact_R = [], []
  for p, texts in zip(predictions, references, strict=True):
    scored = scorer.score_multi(list(texts), p)
    rouge_R.append(100.0 * scored["rougeL"].fmeasure)
    exact_R.append(100.0 * (_bare(p) in {_bare(text) for text in texts}))
  return {"rougeL": np.array(rouge_R), "exact_match": np.array(exact_R)}


def _bare(text: str) -> str:
  return " ".join(text.lower().translate(_PUNCTUATION).split())


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


def _matthews_parts(predictions, labels) -> np.ndarray:
  return counts(predictions, labels, sorted({*predictions, *labels}))


def _matthews_values(sums_XK) -> dict[str, np.ndarray]:
  size = round(sums_XK.shape[-1] ** 0.5)
  table_XLP = sums_XK.reshape(*sums_XK.shape[:-1], size, size)
  wanted_XL, given_XP = table_XLP.sum(axis=-1), table_XLP.sum(axis=-2)
  total_X = wanted_XL.sum(axis=-1)
  right_X = np.trace(table_XLP, axis1=-2, axis2=-1)
  over_X = right_X * total_X - (wanted_XL * given_XP).sum(axis=-1)
  under_X = (total_X**2 - (wanted_XL**2).sum(axis=-1)) * (
    total_X**2 - (given_XP**2).sum(axis=-1)
  )
  return {"matthews": 100.0 * ratio(over_X, np.sqrt(under_X))}


METRICS = (
  Metric(
    "super_ni_characters",
    super_ni_characters,
    "texts",
    "rougeL",
    lambda p, r: super_ni_tokens(_characters).weighted(p, r),
    lambda: "rouge-score, F-measure, characters, best reference",
  ),
  Metric(
    "super_ni",
    super_ni,
    "texts",
    "rougeL",
    means(lambda p, r: _super_ni_rows(_stemmed(), p, r)),
    lambda: (
      f"rouge-score {importlib.metadata.version('rouge-score')}, F-measure,"
      " Porter stems, best reference"
    ),
  ),
  Metric(
    "bleu",
    bleu,
    "texts",
    "bleu",
    sums(_bleu_parts, _bleu_values),
    lambda: f"sacrebleu {bleu_signature()}",
  ),
  Metric(
    "edit_distance",
    edit_distance,
    "texts",
    "edit_similarity",
    means(
      lambda p, r: {"edit_similarity": _similarity(p, r)} | _exact_rows(p, r)
    ),
  ),
  Metric(
    "exact_match", exact_match, "texts", "exact_match", means(_exact_rows)
  ),
  Metric(
    "matthews",
    matthews,
    "labels",
    "matthews",
    sums(_matthews_parts, _matthews_values),
  ),
)
