"""Causal self-attention in the kernel that jax has for a TPU.

Splash attention (`jax.experimental.pallas.ops.tpu.splash_attention`): blocks
of keys that a block of queries cannot see are never computed, and no [T, T]
array exists. B batch, T length, H heads, G kv-heads, K size per head.
"""

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)
from jaxtyping import Array, Float, Int

LANES = 128  # lengths come in steps of a TPU's vector
# Queries and keys of a block; larger ones do not fit beside each other.
BLOCK = 512


def fits(query_BTHK: Array, key_BSGK: Array) -> bool:
  """Whether the kernel takes arrays of these shapes.

  >>> query = np.zeros((1, 256, 8, 64))
  >>> fits(query, query[:, :, :2]), fits(query[:, :100], query[:, :100])
  (True, False)
  """
  (_, T, H, K), (S, G) = query_BTHK.shape, key_BSGK.shape[1:3]
  return T == S and T % LANES == 0 and K % 8 == 0 and H % G == 0


def attend(
  query_BTHK: Float[Array, "B T H K"],
  key_BTGK: Float[Array, "B T G K"],
  value_BTGK: Float[Array, "B T G K"],
  segments_BT: Int[Array, "B T"],
  *,
  window: int | None = None,
  softcap: float | None = None,
  interpret: bool = False,
) -> Float[Array, "B T H K"]:
  """`attention.attend` where a token sees its own text up to itself.

  Args:
    segments_BT: numbers of texts; tokens see those of equal number.
    window: of so many tokens only, itself among them; None: all.
    softcap: as of `attention.attend`.
    interpret: run the kernel's program without a TPU, slowly.

  Raises:
    ValueError: shapes that do not fit.
  """
  if not fits(query_BTHK, key_BTGK):
    raise ValueError(f"{query_BTHK.shape} and {key_BTGK.shape} do not fit.")
  T, H = query_BTHK.shape[1:3]
  kernel = _kernel(T, H, window, softcap, interpret)

  def row(query_THK, key_TGK, value_TGK, segments_T):
    by_head = (x.swapaxes(0, 1) for x in (query_THK, key_TGK, value_TGK))
    ids = splash.SegmentIds(segments_T, segments_T)
    return kernel(*by_head, ids).swapaxes(0, 1)

  return jax.vmap(row)(query_BTHK, key_BTGK, value_BTGK, segments_BT)


def _kernel(T, H, window, softcap, interpret):
  mask = masks.CausalMask((T, T))
  if window is not None:
    mask = masks.LocalMask((T, T), (window - 1, 0), 0)
  block = max(b for b in range(LANES, BLOCK + 1, LANES) if T % b == 0)
  sizes = splash.BlockSizes(
    block_q=block,
    block_kv=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_q_dq=block,
    block_kv_dq=block,
  )
  return splash.make_splash_mha(
    masks.MultiHeadMask([mask] * H),
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=softcap,
    interpret=interpret,
  )
