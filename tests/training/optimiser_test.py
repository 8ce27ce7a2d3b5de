import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax.errors import UserError
from flan_jax.training import optimiser, schedule


def test_adamw_agrees_with_the_algorithm():
  rng = np.random.default_rng(0)
  rate = schedule.linear(0.1, 10, warmup_steps=2)
  make = optimiser.adamw(rate, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3)
  names = ("kernel", "scale", "bias", "rel_embedding")
  x = {name: rng.normal(size=(3, 4)) for name in names}
  params = {name: jnp.asarray(value, jnp.float32) for name, value in x.items()}
  opt_state = make.init(params)
  m, v = ({name: np.zeros((3, 4)) for name in x} for _ in range(2))
  for t in range(5):
    g = {name: rng.normal(size=(3, 4)) for name in x}
    gradients = {k: jnp.asarray(value, jnp.float32) for k, value in g.items()}
    updates, opt_state = make.update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    lr = float(rate(t))
    for name in x:
      m[name] = 0.8 * m[name] + 0.2 * g[name]
      v[name] = 0.95 * v[name] + 0.05 * g[name] ** 2
      first = m[name] / (1 - 0.8 ** (t + 1))
      second = v[name] / (1 - 0.95 ** (t + 1))
      step = first / (np.sqrt(second) + 1e-6)
      if name == "kernel":
        step = step + 0.3 * x[name]
      x[name] = x[name] - lr * step
      np.testing.assert_allclose(params[name], x[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [optimiser.adafactor, optimiser.adamw])
def test_clipping_the_global_norm(make):
  params = {"a": jnp.ones((2, 2)), "b": jnp.ones((3,))}
  large = {"a": jnp.full((2, 2), 30.0), "b": jnp.full((3,), -40.0)}
  norm = optax.tree.norm(large)
  clipped = make(0.1, clip_global_norm=0.5)
  plain = make(0.1)
  scaled = {name: g * (0.5 / norm) for name, g in large.items()}
  ours, ours_state = clipped.update(large, clipped.init(params), params)
  theirs, theirs_state = plain.update(scaled, plain.init(params), params)
  for name in params:
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
  # Clipping does not change the tree that a checkpoint holds.
  assert type(ours_state) is type(theirs_state)
  # A small gradient is left alone, bit for bit.
  small = {name: 1e-3 * g / norm for name, g in large.items()}
  ours, _ = clipped.update(small, clipped.init(params), params)
  theirs, _ = plain.update(small, plain.init(params), params)
  for name in params:
    np.testing.assert_array_equal(ours[name], theirs[name])


def test_learning_rate_is_reported():
  make = optimiser.adafactor(schedule.linear(1.0, 10))
  assert float(make.learning_rate(5)) == 0.5
  assert float(optimiser.adamw(0.25).learning_rate(7)) == 0.25


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: optimiser.adafactor(
        1e-3, factored=False, min_dim_size_to_factor=8
      ),
      "no effect with factored=False",
    ),
    (lambda: optimiser.adafactor(1e-3, beta1=1.0), "beta1=1.0"),
    (
      lambda: optimiser.adafactor(1e-3, clip_global_norm=0),
      "clip_global_norm=0",
    ),
    (lambda: optimiser.adafactor(-1.0), "learning_rate=-1.0"),
    (lambda: optimiser.adafactor(1e-3, decay_rate=0), "decay_rate=0"),
    (lambda: optimiser.adamw(1e-3, weight_decay=-1), "weight_decay=-1"),
    (lambda: optimiser.adamw(1e-3, b2=1.0), "b2=1.0"),
  ],
)
def test_refused(call, message):
  with pytest.raises(UserError, match=message):
    call()
