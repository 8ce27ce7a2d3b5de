"""The TPU's kernel, interpreted, against the plain form."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models import attention, attention_tpu, decoder


@pytest.mark.parametrize(
  ("G", "window", "softcap"), [(4, None, None), (2, 100, None), (1, None, 20.0)]
)
def test_equal_to_the_plain_form(G, window, softcap):
  B, T, H, K = 2, 256, 4, 64
  random = np.random.default_rng(0)
  query, key, value, upstream = (
    jnp.float32(random.standard_normal((B, T, heads, K)))
    for heads in (H, G, G, H)
  )
  query *= K**-0.5
  segments = jnp.asarray(np.sort(random.integers(0, 4, (B, T))))
  distance = np.arange(T)[:, None] - np.arange(T)
  mask = (segments[:, :, None] == segments[:, None]) & (distance >= 0)
  if window is not None:
    mask &= distance < window

  def plain(query, key, value):
    return attention.attend(query, key, value, mask, None, softcap)

  def kernel(query, key, value):
    return attention_tpu.attend(
      query,
      key,
      value,
      segments,
      window=window,
      softcap=softcap,
      interpret=True,
    )

  ours, back = jax.vjp(kernel, query, key, value)
  theirs, plain_back = jax.vjp(plain, query, key, value)
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  for a, b in zip(back(upstream), plain_back(upstream), strict=True):
    np.testing.assert_allclose(a, b, atol=5e-5)


def test_shapes_that_do_not_fit_are_named():
  query = jnp.zeros((1, 100, 4, 64))
  with pytest.raises(ValueError, match="100"):
    attention_tpu.attend(query, query, query, jnp.ones((1, 100), int))


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)
def test_a_sharded_step_for_a_tpu_has_the_kernel():
  """Compiled for four v5e chips, without one."""
  from flan_jax.planning import topology
  from flan_jax.training import optimiser, sharding, step
  from flan_jax.training.loss import LossConfig

  config = decoder.DecoderConfig(
    vocab_size=512,
    emb_dim=256,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    mlp_dim=256,
    num_layers=2,
    dtype="bfloat16",
    scan_layers=True,
    remat_policy="minimal",
  )
  model, adafactor = decoder.DecoderOnly(config), optimiser.adafactor(1e-3)
  partition = sharding.Partition.of(
    sharding.Layout({"data": 1, "fsdp": 2, "tensor": 2}),
    topology.tpu_devices(topology.named("v5e:2x2")),
    config=config,
    batch_size=4,
  )
  ids = np.ones((4, 256), np.int32)
  batch = {
    "decoder_input_tokens": ids,
    "decoder_target_tokens": ids,
    "decoder_segment_ids": ids,
    "decoder_loss_weights": np.ones((4, 256), np.float32),
  }
  take = partition.jit(
    functools.partial(
      step.train_step,
      model=model,
      optimiser=adafactor,
      loss_config=LossConfig(),
    )
  )
  state = partition.abstract_state(model, adafactor)
  program = take.lower(state, partition.abstract_batch(batch)).compile()
  # Forward, forward again for the backward pass, and its two kernels.
  assert program.as_text().count("tpu_custom_call") >= 3
