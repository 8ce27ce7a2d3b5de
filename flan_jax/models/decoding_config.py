"""How a model's answers are decoded: one frozen object, strictly checked.

An option that would be without effect, or that contradicts another one, is
refused when the object is made.
"""

import dataclasses
import difflib
import math

from flan_jax.errors import UserError
from flan_jax.models.rule_adapter import Rules

# Which further options a strategy reads.
STRATEGIES = {
  "greedy": ("rules",),
  "sample": ("temperature", "top_k", "top_p", "num_samples", "seed", "rules"),
  "beam": ("beam_size", "length_penalty", "num_samples"),
}
# T5X's (and GNMT's) exponent of the length penalty.
LENGTH_PENALTY = 0.6


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
  """What is decoded and when it ends; hashable.

  >>> config = DecodeConfig("sample", max_decode_len=32, top_p=0.9, seed=1)
  >>> DecodeConfig("beam", temperature=0.7, beam_size=4)
  Traceback (most recent call last):
  flan_jax.errors.UserError: DecodeConfig: temperature = 0.7 has no effect with\
 strategy 'beam', which reads beam_size, length_penalty, num_samples. Leave it\
 out or use strategy 'sample'.

  Attributes:
    strategy: "greedy", the likeliest token at each step; "sample", a token
      drawn at each step; "beam", beam search (`beam.py`).
    max_decode_len: tokens of the longest answer, its end id included.
    temperature: logits are divided by it before a token is drawn; None: 1.
    top_k: draw from the k likeliest tokens alone (Fan et al. 2018,
      arXiv:1805.04833); None: from all.
    top_p: draw from the fewest tokens that have this probability together
      (Holtzman et al. 2020, arXiv:1904.09751, section 3.1), after `top_k`;
      None: from all.
    beam_size: hypotheses that are followed.
    length_penalty: alpha in log p / ((5 + length) / 6)^alpha (Wu et al. 2016,
      arXiv:1609.08144, section 7), by which hypotheses of different length are
      compared; None: 0.6. With 0 log p itself is.
    num_samples: answers per input: drawn ones, or the best hypotheses.
    end_ids: ids that end an answer; () decodes up to `max_decode_len`.
    stop_strings: texts that end an answer too, wherever the borders of its
      tokens are; they and what follows are cut off. Not with beams.
    return_scores: whether answers come with the sum of the log-probabilities
      that the model gives to their tokens, in nats, end id included (before
      temperature, top_k and top_p); beams: divided by the length penalty.
    seed: of the drawn tokens; None: 0.
    rules: added to the logits before anything else, `rule_adapter.py`; None:
      none. Scores are the model's own all the same.

  Raises:
    UserError: an unknown strategy, a value that is out of range, an option
      that the strategy does not read or that has no effect at its value.
  """

  strategy: str = "greedy"
  max_decode_len: int = 64
  temperature: float | None = None
  top_k: int | None = None
  top_p: float | None = None
  beam_size: int | None = None
  length_penalty: float | None = None
  num_samples: int = 1
  end_ids: tuple[int, ...] = ()
  stop_strings: tuple[str, ...] = ()
  return_scores: bool = False
  seed: int | None = None
  rules: Rules | None = None

  def __post_init__(self):
    for name in ("end_ids", "stop_strings"):
      value = getattr(self, name)
      if isinstance(value, (str, int)):
        _refuse(name, value, f"write ({value!r},)")
      object.__setattr__(self, name, tuple(value))
    if self.strategy not in STRATEGIES:
      near = difflib.get_close_matches(self.strategy, STRATEGIES, 1, 0.0)[0]
      _refuse(
        "strategy",
        self.strategy,
        f"known are {', '.join(STRATEGIES)} (the nearest is {near!r})",
      )
    self._check_effects()
    self._check_values()

  def _check_effects(self):
    """Every option given must be one that the strategy reads."""
    read = STRATEGIES[self.strategy]
    defaults = {f.name: f.default for f in dataclasses.fields(self)}
    for name in sorted(set().union(*STRATEGIES.values()) - set(read)):
      value = getattr(self, name)
      if value != defaults[name]:
        readers = [s for s, names in STRATEGIES.items() if name in names]
        raise UserError(
          f"DecodeConfig: {name} = {value!r} has no effect with strategy"
          f" {self.strategy!r}, which reads {', '.join(read) or 'no more'}."
          f" Leave it out or use strategy"
          f" {' or '.join(map(repr, readers))}."
        )
    if self.rules is not None and self.rules.end_score and not self.end_ids:
      _refuse("end_ids", (), "rule 'end' has no end to make likelier")
    if self.top_k == 1:
      _refuse("top_k", 1, "it leaves nothing to draw; use strategy 'greedy'")
    if self.top_p == 1:
      _refuse("top_p", self.top_p, "it leaves out nothing; give None")
    if self.strategy == "beam":
      if self.beam_size is None:
        _refuse("beam_size", None, "strategy 'beam' needs it")
      if self.num_samples > self.beam_size:
        _refuse(
          "num_samples",
          self.num_samples,
          f"a search with beam_size {self.beam_size} ends with no more than"
          " that",
        )
      if self.stop_strings:
        _refuse(
          "stop_strings",
          self.stop_strings,
          "beams are compared by their whole text; use another strategy, or"
          " cut the answers",
        )
      if self.beam_size == 1 and self.length_penalty and not self.return_scores:
        _refuse(
          "length_penalty",
          self.length_penalty,
          "one beam is compared with no other; leave it out",
        )

  def _check_values(self):
    for name in ("max_decode_len", "top_k", "beam_size", "num_samples"):
      value = getattr(self, name)
      if value is not None and (not _whole(value) or value < 1):
        _refuse(name, value, "it is a whole number, 1 or more")
    for name in ("temperature", "top_p"):
      value = getattr(self, name)
      if value is not None and not (value > 0 and math.isfinite(value)):
        more = "; use strategy 'greedy'" if value == 0 else ""
        _refuse(name, value, f"it is above 0{more}")
    if self.top_p is not None and self.top_p > 1:
      _refuse("top_p", self.top_p, "it is a probability, at most 1")
    if self.length_penalty is not None and not (
      self.length_penalty >= 0 and math.isfinite(self.length_penalty)
    ):
      _refuse("length_penalty", self.length_penalty, "it is 0 or more")
    if len(set(self.end_ids)) < len(self.end_ids) or not all(
      _whole(i) and i >= 0 for i in self.end_ids
    ):
      _refuse("end_ids", self.end_ids, "ids are 0 or more, each once")
    if not all(isinstance(s, str) and s for s in self.stop_strings):
      _refuse("stop_strings", self.stop_strings, "texts that are not empty")
    if self.seed is not None and not (
      _whole(self.seed) and 0 <= self.seed < 2**32
    ):
      _refuse("seed", self.seed, "it is in 0 to 2^32 - 1")

  @property
  def compiled(self) -> "DecodeConfig":
    """The same without what a compiled program does not depend on."""
    return dataclasses.replace(self, stop_strings=(), seed=None)

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises UserError where an option asks for more ids than there are."""
    over = [i for i in self.end_ids if i >= vocab_size]
    if over:
      _refuse("end_ids", self.end_ids, f"{over} are over {vocab_size} ids")
    if self.rules is not None:
      over = [i for i, _ in self.rules.token_scores if i >= vocab_size]
      if over:
        _refuse("rules", self.rules, f"{over} are over {vocab_size} ids")
    if self.top_k is not None and self.top_k >= vocab_size:
      _refuse(
        "top_k",
        self.top_k,
        f"it leaves out nothing: the model has {vocab_size} ids",
      )
    if self.beam_size is not None:
      candidates = self.beam_size * (1 + len(self.end_ids))
      if candidates > vocab_size:
        _refuse(
          "beam_size",
          self.beam_size,
          f"each step looks at {candidates} candidates, but the model has"
          f" {vocab_size} ids",
        )


def _whole(value) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _refuse(name, value, why: str):
  raise UserError(f"DecodeConfig: {name} = {value!r}: {why}.")
