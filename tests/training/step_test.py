import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.data import features
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.head import Head
from flan_jax.models.t5 import EncoderDecoder, T5Config
from flan_jax.training import loss, optimiser, schedule, state, step
from tests.training import t5x_reference

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "train_step.json"
B, S, T, V, D = 8, 6, 5, 13, 4


class TinyModel:
  """Mean of the input's embeddings, plus the decoder's, times a head."""

  def __init__(self, dropout_rate=0.0):
    self.dropout_rate = dropout_rate

  def init(self):
    keys = jax.random.split(jax.random.key(1), 2)
    return {
      "embedding": jax.random.normal(keys[0], (V, D)),
      "head": {"kernel": jax.random.normal(keys[1], (D, V))},
    }

  def hidden(self, params, batch, *, dropout_rng=None):
    table = params["embedding"]
    inputs_BSD = table[batch["encoder_input_tokens"]]
    x_BTD = table[batch["decoder_input_tokens"]]
    x_BTD = x_BTD + inputs_BSD.mean(axis=1, keepdims=True)
    if dropout_rng is not None and self.dropout_rate:
      keep = jax.random.bernoulli(
        dropout_rng, 1 - self.dropout_rate, x_BTD.shape
      )
      x_BTD = jnp.where(keep, x_BTD, 0.0)
    return x_BTD

  def head(self, params):
    return Head(params["head"]["kernel"])

  def logits(self, params, batch):
    return self.head(params).logits(self.hidden(params, batch))


def ragged_batch(seed=0):
  """Rows with 1 to T target tokens, so that micro-batches weigh unequally."""
  rng = np.random.default_rng(seed)
  lengths = np.array([T, 1, 1, 2, T, 1, 3, 1])
  real = np.arange(T) < lengths[:, None]
  targets_BT = np.where(real, rng.integers(1, V, (B, T)), 0).astype(np.int32)
  return {
    "encoder_input_tokens": rng.integers(0, V, (B, S)).astype(np.int32),
    "decoder_input_tokens": np.roll(targets_BT, 1, axis=1),
    "decoder_target_tokens": targets_BT,
    "decoder_loss_weights": real.astype(np.float32),
  }


def step_function(model=None, make=None, config=None, **kwargs):
  make = make or optimiser.adamw(0.1)
  return jax.jit(
    functools.partial(
      step.train_step,
      model=model or TinyModel(),
      optimiser=make,
      loss_config=config or loss.LossConfig(),
      **kwargs,
    )
  )


def fresh(make=None):
  return state.create(TinyModel().init(), make or optimiser.adamw(0.1))


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


FACTORS = [None, loss.REAL_TOKENS, loss.ALL_TOKENS, loss.PER_SEQUENCE, 7.0]


@pytest.mark.parametrize("factor", FACTORS)
def test_one_by_eight_equals_eight_by_one(factor):
  config = loss.LossConfig(z_loss=0.01, normalizing_factor=factor)
  batch = ragged_batch()
  whole, metrics = step_function(config=config)(fresh(), batch)
  parts, part_metrics = step_function(config=config, accumulate=8)(
    fresh(), batch
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6),
    (parts, part_metrics),
    (whole, metrics),
  )


@pytest.mark.parametrize("factor", FACTORS)
def test_gradient_is_that_of_the_divided_loss(factor):
  batch = ragged_batch()
  params = TinyModel().init()
  weights_BT, divisor = loss.token_weights(batch, factor)

  def plain(params):
    logits_BTV = TinyModel().logits(params, batch)
    log_prob_BTV = jax.nn.log_softmax(logits_BTV)
    picked_BT = jnp.take_along_axis(
      log_prob_BTV, batch["decoder_target_tokens"][..., None], axis=-1
    )[..., 0]
    return -jnp.sum(picked_BT * weights_BT) / divisor

  value, gradient = jax.value_and_grad(plain)(params)
  config = loss.LossConfig(z_loss=0.0, normalizing_factor=factor)
  _, metrics = step_function(config=config)(fresh(), batch)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
  np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
  np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)


def test_a_decoder_s_inputs_are_what_it_reads_and_does_not_predict():
  """Ids say nothing: 0 may be a token, and padding may have any id."""
  made = features.decoder_only_batches(
    [{"inputs": [0, 3, 5], "targets": [0, 1]}, {"inputs": [2], "targets": [1]}],
    lengths={"inputs": 8, "targets": 4},
    batch_size=2,
    begin_id=0,
  )
  model = DecoderOnly(
    DecoderConfig(vocab_size=8, emb_dim=4, num_heads=1, num_layers=1)
  )
  start = state.create(model.init(jax.random.key(0)), optimiser.adamw(0.1))
  _, metrics = step_function(model=model)(start, next(made))
  assert float(metrics["target_tokens"]) == 3
  assert float(metrics["input_tokens"]) == 4


def test_metrics_are_what_they_say():
  batch = ragged_batch()
  make = optimiser.adamw(schedule.linear(0.1, 10))
  start = fresh(make)
  new, metrics = step_function(make=make)(start, batch)
  assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())
  assert int(new.step) == 1
  logits_BTV = TinyModel().logits(start.params, batch)
  hits_BT = np.argmax(logits_BTV, -1) == batch["decoder_target_tokens"]
  weights_BT = batch["decoder_loss_weights"]
  accuracy = (hits_BT * weights_BT).sum() / weights_BT.sum()
  np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
  assert float(metrics["target_tokens"]) == 19
  tokens = np.count_nonzero(batch["encoder_input_tokens"])
  assert float(metrics["input_tokens"]) == tokens
  np.testing.assert_allclose(metrics["learning_rate"], 0.1)
  np.testing.assert_allclose(
    metrics["cross_entropy"] + metrics["z_loss"], metrics["loss"], rtol=1e-6
  )
  _, metrics = step_function(make=make)(new, batch)
  np.testing.assert_allclose(metrics["learning_rate"], 0.09, rtol=1e-6)


@pytest.mark.parametrize(("spoil", "accumulate"), [("nan", 1), ("inf", 4)])
def test_a_step_that_is_not_finite_changes_nothing(spoil, accumulate):
  class Spoilt(TinyModel):
    def hidden(self, params, batch, *, dropout_rng=None):
      hidden_BTD = super().hidden(params, batch)
      return hidden_BTD.at[0, 0, 0].multiply(float(spoil))

  good = step_function(accumulate=accumulate)
  bad = step_function(Spoilt(), accumulate=accumulate)
  batch = ragged_batch()
  before, _ = good(fresh(), batch)
  after, metrics = bad(before, batch)
  assert float(metrics["nonfinite"]) == float(metrics["skipped"]) == 1
  assert_equal(after.params, before.params)
  assert_equal(after.opt_state, before.opt_state)
  assert int(after.step) == 2
  assert int(after.skipped) == 1
  # The next good step is as if the bad one had not been.
  resumed, metrics = good(after, batch)
  expected, _ = good(before, batch)
  assert float(metrics["nonfinite"]) == 0
  assert_equal(resumed.params, expected.params)


def test_a_batch_without_a_target_token_changes_nothing():
  batch = ragged_batch()
  batch["decoder_loss_weights"] = np.zeros((B, T), np.float32)
  new, metrics = step_function()(fresh(), batch)
  assert_equal(new.params, fresh().params)
  assert float(metrics["nonfinite"]) == 0
  assert float(metrics["skipped"]) == 1
  assert int(new.skipped) == 1


def test_dropout_depends_on_seed_and_step_alone():
  model = TinyModel(dropout_rate=0.5)
  batch = ragged_batch()
  run = step_function(model, dropout_seed=3)
  first, metrics = run(fresh(), batch)
  again, again_metrics = run(fresh(), batch)
  assert_equal(first, again)
  moved = fresh().replace(step=jnp.int32(1))
  _, other = run(moved, batch)
  _, seed = step_function(model, dropout_seed=4)(fresh(), batch)
  _, off = step_function(model)(fresh(), batch)
  losses = {float(m["loss"]) for m in (metrics, other, seed, off)}
  assert len(losses) == 4
  assert float(again_metrics["loss"]) in losses


def test_the_state_may_be_donated():
  run = jax.jit(
    functools.partial(
      step.train_step,
      model=TinyModel(),
      optimiser=optimiser.adafactor(0.1),
      loss_config=loss.LossConfig(),
      accumulate=2,
    ),
    donate_argnums=0,
  )
  batch = ragged_batch()
  start = fresh(optimiser.adafactor(0.1))
  new, _ = run(start, batch)
  assert start.params["embedding"].is_deleted()
  for _ in range(3):
    new, metrics = run(new, batch)
  assert run._cache_size() == 1, "the new state has another type than the old"
  assert float(metrics["skipped"]) == 0


def test_batch_that_does_not_divide():
  with pytest.raises(
    UserError, match=r"8 rows cannot be split into 3.*is [24]"
  ):
    step_function(accumulate=3)(fresh(), ragged_batch())


def test_every_row_is_in_one_micro_batch():
  batch = {"decoder_target_tokens": np.arange(12)[:, None]}
  parts = step._split(batch, 4)["decoder_target_tokens"]
  assert parts.shape == (4, 3, 1)
  np.testing.assert_array_equal(parts[1, :, 0], [1, 5, 9])
  assert sorted(np.ravel(parts)) == list(range(12))


def test_evaluation_sums_over_batches():
  params = TinyModel().init()
  run = functools.partial(
    step.eval_step,
    model=TinyModel(dropout_rate=0.5),
    loss_config=loss.LossConfig(),
  )
  both = [run(params, ragged_batch(seed)) for seed in (0, 1)]
  parts = run(params, ragged_batch(0), accumulate=4)
  np.testing.assert_allclose(parts.loss, both[0].loss, rtol=1e-5)
  means = step.summary(both)
  assert means["weight"] == 38
  np.testing.assert_allclose(
    means["loss"], (both[0].loss + both[1].loss) / 38, rtol=1e-6
  )
  _, metrics = step_function()(fresh(), ragged_batch(0))
  np.testing.assert_allclose(step.summary(both[:1])["loss"], metrics["loss"])
  with pytest.raises(UserError, match="no target token"):
    step.summary([])


def test_gradients_agree_with_t5x(t5x_fixtures):
  folder = t5x_fixtures / "t5_1_1"
  params = t5x_reference.tree(folder / "params_step4.npz")
  batch = t5x_reference.batch(folder / "batch.npz")
  collect = optimiser.Optimiser(
    init=lambda params: params,
    update=lambda gradients, _, params: (
      jax.tree.map(jnp.zeros_like, gradients),
      gradients,
    ),
    learning_rate=lambda count: 0.0,
  )
  config = loss.LossConfig(z_loss=1e-4, normalizing_factor=None)
  new, metrics = step_function(t5x_reference.model(), collect, config)(
    state.create(params, collect), batch
  )
  expected = t5x_reference.flat(folder / "batch.npz")["loss"]
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  theirs = t5x_reference.tree(folder / "grads_step4.npz")
  errors = jax.tree.map(t5x_reference.relative_error, new.opt_state, theirs)
  assert max(jax.tree.leaves(errors)) <= 1e-5


def golden_run():
  """Three steps of a small T5, float32: what the trainer computes."""
  model = EncoderDecoder(
    T5Config(
      vocab_size=V,
      emb_dim=8,
      num_heads=2,
      head_dim=4,
      mlp_dim=12,
      num_encoder_layers=1,
      num_decoder_layers=1,
      dropout_rate=0.1,
    )
  )
  rate = schedule.factors(
    "constant * rsqrt_decay", base_learning_rate=1.0, warmup_steps=100
  )
  make = optimiser.adafactor(rate, min_dim_size_to_factor=8)
  train = state.create(model.init(jax.random.key(0)), make)
  run = step_function(model, make, accumulate=2, dropout_seed=0)
  out = []
  for seed in range(3):
    train, metrics = run(train, ragged_batch(seed))
    out.append({name: float(value) for name, value in metrics.items()})
  return out


def test_golden_step():
  """Update: UPDATE_GOLDEN=1 pytest tests/training/step_test.py -k golden."""
  got = golden_run()
  if os.environ.get("UPDATE_GOLDEN"):
    GOLDEN.write_text(json.dumps(got, indent=1) + "\n")
  expected = json.loads(GOLDEN.read_text())
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
      np.testing.assert_allclose(
        ours[name],
        value,
        rtol=1e-4,
        err_msg=(
          f"{name} of a training step has changed. If that is what the change"
          " is for, say so and update the file; else find out why."
        ),
      )
