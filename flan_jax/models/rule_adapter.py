"""Three hand-written rules, added to a base model's logits while it decodes.

With them a model that was never tuned on instructions answers in the form of
one that was: p(w | x) is proportional to p_base(w | x) softmax(r(w, x)), where
r is the sum of

* `end`: the ends of an answer become likelier the longer it is;
* `tokens`: a few tokens are likelier or less likely everywhere;
* `repeat`: tokens that are in the answer already are less likely.

Since the normaliser of the softmax is the same for all tokens, adding r to the
logits is the product of the two distributions.

Source: Hewitt et al., 2024 (arXiv 2409.14254), the rule-based adapter and its
table of scores. Two deviations of the code released with it are options here:
it counts the prompt's tokens as said (`repeat_prompt`), and nothing raises the
end of an answer of `end_length` tokens or more (`end_stays` False, as in the
paper).

R rows, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flan_jax.errors import UserError, check_known

RULES = ("end", "tokens", "repeat")

# Texts of one token each, with the blank before it where there is one.
# "What" is -5 in the paper's listing and code, -3 in its table.
TOKEN_SCORES = (
  ("<", -4.0),
  (" <", -4.0),
  ("|", -4.0),
  (" I", -5.0),
  ("I", -5.0),
  ("We", -3.0),
  ("What", -5.0),
  (" should", -6.0),
  (" *", 1.0),
  (" -", 1.0),
  ("  ", 1.0),
  ("   ", 1.0),
  (" #", 1.0),
  (" ##", 1.0),
  ("\n", 1.0),
  ("!", 1.0),
)

# What stands before a text, so that it is no beginning; the first that does
# not become one token with it.
_BEFORE = ("a", "\n", ".", "7")


@dataclasses.dataclass(frozen=True)
class Rules:
  """The rules in a vocabulary's ids, as a compiled program has them.

  `RuleAdapter.of` makes it.

  Attributes:
    end_score: of the ends of an answer that is nearly `end_length` tokens long;
      less in proportion to its length. 0: no such rule.
    end_length: tokens.
    end_stays: whether longer answers have `end_score` too, or nothing.
    token_scores: (id, score) of each.
    repeat_score: of each token that was said; 0: no such rule.
    repeat_prompt: whether the prompt's tokens count as said.
  """

  end_score: float
  end_length: int
  end_stays: bool
  token_scores: tuple[tuple[int, float], ...]
  repeat_score: float
  repeat_prompt: bool

  @property
  def remembers(self) -> bool:
    """Whether it has to be known what was said."""
    return self.repeat_score != 0

  def start(
    self, inputs_BS: Int[Array, "B S"], vocab_size: int
  ) -> Bool[Array, "B V"] | None:
    """What was said before the answer; None: nothing asks for it.

    Args:
      inputs_BS: ids, below 0 at padding.
      vocab_size: V.
    """
    if not self.remembers:
      return None
    B = inputs_BS.shape[0]
    said_BV = jnp.zeros((B, vocab_size), bool)
    if not self.repeat_prompt:
      return said_BV
    return say(said_BV, inputs_BS)

  def add(
    self,
    logits_RV: Float[Array, "R V"],
    length_R: Int[Array, "*R"],
    said_RV: Bool[Array, "R V"] | None,
    end_ids: tuple[int, ...],
  ) -> Float[Array, "R V"]:
    """The logits with all scores added to them.

    >>> rules = Rules(15.0, 250, False, ((0, 1.0),), -1.5, False)
    >>> said_1V = jnp.array([[True, False, False]])
    >>> rules.add(jnp.zeros((1, 3)), jnp.array([50]), said_1V, (2,)).tolist()
    [[-0.5, 0.0, 3.0]]

    Args:
      logits_RV: float32, of the base model.
      length_R: tokens that each answer has, or one number for all.
      said_RV: which tokens were said; None: nothing asks for it.
      end_ids: the ends of an answer.
    """
    V = logits_RV.shape[-1]
    if self.token_scores:
      ids, scores = zip(*self.token_scores, strict=True)
      score_V = jnp.zeros(V).at[jnp.array(ids)].add(jnp.array(scores))
      logits_RV = logits_RV + score_V
    if self.remembers:
      logits_RV = logits_RV + self.repeat_score * said_RV
    if self.end_score:
      length = jnp.asarray(length_R, jnp.float32)
      share = jnp.minimum(length / self.end_length, 1.0)
      if not self.end_stays:
        share = jnp.where(length < self.end_length, share, 0.0)
      end_V = jnp.zeros(V).at[jnp.array(end_ids)].set(self.end_score)
      logits_RV = logits_RV + share[..., None] * end_V
    return logits_RV


def say(
  said_RV: Bool[Array, "R V"], tokens_RT: Int[Array, "R T"]
) -> Bool[Array, "R V"]:
  """What is said when these tokens are said too; below 0 there is none.

  >>> say(jnp.zeros((1, 4), bool), jnp.array([[3, -1, 1]])).tolist()
  [[False, True, False, True]]
  """
  R, V = said_RV.shape
  tokens_RT = jnp.where(tokens_RT < 0, V, tokens_RT)
  return said_RV.at[jnp.arange(R)[:, None], tokens_RT].set(True, mode="drop")


@dataclasses.dataclass(frozen=True)
class RuleAdapter:
  """Which rules there are, in texts; `of` turns them into a vocabulary's ids.

  >>> adapter = RuleAdapter(rules=("end", "repeat"))
  >>> RuleAdapter(rules=("ends",))
  Traceback (most recent call last):
  flan_jax.errors.UserError: RULES is 'ends'; known are end, tokens, repeat\
 (the nearest is 'end').

  Attributes:
    rules: of `RULES`, at least one; the paper has all.
    end_score, end_length, end_stays: of rule "end", see `Rules`.
    token_scores: (text, score) of rule "tokens"; each text is one token where
      it follows others, and those that are not in a vocabulary are left out.
    repeat_score: of rule "repeat".
    repeat_prompt: whether a prompt's tokens count as said, as in the released
      code; the paper has those of the answer alone.

  Raises:
    UserError: an unknown rule, a value out of range, or an option of a rule
      that is not chosen.
  """

  rules: tuple[str, ...] = RULES
  end_score: float = 15.0
  end_length: int = 250
  end_stays: bool = False
  token_scores: tuple[tuple[str, float], ...] = TOKEN_SCORES
  repeat_score: float = -1.5
  repeat_prompt: bool = False

  def __post_init__(self):
    if isinstance(self.rules, str):
      raise UserError(f"RULES is {self.rules!r}; write ({self.rules!r},).")
    object.__setattr__(self, "rules", tuple(self.rules))
    scores = tuple(map(tuple, self.token_scores))
    object.__setattr__(self, "token_scores", scores)
    for rule in self.rules:
      check_known("RULES", rule, RULES)
    if not self.rules:
      raise UserError(
        f"RULES is (); name some of {', '.join(RULES)}, or leave the adapter"
        " out."
      )
    defaults = {f.name: f.default for f in dataclasses.fields(self)}
    for name, default in defaults.items():
      first = name.split("_")[0]
      rule = "tokens" if first == "token" else first
      if name == "rules" or rule in self.rules:
        continue
      if getattr(self, name) != default:
        raise UserError(
          f"{name.upper()} = {getattr(self, name)!r} has no effect:"
          f" {rule!r} is none of RULES {self.rules}."
        )
    for name in ("end_score", "repeat_score"):
      value = getattr(self, name)
      if not math.isfinite(value) or value == 0:
        raise UserError(
          f"{name.upper()} is {value}; give a number that is not 0, or leave"
          f" its rule out of RULES {self.rules}."
        )
    if self.end_length < 1:
      raise UserError(f"END_LENGTH is {self.end_length}; give 1 or more.")

  def of(
    self,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
  ) -> tuple[Rules, tuple[str, ...]]:
    """The rules in ids, and texts that are no single token there.

    Args:
      encode: text to ids, without begin or end ids.
      decode: ids to text.

    Raises:
      UserError: rule "tokens" is chosen and the vocabulary has none of them.
    """
    found, missing = {}, []
    if "tokens" in self.rules:
      for text, score in self.token_scores:
        token = token_of(text, encode, decode)
        if token is None:
          missing.append(text)
        else:
          found[token] = float(score)
      if not found:
        raise UserError(
          f"RULES {self.rules}: none of the texts of 'tokens' is one token of"
          f" this vocabulary: {', '.join(map(repr, missing))}. Leave 'tokens'"
          " out, or give RuleAdapter.token_scores of your own."
        )
    rules = Rules(
      end_score=self.end_score if "end" in self.rules else 0.0,
      end_length=self.end_length,
      end_stays=self.end_stays,
      token_scores=tuple(sorted(found.items())),
      repeat_score=self.repeat_score if "repeat" in self.rules else 0.0,
      repeat_prompt=self.repeat_prompt,
    )
    return rules, tuple(missing)


def missing_notes(missing: Sequence[str]) -> list[str]:
  """What to tell of texts that a vocabulary has no token for.

  >>> missing_notes(["  "])
  ["note: rule 'tokens' leaves out '  ': no single token of this vocabulary"]
  """
  if not missing:
    return []
  texts = ", ".join(map(repr, missing))
  return [
    f"note: rule 'tokens' leaves out {texts}: no single token of this"
    " vocabulary"
  ]


def token_of(
  text: str,
  encode: Callable[[str], Sequence[int]],
  decode: Callable[[Sequence[int]], str],
) -> int | None:
  """The one token that writes `text` behind others; None: there is none.

  >>> ids = {"a": [1], "a!": [1, 7], "a?": [2]}
  >>> encode = lambda text: ids.get(text, [0, 0, 0])
  >>> decode = lambda found: {(1, 7): "a!", (2,): "a?"}.get(tuple(found), "")
  >>> token_of("!", encode, decode), token_of("?", encode, decode)
  (7, None)

  Args:
    text: with the blank before it, where it has one.
    encode: text to ids.
    decode: ids to text.
  """
  for before in _BEFORE:
    alone = list(map(int, encode(before)))
    both = list(map(int, encode(before + text)))
    if both[:-1] == alone and decode(both) == before + text:
      return both[-1]
  return None
