import dataclasses
import doctest
import types

import numpy as np
import pytest

from flan_jax.data import spec
from flan_jax.errors import UserError
from flan_jax.eval import protocol
from flan_jax.eval.protocol import Answer


def task(metrics=("accuracy",), kind="classification", **fields):
  return types.SimpleNamespace(
    name="toy", paper_name="Toy", family=None, kind=kind, metrics=metrics,
    references=None, inversions=(),
    templates=tuple(
      spec.Template(f"{i}. {{text}}", "{answer}" if i < 8 else "{text}")
      for i in range(10)
    ),
    **fields,
  )


def answers(predictions_by_template, labels, choices=("no", "yes")):
  return [
    Answer(i, t, label, p, choices, choices[p], (choices[label],))
    for t, predictions in predictions_by_template.items()
    for i, (p, label) in enumerate(zip(predictions, labels, strict=True))
  ]


def test_docstrings():
  assert doctest.testmod(protocol).failed == 0


def test_mean_median_spread_and_the_best_dev_template():
  labels = [0, 1, 0, 1]
  test = answers(
    {0: [0, 1, 0, 1], 1: [0, 0, 0, 0], 2: [1, 1, 1, 1], 3: [1, 0, 1, 0]}, labels
  )
  # Templates 1 and 2 tie on dev, both above 0: the lower number wins, although
  # template 0 is the best on test.
  dev = answers({0: [1, 0], 1: [0, 1], 2: [0, 1], 3: [1, 0]}, [0, 1])
  result = protocol.summarise(task(), test, dev, cluster="nli")
  accuracy = result.main
  assert accuracy.scores == {0: 100.0, 1: 50.0, 2: 50.0, 3: 0.0}
  assert accuracy.dev_scores == {0: 0.0, 1: 100.0, 2: 100.0, 3: 0.0}
  assert accuracy.spread == protocol.Spread(50.0, 50.0, 37.5, 62.5, 0.0, 100.0)
  assert (accuracy.best_dev_template, accuracy.best_dev_score) == (1, 50.0)
  assert (accuracy.chance, accuracy.majority) == (50.0, 50.0)
  assert (result.rows, result.dev_rows, result.turned_around) == (4, 2, 2)
  assert (result.cluster, result.primary, result.ties) == ("nli", "accuracy", 0)


def test_without_dev_rows_there_is_no_best_template():
  accuracy = protocol.summarise(task(), answers({0: [0, 1]}, [0, 1])).main
  assert (accuracy.best_dev_template, accuracy.best_dev_score) == (None, None)
  assert accuracy.dev_scores == {}


def test_the_first_metric_picks_the_template_for_all():
  labels = [1, 0, 0, 0]
  rows = answers({0: [0, 0, 0, 0], 1: [1, 1, 1, 0]}, labels)
  result = protocol.summarise(task(("accuracy", "f1_binary")), rows, rows)
  assert result.metrics["accuracy"].best_dev_template == 0
  assert result.metrics["f1_binary"].best_dev_template == 0
  assert result.metrics["f1_binary"].scores == {0: 0.0, 1: pytest.approx(50.0)}
  # Always "yes": one of four is right, P 1/4, R 1.
  assert result.metrics["f1_binary"].majority == pytest.approx(40.0)
  assert result.metrics["f1_binary"].chance is None


def test_interval_is_over_rows_not_over_prompts():
  """Ten templates with the same answers are no more rows than one."""
  rng = np.random.default_rng(1)
  predictions = list(map(int, rng.integers(2, size=100)))
  one = protocol.summarise(task(), answers({0: predictions}, [0] * 100)).main
  ten = protocol.summarise(
    task(), answers(dict.fromkeys(range(8), predictions), [0] * 100)
  ).main
  assert one.interval == ten.interval
  low, high = one.interval
  # Normal approximation: 1.96 * sqrt(p (1 - p) / 100) = 9.8 points each side.
  p = one.spread.mean
  assert p - 11 < low < p - 8
  assert p + 8 < high < p + 11


def test_numbers_are_read_from_the_choices():
  stsb = task(("pearson", "spearman"))
  rows = answers({0: [0, 1, 2, 2]}, [0, 1, 2, 0], choices=("0", "1", "5"))
  result = protocol.summarise(stsb, rows)
  # (0, 1, 5, 5) with (0, 1, 5, 0): deviations' product over norms.
  assert result.main.spread.mean == pytest.approx(
    100 * np.corrcoef([0, 1, 5, 5], [0, 1, 5, 0])[0, 1]
  )
  assert result.main.majority == 0.0
  with pytest.raises(UserError, match="'pearson' needs choices that are num"):
    protocol.summarise(stsb, answers({0: [0]}, [0]))


def test_free_text_takes_all_references():
  rows = [
    Answer(0, t, -1, -1, (), text, ("a cat", "one dog"))
    for t, text in enumerate(("one dog", "a dog"))
  ]
  result = protocol.summarise(task(("rouge",), "generation"), rows)
  assert result.primary == "rougeL"
  assert result.main.scores == pytest.approx({0: 100.0, 1: 50.0})
  assert set(result.metrics) == {"rougeL", "rouge1", "rouge2", "rougeLsum"}
  assert result.main.chance is result.main.majority is None


@pytest.mark.parametrize(
  ("metric", "kind"), [("rouge", "classification"), ("accuracy", "generation")]
)
def test_a_metric_that_does_not_suit_is_refused(metric, kind):
  with pytest.raises(UserError, match=f"'toy' is a {kind} task.*'{metric}' takes"):
    protocol.summarise(task((metric,), kind), answers({0: [0]}, [0]))


def test_templates_on_different_rows_are_refused():
  rows = answers({0: [0, 1], 1: [0, 1]}, [0, 1])
  with pytest.raises(UserError, match=r"different rows.*\{0: 2, 1: 1\}"):
    protocol.summarise(task(), rows[:-1])


def test_prompts_that_choose_their_rows():
  """Each is scored on its own; one row of 40 is drawn with all of them."""
  labels = [i % 2 for i in range(40)]
  rows = answers({0: [0] * 40, 1: labels}, labels)
  kept = [a for a in rows if a.template == 0 or a.index % 4 == 1]
  choosing = task(prompts_choose_rows=True)
  result = protocol.summarise(choosing, kept)
  assert result.main.scores == {0: 50.0, 1: 100.0}
  assert (result.rows, result.prompts, result.main.n) == (40, 50, 40)
  low, high = result.main.interval
  # Half of the interval of the first prompt: the second one is always right.
  alone = protocol.summarise(task(), [a for a in rows if a.template == 0])
  wide = alone.main.interval
  assert high - low == pytest.approx((wide[1] - wide[0]) / 2, abs=1.0)
  # Of one row alone many samples have none.
  one = [a for a in rows if a.template == 0 or a.index == 1]
  assert protocol.summarise(choosing, one).main.scores[1] == 100.0


def test_cluster_mean_as_the_paper_prints_it():
  """Figure 1, NLI: 56.2 (FLAN), 42.9 (GPT-3), from the five rows."""
  base = protocol.summarise(task(), answers({0: [0]}, [0]), cluster="nli")
  rows = {
    "anli_r1": (47.7, 34.6), "anli_r2": (43.9, 35.4), "anli_r3": (47.0, 34.5),
    "cb": (64.1, 46.4), "rte": (78.3, 63.5),
  }
  for column, printed in ((0, 56.2), (1, 42.9)):
    results = []
    for name, values in rows.items():
      value = values[column]
      main = dataclasses.replace(
        base.main, spread=protocol.Spread(*[value] * 6), best_dev_score=value
      )
      results.append(
        dataclasses.replace(
          base, task=name, family="anli" if "anli" in name else name,
          metrics={"accuracy": main},
        )
      )
    cluster = protocol.clusters(results)["nli"]
    assert round(cluster.mean, 1) == printed
    assert cluster.best_dev == pytest.approx(cluster.mean)
    anli = sum(v[column] for v in list(rows.values())[:3]) / 3
    family = (anli + rows["cb"][column] + rows["rte"][column]) / 3
    assert cluster.family_mean == pytest.approx(family)


def test_every_number_has_its_n_and_interval():
  rng = np.random.default_rng(2)
  labels = rng.integers(2, size=50).tolist()
  rows = answers(
    {t: rng.integers(2, size=50).tolist() for t in range(3)}, labels
  )
  both = task(("f1_binary", "matthews"))
  result = protocol.summarise(both, rows, rows)
  for one in result.metrics.values():
    assert one.n == 50
    assert one.interval[0] < one.spread.mean < one.interval[1]
    assert one.median_interval[0] < one.spread.median < one.median_interval[1]
    low, high = one.best_dev_interval
    assert low < one.best_dev_score < high
  cluster = protocol.clusters([result])[""]
  assert cluster.interval == result.main.interval


def test_a_cluster_s_interval_is_narrower_than_its_tasks():
  rng = np.random.default_rng(4)
  results = [
    protocol.summarise(
      types.SimpleNamespace(**{**vars(task()), "name": f"t{i}"}),
      answers({0: rng.integers(2, size=100).tolist()}, [1] * 100),
    )
    for i in range(4)
  ]
  low, high = protocol.clusters(results)[""].interval
  # Four times the rows: half the width.
  widths = [r.main.interval[1] - r.main.interval[0] for r in results]
  assert high - low == pytest.approx(np.mean(widths) / 2, rel=0.15)


def test_groups_are_drawn_whole():
  """Two questions of many answers each: the interval is of two, not of 40."""
  rows = [
    Answer(i, 0, 1, int(i < 20), ("no", "yes"), "", (), group=f"q{i // 20}")
    for i in range(40)
  ]
  result = protocol.summarise(task(("multirc",)), rows)
  exact = result.metrics["exact_match"]
  assert (exact.n, exact.interval) == (2, (0.0, 100.0))


def test_conversations_are_drawn_whole():
  references = tuple("\n".join(f"{n}. yes" for n in range(1, 21)).split("|"))
  said = references[0], "\n".join(f"{n}. no" for n in range(1, 21))
  rows = [Answer(i, 0, -1, -1, (), text, references) for i, text in enumerate(said)]
  result = protocol.summarise(task(("squad_turns",), "generation"), rows)
  assert result.main.scores == {0: 50.0}
  assert (result.main.n, result.main.interval) == (2, (0.0, 100.0))


def test_bleu_comes_with_its_signature():
  rows = [Answer(0, 0, -1, -1, (), "a cat", ("a cat",))]
  main = protocol.summarise(task(("bleu",), "generation"), rows).main
  assert main.signature.startswith("sacrebleu nrefs:")
  assert "tok:13a" in main.signature


def test_no_answers_are_refused():
  with pytest.raises(UserError, match="'toy' has no answers on its test split"):
    protocol.summarise(task(), [])
