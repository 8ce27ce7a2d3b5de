"""LoRA beside kernels, and kernels in 4 and 8 bits."""


import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.convert import trees
from flan_jax.errors import UserError
from flan_jax.models import adapted as adapted_lib
from flan_jax.models import decoding, ia3, lora, stack
from flan_jax.training import axes
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


@pytest.mark.parametrize(
  ("kind", "scan"), [("encoder_decoder", False), ("decoder_only", True)]
)
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


def test_scanned_and_not_are_one_adapter():
  kind = "decoder_only"
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


def test_no_gradient_of_a_kernel_is_made():
  """Operations of a step: two thirds of full tuning's, and a little."""
  kind = "encoder_decoder"
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


@pytest.mark.parametrize(
  ("kind", "scan"), [("encoder_decoder", False), ("decoder_only", True)]
)
def test_axes_follow_the_kernel(kind, scan):
  model, _ = adapted(kind, scan, rank=2, base_type="nf4")
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  every = axes.of_tree(shapes)  # each has a line
  plain = axes.of_tree(jax.eval_shape(model.base.init, jax.random.key(0)))
  for name in model.targets:
    wide, out = plain[name][-2:]
    scope = name.removesuffix("/kernel")
    assert every[f"lora/{scope}/lora_a"][-2:] == (wide, lora.RANK_AXIS)
    assert every[f"lora/{scope}/lora_b"][-2:] == (lora.RANK_AXIS, out)
    assert every[f"{name}/nf4"][-3:] == (wide, "block", out)


def test_dropout_is_of_what_the_adapter_reads_alone():
  model, params = adapted("decoder_only", dropout=0.5)
  fresh = model.initial(jax.random.key(1))
  batch, rng = batch_of("decoder_only"), jax.random.key(7)

  def hidden(tree, rng=None):
    return model.hidden({**params, "lora": tree}, batch, dropout_rng=rng)

  np.testing.assert_array_equal(hidden(fresh, rng), hidden(fresh))
  tree = filled(fresh)
  assert not np.allclose(hidden(tree, rng), hidden(tree))
  np.testing.assert_array_equal(hidden(tree, rng), hidden(tree, rng))

  x = jnp.ones((4000, 1))
  one = lora.LowRank(jnp.ones((1, 1)), jnp.ones((1, 1)), 0.25)
  y = one(x, lambda x: 0.0 * x, jax.random.key(0), ())
  np.testing.assert_allclose(np.unique(y), [0.0, 4 / 3], rtol=1e-6)
  assert float(jnp.mean(y)) == pytest.approx(1.0, abs=0.03)


def test_each_example_has_its_own_adapter():
  """Ranking, and decoding with beams side by side; a bank of three."""
  kind = "encoder_decoder"
  model, params = adapted(kind, targets=r".*(query|wo)/kernel")
  fresh = model.initial(jax.random.key(1))
  trees_A = [filled(fresh, seed) for seed in range(3)]
  ids_B = np.array([2, 0])
  chosen = {**params, "lora": lora.choose(lora.bank(trees_A), ids_B)}
  inputs_BS = np.array([[3, 4, 5], [6, 7, -1]])
  choices_BCT = np.array([[[8, 1], [9, 1]]] * 2)
  together = model.score(chosen, model.encode(chosen, inputs_BS), choices_BCT)
  search = decoding.DecodeConfig(
    "beam", beam_size=2, max_decode_len=3, end_ids=(1,)
  )
  said = decoding.decode(model, chosen, inputs_BS, search)
  for row, which in enumerate(ids_B):
    own = {**params, "lora": trees_A[which]}
    alone = inputs_BS[row : row + 1]
    scores = model.score(
      own, model.encode(own, alone), choices_BCT[row : row + 1]
    )
    np.testing.assert_allclose(together[row], scores[0], atol=1e-5)
    its = decoding.decode(model, own, alone, search)
    np.testing.assert_array_equal(said.tokens_BKT[row], its.tokens_BKT[0])
  short = jax.tree.map(lambda x: x[..., :1], trees_A[0])
  with pytest.raises(UserError, match="same targets and rank"):
    lora.bank([trees_A[0], short])


def test_a_bank_of_scanned_layers():
  model, params = adapted("decoder_only", scan=True, targets=r".*query/kernel")
  trees_A = [filled(model.initial(jax.random.key(1)), s) for s in range(2)]
  batch = batch_of("decoder_only")
  chosen = lora.choose(lora.bank(trees_A), np.array([1, 0]))
  ours = model.logits({**params, "lora": chosen}, batch)
  for row in range(B):
    alone = {name: x[row : row + 1] for name, x in batch.items()}
    wanted = model.logits({**params, "lora": trees_A[1 - row]}, alone)
    np.testing.assert_allclose(ours[row], wanted[0], atol=1e-5)


def test_scale():
  base, params = kinds.tiny("decoder_only")
  tree = filled(lora.Lora(rank=4).on(base).initial(jax.random.key(0)))
  batch = batch_of("decoder_only")

  def logits(**options):
    model = lora.Lora(rank=4, **options).on(base)
    return model.logits({**params, "lora": tree}, batch)

  np.testing.assert_allclose(
    logits(alpha=8.0), logits(alpha=4.0, rank_stabilised=True), atol=1e-6
  )
  assert not np.allclose(logits(alpha=8.0), logits(alpha=4.0))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"rank": 0}, "rank is 0; it must be 1 or more"),
    ({"alpha": 0.0}, "alpha is 0.0"),
    ({"dropout": 1.0}, "dropout is 1.0"),
    ({"targets": "("}, "no regular expression"),
    ({"base_type": "nf3"}, "'nf3'; known are nf4, int8"),
    ({"base_type": "nf4", "base_rest": "f16"}, "known are float32, bfloat16"),
    ({"base_rest": "bfloat16"}, "has no effect"),
    ({"targets": ".*qurey/kernel"}, "matches no kernel .* nearest end in query"),
    ({"targets": ".*"}, "no kernel of a layer; an adapter stands beside"),
    ({"targets": ".*(query|relpos).*"}, "matches decoder/relpos_bias/rel_emb"),
    ({"rank": 17}, "LORA_RANK=17 is more than 16, the smaller side of"),
  ],
)
def test_bad_input(options, message):
  base, _ = kinds.tiny("encoder_decoder")
  with pytest.raises(UserError, match=message):
    lora.Lora(**options).on(base)


def test_some_layers_of_a_scanned_stack():
  base, _ = kinds.tiny("decoder_only", scan=True)
  with pytest.raises(UserError, match="matches 1 of the 2 layers of decoder"):
    lora.Lora(targets=r".*layers_1/.*query/kernel").on(base)
  unscanned, _ = kinds.tiny("decoder_only")
  model = lora.Lora(targets=r".*layers_1/.*query/kernel").on(unscanned)
  assert list(model.targets) == ["decoder/layers_1/self_attention/query/kernel"]


@pytest.mark.parametrize(
  ("kind", "scan"), [("encoder_decoder", False), ("decoder_only", True)]
)
def test_ia3_logits_are_those_of_kernels_times_vectors(kind, scan):
  base, params = kinds.tiny(kind, scan=scan)
  model = ia3.Ia3().on(base)
  batch, fresh = batch_of(kind), model.initial(jax.random.key(0))
  plain = base.logits(params, batch)
  ours = model.logits({**params, "ia3": fresh}, batch)
  np.testing.assert_array_equal(ours, plain)
  tree = filled(fresh)
  flat, own = trees.flatten(params), trees.flatten(tree)
  for name, vector in own.items():
    kernel = name.rsplit("/", 1)[0] + "/kernel"
    side = (..., None) if name.endswith("input") else (..., None, slice(None))
    flat[kernel] = flat[kernel] * vector[side]
  wanted = base.logits(trees.unflatten(flat), batch)
  ours = model.logits({**params, "ia3": tree}, batch)
  np.testing.assert_allclose(ours, wanted, atol=1e-5)
  assert float(jnp.max(jnp.abs(ours - plain))) > 0.01
  axes.of_tree(jax.eval_shape(model.init, jax.random.key(0)))
  said = json.loads(json.dumps(model.described()))
  assert adapted_lib.recalled(base, said, "x") == model


def test_bad_input_of_ia3():
  base, _ = kinds.tiny("decoder_only")
  with pytest.raises(UserError, match="both match decoder/layers_0/mlp/wo"):
    ia3.Ia3(outputs=".*mlp/wo/kernel").on(base)
  with pytest.raises(UserError, match="IA3_INPUTS='x' matches no kernel"):
    ia3.Ia3(inputs="x").on(base)
  with pytest.raises(UserError, match="'rank'; known are outputs"):
    adapted_lib.recalled(base, {"kind": "ia3", "rank": 3}, "x")


def test_described_and_recalled():
  base, _ = kinds.tiny("encoder_decoder")
  model = lora.Lora(rank=4, alpha=2.0, base_type="int8").on(base)
  said = json.loads(json.dumps(model.described()))
  assert adapted_lib.recalled(base, said, "x") == model
  with pytest.raises(UserError, match="'rnak'; known .* nearest is 'rank'"):
    lora.Lora.of({"kind": "lora", "rnak": 3})
