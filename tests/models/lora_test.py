"""LoRA beside kernels, and kernels in 4 and 8 bits."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.convert import trees
from flan_jax.models import lora, stack
from tests.models import kinds

ALL = r".*layers_\d+/.*kernel"
B, S, T = 2, 6, 4


def batch_of(kind, seed=0):
  rng = np.random.default_rng(seed)
  tokens_BT = rng.integers(1, 32, (B, T)).astype(np.int32)
  batch = {
    "decoder_input_tokens": np.pad(tokens_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": tokens_BT,
    "decoder_loss_weights": np.ones((B, T), np.float32),
  }
  if kind == "encoder_decoder":
    inputs_BS = rng.integers(1, 32, (B, S)).astype(np.int32)
    return {"encoder_input_tokens": inputs_BS, **batch}
  return {**batch, "decoder_segment_ids": np.ones((B, T), np.int32)}


def filled(tree, seed=5, size=0.05):
  """The adapter after some training: B is no longer zero."""
  keys = iter(jax.random.split(jax.random.key(seed), 999))
  return jax.tree.map(
    lambda x: x + size * jax.random.normal(next(keys), x.shape), tree
  )


def adapted(kind, scan=False, **options):
  base, params = kinds.tiny(kind, scan=scan)
  model = lora.Lora(**{"rank": 3, "targets": ALL, **options}).on(base)
  return model, params


def merged(model, params, tree):
  """W + (alpha / r) A B by hand, in float64, kernel by kernel."""
  flat, own = trees.flatten(params), trees.flatten(tree)
  out = dict(flat)
  for name in model.targets:
    scope = name.removesuffix("/kernel")
    a, b = (np.asarray(own[f"{scope}/lora_{x}"], np.float64) for x in "ab")
    scale = model.options.alpha / model.options.rank
    out[name] = (np.asarray(flat[name], np.float64) + scale * (a @ b)).astype(
      np.float32
    )
  return trees.unflatten(out)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_logits_are_the_bases_at_the_start_and_the_merged_ones_later(
  kind, scan
):
  model, params = adapted(kind, scan)
  batch = batch_of(kind)
  logits = jax.jit(model.logits)
  base = jax.jit(model.base.logits)(params, batch)
  fresh = model.initial(jax.random.key(1))
  at_start = logits({**params, "lora": fresh}, batch)
  np.testing.assert_array_equal(at_start, base)

  tree = filled(fresh)
  later = logits({**params, "lora": tree}, batch)
  assert float(jnp.max(jnp.abs(later - base))) > 0.05
  wanted = jax.jit(model.base.logits)(merged(model, params, tree), batch)
  np.testing.assert_allclose(later, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_scanned_and_not_are_one_adapter(kind):
  model, params = adapted(kind)
  scanned, stacked = adapted(kind, scan=True)
  tree = filled(model.initial(jax.random.key(1)))
  assert set(scanned.targets) == {trees.stacked(n)[0] for n in model.targets}
  shapes = jax.tree.map(jnp.shape, stack.stack_layers(tree))
  assert shapes == jax.tree.map(jnp.shape, scanned.initial(jax.random.key(0)))
  batch = batch_of(kind)
  ours = model.logits({**params, "lora": tree}, batch)
  theirs = scanned.logits(
    {**stack.stack_layers(params), "lora": stack.stack_layers(tree)}, batch
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  del stacked


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_no_gradient_of_a_kernel_is_made(kind):
  """Operations of a step: two thirds of full tuning's, and a little."""
  model, params = adapted(kind, rank=1)
  tree, batch = model.initial(jax.random.key(1)), batch_of(kind)

  def flops(function, argument):
    compiled = jax.jit(jax.grad(function)).lower(argument).compile()
    return compiled.cost_analysis()["flops"]

  def of_adapter(tree):
    return jnp.sum(model.hidden({**params, "lora": tree}, batch) ** 2)

  def of_base(params):
    return jnp.sum(model.base.hidden(params, batch) ** 2)

  assert flops(of_adapter, tree) < 0.8 * flops(of_base, params)
