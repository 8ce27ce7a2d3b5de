"""The loss from hidden states: the head and its softmax, some tokens at a time.

Logits of a whole batch are by far the largest array of a step: 16 x 256 tokens
and 256,000 ids are 4 GB in float32, and as much again for their gradient. Here
only some positions' logits exist at a time. Where the loss is differentiated,
their part of the gradient is made before they go, so that nothing is computed
twice. The sums and the formulas are those of `loss.py`.

B batch, T target, D model, V vocabulary, N tokens of a chunk.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from flan_jax.models import placement
from flan_jax.models.head import Head
from flan_jax.training.loss import LossSums

# Logits of a chunk, in numbers, at least: 32 MB. On a CPU's two cores all
# logits of [1024, 32128] at once are 4% faster than this, and take 8 times the
# memory. Every chunk also adds to the kernel's gradient, so that it should not
# be much smaller than that, which takes its memory anyway: of 256 tokens and
# 256 dimensions, V = 256,000, chunks of 32 tokens took 1.9 s of CPU time,
# 64 1.6 s, 128 (half the kernel) 1.44 s, all 256 1.41 s.
CHUNK = 2**23


class _Options(NamedTuple):
  """What is known when a program is traced."""

  tied: bool
  softcap: float | None
  z_loss: float
  label_smoothing: float
  positions: int  # of a chunk


def cross_entropy(
  hidden_BTD: Float[Array, "B T D"],
  head: Head,
  targets_BT: Int[Array, "B T"],
  weights_BT: Num[Array, "B T"],
  *,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
) -> LossSums:
  """Weighted sum of softmax cross-entropy and z-loss over a batch, in nats.

  Two tokens of four are padding (weight 0); equal logits over V=4 give
  log 4 = 1.386 nats each:

  >>> hidden_BTD, head = jnp.zeros((1, 4, 2)), Head(jnp.ones((2, 4)))
  >>> targets_BT = jnp.array([[2, 1, 0, 0]])
  >>> weights_BT = jnp.array([[1.0, 1.0, 0.0, 0.0]])
  >>> sums = cross_entropy(
  ...   hidden_BTD, head, targets_BT, weights_BT, z_loss=0.0)
  >>> round(float(sums.loss), 3), float(sums.weight)
  (2.773, 2.0)

  With label smoothing s the target distribution is 1 - s on the target and
  s / (V - 1) elsewhere; its entropy is subtracted, as in T5X, so that a
  perfect prediction costs 0.

  Args:
    hidden_BTD: what the head multiplies, of any float type.
    head: of `model.head(params)`.
    targets_BT: token ids, 0 <= id < V. Ids at weight 0 do not matter.
    weights_BT: 0 excludes a token, whatever its hidden state; a fraction is
      allowed.
    z_loss: coefficient of log(Z)^2.
    label_smoothing: s above.

  Returns:
    Float32 sums, of which `loss` is differentiable, once and in reverse, with
    respect to the hidden states and the head. Of equal largest logits the
    lowest id is the prediction, as in `argmax`.
  """
  B, T, D = hidden_BTD.shape
  axes = ("vocab", "embed") if head.tied else ("embed", "vocab")
  kernel = placement.gather(head.kernel, axes)
  hidden_BTD = placement.constrain(hidden_BTD, "batch", None, None)
  options = _Options(
    head.tied,
    head.softcap,
    float(z_loss),
    float(label_smoothing),
    chunk_positions(B, T, D, head.vocab_size, placement.parts()),
  )
  weights_BT = jnp.asarray(weights_BT, jnp.float32)
  return _sums(hidden_BTD, kernel, targets_BT, weights_BT, options)


def chunk_positions(
  batch: int, length: int, features: int, vocabulary: int, parts: int = 1
) -> int:
  """Positions of all rows that go through the head together.

  >>> chunk_positions(16, 256, 512, 32_128)
  16
  >>> chunk_positions(16, 256, 512, 256_000)
  16

  Their logits are at most `CHUNK` numbers or half as many as the kernel has,
  on each of the `parts` devices that share them, but those of one position at
  least. Chunks are cut along the length, so that
  where rows are sharded over devices each device has work in every chunk.
  """
  numbers = parts * max(CHUNK, features * vocabulary // 2)
  most = max(1, numbers // (batch * vocabulary))
  return math.ceil(length / math.ceil(length / most))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(hidden_BTD, kernel, targets_BT, weights_BT, options):
  def chunk(none, x):
    return none, _chunk_sums(*x[:3], kernel, options)[0]

  arrays = hidden_BTD, targets_BT, weights_BT
  _, sums = _each_chunk(chunk, None, options, *arrays)
  return jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def _sums_fwd(hidden_BTD, kernel, targets_BT, weights_BT, options):
  def chunk(d_kernel, x):
    sums, derivative = _chunk_sums(*x, kernel, options)
    d_hidden, more = derivative()
    return d_kernel + more, (sums, d_hidden)

  zero = jnp.zeros(kernel.shape, jnp.float32)
  d_kernel, (sums, d_hidden) = _each_chunk(
    chunk, zero, options, hidden_BTD, targets_BT, weights_BT
  )
  sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)
  B, T, D = hidden_BTD.shape
  d_hidden = jnp.moveaxis(d_hidden.reshape(-1, B, options.positions, D), 0, 1)
  d_hidden_BTD = d_hidden.reshape(B, -1, D)[:, :T]
  return sums, (d_hidden_BTD, d_kernel.astype(kernel.dtype))


def _sums_bwd(options, residuals, gradients):
  del options
  d_hidden_BTD, d_kernel = residuals
  scale = gradients.loss
  return (
    d_hidden_BTD * scale.astype(d_hidden_BTD.dtype),
    d_kernel * scale.astype(d_kernel.dtype),
    None,
    None,
  )


_sums.defvjp(_sums_fwd, _sums_bwd)


def _each_chunk(function, carry, options, *arrays):
  """`function(carry, arrays_N) -> carry, out` over chunks of positions."""
  B, T = arrays[0].shape[:2]
  t = options.positions
  count = math.ceil(T / t)

  def split(x_BT):
    padding = ((0, 0), (0, count * t - T)) + ((0, 0),) * (x_BT.ndim - 2)
    x = jnp.pad(x_BT, padding).reshape(B, count, t, *x_BT.shape[2:])
    return jnp.moveaxis(x, 1, 0).reshape(count, B * t, *x_BT.shape[2:])

  chunks = tuple(split(x) for x in arrays)
  if count == 1:
    carry, out = function(carry, tuple(x[0] for x in chunks))
    return carry, jax.tree.map(lambda x: x[None], out)
  return jax.lax.scan(function, carry, chunks)


def _chunk_sums(hidden_ND, targets_N, weights_N, kernel, options):
  """The sums over a chunk, and a function that makes both derivatives."""
  tied, softcap, z_loss, label_smoothing, _ = options
  # A token that does not count may have any hidden state, finite or not.
  counts_N = weights_N != 0
  targets_N = jnp.where(counts_N, targets_N, 0)
  hidden_ND = jnp.where(counts_N[:, None], hidden_ND, 0)
  head = Head(kernel, tied, softcap)
  logits_NV = head.logits(hidden_ND)
  logits_NV = placement.constrain(logits_NV, "batch", "vocab")
  V = logits_NV.shape[1]

  top_N = jnp.max(logits_NV, axis=-1)
  log_z_N = top_N + jnp.log(
    jnp.sum(jnp.exp(logits_NV - top_N[:, None]), axis=-1)
  )
  target_N = jnp.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0]
  on, off, entropy = _smoothed(label_smoothing, V)
  loss_N = log_z_N - target_N
  if label_smoothing:
    others_N = jnp.sum(logits_NV, axis=-1) - target_N
    loss_N = log_z_N - on * target_N - off * others_N - entropy
  z_N = z_loss * jnp.square(log_z_N)
  index_NV = jax.lax.broadcasted_iota(jnp.int32, logits_NV.shape, 1)
  # Whether argmax is the target; half the time of XLA's argmax on a CPU.
  beaten_NV = (logits_NV > target_N[:, None]) | (
    (logits_NV == target_N[:, None]) & (index_NV < targets_N[:, None])
  )
  correct_N = ~jnp.any(beaten_NV, axis=-1)
  entropy_sum = jnp.sum(loss_N * weights_N)
  z_sum = jnp.sum(z_N * weights_N)
  sums = LossSums(
    loss=entropy_sum + z_sum,
    cross_entropy=entropy_sum,
    z_loss=z_sum,
    weight=jnp.sum(weights_N),
    correct=jnp.sum(jnp.where(correct_N, weights_N, 0.0)),
  )

  def derivative():
    # (1 + 2 z log Z) softmax - target distribution, in one pass.
    scale_N1 = (1.0 + 2.0 * z_loss * log_z_N)[:, None]
    softmax_NV = jnp.exp(logits_NV - log_z_N[:, None])
    target_NV = jnp.where(index_NV == targets_N[:, None], on, off)
    d_NV = weights_N[:, None] * (scale_N1 * softmax_NV - target_NV)
    if softcap is not None:
      d_NV *= 1.0 - jnp.square(logits_NV / softcap)
    # Factors have the hidden states' type, as in the forward products; the
    # kernel's gradient is summed over chunks in float32.
    d_NV = d_NV.astype(hidden_ND.dtype)
    factor = kernel.astype(hidden_ND.dtype)
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    if tied:
      d_hidden_ND = product(d_NV, factor)
      d_kernel = jnp.einsum(
        "nv,nd->vd", d_NV, hidden_ND, preferred_element_type=jnp.float32
      )
    else:
      d_hidden_ND = product(d_NV, factor.T)
      d_kernel = product(hidden_ND.T, d_NV)
    return d_hidden_ND.astype(hidden_ND.dtype), d_kernel

  return sums, derivative


def _smoothed(label_smoothing, vocabulary):
  """Probability of the target and of each other token, and the entropy."""
  if not label_smoothing:
    return 1.0, 0.0, 0.0
  on, off = 1.0 - label_smoothing, label_smoothing / (vocabulary - 1)
  entropy = -(on * math.log(on) + (vocabulary - 1) * off * math.log(off))
  return on, off, entropy
