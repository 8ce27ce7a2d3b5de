"""The head: from the network's last hidden states to logits.

It is an array of its own, so that a loss can go over tokens in chunks and
never hold all logits. D model, V vocabulary.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 2**25  # logits that `log_prob` makes at a time: 128 MiB


@flax.struct.dataclass
class Head:
  """A matrix to the vocabulary; a pytree with one leaf, static otherwise.

  >>> head = Head(jnp.eye(2, 3))
  >>> head.logits(jnp.array([4.0, 5.0])).tolist()
  [4.0, 5.0, 0.0]

  Attributes:
    kernel: [D, V]; or, tied, the embedding [V, D].
    tied: whether `kernel` is an embedding.
    softcap: c in c tanh(logits / c), or None (Gemma Team 2024,
      arXiv:2408.00118, section 2).
  """

  kernel: Float[Array, "D V"] | Float[Array, "V D"]
  tied: bool = flax.struct.field(pytree_node=False, default=False)
  softcap: float | None = flax.struct.field(pytree_node=False, default=None)

  @property
  def vocab_size(self) -> int:
    """V, a static number."""
    return self.kernel.shape[0 if self.tied else 1]

  def logits(self, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
    """Logits in float32, whatever the type of the hidden states.

    Of 16-bit hidden states the products have 16-bit factors and float32 sums,
    which is what a TPU makes of float32 factors too.
    """
    hidden = jnp.asarray(hidden)
    kernel = self.kernel.astype(hidden.dtype)
    logits = jnp.matmul(
      hidden,
      kernel.T if self.tied else kernel,
      preferred_element_type=jnp.float32,
    )
    if self.softcap is not None:
      logits = self.softcap * jnp.tanh(logits / self.softcap)
    return logits

  def log_prob(
    self, hidden: Float[Array, "B T D"], tokens: Int[Array, "B T"]
  ) -> Float[Array, "B T"]:
    """Log p of a token after each hidden state; of id 0 for ids below 0.

    Some positions at a time, so that never more than about `CHUNK` logits are
    in memory (or one position's, of all rows).
    """
    positions = max(1, CHUNK // (self.vocab_size * hidden.shape[0]))
    if hidden.shape[1] <= positions:
      return self._log_prob(hidden, tokens)
    hidden_TBD, tokens_TB = (
      jnp.moveaxis(hidden, 1, 0),
      jnp.moveaxis(tokens, 1, 0),
    )
    log_prob_TB = jax.lax.map(
      lambda x: self._log_prob(*x),
      (hidden_TBD, tokens_TB),
      batch_size=positions,
    )
    return log_prob_TB.T

  def _log_prob(self, hidden, tokens):
    logits = self.logits(hidden)
    tokens = jnp.maximum(tokens, 0)[..., None]
    picked = jnp.take_along_axis(logits, tokens, axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)
