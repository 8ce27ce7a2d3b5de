"""The loss as one writes it down: all logits at once, differentiated by jax."""

import jax
import jax.numpy as jnp


def cross_entropy(
  hidden_BTD, head, targets_BT, weights_BT, *, z_loss=1e-4, label_smoothing=0.0
):
  """Loss, cross-entropy, z-loss, weight and correct tokens, summed.

  Head, softmax and target distribution over [B, T, V]; a token of weight 0 is
  left out by selection, since 0 * inf is not 0.
  """
  kernel = head.kernel.T if head.tied else head.kernel
  logits_BTV = hidden_BTD.astype(jnp.float32) @ kernel.astype(jnp.float32)
  if head.softcap is not None:
    logits_BTV = head.softcap * jnp.tanh(logits_BTV / head.softcap)
  V = logits_BTV.shape[-1]
  one_hot_BTV = jax.nn.one_hot(targets_BT, V)
  soft_BTV = one_hot_BTV * (1.0 - label_smoothing)
  soft_BTV += (1.0 - one_hot_BTV) * label_smoothing / (V - 1)
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  log_p_BTV = logits_BTV - log_z_BT[..., None]
  entropy_BT = -jnp.sum(jax.scipy.special.xlogy(soft_BTV, soft_BTV), axis=-1)
  nats_BT = -jnp.sum(soft_BTV * log_p_BTV, axis=-1) - entropy_BT
  z_BT = z_loss * jnp.square(log_z_BT)
  hit_BT = jnp.argmax(logits_BTV, axis=-1) == targets_BT

  def total(x_BT):
    return jnp.sum(jnp.where(weights_BT != 0, x_BT * weights_BT, 0.0))

  return (
    total(nats_BT + z_BT),
    total(nats_BT),
    total(z_BT),
    jnp.sum(weights_BT),
    total(hit_BT),
  )
