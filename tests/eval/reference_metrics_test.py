"""Metrics against their benchmarks' published scorers, step by step.

Each reference below goes through the steps of the scorer that is named above
it, in plain Python; predictions are perfect, empty, and hostile.
"""

import collections
import itertools
import re
import string

import numpy as np
import pytest

from flan_jax.eval import metrics

REFERENCES = [
  ["The Nile"],
  ["the river Nile", "Nile", "a Nile-like river"],
  ["7 yards"],
  ["1,200", "1200 men"],
  ["Jean-Paul Sartre", "Sartre"],
  ["no"],
  ["3.50 dollars"],
  ["Þingvellir"],
]
PREDICTIONS = [
  "the nile", "Nile", "", " ", "the", "a an the", "7 yards", "7.0 yards",
  "17 yards", "yards 7 yards", "1200", "1,200 men", "jean paul sartre",
  "Sartre, Jean-Paul", "No.", "no no no", "3.5", "$3.50", "þingvellir",
  "<script>alert('Nile')</script>", "Nile " * 50, "Nile\nNile", "-", "...",
  "½", "1e400", "inf", "‘Nile’", "river_Nile", "\u200bNile",
]  # fmt: skip
ROWS = list(itertools.product(PREDICTIONS, REFERENCES))


def bag_f1(given, wanted):
  """SQuAD's: words counted as often as both have them."""
  common = collections.Counter(given) & collections.Counter(wanted)
  same = sum(common.values())
  if not given or not wanted:
    return float(given == wanted)
  if same == 0:
    return 0.0
  precision, recall = same / len(given), same / len(wanted)
  return 2 * precision * recall / (precision + recall)


def squad_script(text):
  """evaluate-v2.0.py: lower, no punctuation, no articles, one blank."""
  text = "".join(c for c in text.lower() if c not in set(string.punctuation))
  return re.sub(r"\b(a|an|the)\b", " ", text).split()


def triviaqa_script(text):
  """triviaqa_evaluation.py: punctuation becomes blanks, quotes too."""
  text = text.replace("_", " ").lower()
  out = set(string.punctuation + "‘’´`")
  text = "".join(" " if c in out else c for c in text)
  return re.sub(r"\b(a|an|the)\b", " ", text).split()


def is_number(text):
  try:
    float(text)
  except ValueError:
    return False
  return True


def drop_script(text):
  """drop_eval.py: token by token, split at blanks and hyphens."""
  words = []
  for token in re.split(r" |-|\n", text.lower()):
    bare = token
    if not is_number(bare):
      bare = "".join(c for c in bare if c not in set(string.punctuation))
    if is_number(bare):
      bare = str(float(bare))
    words += re.sub(r"\b(a|an|the)\b", " ", bare).split()
  return words


def drop_f1(given, wanted):
  given, wanted = set(given), set(wanted)
  numbers = {w for w in wanted if is_number(w)}
  if numbers and not numbers & given:
    return 0.0
  same = len(given & wanted)
  precision = same / len(given) if given else 1.0
  recall = same / len(wanted) if wanted else 1.0
  if precision == recall == 0:
    return 0.0
  return 2 * precision * recall / (precision + recall)


SCORERS = {
  "squad": (squad_script, bag_f1),
  "record": (squad_script, bag_f1),
  "trivia_qa": (triviaqa_script, bag_f1),
  "drop": (drop_script, drop_f1),
}


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_answers_are_scored_as_the_published_script_does(name):
  words, f1 = SCORERS[name]
  for prediction, references in ROWS:
    given = words(prediction)
    wanted = [words(text) for text in references]
    expected = {
      "exact_match": 100.0 * max(" ".join(given) == " ".join(w) for w in wanted),
      "f1": 100.0 * max(f1(given, w) for w in wanted),
    }
    got = metrics.get(name).function([prediction], [references])
    assert got == pytest.approx(expected), (prediction, references)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_perfect_and_empty_answers(name):
  function = metrics.get(name).function
  assert function([r[0] for r in REFERENCES], REFERENCES) == {
    "exact_match": 100.0, "f1": 100.0,
  }
  assert function([""] * len(REFERENCES), REFERENCES) == {
    "exact_match": 0.0, "f1": 0.0,
  }


def test_coqa_is_squad_turn_by_turn():
  """evaluate-v1.0.py of CoQA: the mean over all turns of all stories."""
  stories = [
    (["white", "a barn", "no"], ["White.", "in a barn", "yes"]),
    (["Ann"], [""]),
  ]
  numbered = [
    tuple("\n".join(f"{i}. {t}" for i, t in enumerate(part, 1)) for part in story)
    for story in stories
  ]
  turns = [
    (squad_script(g), squad_script(w))
    for wanted, given in stories
    for w, g in zip(wanted, given, strict=True)
  ]
  got = metrics.get("squad_turns").function(
    [given for _, given in numbered], [[wanted] for wanted, _ in numbered]
  )
  assert got["f1"] == pytest.approx(100 * np.mean([bag_f1(*t) for t in turns]))
  assert got["exact_match"] == pytest.approx(
    100 * np.mean([g == w for g, w in turns])
  )


def test_quac_is_the_published_script():
  """scorer.py of QuAC, for questions on which people agree enough."""

  def leave_one_out(prediction, references):
    if len(references) == 1:
      return bag_f1(squad_script(prediction), squad_script(references[0]))
    scores = []
    for i in range(len(references)):
      others = references[:i] + references[i + 1 :]
      scores.append(
        max(bag_f1(squad_script(prediction), squad_script(o)) for o in others)
      )
    return np.mean(scores)

  def human(references):
    if len(references) == 1:
      return 1.0
    scores = []
    for i, one in enumerate(references):
      others = references[:i] + references[i + 1 :]
      scores.append(max(bag_f1(squad_script(one), squad_script(o)) for o in others))
    return np.mean(scores)

  for prediction, references in ROWS:
    f1 = leave_one_out(prediction, references)
    assert metrics.get("quac").function([prediction], [references]) == {
      "f1": pytest.approx(100 * f1),
      "heq": 100.0 * (f1 >= human(references)),
    }


def test_multirc_is_the_published_arithmetic():
  """multirc_measures.py: F1 over all answers; questions all right."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    questions = [f"p{i // 3}q{i}" for i in range(8) for _ in range(rng.integers(1, 5))]
    labels = rng.integers(2, size=len(questions))
    said = np.where(rng.random(len(labels)) < 0.7, labels, 1 - labels)
    right = sum(
      all(s == w for q, s, w in zip(questions, said, labels, strict=True) if q == one)
      for one in set(questions)
    )
    agree = int(((said == 1) & (labels == 1)).sum())
    precision = agree / max(1, (said == 1).sum())
    recall = agree / max(1, (labels == 1).sum())
    f1 = 0.0 if not agree else 2 * precision * recall / (precision + recall)
    got = metrics.get("multirc").function(
      said.tolist(), list(zip(questions, labels.tolist(), strict=True))
    )
    assert got["f1a"] == pytest.approx(100 * f1)
    assert got["exact_match"] == pytest.approx(100 * right / len(set(questions)))


def longest_common(a, b):
  table = np.zeros((len(a) + 1, len(b) + 1), int)
  for i, x in enumerate(a):
    for j, y in enumerate(b):
      table[i + 1, j + 1] = (
        table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
      )
  return table[-1, -1]


def f_measure(same, given, wanted):
  return 0.0 if not same else 2 * same / (given + wanted)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_rouge_is_lin_s_definition(prediction):
  """ROUGE-1, -2 and -L as in Lin, 2004, over lower-case letters and digits."""

  def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())

  def grams(tokens, n):
    return collections.Counter(zip(*(tokens[i:] for i in range(n)), strict=False))

  for references in REFERENCES:
    expected = {}
    for n in (1, 2):
      expected[f"rouge{n}"] = max(
        f_measure(
          sum((grams(words(prediction), n) & grams(words(r), n)).values()),
          max(0, len(words(prediction)) - n + 1),
          max(0, len(words(r)) - n + 1),
        )
        for r in references
      )
    expected["rougeL"] = max(
      f_measure(
        longest_common(words(prediction), words(r)),
        len(words(prediction)), len(words(r)),
      )
      for r in references
    )
    got = metrics.get("rouge").function([prediction], [references])
    for name, value in expected.items():
      assert got[name] == pytest.approx(100 * value), (name, references)


def test_super_ni_is_rouge_l_of_stems():
  """compute_metrics.py: Porter's stems, best reference; by NLTK and by hand."""
  from nltk.stem import porter

  stemmer = porter.PorterStemmer()

  def stems(text):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [stemmer.stem(w) if len(w) > 3 else w for w in words]

  for said, references in [
    ("Running quickly", ["runs quick", "he was running"]),
    ("the dogs barked", ["dog barks loudly"]),
    ("", ["anything"]),
    ("Entailment.", ["entailment"]),
  ]:
    expected = max(
      f_measure(
        longest_common(stems(said), stems(r)), len(stems(said)), len(stems(r))
      )
      for r in references
    )
    got = metrics.get("super_ni").function([said], [references])
    assert got["rougeL"] == pytest.approx(100 * expected), said


def test_correlations_and_classes_by_their_libraries():
  from scipy import stats
  from sklearn import metrics as sklearn_metrics

  rng = np.random.default_rng(7)
  for _ in range(10):
    x, y = rng.integers(6, size=(2, 30))
    both = x.tolist(), y.tolist()
    assert metrics.get("pearson").function(*both)["pearson"] == pytest.approx(
      100 * np.corrcoef(x, y)[0, 1]
    )
    ranks = stats.rankdata(x), stats.rankdata(y)
    assert metrics.get("spearman").function(*both)["spearman"] == pytest.approx(
      100 * np.corrcoef(*ranks)[0, 1]
    )
    a, b = (x > 2).tolist(), (y > 2).tolist()
    phi = np.corrcoef(a, b)[0, 1]
    got = metrics.get("matthews").function(list(map(int, a)), list(map(int, b)))
    assert got["matthews"] == pytest.approx(100 * phi)
    p, r = x % 3, y % 3
    expected = np.mean([
      sklearn_metrics.f1_score(r == c, p == c, zero_division=0) for c in range(3)
    ])
    got = metrics.get("mean_3class_f1").function(p.tolist(), r.tolist())
    assert got["mean_3class_f1"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("prediction", ["", " ", "<script>", "の猫", "a" * 500])
@pytest.mark.parametrize(
  "name", ["bleu", "rouge", "edit_distance", "super_ni", "super_ni_characters"]
)
def test_texts_of_any_kind_have_a_value(name, prediction):
  values = metrics.get(name).function([prediction], [["a red cat sat there"]])
  assert all(0 <= value < 20 for value in values.values())
