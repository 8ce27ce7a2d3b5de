"""Learning-rate schedules: functions from step to learning rate.

`factors` speaks T5X's dialect; `constant`, `linear` and `cosine` are the
usual three with their formulas written out. Each returns a pure function of
the step (0 at the first update), usable inside `jax.jit`. An option that
would have no effect is refused.

Sources: Raffel et al., 2020 (arXiv 1910.10683), section 3.1.2 (inverse square
root); Loshchilov and Hutter, 2017 (arXiv 1608.03983), equation 5 (cosine).
"""

import difflib
from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

from flan_jax.errors import UserError

Schedule = Callable[[ArrayLike], ArrayLike]

# Factor -> the options it reads.
_FACTORS = {
  "constant": ("base_learning_rate",),
  "linear_warmup": ("warmup_steps",),
  "linear_decay": ("base_learning_rate", "warmup_steps", "decay_factor"),
  "rsqrt_decay": ("warmup_steps",),
  "rsqrt_normalized_decay": ("warmup_steps",),
  "decay_every": ("decay_factor", "steps_per_decay"),
  "cosine_decay": ("warmup_steps", "steps_per_cycle"),
}
# T5X's values for options that are used and not given.
_DEFAULTS = {
  "base_learning_rate": 0.5,
  "warmup_steps": 1000,
  "decay_factor": 0.5,
  "steps_per_decay": 20_000,
  "steps_per_cycle": 100_000,
}


def factors(
  factors: str = "constant * linear_warmup * rsqrt_decay",
  *,
  base_learning_rate: float | None = None,
  warmup_steps: int | None = None,
  decay_factor: float | None = None,
  steps_per_decay: int | None = None,
  steps_per_cycle: int | None = None,
  step_offset: int = 0,
  min_learning_rate: float = 1e-8,
) -> Schedule:
  """A product of T5X's factors, at least `min_learning_rate`.

  >>> rate = factors("constant * rsqrt_decay", base_learning_rate=1.0,
  ...                warmup_steps=10_000)
  >>> float(rate(0)), float(rate(40_000))
  (0.009999999776482582, 0.004999999888241291)

  With s = max(0, step - step_offset), w = warmup_steps, b =
  base_learning_rate:

  | factor | value | T5X's defaults |
  |---|---|---|
  | constant | b | b 0.5 |
  | linear_warmup | min(1, s / w) | w 1000 |
  | linear_decay | b min(s / w, 1 + decay_factor (w - s)) | decay_factor 0.5 |
  | rsqrt_decay | 1 / sqrt(max(s, w)) | |
  | rsqrt_normalized_decay | sqrt(w / max(s, w)) | |
  | decay_every | decay_factor ^ floor(s / steps_per_decay) | 20,000 steps |
  | cosine_decay | (1 + cos(pi p)) / 2, p = (s - w) / steps_per_cycle mod 1, \
0 before w | 100,000 steps |

  `linear_decay` includes the constant and the warm-up.

  Args:
    factors: names joined by `*`.
    base_learning_rate: b; rate per update.
    warmup_steps: w, in updates; also where the square root begins.
    decay_factor: a ratio (decay_every) or a slope per step (linear_decay).
    steps_per_decay: updates.
    steps_per_cycle: updates.
    step_offset: update at which the schedule begins (T5X counts the steps of
      pre-training).
    min_learning_rate: lower bound.

  Raises:
    UserError: an unknown factor (the nearest is named), an option that no
      factor reads, factors that exclude each other, a value out of range.
  """
  names = [name.strip() for name in factors.split("*")]
  for name in names:
    if name not in _FACTORS:
      near = difflib.get_close_matches(name, _FACTORS, 1, 0)
      raise UserError(
        f"learning-rate factor {name!r} in {factors!r} is unknown: did you"
        f" mean {near[0]!r}? Known: {', '.join(_FACTORS)}."
      )
  given = {
    "base_learning_rate": base_learning_rate,
    "warmup_steps": warmup_steps,
    "decay_factor": decay_factor,
    "steps_per_decay": steps_per_decay,
    "steps_per_cycle": steps_per_cycle,
  }
  _check_factors(names, factors, given)
  values = {
    option: _DEFAULTS[option] if value is None else value
    for option, value in given.items()
  }

  def learning_rate(step: ArrayLike) -> ArrayLike:
    step = jnp.maximum(0, jnp.asarray(step) - step_offset).astype(jnp.float32)
    rate = jnp.float32(1.0)
    for name in names:
      rate = rate * _factor(name, step, **values)
    return jnp.maximum(rate, min_learning_rate)

  return learning_rate


def constant(base_learning_rate: float, *, warmup_steps: int = 0) -> Schedule:
  """`base_learning_rate * min(1, step / warmup_steps)`.

  >>> rate = constant(1e-3)
  >>> float(rate(7))
  0.0010000000474974513
  """
  _positive("base_learning_rate", base_learning_rate)
  _at_least_zero("warmup_steps", warmup_steps)
  return lambda step: base_learning_rate * _warmup(_float(step), warmup_steps)


def linear(
  base_learning_rate: float,
  total_steps: int,
  *,
  warmup_steps: int = 0,
  final_fraction: float = 0.0,
) -> Schedule:
  """Warm-up, then a straight line down to `final_fraction` of the base rate.

  With p = clip((step - warmup_steps) / (total_steps - warmup_steps), 0, 1):
  base * min(1, step / warmup_steps) * (1 - p (1 - final_fraction)).

  >>> rate = linear(1.0, 100, warmup_steps=20)
  >>> [float(rate(step)) for step in (0, 10, 20, 60, 100, 200)]
  [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]

  Raises:
    UserError: warm-up not shorter than the run, a value out of range.
  """
  _check_decay(base_learning_rate, total_steps, warmup_steps, final_fraction)

  def learning_rate(step: ArrayLike) -> ArrayLike:
    step = _float(step)
    done = _progress(step, warmup_steps, total_steps)
    fall = 1.0 - done * (1.0 - final_fraction)
    return base_learning_rate * _warmup(step, warmup_steps) * fall

  return learning_rate


def cosine(
  base_learning_rate: float,
  total_steps: int,
  *,
  warmup_steps: int = 0,
  final_fraction: float = 0.0,
) -> Schedule:
  """Warm-up, then half a cosine down to `final_fraction` of the base rate.

  With p as in `linear`: base * min(1, step / warmup_steps) *
  (final_fraction + (1 - final_fraction) (1 + cos(pi p)) / 2).

  >>> rate = cosine(1.0, 100, warmup_steps=20)
  >>> [round(float(rate(step)), 4) for step in (0, 10, 20, 40, 60, 100)]
  [0.0, 0.5, 1.0, 0.8536, 0.5, 0.0]

  Raises:
    UserError: warm-up not shorter than the run, a value out of range.
  """
  _check_decay(base_learning_rate, total_steps, warmup_steps, final_fraction)

  def learning_rate(step: ArrayLike) -> ArrayLike:
    step = _float(step)
    done = _progress(step, warmup_steps, total_steps)
    wave = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    fall = final_fraction + (1.0 - final_fraction) * wave
    return base_learning_rate * _warmup(step, warmup_steps) * fall

  return learning_rate


def _factor(
  name,
  step,
  *,
  base_learning_rate,
  warmup_steps,
  decay_factor,
  steps_per_decay,
  steps_per_cycle,
):
  """The value of one factor of `factors` at a float32 step."""
  match name:
    case "constant":
      return base_learning_rate
    case "linear_warmup":
      return jnp.minimum(1.0, step / warmup_steps)
    case "linear_decay":
      fall = 1.0 + decay_factor * (warmup_steps - step)
      return base_learning_rate * jnp.minimum(step / warmup_steps, fall)
    case "rsqrt_decay":
      return 1.0 / jnp.sqrt(jnp.maximum(step, warmup_steps))
    case "rsqrt_normalized_decay":
      return jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps))
    case "decay_every":
      return decay_factor ** (step // steps_per_decay)
    case "cosine_decay":
      cycles = jnp.maximum(0.0, (step - warmup_steps) / steps_per_cycle)
      return 0.5 * (1.0 + jnp.cos(jnp.pi * (cycles % 1.0)))


def _check_factors(names, factors, given):
  used = {option for name in names for option in _FACTORS[name]}
  for option, value in given.items():
    if value is None:
      continue
    if option not in used:
      readers = [name for name, reads in _FACTORS.items() if option in reads]
      raise UserError(
        f"{option}={value} has no effect on the learning rate {factors!r}:"
        f" remove it, or add a factor that reads it ({', '.join(readers)})."
      )
    # A cosine may start at once; elsewhere the warm-up is divided by.
    if option == "warmup_steps" and set(names) <= {"constant", "cosine_decay"}:
      _at_least_zero(option, value)
    else:
      _positive(option, value)
  twice = {"constant", "linear_warmup"} & set(names)
  if "linear_decay" in names and twice:
    raise UserError(
      f"learning rate {factors!r}: linear_decay already includes"
      f" {' and '.join(sorted(twice))}; remove it."
    )


def _check_decay(base_learning_rate, total_steps, warmup_steps, final_fraction):
  _positive("base_learning_rate", base_learning_rate)
  _at_least_zero("warmup_steps", warmup_steps)
  if total_steps <= warmup_steps:
    raise UserError(
      f"total_steps={total_steps} leaves no step after"
      f" warmup_steps={warmup_steps}: it must be larger."
    )
  if not 0 <= final_fraction < 1:
    raise UserError(
      f"final_fraction={final_fraction}: it must be at least 0 and less than"
      " 1; for a rate that does not fall use `constant`."
    )


def _positive(option, value):
  if not value > 0:
    raise UserError(f"{option}={value}: it must be more than 0.")


def _at_least_zero(option, value):
  if not value >= 0:
    raise UserError(f"{option}={value}: it must be 0 or more.")


def _float(step):
  return jnp.asarray(step).astype(jnp.float32)


def _warmup(step, warmup_steps):
  if not warmup_steps:
    return jnp.float32(1.0)
  return jnp.minimum(1.0, step / warmup_steps)


def _progress(step, warmup_steps, total_steps):
  """Share of the decay that is over, 0 to 1."""
  done = (step - warmup_steps) / (total_steps - warmup_steps)
  return jnp.clip(done, 0.0, 1.0)
