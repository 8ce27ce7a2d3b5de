import math

import jax
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.training import schedule


def t5x(names, step, b=0.5, w=1000, f=0.5, every=20_000, cycle=100_000):
  """The factors as T5X documents them, in Python floats."""
  rate = 1.0
  for name in names:
    rate *= {
      "constant": lambda: b,
      "linear_warmup": lambda: min(1.0, step / w),
      "linear_decay": lambda: b * min(step / w, 1 + f * (w - step)),
      "rsqrt_decay": lambda: 1 / math.sqrt(max(step, w)),
      "rsqrt_normalized_decay": lambda: math.sqrt(w) / math.sqrt(max(step, w)),
      "decay_every": lambda: f ** (step // every),
      "cosine_decay": lambda: (
        0.5 * (1 + math.cos(math.pi * (max(0, step - w) / cycle % 1)))
      ),
    }[name]()
  return max(rate, 1e-8)


@pytest.mark.parametrize(
  "names",
  [
    ("constant",),
    ("constant", "rsqrt_decay"),
    ("constant", "linear_warmup", "rsqrt_decay"),
    ("constant", "linear_warmup", "rsqrt_normalized_decay"),
    ("linear_decay",),
    ("constant", "decay_every"),
    ("constant", "cosine_decay"),
  ],
)
def test_factors_are_those_of_t5x(names):
  rate = jax.jit(schedule.factors(" * ".join(names)))
  for step in (0, 1, 500, 1000, 1001, 45_000, 130_000):
    np.testing.assert_allclose(rate(step), t5x(names, step), rtol=2e-6)


def test_step_offset_starts_the_schedule_later():
  offset = schedule.factors("constant * linear_warmup", step_offset=100)
  plain = schedule.factors("constant * linear_warmup")
  assert float(offset(50)) == float(plain(0))
  assert float(offset(350)) == float(plain(250))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: schedule.factors("constant * linear_warmpu"),
      "'linear_warmpu'.*did you mean 'linear_warmup'",
    ),
    (
      lambda: schedule.factors("constant", warmup_steps=10),
      "warmup_steps=10 has no effect.*linear_warmup",
    ),
    (
      lambda: schedule.factors("rsqrt_decay", base_learning_rate=1.0),
      "base_learning_rate=1.0 has no effect",
    ),
    (
      lambda: schedule.factors("constant * linear_decay"),
      "linear_decay already includes constant",
    ),
    (
      lambda: schedule.factors("constant * linear_warmup", warmup_steps=0),
      "warmup_steps=0: it must be more than 0",
    ),
    (lambda: schedule.linear(1.0, 10, warmup_steps=10), "leaves no step"),
    (lambda: schedule.cosine(0.0, 10), "base_learning_rate=0.0"),
    (lambda: schedule.cosine(1.0, 10, final_fraction=1.0), "use `constant`"),
    (lambda: schedule.constant(1.0, warmup_steps=-1), "0 or more"),
  ],
)
def test_refused(call, message):
  with pytest.raises(UserError, match=message):
    call()


def test_warm_up_of_a_constant():
  rate = schedule.constant(2.0, warmup_steps=4)
  assert [float(rate(step)) for step in range(6)] == [0, 0.5, 1, 1.5, 2, 2]
