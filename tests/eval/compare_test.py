import dataclasses
import doctest
import itertools
import math

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import answers, bootstrap, compare, metrics
from flan_jax.eval.answers import Answer

YES_NO = ("no", "yes")


def run(said, labels, *, task="rte", metrics=("accuracy",), cluster="nli"):
  """One run: predictions by template."""
  rows = tuple(
    Answer(i, t, label, p, YES_NO, YES_NO[p], (YES_NO[label],))
    for t, predictions in enumerate(said)
    for i, (p, label) in enumerate(zip(predictions, labels, strict=True))
  )
  return {task: compare.TaskAnswers(task, metrics, rows, cluster)}


def texts(said, references, metric="bleu", task="wmt"):
  rows = tuple(
    Answer(i, 0, -1, -1, (), text, refs)
    for i, (text, refs) in enumerate(zip(said, references, strict=True))
  )
  return {task: compare.TaskAnswers(task, (metric,), rows)}


@pytest.mark.parametrize("module", [answers, bootstrap, compare])
def test_docstrings(module):
  assert doctest.testmod(module).failed == 0


def test_the_same_run_twice_is_no_difference():
  labels = [0, 1] * 20
  one = run([[0, 1, 1, 1] * 10] * 3, labels)
  (row,) = compare.compare(one, one)
  assert (row.difference, row.interval, row.p) == (0.0, (0.0, 0.0), 1.0)
  assert (row.n, row.rows, row.templates, row.test) == (40, 40, 3, "permutation")


def test_mcnemar_is_the_binomial_of_the_rows_that_differ():
  # 9 gained, 2 lost: 2 * P(at least 9 of 11 coins).
  labels = [1] * 30
  a = [0] * 9 + [1] * 21
  b = [1] * 9 + [0] * 2 + [1] * 19
  (row,) = compare.compare(run([a], labels), run([b], labels))
  tail = sum(math.comb(11, k) for k in (9, 10, 11)) / 2**11
  assert row.p == pytest.approx(2 * tail)
  assert row.test == "mcnemar"
  assert row.difference == pytest.approx(100 * 7 / 30)


def test_permutation_against_all_permutations():
  """Six rows: 64 ways to exchange them, F1 for each by scikit-learn."""
  from sklearn.metrics import f1_score

  labels = [1, 1, 1, 0, 0, 1]
  a, b = [0, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1]
  (row,) = compare.compare(
    run([a], labels, metrics=("f1_binary",)),
    run([b], labels, metrics=("f1_binary",)),
    permutations=20_000,
  )

  def change(x, y):
    return f1_score(labels, y) - f1_score(labels, x)

  observed = change(a, b)
  far = 0
  for flips in itertools.product((False, True), repeat=6):
    x = [q if f else p for p, q, f in zip(a, b, flips, strict=True)]
    y = [p if f else q for p, q, f in zip(a, b, flips, strict=True)]
    far += abs(change(x, y)) >= abs(observed) - 1e-12
  assert row.difference == pytest.approx(100 * observed)
  assert row.p == pytest.approx(far / 64, abs=0.012)


def test_templates_of_a_row_are_exchanged_together():
  """Ten copies of a template are no more evidence than one."""
  rng = np.random.default_rng(0)
  labels = [1] * 40
  a, b = rng.integers(2, size=(2, 40)).tolist()
  one = compare.compare(run([a] * 2, labels), run([b] * 2, labels))[0]
  ten = compare.compare(run([a] * 8, labels), run([b] * 8, labels))[0]
  assert (one.p, one.interval) == (ten.p, ten.interval)


def test_interval_of_a_difference_is_the_normal_one():
  rng = np.random.default_rng(3)
  a = rng.integers(2, size=400)
  b = np.where(rng.random(400) < 0.2, 1, a)
  labels = [1] * 400
  (row,) = compare.compare(
    run([a.tolist()], labels), run([b.tolist()], labels)
  )
  half = 1.96 * 100 * np.std(b - a) / 20
  assert row.interval[0] == pytest.approx(row.difference - half, abs=0.7)
  assert row.interval[1] == pytest.approx(row.difference + half, abs=0.7)
  assert row.p < 0.001


def test_bleu_and_groups_are_tested_too():
  references = [("the cat sat on the mat .",), ("a dog ran to the red door .",)] * 5
  good = [r[0] for r in references]
  bad = [r[0].replace("the", "a") for r in references]
  (row,) = compare.compare(texts(bad, references), texts(good, references))
  assert row.b == pytest.approx(100.0)
  assert row.interval[0] > 0
  assert row.p < 0.01
  # Eight questions of two answers: what is exchanged is the question.
  label = [1, 0] * 8
  grouped = [
    Answer(i, 0, lab, p, YES_NO, YES_NO[p], (), group=f"q{i // 2}")
    for i, (lab, p) in enumerate(zip(label, [1, 1] * 8, strict=True))
  ]
  right = [dataclasses.replace(a, prediction=a.label) for a in grouped]
  runs = [
    {"multirc": compare.TaskAnswers("multirc", ("multirc",), tuple(rows))}
    for rows in (grouped, right)
  ]
  f1a, exact = compare.compare(*runs)
  assert (f1a.value, f1a.primary, f1a.n, f1a.rows) == ("f1a", True, 8, 16)
  assert (exact.a, exact.b, exact.interval) == (0.0, 100.0, (100.0, 100.0))
  # Of 2**8 exchanges two are as far: p is near 2 / 256.
  assert exact.p == pytest.approx(2 / 256, abs=0.005)


@pytest.mark.parametrize(
  "name", sorted(set(metrics.METRICS) - {"multirc", "squad_turns"})
)
def test_a_run_with_swapped_names_has_the_opposite_difference(name):
  rng = np.random.default_rng(5)
  if metrics.get(name).takes == "texts":
    words = ["a", "red", "cat", "ran", "up", "the", "old", "hill"]
    refs = [tuple(" ".join(rng.permutation(words)) for _ in "ab") for _ in range(12)]
    said = [[" ".join(rng.permutation(words)) for _ in refs] for _ in "ab"]
    a, b = (texts(s, refs, name) for s in said)
  else:
    labels = rng.integers(3, size=12).tolist()
    a, b = (
      {"t": compare.TaskAnswers("t", (name,), tuple(
        Answer(i, 0, label, int(rng.integers(3)), ("0", "1", "2"), "", ())
        for i, label in enumerate(labels)
      ))}
      for _ in "ab"
    )
  forth = compare.compare(a, b, samples=200, permutations=200)
  back = compare.compare(b, a, samples=200, permutations=200)
  for x, y in zip(forth, back, strict=True):
    assert x.difference == pytest.approx(-y.difference)
    assert x.interval == pytest.approx((-y.interval[1], -y.interval[0]))
    assert x.p == pytest.approx(y.p)
    assert 0 < x.p <= 1


def test_means_of_clusters_and_of_all():
  labels = [1] * 20
  a = run([[0] * 20], labels) | run(
    [[1] * 10 + [0] * 10], labels, task="qqp", cluster="paraphrase"
  )
  b = run([[1] * 20], labels) | run(
    [[0] * 10 + [1] * 10], labels, task="qqp", cluster="paraphrase"
  )
  rows = compare.compare(a, b)
  nli, paraphrase, both = compare.means(rows)
  assert (nli.task, nli.difference, nli.n) == ("nli", 100.0, 1)
  assert paraphrase.difference == pytest.approx(0.0)
  assert (both.task, both.n, both.rows) == (compare.MEAN, 2, 40)
  assert both.difference == pytest.approx(50.0)
  assert both.test == "bootstrap"
  assert paraphrase.p > 0.5 > 0.01 > both.p
  # Holm: twice the smaller p of the two tasks.
  assert [r.p_holm for r in rows] == pytest.approx([2 * rows[0].p, 1.0])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda r: run([[0, 1]], [0, 1], task="cb"), "only the first has 'rte'; only the second has 'cb'"),
    (lambda r: {}, "only the first has 'rte'"),
    (lambda r: run([[0]], [0]), r"answers 2 rows, the other 1 \(row 1 is in one"),
    (lambda r: run([[0, 1]], [1, 1]), "row 0: one run expects 'no', the other 'yes'"),
    (lambda r: run([[0, 1]] * 2, [0, 1]), r"the templates \[0\], the other \[0, 1\]"),
    (lambda r: run([[0, 1]], [0, 1], metrics=("f1_binary",)), "score both with the same"),
    (lambda r: run([[]], []), "the other"),
  ],
)
def test_runs_that_cannot_be_compared(change, message):
  one = run([[0, 1]], [0, 1])
  with pytest.raises(UserError, match=message):
    compare.compare(one, change(one))


def test_prompts_that_choose_their_rows():
  """Two prompts on halves of the rows are as one prompt on all of them."""
  labels = [i % 3 % 2 for i in range(30)]
  said = [1 - x if i % 5 == 0 else x for i, x in enumerate(labels)]

  def halves(predictions):
    whole = run([predictions] * 2, labels)["rte"]
    kept = [a for a in whole.answers if a.index % 2 == a.template]
    return {"rte": dataclasses.replace(whole, answers=tuple(kept))}

  (row,) = compare.compare(halves(said), halves(labels))
  assert (row.rows, row.n, row.templates) == (30, 30, 2)
  assert row.difference == pytest.approx(20.0)
  low, high = row.interval
  assert 0 < low < 20 < high < 45
  assert row.test == "permutation"
  (same,) = compare.compare(halves(said), halves(said))
  assert (same.difference, same.p) == (0.0, 1.0)


def test_an_answer_given_twice():
  one = run([[0, 1]], [0, 1])["rte"]
  twice = dataclasses.replace(one, answers=one.answers + one.answers[:1])
  with pytest.raises(UserError, match="row 0 is answered twice under template 0"):
    compare.compare({"rte": twice}, {"rte": twice})
