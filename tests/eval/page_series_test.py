"""The page of several checkpoints: a curve over numbers, bars over names."""

import re

import pytest

from flan_jax.eval import page_series, plots
from flan_jax.eval.protocol_table import Table
from tests import browser
from tests.eval.report_test import evaluation

ATTACK = "<script>alert(1)</script>"
MIXTURE = "flan_clusters_7_eval"


def page(labels, mixtures=(MIXTURE,) * 3):
  points = [
    (label, f"runs/{label}", mixture)
    for label, mixture in zip(labels, mixtures, strict=True)
  ]
  made = Table(
    "clusters trained on", ("point", "mean", "95 % interval"),
    ((labels[0], 50.0, (40.0, 60.0)),), f"Note. {ATTACK}",
  )  # fmt: skip
  return page_series.render(
    "clusters trained on", points, [evaluation(x) for x in (0, 10, 20)],
    [made], [f"{i:02d}_x/report.html" for i in range(3)],
  )


def test_numbers_are_an_axis_and_its_points_are_in_order():
  made = page(["7", "1", "3"])
  # The mean, and a panel for each cluster.
  clusters = evaluation(0).clusters
  assert made.count("<polyline") == 1 + len(clusters) > 2
  first = made.index("clusters trained on 1: ")
  assert first < made.index("clusters trained on 3: ")
  assert made.index("clusters trained on 3: ") < made.index("trained on 7: ")
  assert "<td class=text>7</td><td>50.0</td><td>40.0 to 60.0</td>" in made


@pytest.mark.parametrize(
  ("labels", "mixtures"),
  [
    (["1", "2", "nan"], (MIXTURE,) * 3),
    (["a", "b", "c"], (MIXTURE,) * 3),
    (["1", "2", "2"], (MIXTURE, MIXTURE, "flan_wnli")),
  ],
)
def test_names_and_points_of_other_rows_are_bars(labels, mixtures):
  made = page(labels, mixtures)
  assert "<polyline" not in made
  assert made.count("<rect ") == 3


def test_every_text_is_escaped():
  made = page([ATTACK, "b", "c"])
  assert "<script" not in made
  assert "&lt;script&gt;" in made


def test_whiskers_are_of_their_points():
  points = ((1.0, 50.0), (2.0, 60.0))
  drawn = plots.lines(
    "x", [plots.Curve("x", points, intervals=((40.0, 60.0), (0.0, 90.0)))]
  )
  assert drawn.count("<line ") - plots.lines(
    "x", [plots.Curve("x", ((1.0, 0.0), (2.0, 90.0)))]
  ).count("<line ") == 2
  # The axis holds them.
  assert ">0</text>" in drawn
  with pytest.raises(ValueError, match="shorter"):
    plots.lines("x", [plots.Curve("x", points, intervals=((40.0, 60.0),))])


def test_points_less_than_one_apart_fill_the_panel():
  drawn = [
    re.findall(
      "<polyline points='[^']*'",
      plots.lines("x", [plots.Curve("x", ((a, 1.0), (b, 2.0)))]),
    )
    for a, b in ((1.0, 2.0), (1e-4, 3e-4))
  ]
  assert drawn[0] == drawn[1] != []


@browser.needed
def test_a_browser_draws_the_curve_in_light_and_dark(tmp_path):
  path = tmp_path / "series.html"
  path.write_text(page(["1", "2", "3"]))
  browser.check(path, tmp_path, plots=1 + len(evaluation(0).clusters))
