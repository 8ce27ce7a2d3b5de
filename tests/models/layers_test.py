import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models import attention, dense, layers


def test_relative_bucket_docstring_example():
  distances = np.array([-200, -9, -1, 0, 1])
  buckets = layers.relative_bucket(distances, bidirectional=True)
  np.testing.assert_array_equal(buckets, [15, 8, 1, 0, 17])


def test_causal_buckets_are_exact_to_15_and_grow_to_31():
  buckets = layers.relative_bucket(-np.arange(200), bidirectional=False)
  np.testing.assert_array_equal(buckets[:16], np.arange(16))
  assert buckets[127] == buckets[199] == 31
  assert (np.diff(buckets) >= 0).all()
  future = layers.relative_bucket(np.arange(9), bidirectional=False)
  assert not future.any()


def test_a_bucket_begins_exactly_at_its_power_of_two():
  # 8 exact buckets; 16, 32 and 64 are 2, 4 and 6 of the 8 steps to 128.
  distances = -np.array([8, 15, 16, 31, 32, 63, 64, 127, 128])
  buckets = layers.relative_bucket(distances, bidirectional=True)
  np.testing.assert_array_equal(buckets, [8, 9, 10, 11, 12, 13, 14, 15, 15])


def test_attention_mask_docstring_example():
  tokens = jnp.array([[5, 7, 0]])
  mask_BTS = layers.attention_mask(tokens, tokens, causal=True)
  np.testing.assert_array_equal(
    mask_BTS[0].astype(int), [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
  )


def test_dropout_shares_a_draw_along_the_length():
  x_BTD = jnp.ones((4, 6, 50))
  y_BTD = layers.dropout(x_BTD, 0.5, jax.random.key(0), broadcast_axis=-2)
  np.testing.assert_array_equal(y_BTD, y_BTD[:, :1] * jnp.ones((1, 6, 1)))
  assert set(np.unique(y_BTD)) == {0.0, 2.0}
  assert layers.dropout(x_BTD, 0.5, None) is x_BTD


def plain_attention(query, key, value, mask_BTS, bias_HTS, softcap=None):
  scores = jnp.einsum("bthk,bshk->bhts", query, key)
  if softcap is not None:
    scores = jnp.tanh(scores / softcap) * softcap
  scores += bias_HTS[None]
  scores = jnp.where(mask_BTS[:, None], scores, attention.MASKED)
  return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), value)


def attention_inputs():
  random = np.random.default_rng(0)
  shapes = ((4, 5, 3, 8), (4, 7, 3, 8), (4, 7, 3, 8), (3, 5, 7), (4, 5, 3, 8))
  arrays = [jnp.float32(random.standard_normal(s)) for s in shapes]
  *arrays, cotangent = arrays
  mask_BTS = jnp.array(random.random((4, 5, 7)) < 0.7).at[..., 0].set(True)
  return arrays, mask_BTS, cotangent


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("cache", [0, 2**20], ids=["in turn", "at once"])
def test_attention_and_its_gradient_are_those_of_the_plain_formula(
  cache, softcap, monkeypatch
):
  monkeypatch.setattr(attention, "CPU_CACHE", cache)
  (query, key, value, bias), mask_BTS, cotangent = attention_inputs()

  def vjp(attend):
    out, pull = jax.vjp(
      lambda q, k, v, b: attend(q, k, v, mask_BTS, b, softcap),
      query,
      key,
      value,
      bias,
    )
    return out, *pull(cotangent)

  for ours, theirs in zip(
    vjp(attention.attend), vjp(plain_attention), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_attention_docstring_example():
  query, key = jnp.ones((1, 1, 1, 2)), jnp.ones((1, 3, 1, 2))
  value = jnp.array([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])[None, :, None]
  mask_BTS = jnp.array([[[True, True, False]]])
  out = attention.attend(query, key, value, mask_BTS)
  np.testing.assert_allclose(out, [[[[2.0, 1.0]]]])


def test_a_query_without_any_key_averages_over_all():
  (query, key, value, bias), mask_BTS, _ = attention_inputs()
  out = attention.attend(query, key, value, mask_BTS & False, bias)
  expected = jnp.broadcast_to(value.mean(axis=1, keepdims=True), out.shape)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("tpu", False)])
def test_only_a_cpu_takes_one_example_after_another(platform, loops):
  x = jnp.zeros((16, 256, 2, 8))
  assert x.shape[0] * 2 * 256 * 256 >= attention.CPU_CACHE
  mask_BTS = jnp.ones((16, 256, 256), bool)

  def total(x):
    return attention.attend(x, x, x, mask_BTS).sum()

  lowered = jax.jit(jax.grad(total)).trace(x)
  text = lowered.lower(lowering_platforms=(platform,)).as_text()
  assert ("stablehlo.while" in text) == loops


def test_project_has_the_gradients_of_a_product():
  random = np.random.default_rng(0)
  for d_in, d_out in ((3, 7), (7, 3)):
    x, kernel, cotangent = (
      jnp.float32(random.standard_normal(s))
      for s in ((2, 5, d_in), (d_in, d_out), (2, 5, d_out))
    )
    _, ours = jax.vjp(dense.project, x, kernel)
    _, theirs = jax.vjp(jnp.matmul, x, kernel)
    for a, b in zip(ours(cotangent), theirs(cotangent), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_norms_are_their_formulas():
  random = np.random.default_rng(0)
  x, scale = random.standard_normal((3, 8)), random.standard_normal(8)
  rms = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  params = {"params": {"scale": jnp.float32(scale)}}
  plain = layers.RMSNorm().apply(params, x)
  np.testing.assert_allclose(plain, rms * scale, rtol=1e-5)
  one_plus = layers.RMSNorm(one_plus=True)
  np.testing.assert_allclose(
    one_plus.apply(params, x), rms * (1 + scale), rtol=1e-5, atol=1e-6
  )
  assert not one_plus.init(jax.random.key(0), x)["params"]["scale"].any()
  centred = x - x.mean(-1, keepdims=True)
  expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
  ours, variables = layers.LayerNorm().init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
  assert not variables


def test_relative_bias_of_one_traced_query_is_a_row_of_the_whole():
  bias = layers.RelativePositionBias(num_heads=2, bidirectional=False)
  index_S = np.arange(150)
  whole_HTS, variables = bias.init_with_output(
    jax.random.key(0), index_S, index_S
  )

  @jax.jit
  def one(index):
    return bias.apply(variables, index[None], index_S)

  for index in (0, 7, 149):
    row_H1S = one(jnp.int32(index))
    np.testing.assert_allclose(row_H1S[:, 0], whole_HTS[:, index], rtol=1e-6)
