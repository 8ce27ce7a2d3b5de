"""Selecting rows: k-centre, facility location, K-means, budgets, rules."""

import json

import numpy as np
import pytest

from flan_jax.curation import (
  budget,
  copies,
  coverage,
  embeddings,
  facility_location,
  groups,
  k_center,
  quality,
  selection,
  selectors,
  verbs,
)
from flan_jax.curation.budget import Budget
from flan_jax.curation.selection import Recipe
from flan_jax.errors import UserError


def units(rng, n, d):
  x = rng.normal(size=(n, d))
  return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def farthest_first(x, k, first):
  """Greedy k-centre by its definition, in float64."""
  x = x.astype(np.float64)
  rows, distances = [first], [np.inf]
  nearest = ((x - x[first]) ** 2).sum(1)
  while len(rows) < k:
    left = nearest.copy()
    left[rows] = -1
    row = int(np.argmax(left))
    rows.append(row)
    distances.append(np.sqrt(nearest[row]))
    nearest = np.minimum(nearest, ((x - x[row]) ** 2).sum(1))
  return rows, distances


def best_gain_first(x, k):
  """Greedy facility location by its definition, in float64."""
  x = x.astype(np.float64)
  similar = 1 + x @ x.T
  best, rows = np.zeros(len(x)), []
  for _ in range(k):
    gains = np.maximum(similar - best[:, None], 0).sum(0)
    gains[rows] = -1
    row = int(np.flatnonzero(gains >= gains.max() - 1e-6 * len(x))[0])
    rows.append(row)
    best = np.maximum(best, similar[:, row])
  return rows


@pytest.mark.parametrize("active", [1, 3, 16, 4096])
def test_k_center_is_the_definition(active, monkeypatch):
  monkeypatch.setattr(k_center, "_ACTIVE", active)
  rng = np.random.default_rng(active)
  for trial in range(40):
    n, d = int(rng.integers(2, 70)), int(rng.integers(1, 6))
    if trial % 2:  # whole numbers: copies and ties
      x = rng.integers(-2, 3, (n, d)).astype(np.float32)
    else:
      x = rng.normal(size=(n, d)).astype(np.float32)
    k, first = int(rng.integers(1, n + 1)), int(rng.integers(n))
    made = k_center.pick(x, k, first=first)
    rows, distances = farthest_first(x, k, first)
    assert made.rows.tolist() == rows
    assert made.distances.tolist() == distances


def test_k_center_of_large_unit_vectors_is_the_definition():
  x = units(np.random.default_rng(0), 3000, 48)
  x[1500:] = x[:1500]  # every row twice
  made = k_center.pick(x, 120)
  first = int(np.argmin(((x.astype(float) - x.mean(0, float)) ** 2).sum(1)))
  assert made.rows.tolist() == farthest_first(x, 120, first)[0]


def test_k_center_properties():
  rng = np.random.default_rng(1)
  x = units(rng, 200, 5)
  made = k_center.pick(x, 40)
  assert (np.diff(made.distances) <= 0).all()
  # What the covering radius is after so many picks is the next one's distance.
  found = coverage.curve(x, made.rows, [1, 10, 39])
  np.testing.assert_allclose(
    [c.radius for c in found], made.distances[[1, 10, 39]], atol=1e-3
  )
  # Copies change nothing but which rows are named.
  twice = k_center.pick(np.concatenate([x, x]), 40, first=int(made.rows[0]))
  assert (twice.rows % 200).tolist() == made.rows.tolist()
  # At most twice the best radius, which is known on a line.
  line = np.arange(12, dtype=np.float32)[:, None]
  picked = k_center.pick(line, 3, first=0).rows
  assert coverage.curve(line, picked, [3])[0].radius <= 2 * 1.5


def test_k_center_spends_tokens_and_passes_over():
  x = np.array([[0.0], [10.0], [9.0], [1.0]], np.float32)
  costs = np.array([2, 50, 3, 1])
  made = k_center.pick(x, first=0, costs_N=costs, budget=6)
  assert made.rows.tolist() == [0, 2, 3]
  with pytest.raises(ValueError, match="count 5 of 4"):
    k_center.pick(x, 5)
  with pytest.raises(ValueError, match="float64"):
    k_center.pick(x.astype(np.float64), 2)


def test_facility_location_is_the_definition():
  rng = np.random.default_rng(0)
  for trial in range(30):
    n = int(rng.integers(2, 120))
    x = units(rng, n, 6)
    if trial % 3 == 0:
      x = np.repeat(x, 2, 0)
    k = int(rng.integers(1, len(x) + 1))
    assert facility_location.pick(x, k).rows.tolist() == best_gain_first(x, k)


def test_facility_location_by_samples_is_nearly_as_good():
  x = units(np.random.default_rng(0), 400, 8)
  exact = facility_location.pick(x, 20)
  drawn = facility_location.pick(x, 20, epsilon=0.05, seed=1)
  assert len(set(drawn.rows.tolist())) == 20
  assert drawn.gains.sum() > 0.97 * exact.gains.sum()
  spent = facility_location.pick(x, costs_N=np.full(400, 7), budget=30)
  assert spent.rows.tolist() == exact.rows[:4].tolist()


def test_coverage_map_and_neighbours():
  x = units(np.random.default_rng(0), 300, 7)
  rows = np.array([5, 17, 200])
  away = np.linalg.norm(x[:, None].astype(float) - x[rows], axis=2)
  (found,) = coverage.curve(x, rows, [3])
  assert found.radius == pytest.approx(away.min(1).max(), abs=1e-4)
  assert found.mean == pytest.approx(away.min(1).mean(), abs=1e-4)
  cosines = x.astype(float) @ x.T
  np.fill_diagonal(cosines, -1)
  np.testing.assert_allclose(
    coverage.nearest_cosines(x), cosines.max(1), atol=1e-5
  )
  centred = x - x.mean(0, float)
  values = np.linalg.svd(centred)[1]
  points = coverage.plane(x)
  np.testing.assert_allclose((points**2).sum(0), values[:2] ** 2, rtol=1e-4)


def test_budgets():
  assert Budget().of(10, 7, 100) == (7, None)
  assert Budget(count=3).of(10, 7, 100) == (3, None)
  for wrong, match in (
    ({"count": 0}, "COUNT is 0; it must be 1 or more"),
    ({"fraction": 1.5}, "FRACTION is 1.5; it must be above 0 and at most 1"),
    ({"count": 2, "fraction": 0.1}, "COUNT = 2, FRACTION = 0.1; give one"),
  ):
    with pytest.raises(UserError, match=match):
      Budget(**wrong)
  with pytest.raises(UserError, match="COUNT is 11, and there are 7 rows"):
    Budget(count=11).of(10, 7, 100)
  with pytest.raises(UserError, match=r"FRACTION 0.8 of 10 rows is 8"):
    Budget(fraction=0.8).of(10, 7, 100)
  with pytest.raises(UserError, match="TOKENS is 200, .* have 100"):
    Budget(tokens=200).of(10, 7, 100)
  rng = np.random.default_rng(0)
  for _ in range(50):
    sizes = rng.integers(0, 20, rng.integers(1, 8))
    total = int(rng.integers(0, sizes.sum() + 1)) if sizes.sum() else 0
    if sizes.sum():
      made = budget.shares(total, sizes)
      assert made.sum() == total
      assert (made <= sizes).all()
      assert (np.abs(made - total * sizes / sizes.sum()) < 1).all()


ROWS = [
  {
    "id": str(i),
    "instruction": f"Task {i}: name the {word}.",
    "input": "",
    "output": f"The {word} is {'very ' * i}here.",
    "task": "even" if i % 2 == 0 else "odd",
  }
  for i, word in enumerate(
    ("apple", "bridge", "candle", "desert", "engine", "forest", "garden",
     "harbour", "island", "jungle")
  )
]
LENGTHS = selection.Lengths(np.arange(10) + 5, np.arange(10) + 2)


def test_selectors_take_what_their_rule_says():
  x = units(np.random.default_rng(0), 10, 4)

  def chosen(selector, limit, **kinds):
    return selection.choose(
      ROWS, Recipe(selector, **kinds), limit, lengths=LENGTHS, x_ND=x
    )

  three = Budget(count=3)
  assert chosen(selectors.Longest(), three).rows.tolist() == [9, 8, 7]
  a, b, c = (
    chosen(selectors.Random(s), three).rows.tolist() for s in (1, 1, 2)
  )
  assert a == b != c
  # 14 tokens, then 13 of 28 left... a row that does not fit is passed over.
  spent = chosen(selectors.Longest(), Budget(tokens=33)).rows
  assert spent.tolist() == [9, 8, 1]
  assert LENGTHS.rows[spent].sum() == 33
  central = chosen(selectors.Central(), three)
  assert len(set(central.rows.tolist())) == 3
  assert {n["cluster"] for n in central.numbers.values()} == {0.0, 1.0, 2.0}
  with pytest.raises(UserError, match="K-means needs CLUSTERS"):
    chosen(selectors.Central(), Budget(tokens=20))

  # In groups: the share of each, and k-centre of each alone.
  made = chosen(
    selectors.KCenter(), Budget(count=4), groups=groups.ByField("task")
  )
  alone = k_center.pick(x[1::2], 2).rows * 2 + 1
  assert made.rows[2:].tolist() == alone.tolist()
  assert (made.rows[:2] % 2 == 0).all()
  assert made.group_of[3] == "odd"
  made = chosen(
    selectors.KCenter(), Budget(tokens=60), groups=groups.KMeans(3)
  )
  assert LENGTHS.rows[made.rows].sum() <= 60
  with pytest.raises(UserError, match="GROUP_FIELD is 'kind', which 10 of 10"):
    chosen(selectors.Random(), three, groups=groups.ByField("kind"))
  with pytest.raises(UserError, match="CLUSTERS is 11, and there are 10"):
    chosen(selectors.Random(), three, groups=groups.KMeans(11))


def test_mistakes_of_a_recipe():
  def chosen(recipe, limit=None, **kinds):
    return selection.choose(
      ROWS, recipe, limit or Budget(count=3), lengths=LENGTHS, **kinds
    )

  with pytest.raises(UserError, match="k_center reads a vector of every row"):
    chosen(Recipe(selectors.KCenter()))
  with pytest.raises(UserError, match="SELECTOR is None and FILTERS is empty"):
    Recipe()
  with pytest.raises(UserError, match="random needs a budget"):
    chosen(Recipe(selectors.Random()), Budget())
  with pytest.raises(UserError, match="lima takes all rows that pass"):
    chosen(Recipe(filters=(quality.Lima(),)))
  with pytest.raises(UserError, match="none of 10 rows passes the filter 'li"):
    chosen(Recipe(filters=(quality.Lima(),)), Budget())
  # As a comparison takes it: all that pass, where the budget is for more.
  rule = quality.Lima(least=30, style=False)
  made = chosen(
    Recipe(selectors.Random(), filters=(rule,)),
    Budget(count=9),
    all_that_pass=True,
  )
  assert sorted(made.rows.tolist()) == [
    i for i, row in enumerate(ROWS) if len(row["output"]) >= 30
  ]
  assert set(made.dropped["lima"].values()) == {"has fewer than 30 characters"}


def test_vectors_that_cannot_be_used(tmp_path):
  x = units(np.random.default_rng(0), 10, 4)
  x[3, 1], x[7, 0] = np.nan, np.inf
  with pytest.raises(UserError, match="2 of 10 rows are not finite: rows 3, 7"):
    embeddings.check(x)
  x = units(np.random.default_rng(0), 10, 4)
  x[2] = 0
  with pytest.raises(UserError, match="1 of 10 rows is 0 throughout: row 2"):
    embeddings.check(x)
  with pytest.raises(UserError, match=r"cluster 3: 10 vectors of 4 .*CLUSTERS"):
    embeddings.units(x, memory_gib=1e-9, what="cluster 3")
  path = tmp_path / "x.npy"
  np.save(path, x)
  given = embeddings.FromFile(path)
  assert np.array_equal(given(["text"] * 10), x)
  with pytest.raises(UserError, match="has 10 rows, the data 9"):
    given(["text"] * 9)
  np.save(path, x.astype(np.int64))
  with pytest.raises(UserError, match="must be floats"):
    given(["text"] * 10)
  path.write_bytes(b"no array")
  with pytest.raises(UserError, match=r"is no .npy array"):
    given(["text"] * 10)
  np.save(path, np.array([{}]), allow_pickle=True)
  with pytest.raises(UserError, match=r"is no .npy array"):
    given(["text"] * 10)
  # A large number's square is not finite; its direction is.
  big = np.array([[3e38, 4e38]])
  np.testing.assert_allclose(
    embeddings.units(big, memory_gib=1), [[0.6, 0.8]], rtol=1e-6
  )


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("The end of World War I came in 1918, as most say.", None),
    ("Use `my_list` and \"I did\" in code, as is usual there.", None),
    ("I'd say that it is a matter of taste and of habits.", "first person"),
    ("In the end it was my own mistake and no other one's.", "first person"),
    ("As mentioned above, this is a matter of plain taste.", "other answers"),
    ("The accepted answer is wrong about the size of that.", "other answers"),
    ("@peter is right about how large the number is, too.", "other answers"),
    ("Edit: it is now a little larger than it was before.", "other answers"),
    ("See https://a.org for how to do this in a short time.", "a link"),
    ("It is <b>not</b> what they said it was, as is clear.", "has HTML"),
    ("This article is about how to tie a tie in ten steps.", "its source"),
    ("Sure! Here are the ten steps of how to tie one's tie.", "its source"),
    ("```\nprint(1)\n``` and then ```\nprint(2) is the last", "not closed"),
    ("The ten steps of how to tie a tie are first that one", "in the middle"),
    ("THIS IS ALL THAT THERE IS TO SAY ABOUT THIS MATTER.", "in capitals"),
    ("Say it again.\n" * 4, "the same line"),
    ("  ", "is empty"),
    ("Short.", "fewer than 20 characters"),
    ("long " * 30, "more than 100 characters"),
    ("Steps of it are these here:\n1. Wash it.\n2. Dry the other one", None),
  ],
)
def test_lima_rules(text, reason):
  found = quality.Lima(least=20, most=100).reason(text)
  assert (found is None) == (reason is None), found
  assert reason is None or reason in found


def test_lima_options_and_placeholders():
  assert "placeholder" in quality.Lima(least=0).reason("N/A")
  text = "I think that it is a matter of taste, as mentioned above."
  rule = quality.Lima(least=0, first_person=False)
  assert rule.reason(text) == "refers to other answers"
  rule = quality.Lima(least=0, first_person=False, other_answers=False)
  assert rule.reason(text) is None
  with pytest.raises(UserError, match="LEAST_CHARACTERS is 9"):
    quality.Lima(least=9, most=3)


@pytest.mark.parametrize("search", ["exact", "minhash"])
def test_copies_keep_the_first(search):
  texts = ("Name a red fruit now.", "Sort it all.", "Name a red fruit, now!",
           "名を挙げてください", "名を挙げてください。")  # fmt: skip
  rows = [{"instruction": t, "input": "", "output": "x"} for t in texts]
  rule = copies.Copies(search=search, tokenizer="characters")
  assert [bool(r) for r in rule.reasons(rows)] == [
    False, False, True, False, True,
  ]  # fmt: skip
  with pytest.raises(UserError, match="COPIES_SEARCH is 'fast'"):
    copies.Copies(search="fast")


@pytest.mark.parametrize(
  ("text", "root"),
  [
    ("Write a short story about a lost dog.", ("write", "story")),
    ("Can you give me a list of European cities?", ("give", "list")),
    ("I need help. Please translate the sentence below.",
     ("translate", "sentence")),
    ("Which species of birds are extinct?", ("which", "species")),
    ("What's the difference between a and b?", ("what", "difference")),
    ("", None),
  ],
)  # fmt: skip
def test_root_verbs(text, root):
  assert verbs.root(text) == root


def test_options_are_json_without_addresses():
  recipe = Recipe(
    selectors.KCenter(), (quality.Lima(),), groups.KMeans(3), "mine"
  )
  text = json.dumps(recipe.options)
  assert "0x" not in text
  assert json.loads(text)["filters"][0]["least"] == 1200
  assert recipe.title == "mine"
