"""A small recurrent language model behind the interface of both model kinds.

Its whole computation is a few lines, here in jax and again in plain numpy. It
counts what is traced, which is what is compiled.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(eq=False)
class Recurrent:
  vocab_size: int = 12
  width: int = 6
  started: list = dataclasses.field(default_factory=list)
  stepped: list = dataclasses.field(default_factory=list)

  @property
  def config(self):
    return types.SimpleNamespace(vocab_size=self.vocab_size)

  def init(self, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    V, D = self.vocab_size, self.width
    return {
      "embed": rng.normal(size=(V, D)).astype(np.float32),
      "mix": rng.normal(size=(D, D)).astype(np.float32),
      "head": (spread * rng.normal(size=(D, V))).astype(np.float32),
    }

  def _read(self, params, h_BD, token_B):
    new_BD = jnp.tanh(
      h_BD @ params["mix"] + params["embed"][jnp.maximum(token_B, 0)]
    )
    return jnp.where((token_B >= 0)[:, None], new_BD, h_BD)

  def start_decoding(self, params, inputs_BS, cache_length):
    self.started.append((inputs_BS.shape, cache_length))
    h_BD = jnp.zeros((inputs_BS.shape[0], self.width))
    for s in range(inputs_BS.shape[1]):
      h_BD = self._read(params, h_BD, inputs_BS[:, s])
    return h_BD @ params["head"], {"h": h_BD}

  def decode_step(self, params, token_B, cache, index):
    self.stepped.append(token_B.shape)
    h_BD = self._read(params, cache["h"], token_B)
    return h_BD @ params["head"], {"h": h_BD}

  def take_rows(self, cache, rows_R):
    return jax.tree.map(lambda x: x[rows_R], cache)

  def log_probs(self, params, tokens):
    """Plain numpy: log p of the token after `tokens`, [V]."""
    h = np.zeros(self.width)
    for token in tokens:
      h = np.tanh(h @ params["mix"] + params["embed"][token])
    logits = h @ params["head"]
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def greedy(log_probs, inputs, length, end_ids=()):
  """The likeliest token, again and again; and the sum of their log p."""
  tokens, score = [], 0.0
  while len(tokens) < length and not (tokens and tokens[-1] in end_ids):
    log_prob_V = log_probs([*inputs, *tokens])
    tokens.append(int(log_prob_V.argmax()))
    score += log_prob_V[tokens[-1]]
  return tokens, score


def beam(log_probs, inputs, length, beam_size, alpha, end_ids=()):
  """Beam search over lists, to the very end, without any shortcut."""
  live, ended = [([], 0.0)], []
  for _ in range(length):
    candidates = [
      ([*tokens, v], score + log_prob)
      for tokens, score in live
      for v, log_prob in enumerate(log_probs([*inputs, *tokens]))
    ]
    candidates.sort(key=lambda c: -c[1])
    candidates = candidates[: beam_size * (1 + len(end_ids))]
    live = [c for c in candidates if c[0][-1] not in end_ids][:beam_size]
    ended += [
      (tokens, score / ((5 + len(tokens)) / 6) ** alpha)
      for tokens, score in candidates
      if tokens[-1] in end_ids
    ]
    ended = sorted(ended, key=lambda c: -c[1])[:beam_size]
  return [*ended, *live][:beam_size]
