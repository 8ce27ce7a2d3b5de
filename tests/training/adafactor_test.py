import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax.errors import UserError
from flan_jax.training import adafactor, loss, optimiser, state, step
from tests.training import t5x_reference


def trained(kind, folder):
  """Our state after the four steps T5X made, from its parameters and batch."""
  make = optimiser.adafactor(0.01, **t5x_reference.OPTIMISERS[kind])
  train = state.create(t5x_reference.tree(folder / "params_step0.npz"), make)
  step_fn = jax.jit(
    functools.partial(
      step.train_step,
      model=t5x_reference.model(),
      optimiser=make,
      loss_config=loss.LossConfig(z_loss=1e-4, normalizing_factor=None),
    )
  )
  batch = t5x_reference.batch(folder / "batch.npz")
  metrics = []
  for _ in range(4):
    train, scalars = step_fn(train, batch)
    metrics.append(scalars)
  return train, metrics


@pytest.mark.parametrize("kind", t5x_reference.OPTIMISERS)
def test_four_steps_agree_with_t5x(kind, t5x_fixtures):
  folder = t5x_fixtures / kind
  train, metrics = trained(kind, folder)
  theirs = t5x_reference.flat(folder / "params_step4.npz")
  _check(named(train.params), theirs)
  theirs = t5x_reference.flat(folder / "opt_state_step4.npz")
  ours = named({"state": adafactor.to_t5x_slots(train.opt_state)})
  assert {k: v.shape for k, v in ours.items()} == {
    k: v.shape for k, v in theirs.items()
  }
  _check(ours, theirs)
  import json

  trace = json.loads((folder / "info.json").read_text())["train_trace"]
  for scalars, expected in zip(metrics, trace, strict=True):
    for name in ("loss", "z_loss", "accuracy", "learning_rate"):
      np.testing.assert_allclose(scalars[name], expected[name], rtol=1e-5)


def named(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {adafactor.path_name(path): np.asarray(x) for path, x in leaves}


def _check(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name in theirs:
    error = t5x_reference.relative_error(ours[name], theirs[name])
    # Slots of squared gradients double a gradient's rounding: in one of 104,
    # float32 leaves 1.4e-5, whichever way attention and products are ordered.
    squared = name.rpartition("/")[2] in ("v", "v_row", "v_col")
    assert error <= (2e-5 if squared else 1e-5), f"{name}: {error}"


@pytest.mark.parametrize("kind", t5x_reference.OPTIMISERS)
def test_state_of_t5x_is_read_back(kind, t5x_fixtures):
  folder = t5x_fixtures / kind
  make = optimiser.adafactor(0.01, **t5x_reference.OPTIMISERS[kind])
  like = make.init(t5x_reference.tree(folder / "params_step0.npz"))
  theirs = t5x_reference.tree(folder / "opt_state_step4.npz")["state"]
  ours = adafactor.from_t5x_slots(theirs, like)
  assert jax.tree.structure(ours) == jax.tree.structure(like)
  assert int(ours.count) == 4
  again = named(adafactor.to_t5x_slots(ours))
  for name, value in named(theirs).items():
    np.testing.assert_array_equal(again[name], value)
  other = optimiser.adafactor(0.01, min_dim_size_to_factor=2, beta1=0.5)
  with pytest.raises(UserError, match="Set beta1, factored"):
    adafactor.from_t5x_slots(theirs, other.init(t5x_params(folder)))


def t5x_params(folder):
  return t5x_reference.tree(folder / "params_step0.npz")


def reference_step(x, g, slots, t, rate, *, beta1, decay, factored):
  """Algorithm 4 to 6 on one matrix, in float64 numpy."""
  beta2 = 1 - (t + 1.0) ** -0.8
  square = g**2 + 1e-30
  if factored:
    # Rows are the smaller dimension; v_row is the mean over columns.
    columns = 1 if x.shape[0] <= x.shape[1] else 0
    for slot, axis in (("v_row", columns), ("v_col", 1 - columns)):
      slots[slot] = beta2 * slots[slot] + (1 - beta2) * square.mean(axis)
    row = np.expand_dims(slots["v_row"] / slots["v_row"].mean(), columns)
    v = row * np.expand_dims(slots["v_col"], 1 - columns)
  else:
    v = slots["v"] = beta2 * slots["v"] + (1 - beta2) * square
  u = g / np.sqrt(v)
  u /= max(1.0, np.sqrt((u**2).mean()))
  u *= rate * max(1e-3, np.sqrt((x**2).mean()))
  if beta1:
    u = slots["m"] = beta1 * slots["m"] + (1 - beta1) * u
  return x * (1 - decay) - u


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (8, 8), (3, 12), (5,)])
@pytest.mark.parametrize("beta1", [None, 0.9])
def test_agrees_with_the_algorithm(shape, beta1):
  rng = np.random.default_rng(0)
  make = optimiser.adafactor(
    lambda count: 0.1 / (count + 1.0),
    min_dim_size_to_factor=8,
    beta1=beta1,
    weight_decay_rate=0.01,
  )
  x = rng.normal(size=shape)
  params = {"w": jnp.asarray(x, jnp.float32)}
  opt_state = make.init(params)
  slots = {
    slot: np.zeros(value.shape)
    for slot, value in opt_state.param_states["w"].items()
  }
  factored = min(shape) >= 8 and len(shape) == 2
  assert ("v_row" in slots) == factored
  assert ("m" in slots) == (beta1 is not None)
  for t in range(4):
    g = rng.normal(size=shape)
    gradients = {"w": jnp.asarray(g, jnp.float32)}
    updates, opt_state = make.update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    x = reference_step(
      x, g, slots, t, 0.1 / (t + 1), beta1=beta1, decay=0.01, factored=factored
    )
    np.testing.assert_allclose(params["w"], x, rtol=2e-5, atol=1e-6)


def test_stacked_layers_are_updated_as_single_ones():
  rng = np.random.default_rng(1)
  make = optimiser.adafactor(0.1, min_dim_size_to_factor=4)
  shapes = {"kernel": (4, 6), "scale": (4,), "small": (2, 9)}
  draw = lambda: {  # noqa: E731
    f"layers_{i}": {
      name: jnp.asarray(rng.normal(0, 10**i, shape), jnp.float32)
      for name, shape in shapes.items()
    }
    for i in range(3)
  }
  stack = lambda tree: {  # noqa: E731
    "layers": jax.tree.map(lambda *x: jnp.stack(x), *tree.values())
  }
  params, gradients = draw(), draw()
  update = jax.jit(make.update)
  single, _ = update(gradients, make.init(params), params)
  both = stack(params)
  stacked, opt_state = update(stack(gradients), make.init(both), both)
  assert opt_state.param_states["layers"]["kernel"]["v_row"].shape == (3, 4)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    stacked,
    stack(single),
  )


def test_logical_axes_of_more_than_two_dimensions():
  # T5X's scanned layers: axis 1 is the layer.
  axes = ("embed", "layers", "mlp")
  how = adafactor.factoring((512, 6, 1024), axes)
  assert how == adafactor.Factoring((0, 2), (0,), (2,))
  scale = adafactor.factoring((512, 6), ("embed", "layers"))
  assert scale == adafactor.Factoring((0,))
  # Up to two dimensions without layers the shape decides.
  assert adafactor.factoring((512, 64), ("embed", "mlp")).rows is None
  for axes, message in [
    (None, "must be said by its logical axes"),
    (("embed", "mlp"), "one axis a dimension"),
    (("embed", "head", "kv"), "'head' of w is unknown"),
    (("embed", "relpos_buckets", "kv"), "cannot be factored"),
  ]:
    with pytest.raises(UserError, match=message):
      adafactor.factoring((512, 6, 64), axes, name="w")


def test_weights_in_low_precision_are_updated_in_float32():
  make = optimiser.adafactor(0.1)
  params = {"w": jnp.ones((3, 4), jnp.bfloat16)}
  gradients = {"w": jnp.full((3, 4), 2.0, jnp.bfloat16)}
  updates, opt_state = make.update(gradients, make.init(params), params)
  assert opt_state.param_states["w"]["v"].dtype == jnp.float32
  assert optax.apply_updates(params, updates)["w"].dtype == jnp.bfloat16


def test_frozen_branches_have_no_state():
  make = optimiser.adafactor(0.1)
  params = {"w": jnp.ones((3, 4)), "frozen": optax.MaskedNode()}
  opt_state = make.init(params)
  assert opt_state.param_states["frozen"] == optax.MaskedNode()
  updates, _ = make.update(params, opt_state, params)
  assert updates["frozen"] == optax.MaskedNode()
