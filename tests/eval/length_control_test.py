"""The regression against scikit-learn's own cross-validation, and a plain
minimum."""

import warnings

import numpy as np
import pytest
import scipy.optimize
import sklearn
from sklearn import linear_model, metrics, model_selection

from flan_jax.errors import UserError
from flan_jax.eval import length_control
from flan_jax.eval.length_control import Gamed, length_controlled

N = 160


def made(seed=0, length=1.5, skill=0.4):
  """Preferences of a judge that likes long outputs; preferences, lengths,
  difficulties."""
  draw = np.random.default_rng(seed)
  lengths_1 = draw.integers(100, 3000, N)
  lengths_2 = draw.integers(400, 4000, N)
  difficulties = draw.normal(0, 1.5, N)
  delta = (lengths_2 - lengths_1) / (lengths_2 - lengths_1).std(ddof=1)
  logit = length * np.tanh(delta) + 0.5 * difficulties + skill
  p = 1 / (1 + np.exp(-logit - draw.normal(0, 1, N)))
  return 1 + p, lengths_1, lengths_2, difficulties


def gamed_rows(seed=5):
  draw = np.random.default_rng(seed)
  differences = draw.normal(0, 1, 2 * N)
  difficulties = draw.normal(0, 1.5, 2 * N)
  p = 1 / (1 + np.exp(1.2 * np.tanh(differences) - 0.3 * difficulties))
  return Gamed(p, differences, difficulties)


def table(preferences, lengths_1, lengths_2, difficulties, gamed):
  """Rows as AlpacaEval makes them: features, soft labels, importance."""
  delta = lengths_1 - lengths_2
  columns = [np.tanh(delta / delta.std(ddof=1))]
  if difficulties is not None:
    columns.append(difficulties)
  X = np.stack([*columns, np.ones(N)], 1)
  p, s = preferences - 1, np.ones(N)
  if gamed:
    more = np.stack(
      [np.tanh(gamed.differences), gamed.difficulties, np.zeros(2 * N)], 1
    )
    X = np.concatenate([more, X])
    p = np.concatenate([gamed.preferences, p])
    s = np.concatenate([np.full(2 * N, 0.1), s])
  return X, p, s


def by_scikit_learn(X, p, s):
  """LogisticRegressionCV with soft labels, through metadata routing."""

  def loss(y_true, y_pred, true_prob, true_weight):
    y = np.where(y_true == 1, true_prob, 1 - true_prob)
    q = np.clip(y_pred, 1e-15, 1 - 1e-15)
    return -np.mean((y * np.log(q) + (1 - y) * np.log(1 - q)) * true_weight)

  n = len(p)
  with sklearn.config_context(enable_metadata_routing=True):
    scorer = metrics.make_scorer(
      loss, response_method="predict_proba", greater_is_better=False
    ).set_score_request(true_prob=True, true_weight=True)
    model = linear_model.LogisticRegressionCV(
      Cs=10, cv=model_selection.GroupKFold(5), scoring=scorer,
      l1_ratios=(1.0,), solver="liblinear", fit_intercept=False,
      random_state=123, use_legacy_attributes=False,
    ).set_fit_request(sample_weight=True)
    soft = np.concatenate([p, 1 - p])
    weight = np.concatenate([s, s])
    model.fit(
      np.concatenate([X, X]), np.concatenate([np.ones(n), np.zeros(n)]),
      sample_weight=soft * weight, groups=np.tile(np.arange(n), 2),
      true_prob=soft, true_weight=weight,
    )
  return model.coef_[0], float(np.ravel(model.C_)[0])


def by_minimum(X, p, s, strength):
  """The minimum of the written loss, with w = u - v and u, v >= 0."""
  W = X.shape[1]

  def loss(uv):
    z = X @ (uv[:W] - uv[W:])
    nll = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
    q = 1 / (1 + np.exp(-z))
    gradient = strength * X.T @ (s * (q - p))
    value = uv.sum() + strength * (s * nll).sum()
    return value, np.concatenate([1 + gradient, 1 - gradient])

  found = scipy.optimize.minimize(
    loss, np.full(2 * W, 0.1), jac=True, method="L-BFGS-B",
    bounds=[(0, None)] * (2 * W), options={"maxiter": 5000, "ftol": 1e-14},
  )
  return found.x[:W] - found.x[W:]


@pytest.mark.parametrize("form", length_control.FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_and_rate(form, seed):
  preferences, lengths_1, lengths_2, difficulties = made(seed)
  difficulties = None if form.endswith("minimal") else difficulties
  gamed = gamed_rows() if form.endswith("v1") else None
  ours = length_controlled(
    preferences, lengths_1, lengths_2, form=form, difficulties=difficulties,
    gamed=gamed,
  )
  X, p, s = table(preferences, lengths_1, lengths_2, difficulties, gamed)
  weights, strength = by_scikit_learn(X, p, s)
  assert ours.strength == pytest.approx(strength)
  np.testing.assert_allclose(list(ours.weights.values()), weights, atol=1e-6)
  plain = by_minimum(X, p, s, strength)
  # liblinear stops at a tolerance of 1e-4.
  np.testing.assert_allclose(list(ours.weights.values()), plain, atol=3e-3)
  at_equal = X[-N:].copy()
  at_equal[:, 0] = 0
  rate = 100 / (1 + np.exp(-at_equal @ plain))
  assert ours.win_rate == pytest.approx(rate.mean(), abs=0.05)
  assert ours.standard_error == pytest.approx(
    rate.std(ddof=1) / N**0.5, abs=0.05
  )


def test_what_length_alone_has_won_is_taken_away():
  preferences, lengths_1, lengths_2, _ = made(length=2.5, skill=0.0)
  lengths_2 = lengths_2 + 1500
  delta = (lengths_2 - lengths_1) / (lengths_2 - lengths_1).std(ddof=1)
  preferences = 1 + 1 / (1 + np.exp(-2.5 * np.tanh(delta)))
  ours = length_controlled(preferences, lengths_1, lengths_2)
  raw = 100 * (preferences - 1).mean()
  assert raw > 75
  assert ours.win_rate == pytest.approx(50, abs=3)
  assert ours.weights["np.tanh(std_delta_len)"] < -1
  assert "far from the raw one" in ours.warning


def test_equal_lengths_leave_the_raw_rate():
  draw = np.random.default_rng(0)
  preferences = 1.3 + 0.7 * draw.random(60)
  lengths = [100] * 60
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    ours = length_controlled(preferences, lengths, lengths)
  assert ours.win_rate == pytest.approx(100 * (preferences - 1).mean(), abs=1)


def test_it_is_the_same_each_time_and_sets_nothing():
  before = sklearn.get_config()
  args = made()[:3]
  assert length_controlled(*args) == length_controlled(*args)
  assert sklearn.get_config() == before


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"form": "length_controlled_v2"}, "nearest is 'length_controlled_v1'"),
    ({"form": "length_controlled_noreg"}, "needs difficulties"),
    (
      {"form": "length_controlled_v1", "difficulties": [0.0] * N},
      "needs gamed rows",
    ),
    ({"difficulties": [0.0] * N}, "difficulties have no effect"),
    ({"lengths_2": [1]}, "lengths_2 has 1 numbers, not 160"),
    (
      {"preferences": [2.0], "lengths_1": [1], "lengths_2": [2]},
      "needs 5 or more",
    ),
    ({"preferences": [2.5] * N}, "preference number 0 is 2.5"),
  ],
)
def test_what_is_refused(options, message):
  names = ("preferences", "lengths_1", "lengths_2")
  given = dict(zip(names, made()[:3], strict=True)) | options
  positional = [given.pop(n) for n in names]
  with pytest.raises(UserError, match=message):
    length_controlled(*positional, **given)
