"""What is frozen costs nothing: no gradient, no slot, not one changed bit."""

import functools

import jax
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import decoder
from flan_jax.models.soft_prompt import KEY, SoftPrompt
from flan_jax.training import (
  compiled,
  optimiser,
  sharding,
  state,
  step,
  trainable,
)
from flan_jax.training.loss import LossConfig

TREE = {
  "encoder": {"norm": {"scale": 1}, "mlp": {"kernel": 2}},
  KEY: {"encoder": {"prompt": 3}},
}


def test_docstring_examples():
  assert trainable.chosen(["a/b", "a/c"], "a/b") == {"a/b"}
  parts = trainable.split(TREE, r"soft_prompt/.*")
  assert parts == ({KEY: {"encoder": {"prompt": 3}}}, {"encoder": TREE["encoder"]})
  assert trainable.merge(*parts) == TREE
  assert trainable.merge(TREE, None) is TREE


@pytest.mark.parametrize(
  ("regex", "message"),
  [
    ("soft_promt/.*", "matches none of the 3.*nearest are soft_prompt/encoder"),
    # Whole names are compared.
    ("soft_prompt", "whole names are compared"),
    (".*", "matches all 3 parameters"),
    ("(", "no regular expression"),
  ],
)
def test_a_regex_that_is_refused(regex, message):
  with pytest.raises(UserError, match=message):
    trainable.split(TREE, regex)


BASE = decoder.DecoderOnly(
  decoder.DecoderConfig(
    vocab_size=512, emb_dim=64, num_heads=2, head_dim=32, num_layers=2,
    mlp_dim=256,
  )
)  # fmt: skip


def batch():
  tokens_BT = np.random.default_rng(0).integers(2, 500, (4, 64))
  return {
    "decoder_input_tokens": tokens_BT.astype(np.int32),
    "decoder_target_tokens": np.roll(tokens_BT, -1, 1).astype(np.int32),
    "decoder_loss_weights": np.ones((4, 64), np.float32),
  }


def test_frozen_parameters_stay_bit_equal_and_have_no_slots():
  model = SoftPrompt(BASE, 4)
  params = model.init(jax.random.key(0))
  trained, frozen = trainable.split(params, model.trainable)
  before = jax.tree.map(np.array, frozen)
  was = np.array(trained[KEY]["decoder"]["prompt"])
  adamw = optimiser.adamw(1e-2)
  partition = sharding.Partition.of(sharding.Layout(), jax.devices()[:1])
  now = state.create(trained, adamw)
  shapes = partition.abstract_state(model, adamw, model.trainable)
  assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, now)
  slots = [x.size for x in jax.tree.leaves(now.opt_state) if x.ndim]
  assert slots == [4 * 64] * 2
  take = compiled.train_step(
    partition, now, model=model, optimiser=adamw, loss_config=LossConfig(),
    frozen=True,
  )  # fmt: skip
  for _ in range(3):
    now, metrics = take(now, frozen, batch())
  assert np.isfinite(float(metrics["loss"]))
  assert not np.array_equal(now.params[KEY]["decoder"]["prompt"], was)
  jax.tree.map(np.testing.assert_array_equal, frozen, before)


def test_a_whole_gradient_has_what_the_trained_part_alone_gets():
  model = SoftPrompt(BASE, 4)
  params = model.init(jax.random.key(0))
  trained, frozen = trainable.split(params, model.trainable)
  bound = trainable.Bound(model, frozen)

  def loss(params, model):
    return model.head(params).logits(model.hidden(params, batch())).mean()

  alone = jax.grad(loss)(trained, bound)
  whole = jax.grad(loss)(params, model)
  np.testing.assert_allclose(
    alone[KEY]["decoder"]["prompt"], whole[KEY]["decoder"]["prompt"], rtol=1e-5
  )


def test_no_product_is_made_for_the_gradient_of_a_frozen_kernel():
  model = SoftPrompt(BASE, 4)
  params = model.init(jax.random.key(0))
  trained, frozen = trainable.split(params, model.trainable)
  sgd = optimiser.adafactor(1e-3)
  take = functools.partial(
    step.train_step, optimiser=sgd, loss_config=LossConfig()
  )

  def operations(function, now):
    cost = jax.jit(function).lower(now).compile().cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["flops"]

  def part(now):
    return take(now, batch(), model=trainable.Bound(model, frozen))

  def whole(now):
    return take(now, batch(), model=model)

  few = operations(part, state.create(trained, sgd))
  all_of_them = operations(whole, state.create(params, sgd))
  # Forwards and backwards to the input are two of three products.
  assert few < 0.70 * all_of_them
