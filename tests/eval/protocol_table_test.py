import dataclasses
import types

import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import protocol, protocol_table
from flan_jax.eval.answers import Answer
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.page_text import DASH


def result(name, right_by_template, cluster="nli", dev=True):
  task = types.SimpleNamespace(
    name=name, paper_name=name.upper(), family=None, kind="classification",
    metrics=("accuracy",), references=None, templates=("one",) * 4,
    scored_templates=lambda form: (0, 1, 2, 3),
  )
  rows = [
    Answer(i, t, 1, int(i < right), ("no", "yes"), "", ())
    for t, right in enumerate(right_by_template)
    for i in range(10)
  ]
  return protocol.summarise(task, rows, rows if dev else (), cluster=cluster)


def evaluation(*tasks):
  return Evaluation(
    {t.task: t for t in tasks}, protocol.clusters(tasks), (), "test", 80, 1.0,
    {}, "sum",
  )


def test_flan_s_columns():
  table = protocol_table.flan(evaluation(result("rte", (2, 4, 6, 8))))
  row = dict(zip(table.columns, table.rows[0], strict=True))
  assert (row["task"], row["n"], row["templates"]) == ("RTE", 10, 4)
  assert row["mean"] == pytest.approx(50.0)
  assert (row["best dev template"], row["its number"]) == (80.0, 3)
  assert row["chance"] == 50.0
  cluster = dict(zip(table.columns, table.rows[1], strict=True))
  assert (cluster["task"], cluster["mean"]) == ("mean of nli", 50.0)
  text = table.markdown()
  assert text.startswith("## FLAN: mean over templates")
  assert "| RTE | accuracy | 10 | 4 | 50.0 | " in text
  assert text.count("\n| ") == 4


def test_without_development_rows_there_is_no_best_template():
  table = protocol_table.flan(evaluation(result("rte", (2, 4), dev=False)))
  assert table.rows[0][6:9] == (None, None, None)
  assert table.cells()[0][6] == DASH


def test_t0_s_median_and_quartiles():
  tasks = result("rte", (1, 2, 4, 8)), result("cb", (5, 5, 5, 5))
  table = protocol_table.t0(evaluation(*tasks))
  row = dict(zip(table.columns, table.rows[0], strict=True))
  q1, median, q3 = np.percentile([10, 20, 40, 80], (25, 50, 75))
  assert row["median"] == median == 30.0
  assert row["quartiles"] == (q1, q3)
  assert row["range between"] == q3 - q1
  assert row["least to most"] == (10.0, 80.0)
  assert row["95 % interval"][0] < median < row["95 % interval"][1]
  mean = dict(zip(table.columns, table.rows[-1], strict=True))
  assert mean["median"] == pytest.approx(40.0)
  assert mean["mean"] == pytest.approx((37.5 + 50) / 2)


def test_an_unknown_protocol():
  with pytest.raises(UserError, match="PROTOCOL is 'flam'.* nearest is 'flan'"):
    protocol_table.get("flam")


def test_signatures_stand_in_the_note():
  made = result("rte", (2, 4))
  main = dataclasses.replace(made.main, name="bleu", signature="sacrebleu tok:13a")
  bleu = dataclasses.replace(made, primary="bleu", metrics={"bleu": main})
  for table in (protocol_table.flan, protocol_table.t0):
    assert table(evaluation(bleu)).note.endswith(" bleu: sacrebleu tok:13a.")
