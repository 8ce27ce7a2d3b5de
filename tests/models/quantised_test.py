"""Kernels in 4 and 8 bits against plain numpy."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.convert import peft_lora
from flan_jax.errors import UserError
from flan_jax.models import (
  adapted,
  dense,
  ia3,
  lora,
  prefix,
  quantised,
  targets,
)
from tests.models import kinds
from tests.models.lora_test import ALL, batch_of


@pytest.mark.parametrize(
  "module",
  [adapted, dense, ia3, lora, peft_lora, prefix, quantised, targets],
  ids=lambda module: module.__name__,
)
def test_docstring_examples(module):
  result = doctest.testmod(module)
  assert result.failed == 0
  assert result.attempted > 0


def kernel_of(d=192, f=64, seed=0):
  kernel = np.random.default_rng(seed).normal(size=(d, f)) * 0.02
  return kernel.astype(np.float32)


def nf4_by_loop(kernel, levels):
  """Blocks of 64 inputs of one output; each number to its nearest level."""
  out = np.zeros_like(kernel)
  for column in range(kernel.shape[1]):
    for first in range(0, len(kernel), 64):
      block = kernel[first : first + 64, column]
      largest = np.abs(block).max()
      near = np.abs(block[:, None] / largest - levels).argmin(axis=1)
      out[first : first + 64, column] = levels[near] * largest
  return out


def levels_of_paper():
  """QLoRA, appendix E: 8 quantiles above 0, 7 below, and 0 itself."""
  from scipy import stats

  offset = 0.9677083
  above = stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
  below = -stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
  levels = np.sort(np.concatenate([above, below, [0.0]]))
  return levels / levels.max()


def test_levels_are_the_papers():
  np.testing.assert_allclose(quantised.NF4, levels_of_paper(), atol=1e-6)


def test_nf4_is_the_nearest_level_of_each_block():
  kernel = kernel_of(f=20)  # too few outputs to share 8-bit scales
  stored = quantised.quantise(kernel, "nf4")
  assert set(stored) == {"nf4", "scale"}
  ours = np.asarray(quantised.dequantise(stored))
  wanted = nf4_by_loop(kernel, np.asarray(quantised.NF4, np.float32))
  np.testing.assert_allclose(ours, wanted, rtol=1e-6)
  error = np.sqrt(np.mean((ours - kernel) ** 2)) / kernel.std()
  assert 0.08 < error < 0.11


def test_scales_of_8_bits_cost_little():
  kernel = kernel_of(1024, 512)
  stored = quantised.quantise(kernel, "nf4")
  ours = np.asarray(quantised.dequantise(stored))
  single = nf4_by_loop(kernel[:, :8], np.asarray(quantised.NF4, np.float32))

  def error(x, y):
    return np.sqrt(np.mean((x - y) ** 2)) / kernel.std()

  assert error(ours[:, :8], kernel[:, :8]) < 1.01 * error(
    single, kernel[:, :8]
  )
  # Bits of a number: 4, 8 of each 64, 64 of each 64 x 256.
  size = sum(x.nbytes for x in stored.values()) * 8 / kernel.size
  assert size == pytest.approx(4 + 8 / 64 + 64 / (64 * 256))


def test_int8_is_the_nearest_of_255_steps_of_each_output():
  kernel = kernel_of()
  stored = quantised.quantise(kernel, "int8")
  step = np.abs(kernel).max(axis=0) / 127
  wanted = np.round(kernel / step) * step
  np.testing.assert_allclose(quantised.dequantise(stored), wanted, rtol=1e-6)
  assert stored["int8"].nbytes == kernel.size


@pytest.mark.parametrize("kind", quantised.KINDS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.0])
def test_equal_numbers_come_back(kind, value):
  kernel = np.full((64, 32), value, np.float32)
  back = quantised.dequantise(quantised.quantise(kernel, kind))
  np.testing.assert_allclose(back, kernel, rtol=1e-6)


@pytest.mark.parametrize("d", [2, 48, 96, 100])
def test_widths_that_64_does_not_divide(d):
  kernel = kernel_of(d, 3)
  back = quantised.dequantise(quantised.quantise(kernel, "nf4"))
  assert back.shape == kernel.shape
  assert np.abs(back - kernel).max() < 0.2 * np.abs(kernel).max()


def test_bad_input():
  with pytest.raises(UserError, match="'nf3'; known are nf4, int8"):
    quantised.quantise(kernel_of(), "nf3")
  with pytest.raises(UserError, match="7 inputs .* even width. Use 'int8'"):
    quantised.quantise(kernel_of(7), "nf4")


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_gradient_of_the_input_is_that_of_the_kernel(kind):
  stored = quantised.quantise(kernel_of(), kind)
  x = np.random.default_rng(1).normal(size=(5, 192)).astype(np.float32)
  kernel = quantised.dequantise(stored)

  def ours(x):
    return jnp.sum(jnp.sin(quantised.project(stored, x)))

  def plain(x):
    return jnp.sum(jnp.sin(x @ kernel))

  np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(plain)(x), atol=1e-5)


@pytest.mark.parametrize(
  ("base_type", "scan"), [("nf4", True), ("int8", False)]
)
def test_a_quantised_base_is_its_dequantised_one(base_type, scan):
  """Logits and the adapter's gradient; B is zero, so that logits are exact."""
  base, params = kinds.tiny("decoder_only", scan=scan)
  model = lora.Lora(rank=2, targets=ALL, base_type=base_type).on(base)
  stored = model.store(params)
  assert jax.tree.map(jnp.shape, stored) == jax.tree.map(
    jnp.shape, {k: v for k, v in jax.eval_shape(
      model.init, jax.random.key(0)).items() if k != "lora"}
  )

  def plain(name, x):
    if not quantised.is_kernel(name):
      return x
    if scan:
      return jax.vmap(quantised.dequantise)(x)
    return quantised.dequantise(x)

  back = jax.tree_util.tree_map_with_path(
    lambda path, x: plain(jax.tree_util.keystr(path, simple=True,
                                               separator="/"), x),
    stored, is_leaf=lambda x: isinstance(x, dict) and "scale" in x and len(x) > 1,
  )
  unquantised = lora.Lora(rank=2, targets=ALL).on(base)
  own, batch = model.initial(jax.random.key(2)), batch_of("decoder_only")

  def loss(own, model, params):
    return jnp.sum(model.logits({**params, "lora": own}, batch) ** 2)

  ours = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  value, gradient = ours(own, model, stored)
  wanted, its = ours(own, unquantised, back)
  np.testing.assert_allclose(value, wanted, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
    gradient, its,
  )


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_a_scan_holds_one_dequantised_kernel(kind):
  """Not the levels too, once each and as large as the kernel's halves."""
  kernels = jnp.stack([kernel_of(256, 256, seed) for seed in range(4)])
  stored = jax.vmap(lambda kernel: quantised.quantise(kernel, kind))(kernels)

  @jax.checkpoint
  def layer(x, stored):
    return jnp.tanh(quantised.project(stored, x)), None

  def loss(x):
    return jnp.sum(jax.lax.scan(layer, x, stored)[0])

  program = jax.jit(jax.grad(loss)).lower(jnp.ones((2, 256))).compile()
  held = program.memory_analysis().temp_size_in_bytes
  assert held < 2 * kernels[0].nbytes


def test_embedding_and_head_in_16_bits():
  params = {"decoder": {
    "token_embedder": {"embedding": jnp.ones((4, 2))},
    "decoder_norm": {"scale": jnp.ones(2)},
    "logits_dense": {"kernel": jnp.ones((2, 4))},
  }}
  stored = quantised.tree(params, "nf4", "bfloat16")["decoder"]
  assert stored["token_embedder"]["embedding"].dtype == jnp.bfloat16
  assert stored["logits_dense"]["kernel"].dtype == jnp.bfloat16
  assert stored["decoder_norm"]["scale"].dtype == jnp.float32
