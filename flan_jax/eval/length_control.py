"""AlpacaEval 2's length-controlled win rate, its exact regression.

For a pair i of a reference b and a model m (Dubois et al., 2024, arXiv
2404.04475, section 3, equation 2, as AlpacaEval 0.6.6 fits it for one model)

  p(m is preferred) = sigmoid(
      w_1 * tanh((len(b_i) - len(m_i)) / sd) + w_2 * difficulty_i + w_3 * g_i)

* `len` counts characters, `sd` is the sample standard deviation (n - 1) of the
  difference over all pairs. No free intercept.
* `difficulty_i` of the instruction is given, not fitted: AlpacaEval's is fitted
  once over all models of its leaderboard.
* `g_i` is 1 for the model's pairs and 0 for those of two "gamed" baselines, the
  reference told to be long and to be short, so w_3 is the model's alone.

The weights minimise

  sum |w| + C * sum_i s_i * (-p_i log q_i - (1 - p_i) log(1 - q_i))

with the preference p_i - 1 as a soft label and s_i = 1, but 0.1 for rows of the
gamed baselines (0.2 shared by two). C is the one of 10 values from 1e-4 to 1e4,
evenly spaced in log, with the least mean s_i-weighted log loss over five folds.
The solver is scikit-learn's liblinear with the seed that AlpacaEval uses.

The length-controlled win rate is 100 * mean sigmoid(w_2 * difficulty_i + w_3):
what the judge would say were the lengths equal. The reference has 50.

Three forms, by AlpacaEval's names:
  length_controlled_v1       as above; needs difficulties and the gamed rows
  length_controlled_noreg    without the gamed rows
  length_controlled_minimal  without difficulties too: for sets of your own

Dimension key: R rows, W weights.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn import linear_model, model_selection

from flan_jax.errors import UserError, check_known
from flan_jax.eval import win_rate

FORMS = (
  "length_controlled_v1",
  "length_controlled_noreg",
  "length_controlled_minimal",
)
FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)
GAMED_WEIGHT = 0.2 / 2
SEED = 123
EPSILON = 1e-15


@dataclasses.dataclass(frozen=True)
class Gamed:
  """Rows of the gamed baselines, as AlpacaEval's `df_gamed.csv` has them.

  Attributes:
    preferences: in [0, 1], for the gamed baseline.
    differences: `std_delta_len`, standardised per baseline.
    difficulties: of their instructions.
  """

  preferences: Sequence[float]
  differences: Sequence[float]
  difficulties: Sequence[float]


@dataclasses.dataclass(frozen=True)
class LengthControlled:
  """A length-controlled win rate and the regression behind it.

  Attributes:
    win_rate: in percent.
    standard_error: of the mean of the predicted preferences, percent points.
    weights: name of a term -> its weight; length is negative where the judge
      likes long outputs.
    strength: C, the inverse of the regularisation that was chosen.
    form: one of `FORMS`.
    preferences: predicted at equal length, one per pair, in [0, 1].
    warning: that it is far from the raw win rate; "": it is not.
  """

  win_rate: float
  standard_error: float
  weights: dict[str, float]
  strength: float
  form: str
  preferences: tuple[float, ...]
  warning: str = ""


def length_controlled(
  preferences: Sequence[float],
  lengths_1: Sequence[int],
  lengths_2: Sequence[int],
  *,
  form: str = "length_controlled_minimal",
  difficulties: Sequence[float] | None = None,
  gamed: Gamed | None = None,
) -> LengthControlled:
  """The win rate that a model would have at the reference's lengths.

      length_controlled([2, 1.2, 1.9, ...], [350, ...], [900, ...]).win_rate

  Args:
    preferences: in [1, 2], 2 for the model.
    lengths_1, lengths_2: characters of the reference's and the model's output.
    form: see the head of this file.
    difficulties: of the instructions; needed by v1 and noreg.
    gamed: needed by v1.

  Raises:
    UserError: an unknown form; something that the form needs is missing, or
      was given and is not read; fewer pairs than folds; lists of different
      lengths; what `win_rate.checked` refuses.
  """
  check_known("LENGTH_CONTROL", form, FORMS)
  _check_given(form, difficulties, gamed)
  soft_R = win_rate.checked(preferences) - 1
  n, raw = len(soft_R), 100 * soft_R.mean()
  for name, values in (
    ("lengths_1", lengths_1),
    ("lengths_2", lengths_2),
    ("difficulties", difficulties),
  ):
    if values is not None and len(values) != n:
      raise UserError(
        f"{name} has {len(values)} numbers, not {n} as the pairs."
      )
  if n < FOLDS:
    raise UserError(
      f"a length-controlled win rate of {n} pairs: its regression needs"
      f" {FOLDS} or more. Set LENGTH_CONTROL to None."
    )
  delta_R = np.asarray(lengths_1, np.float64) - np.asarray(lengths_2)
  sd = delta_R.std(ddof=1)
  # Where all differences are equal there is nothing that they could explain.
  delta_R = delta_R / sd if sd > 0 else np.zeros(n)
  columns = {"np.tanh(std_delta_len)": np.tanh(delta_R)}
  if difficulties is not None:
    columns["instruction_difficulty"] = np.asarray(difficulties, np.float64)
  columns["not_gamed_baseline.astype(float)"] = np.ones(n)
  features_RW = np.stack(list(columns.values()), axis=1)
  at_equal_RW = features_RW.copy()
  at_equal_RW[:, 0] = 0.0
  importance_R = np.ones(n)
  if gamed is not None:
    features_RW, soft_R, importance_R = _with_gamed(features_RW, soft_R, gamed)
  strength = _strength(features_RW, soft_R, importance_R)
  draw = np.random.RandomState(SEED)
  weights_W = _fit(features_RW, soft_R, importance_R, strength, draw)
  predicted_R = _sigmoid(at_equal_RW @ weights_W)
  controlled = 100 * predicted_R.mean()
  return LengthControlled(
    win_rate=float(controlled),
    standard_error=100 * float(predicted_R.std(ddof=1)) / math.sqrt(n),
    weights=dict(zip(columns, map(float, weights_W), strict=True)),
    strength=float(strength),
    form=form,
    preferences=tuple(map(float, predicted_R)),
    warning=_warning(raw, controlled),
  )


def _check_given(form, difficulties, gamed):
  needs = {
    "difficulties": (difficulties, form != "length_controlled_minimal"),
    "gamed rows": (gamed, form == "length_controlled_v1"),
  }
  for name, (given, needed) in needs.items():
    if needed and given is None:
      raise UserError(
        f"LENGTH_CONTROL {form!r} needs {name}. Give them, or use"
        " 'length_controlled_minimal', which is for sets without."
      )
    if given is not None and not needed:
      raise UserError(f"{name} have no effect with LENGTH_CONTROL {form!r}.")


def _with_gamed(features_RW, soft_R, gamed):
  gamed_RW = np.stack(
    [
      np.tanh(np.asarray(gamed.differences, np.float64)),
      np.asarray(gamed.difficulties, np.float64),
      np.zeros(len(gamed.preferences)),
    ],
    axis=1,
  )
  importance_R = np.concatenate(
    [np.full(len(gamed_RW), GAMED_WEIGHT), np.ones(len(features_RW))]
  )
  return (
    np.concatenate([gamed_RW, features_RW]),
    np.concatenate([np.asarray(gamed.preferences, np.float64), soft_R]),
    importance_R,
  )


def _fit(
  features_RW: Float[np.ndarray, "R W"],
  soft_R,
  importance_R,
  strength,
  draw: np.random.RandomState,
) -> Float[np.ndarray, " W"]:
  """Weights; a soft label is the row twice, as a 1 and as a 0."""
  model = linear_model.LogisticRegression(
    C=strength,
    l1_ratio=1.0,
    solver="liblinear",
    fit_intercept=False,
    random_state=draw,
  )
  n = len(soft_R)
  model.fit(
    np.concatenate([features_RW, features_RW]),
    np.concatenate([np.ones(n), np.zeros(n)]),
    sample_weight=np.concatenate(
      [soft_R * importance_R, (1 - soft_R) * importance_R]
    ),
  )
  return model.coef_[0]


def _strength(features_RW, soft_R, importance_R) -> float:
  n = len(soft_R)
  losses = np.zeros(len(STRENGTHS))
  # Both copies of a row are in one fold.
  groups = np.tile(np.arange(n), 2)
  folds = model_selection.GroupKFold(FOLDS)
  for train, test in folds.split(groups, groups=groups):
    train, test = np.unique(groups[train]), np.unique(groups[test])
    # liblinear visits the weights in a drawn order and stops at a tolerance:
    # scikit-learn's own search goes on with the draws of a fold, so do we.
    draw = np.random.RandomState(SEED)
    for i, strength in enumerate(STRENGTHS):
      weights_W = _fit(
        features_RW[train], soft_R[train], importance_R[train], strength, draw
      )
      q = _sigmoid(features_RW[test] @ weights_W)
      q = np.clip(q, EPSILON, 1 - EPSILON)
      p = soft_R[test]
      loss = -(p * np.log(q) + (1 - p) * np.log(1 - q)) * importance_R[test]
      losses[i] += loss.mean() / FOLDS
  return STRENGTHS[int(np.argmin(losses))]


def _sigmoid(x):
  return np.exp(-np.logaddexp(0, -x))


def _warning(raw: float, controlled: float) -> str:
  """AlpacaEval's test for a regression that may have failed."""
  low = min(raw - raw / 4, raw - 10)
  high = max(raw + (100 - raw) / 4, raw + 10)
  if low <= controlled <= high:
    return ""
  return (
    f"the length-controlled win rate, {controlled:.1f} %, is far from the raw"
    f" one, {raw:.1f} %: the regression may not fit these pairs."
  )
