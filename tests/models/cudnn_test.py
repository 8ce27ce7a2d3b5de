"""Attention in cuDNN's kernel against XLA's products; needs a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models import attention, placement

NEEDS_GPU = pytest.mark.skipif(
  jax.default_backend() != "gpu", reason="jax sees no GPU"
)


def arrays(H, G, T, S, dtype=jnp.bfloat16):
  random = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(random.standard_normal(shape), dtype)

  B, K = 2, 64
  query = normal(B, T, H, K) * K**-0.5
  segments = np.sort(random.integers(0, 3, (B, S)))  # 0 is padding
  mask = segments[:, :T, None] == segments[:, None, :]
  # Padding reads nothing, as in T5.
  mask &= segments[:, None, :] > 0
  return query, normal(B, S, G, K), normal(B, S, G, K), mask, normal(H, T, S)


def test_a_cpu_and_what_cudnn_has_not_take_the_plain_form(monkeypatch):
  query, key, *_ = arrays(4, 2, 32, 64)
  if jax.default_backend() != "gpu":
    assert not attention.fits_cudnn(query, key)
  monkeypatch.setattr(placement, "platform", lambda: "gpu")
  assert attention.fits_cudnn(query, key)
  assert not attention.fits_cudnn(query.astype(jnp.float32), key)
  assert not attention.fits_cudnn(query, key, softcap=50.0)
  assert not attention.fits_cudnn(query[:, :31], key)
  assert not attention.fits_cudnn(query[:, :1], key)
  assert not attention.fits_cudnn(query[..., :60], key[..., :60])


@NEEDS_GPU
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
  ("H", "G", "T", "causal"), [(8, 8, 128, False), (8, 2, 128, True)]
)
def test_equal_to_the_plain_form(with_bias, H, G, T, causal, monkeypatch):
  query, key, value, mask, bias = arrays(H, G, T, 128)
  if causal:
    mask &= np.tril(np.ones((T, 128), bool))
  seen = mask.any(axis=2)[:, :, None, None]

  def loss(query, key, value, bias):
    bias = bias if with_bias else None
    out = attention.attend(query, key, value, mask, bias, causal=causal)
    out = out.astype(jnp.float32)
    return jnp.sum(jnp.where(seen, jnp.sin(3.0 * out), 0.0)), out

  def both(*x):
    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    gradients, out = grad(*x)
    return [jnp.where(seen, out, 0.0), *gradients]

  x = query, key, value, bias
  assert attention.fits_cudnn(query, key)
  ours = both(*x)
  monkeypatch.setattr(attention, "fits_cudnn", lambda *_: False)
  plain = both(*(y.astype(jnp.float32) for y in x))
  for a, b in zip(ours, plain, strict=True):
    a, b = np.float32(a), np.float32(b)
    assert np.all(np.isfinite(a))
    np.testing.assert_allclose(a, b, atol=0.02 * abs(b).max() + 1e-6)
