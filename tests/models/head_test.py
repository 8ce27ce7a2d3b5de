import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models import head as head_module
from flan_jax.models.head import Head


def test_docstring_example():
  logits = Head(jnp.eye(2, 3)).logits(jnp.array([4.0, 5.0]))
  assert logits.tolist() == [4.0, 5.0, 0.0]


def test_a_tied_head_is_the_embedding_turned():
  random = np.random.default_rng(0)
  hidden, kernel = (
    random.standard_normal((2, 4)),
    random.standard_normal((4, 7)),
  )
  plain = Head(jnp.float32(kernel)).logits(hidden)
  tied = Head(jnp.float32(kernel.T), tied=True)
  np.testing.assert_allclose(plain, hidden @ kernel, rtol=1e-5)
  np.testing.assert_allclose(tied.logits(hidden), plain, rtol=1e-5)
  assert tied.vocab_size == Head(jnp.float32(kernel)).vocab_size == 7


def test_a_soft_cap_bounds_logits():
  head = Head(jnp.eye(3), softcap=2.0)
  logits = head.logits(jnp.array([0.1, 1.0, 100.0]))
  np.testing.assert_allclose(
    logits, 2.0 * np.tanh(np.array([0.1, 1.0, 100.0]) / 2.0), rtol=1e-6
  )


def test_logits_are_float32_whatever_the_hidden_states():
  head = Head(jnp.eye(3, dtype=jnp.bfloat16))
  assert head.logits(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("chunk", [head_module.CHUNK, 2 * 2 * 7, 1])
def test_log_prob_is_the_log_softmax_at_a_token(chunk, monkeypatch):
  monkeypatch.setattr(head_module, "CHUNK", chunk)
  random = np.random.default_rng(0)
  head = Head(jnp.float32(random.standard_normal((4, 7))))
  hidden = jnp.float32(random.standard_normal((2, 3, 4)))
  tokens = random.integers(0, 7, (2, 3))
  expected = jax.nn.log_softmax(head.logits(hidden))
  expected = np.take_along_axis(expected, tokens[..., None], -1)[..., 0]
  np.testing.assert_allclose(head.log_prob(hidden, tokens), expected, rtol=1e-5)
  below = head.log_prob(hidden, np.full((2, 3), -1))
  np.testing.assert_allclose(
    below, head.log_prob(hidden, np.zeros((2, 3), int))
  )


def test_a_head_is_a_pytree_with_one_leaf_and_static_options():
  head = Head(jnp.eye(2), tied=True, softcap=3.0)
  assert len(jax.tree.leaves(head)) == 1
  grad = jax.grad(lambda head: head.logits(jnp.ones(2)).sum())(head)
  assert (grad.tied, grad.softcap) == (True, 3.0)
