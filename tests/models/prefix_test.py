"""A prefix set to the keys and values of tokens does what the tokens do."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import adapted, decoding, lora, prefix, rope, stack
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.training import axes
from tests.models import kinds

TOKENS = np.array([7, 11, 5, 7, 30], np.int32)
P = len(TOKENS)
INPUTS = np.array(
  [[4, 9, 3, 12, 1], [8, 2, 1, -1, -1], [6, -1, -1, -1, -1]], np.int32
)


def in_front(tokens_BS):
  before = np.broadcast_to(TOKENS, (len(tokens_BS), P))
  return np.concatenate([before, tokens_BS], axis=1).astype(np.int32)


def of_tokens(scan=False):
  """A decoder whose prefix is the cache of TOKENS, and the model without."""
  base, params = kinds.tiny("decoder_only", scan=scan)
  c = base.config
  cached = jax.jit(base.encode)(params, TOKENS[None]).layers
  # A prefix stands before position 0, not at it.
  cos, sin = rope.angles(jnp.full((1, P), -P), c.head_dim, c.rope_theta)

  def own(layer):
    key, value = (jnp.swapaxes(x, 1, 2) for x in layer)
    turned = rope.rotate(key, cos, sin)
    return {
      "prefix_key": turned.reshape(P, -1),
      "prefix_value": value.reshape(P, -1),
    }

  layers = (
    {"layers": jax.vmap(own)(cached)}
    if scan
    else {f"layers_{i}": own(layer) for i, layer in enumerate(cached)}
  )
  tree = {n: {"self_attention": x} for n, x in layers.items()}
  model = prefix.Prefix(P).on(base)
  assert jax.tree.map(jnp.shape, {"decoder": tree}) == jax.tree.map(
    jnp.shape, model.initial(jax.random.key(0))
  )
  return model, {**params, prefix.KEY: {"decoder": tree}}, base, params


def logits(model, params, tokens):
  batch = {
    "decoder_input_tokens": np.maximum(tokens, 0),
    "decoder_segment_ids": (tokens >= 0).astype(np.int32),
  }
  return jax.jit(model.logits)(params, batch)


def test_a_decoders_logits_scores_and_answers_are_those_of_the_tokens():
  model, own, base, params = of_tokens(scan=True)
  whole = in_front(INPUTS)
  real = INPUTS >= 0
  ours = logits(model, own, INPUTS)
  theirs = logits(base, params, whole)[:, P:]
  np.testing.assert_allclose(ours[real], theirs[real], atol=1e-5)

  config = DecodeConfig(max_decode_len=4, end_ids=(1,), return_scores=True)
  said = decoding.decode(model, own, INPUTS, config)

  @functools.partial(jax.jit, static_argnums=0)
  def score(model, params, tokens):
    return model.score(params, model.encode(params, tokens), said.tokens_BKT)

  wanted = score(base, params, whole)
  np.testing.assert_allclose(score(model, own, INPUTS), wanted, atol=1e-5)
  np.testing.assert_allclose(said.scores_BK, wanted.sum(-1), atol=1e-5)


def test_every_segment_of_a_packed_row_reads_the_prefix():
  """Of a model that is not scanned."""
  model, own, base, params = of_tokens()
  packed = {
    "decoder_input_tokens": np.array([[*INPUTS[0, :4], *INPUTS[1, :3]]]),
    "decoder_segment_ids": np.array([[1] * 4 + [2] * 3]),
    "decoder_positions": np.array([[0, 1, 2, 3, 0, 1, 2]]),
  }
  ours = jax.jit(model.logits)(own, packed)[0]
  alone = logits(base, params, in_front(INPUTS[:2]))
  np.testing.assert_allclose(ours[:4], alone[0, P : P + 4], atol=1e-5)
  np.testing.assert_allclose(ours[4:], alone[1, P : P + 3], atol=1e-5)


def test_an_encoder_decoders_logits_are_those_of_the_tokens():
  """All three attentions, without the bias by which tokens have a place."""
  base, params = kinds.tiny("encoder_decoder")
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: 0.0 * x if "rel_embedding" in str(path) else x, params
  )
  inputs, targets = INPUTS[:1], np.array([[3, 9, 1]], np.int32)
  whole = {
    "encoder_input_tokens": in_front(inputs),
    "decoder_input_tokens": in_front(np.array([[0, 3, 9]])),
    "decoder_target_tokens": in_front(targets),
  }
  apply = functools.partial(
    base.module.apply,
    capture_intermediates=lambda module, name: name == "keys_values",
  )
  hidden, kept = jax.jit(apply)({"params": params}, whole)
  wanted = base.head(params).logits(hidden)[:, P:]

  def first(node):
    if "keys_values" not in node:
      return {n: first(x) for n, x in node.items()}
    key, value = (x[0, :P].reshape(P, -1) for x in node["keys_values"][0])
    return {"prefix_key": key, "prefix_value": value}

  tree = first(kept["intermediates"])
  batch = {
    "encoder_input_tokens": inputs,
    "decoder_input_tokens": np.array([[0, 3, 9]]),
    "decoder_target_tokens": targets,
  }
  model = prefix.Prefix(P).on(base)
  own = {**params, prefix.KEY: tree}
  ours = jax.jit(model.logits)(own, batch)
  np.testing.assert_allclose(ours, wanted, atol=1e-5)
  scanned = prefix.Prefix(P).on(kinds.tiny("encoder_decoder", scan=True)[0])
  stacked = {
    **stack.stack_layers(params), prefix.KEY: stack.stack_layers(tree)
  }
  ours = jax.jit(scanned.logits)(stacked, batch)
  np.testing.assert_allclose(ours, wanted, atol=1e-5)

  @jax.jit
  def score(choices_BCT):
    return model.score(own, model.encode(own, inputs), choices_BCT)

  np.testing.assert_allclose(
    score(targets[:, None])[0, 0],
    jax.nn.log_softmax(wanted[0])[np.arange(3), targets[0]],
    atol=1e-5,
  )
  config = DecodeConfig(max_decode_len=3, end_ids=(1,), return_scores=True)
  decoded = decoding.decode(model, own, inputs, config)
  again = score(decoded.tokens_BKT).sum(-1)
  np.testing.assert_allclose(decoded.scores_BK, again, atol=1e-5)


def test_keys_before_a_bias_and_a_mask_are_read_by_all():
  """Plain softmax over P + S keys, of which the first have no bias."""
  from flan_jax.models import attention

  random = np.random.default_rng(0)
  query, key, value = random.normal(size=(3, 2, 4, 3, 8)).astype(np.float32)
  bias = random.normal(size=(3, 4, 4)).astype(np.float32)
  own = prefix.KeysValues(*random.normal(size=(2, 5, 24)).astype(np.float32))
  mask = np.tril(np.ones((1, 4, 4), bool))
  ours = attention.attend(query, *own(key, value, mask, bias))
  for b, t, h in np.ndindex(2, 4, 3):
    keys = np.concatenate([own.key.reshape(5, 3, 8)[:, h], key[b, : t + 1, h]])
    values = np.concatenate(
      [own.value.reshape(5, 3, 8)[:, h], value[b, : t + 1, h]]
    )
    scores = keys @ query[b, t, h]
    scores[5:] += bias[h, t, : t + 1]
    weights = np.exp(scores - scores.max())
    wanted = weights @ values / weights.sum()
    np.testing.assert_allclose(ours[b, t, h], wanted, atol=1e-5)


def test_each_example_has_its_own_prefix():
  model, own, _, _ = of_tokens(scan=True)
  tree = own[prefix.KEY]
  both = [tree, jax.tree.map(lambda x: -x, tree)]
  chosen = lora.choose(lora.bank(both), np.array([1, 0]))
  ours = logits(model, {**own, prefix.KEY: chosen}, INPUTS[:2])
  for row, which in enumerate((1, 0)):
    alone = {**own, prefix.KEY: both[which]}
    wanted = logits(model, alone, INPUTS[row : row + 1])[0]
    real = INPUTS[row] >= 0
    np.testing.assert_allclose(ours[row][real], wanted[real], atol=1e-5)


@pytest.mark.parametrize(
  ("kind", "targets", "found"),
  [("decoder_only", r".*/key/kernel", 2), ("encoder_decoder", r".*", None),
   ("encoder_decoder", r".*/key/kernel", 1 + 2 * 2),
   ("encoder_decoder", r"encoder/.*/key/kernel", 1)],
)  # fmt: skip
def test_attentions_are_chosen_by_the_names_of_their_keys(kind, targets, found):
  base, _ = kinds.tiny(kind)
  if found is None:
    with pytest.raises(UserError, match="PREFIX_TARGETS='.*' matches"):
      prefix.Prefix(targets=targets).on(base)
    return
  model = prefix.Prefix(3, targets=targets).on(base)
  assert len(model.targets) == 2 * found
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  every = axes.of_tree(shapes)
  assert {every[f"prefix/{n}"] for n in model.targets} == {
    ("prompt", "joined_kv")
  }
  said = json.loads(json.dumps(model.described()))
  assert adapted.recalled(base, said, "x") == model


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"length": 0}, "PREFIX_LENGTH=0 positions; it must be 1 or more"),
    ({"targets": "("}, "PREFIX_TARGETS='\\(' is no regular expression"),
    ({"targets": ".*kye/kernel"}, "matches no kernel .* nearest end in key"),
    ({"targets": ".*(key|value)/kernel"}, "value/kernel, which makes no keys"),
    ({"base_type": "nf3"}, "known are nf4, int8"),
  ],
)
def test_bad_input(options, message):
  base, _ = kinds.tiny("decoder_only")
  with pytest.raises(UserError, match=message):
    prefix.Prefix(**options).on(base)


def test_another_length_is_refused():
  base, _ = kinds.tiny("decoder_only")
  model = prefix.Prefix(3).on(base)
  with pytest.raises(UserError, match="of 4 positions; ADAPTER has 3"):
    model.check_same(prefix.Prefix(4).described(), "run")
