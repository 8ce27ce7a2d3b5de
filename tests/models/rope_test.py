import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.models import rope

SCALINGS = {
  "linear": {"factor": 4.0},
  "dynamic": {"factor": 2.0, "original_max_position": 64},
  "yarn": {"factor": 8.0, "original_max_position": 256},
  "yarn with options": {
    "factor": 8.0,
    "original_max_position": 256,
    "beta_fast": 16.0,
    "beta_slow": 2.0,
    "mscale": 0.7,
    "mscale_all_dim": 1.2,
    "truncate": False,
  },
  "yarn with a factor": {
    "factor": 8.0,
    "original_max_position": 256,
    "attention_factor": 1.3,
  },
  "longrope": {
    "factor": 4.0,
    "original_max_position": 64,
    "short_factor": tuple(np.linspace(1.0, 2.0, 16)),
    "long_factor": tuple(np.linspace(3.0, 5.0, 16)),
  },
  "llama3": {
    "factor": 8.0,
    "original_max_position": 256,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
  },
}
THEIR_NAMES = {"original_max_position": "original_max_position_embeddings"}


def test_docstring_examples():
  np.testing.assert_allclose(rope.frequencies(4, 10_000.0), [1.0, 0.01])
  cos, sin = rope.angles(jnp.array([[0, 1]]), 2, 10_000.0)
  turned = rope.rotate(jnp.ones((1, 2, 1, 2)), cos, sin)[0, :, 0]
  np.testing.assert_allclose(turned, [[1.0, 1.0], [-0.301, 1.382]], atol=1e-3)
  assert not rope.RopeScaling("linear", factor=4.0).depends_on_length


@pytest.mark.parametrize("length", [40, 64, 65, 200])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name, length):
  transformers = pytest.importorskip("transformers")
  from transformers import modeling_rope_utils

  kind, fields = name.split()[0], SCALINGS[name]
  theirs = {THEIR_NAMES.get(n, n): value for n, value in fields.items()}
  config = transformers.LlamaConfig(
    hidden_size=64,
    num_attention_heads=2,
    head_dim=32,
    max_position_embeddings=64 if kind == "dynamic" else 2048,
    rope_parameters={"rope_type": kind, "rope_theta": 5e5, **theirs},
  )
  make = modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind]
  expected, amplitude = make(config, "cpu", seq_len=length)
  scaling = rope.RopeScaling(kind, **fields)
  ours = rope.frequencies(32, 5e5, scaling, length)
  np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-6)
  assert rope.amplitude(scaling) == pytest.approx(amplitude, rel=1e-7)


def test_each_text_has_the_rotation_of_its_own_length():
  scaling = rope.RopeScaling("dynamic", factor=2.0, original_max_position=8)
  lengths = jnp.array([[4, 20]])
  both = rope.frequencies(8, 1e4, scaling, lengths)
  for i in range(2):
    alone = rope.frequencies(8, 1e4, scaling, int(lengths[0, i]))
    np.testing.assert_allclose(both[0, i], alone, rtol=1e-6)
  np.testing.assert_allclose(both[0, 0], rope.frequencies(8, 1e4), rtol=1e-6)


def test_a_product_depends_on_the_difference_of_positions_alone():
  random = np.random.default_rng(0)
  query, key = jnp.float32(random.standard_normal((2, 1, 1, 1, 16)))

  def product(i, j):
    at_i = rope.angles(jnp.array([[i]]), 16, 1e4)
    at_j = rope.angles(jnp.array([[j]]), 16, 1e4)
    turned = rope.rotate(query, *at_i) * rope.rotate(key, *at_j)
    return float(turned.sum())

  assert product(7, 3) == pytest.approx(product(104, 100), rel=1e-4)
  assert product(7, 3) != pytest.approx(product(7, 4), rel=1e-2)


@pytest.mark.parametrize(
  ("kind", "fields", "message"),
  [
    ("yarm", {}, "nearest is 'yarn'"),
    ("linear", {}, "needs factor"),
    ("linear", {"factor": 0.5}, "factor is 0.5; it must be 1 or more"),
    ("linear", {"factor": 2.0, "beta_fast": 3.0}, "does not read"),
    ("dynamic", {"factor": 2.0}, "needs original_max_position"),
    (
      "yarn",
      {"factor": 2.0, "original_max_position": 8, "mscale": 1.0},
      "mscale and mscale_all_dim go together",
    ),
  ],
)
def test_a_wrong_scaling_is_named(kind, fields, message):
  with pytest.raises(UserError, match=message):
    rope.RopeScaling(kind, **fields)
