"""What is asked of a text generator, and what it answers: plain values.

A generator is anything with the two members of `Generator`: an HTTP endpoint
(`client.py`) or a checkpoint of ours (`curation/backends.py`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flan_jax.endpoint.journal import Journal
from flan_jax.errors import UserError

PENALTIES = ("presence_penalty", "frequency_penalty")


@dataclasses.dataclass(frozen=True)
class Request:
  """One text to go on from, or some choices to weigh after it.

  >>> Request("Name a fruit.", max_tokens=8).choices
  ()

  Attributes:
    prompt: what the user says.
    system: what stands before it as the system's message; "": nothing.
    max_tokens: of the longest answer.
    temperature: 0 takes the likeliest token at each step.
    top_p: see `DecodeConfig`; None: all tokens.
    stop: texts that end an answer; they are cut off.
    seed: of drawn tokens; None: the generator's own.
    draw: number of this answer among several to the same prompt; without it
      the first answer would be taken from the journal.
    choices: texts whose log-probabilities are wanted, as the next text, in
      place of an answer. Each is one token for an endpoint.
    target: a text whose log-probability is wanted, as the next text, in place
      of an answer: the reply's `score`, over `completion_tokens` tokens. Only
      a checkpoint gives it.
    score: whether the answer's log-probability is wanted too.
    presence_penalty: taken from the logits of each token that the answer has
      already, from -2 to 2.
    frequency_penalty: the same, times how often it has it; endpoints alone.
    extra: further fields of an endpoint's JSON, such as `logit_bias`.

  Raises:
    UserError: a value that is out of range or an option without effect.
  """

  prompt: str
  system: str = ""
  max_tokens: int = 256
  temperature: float = 0.0
  top_p: float | None = None
  stop: tuple[str, ...] = ()
  seed: int | None = None
  draw: int = 0
  choices: tuple[str, ...] = ()
  target: str = ""
  score: bool = False
  presence_penalty: float = 0.0
  frequency_penalty: float = 0.0
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not isinstance(self.prompt, str) or not self.prompt.strip():
      raise UserError(f"Request: prompt {self.prompt!r} is no text.")
    for name in ("stop", "choices"):
      value = getattr(self, name)
      if isinstance(value, str):
        raise UserError(f"Request: {name} = {value!r}: write ({value!r},).")
      object.__setattr__(self, name, tuple(value))
    if self.max_tokens < 1:
      raise UserError(f"Request: max_tokens = {self.max_tokens}: 1 or more.")
    if not (self.temperature >= 0 and math.isfinite(self.temperature)):
      raise UserError(
        f"Request: temperature = {self.temperature!r}: it is 0 or more."
      )
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise UserError(
        f"Request: top_p = {self.top_p!r}: it is a probability above 0."
      )
    if self.temperature == 0:
      for name in ("top_p", "seed"):
        if getattr(self, name) is not None:
          raise UserError(
            f"Request: {name} = {getattr(self, name)!r} has no effect with"
            " temperature 0, which draws nothing. Leave it out."
          )
    for name in PENALTIES:
      if not -2 <= getattr(self, name) <= 2:
        raise UserError(
          f"Request: {name} = {getattr(self, name)!r}: it is from -2 to 2."
        )
    if self.choices and len(set(self.choices)) < 2:
      raise UserError(f"Request: choices = {self.choices!r}: give two or more.")
    if self.choices and self.target:
      raise UserError("Request: choices have no effect with a target.")
    if self.choices or self.target:
      for name in ("stop", "score", *PENALTIES):
        if getattr(self, name):
          raise UserError(
            f"Request: {name} = {getattr(self, name)!r} has no effect with"
            f" {'choices' if self.choices else 'a target'}, since nothing is"
            " written. Leave it out."
          )

  def key(self, generator: Mapping[str, Any]) -> str:
    """The hash of all that the answer depends on: 64 hex digits.

    >>> Request("a").key({"model": "x"}) == Request("a").key({"model": "y"})
    False

    Args:
      generator: what names the model, such as its address and name.
    """
    content = {"generator": dict(generator), "request": self.content}
    return hashlib.sha256(canonical(content).encode()).hexdigest()

  @property
  def content(self) -> dict[str, Any]:
    """Its fields as JSON; those that have their default are left out."""
    return {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(self)
      if f.name == "prompt"
      or getattr(self, f.name)
      != (f.default if f.default is not dataclasses.MISSING else {})
    }

  @property
  def estimated_tokens(self) -> int:
    """Tokens of the prompt, a guess: one per four bytes, and a few of frame."""
    text = self.system + self.prompt
    return len(text.encode()) // 4 + 8


@dataclasses.dataclass(frozen=True)
class Reply:
  """What came back for one request.

  Attributes:
    text: of the answer; "" where there is an error or choices were weighed.
    complete: whether the model ended it; False: cut at `max_tokens`.
    error: why there is no answer; "": there is one.
    log_probs: of the request's choices, in nats; -inf for a choice that is
      not among the likeliest tokens that an endpoint lists.
    score: log-probability of the answer, or of the request's target, in nats;
      None: not asked for, or the endpoint does not offer it.
    prompt_tokens, completion_tokens: read and written.
    estimated: whether these two are guesses, since the endpoint did not say.
    cost: in the currency of the prices.
    seconds: from asking to the whole answer.
    raw: the endpoint's own words about its answer.
    cached: whether it was in the journal.
  """

  text: str = ""
  complete: bool = True
  error: str = ""
  log_probs: tuple[float, ...] = ()
  score: float | None = None
  prompt_tokens: int = 0
  completion_tokens: int = 0
  estimated: bool = False
  cost: float = 0.0
  seconds: float = 0.0
  raw: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  cached: bool = False

  @property
  def record(self) -> dict[str, Any]:
    """As it is journaled."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    del fields["cached"]
    # JSON has no infinity.
    fields["log_probs"] = [None if math.isinf(p) else p for p in self.log_probs]
    return fields

  @classmethod
  def of_record(cls, record: Mapping[str, Any]) -> "Reply":
    """A reply from the journal."""
    fields = dict(record)
    fields["log_probs"] = tuple(
      -math.inf if p is None else p for p in fields["log_probs"]
    )
    return cls(**fields, cached=True)


OnReply = Callable[[int, Reply], None]


class Generator(Protocol):
  """What answers requests."""

  @property
  def identity(self) -> Mapping[str, Any]:
    """What names the model; part of every request's key.

    Has `model`, the name that reports use.
    """
    ...

  def generate(
    self,
    requests: Sequence[Request],
    *,
    journal: Journal,
    on_reply: OnReply | None = None,
  ) -> list[Reply]:
    """Answers in the order of the requests.

    What the journal has is not asked again; equal requests are asked once. A
    request that cannot be answered gets a reply with an `error`.

    Args:
      requests: any number.
      journal: an open one; every request and response goes there.
      on_reply: called with (number of the request, reply) as each comes.
    """
    ...


def canonical(value: Any) -> str:
  """JSON that equal values have in common.

  >>> canonical({"b": 1, "a": "é"})
  '{"a":"é","b":1}'
  """
  return json.dumps(
    value, sort_keys=True, ensure_ascii=False, separators=(",", ":")
  )


def pending(
  requests: Sequence[Request], keys: Sequence[str], journal: Journal
) -> tuple[list[Reply | None], dict[str, list[int]]]:
  """Replies that the journal has, and what is left to ask.

  Returns:
    A reply or None per request; and key -> numbers of the requests with it,
    for those that are to be asked.
  """
  replies: list[Reply | None] = [None] * len(requests)
  left: dict[str, list[int]] = {}
  for number, key in enumerate(keys):
    if key in left:
      left[key].append(number)
      continue
    record = journal.get(key)
    if record is None:
      left[key] = [number]
    else:
      replies[number] = Reply.of_record(record)
  return replies, left
