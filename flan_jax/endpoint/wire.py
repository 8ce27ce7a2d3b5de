"""The JSON of OpenAI-compatible endpoints: what is sent, what is read.

Two forms, which most servers of open models offer too: chat
(`/chat/completions`) and plain completions (`/completions`). Published at
platform.openai.com/docs/api-reference; read in November 2026.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.endpoint.budget import Prices
from flan_jax.endpoint.request import PENALTIES, Reply, Request
from flan_jax.errors import UserError

APIS = {"chat": "/chat/completions", "completions": "/completions"}
MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
# Likeliest tokens asked for where choices are weighed; some servers give no
# more than 5 in completions.
TOP_LOG_PROBS = {"chat": 20, "completions": 5}


class Unreadable(Exception):
  """A response that holds no answer; says why, for the journal.

  Attributes:
    final: whether asking again would say the same.
  """

  def __init__(self, why: str, final: bool = False):
    super().__init__(why)
    self.final = final


def body(
  request: Request, model: str, api: str, max_tokens_field: str = "max_tokens"
) -> dict[str, Any]:
  """The JSON that asks a request.

  >>> body(Request("Hi", max_tokens=4), "m", "completions")
  {'model': 'm', 'temperature': 0.0, 'max_tokens': 4, 'prompt': 'Hi'}

  Raises:
    UserError: `extra` has a field that is set here.
  """
  out = {
    "model": model,
    "temperature": request.temperature,
    max_tokens_field: 1 if request.choices else request.max_tokens,
  }
  if api == "chat":
    system = [{"role": "system", "content": request.system}]
    user = {"role": "user", "content": request.prompt}
    out["messages"] = [*(system if request.system else ()), user]
  else:
    before = f"{request.system}\n\n" if request.system else ""
    out["prompt"] = before + request.prompt
  if request.top_p is not None:
    out["top_p"] = request.top_p
  if request.stop:
    out["stop"] = list(request.stop)
  if request.seed is not None:
    out["seed"] = request.seed
  for name in PENALTIES:
    if getattr(request, name):
      out[name] = getattr(request, name)
  if request.choices or request.score:
    count = TOP_LOG_PROBS[api] if request.choices else 0
    if api == "chat":
      out["logprobs"] = True
      if count:
        out["top_logprobs"] = count
    else:
      out["logprobs"] = count
  clash = sorted(out.keys() & request.extra.keys())
  if clash:
    raise UserError(
      f"Request: extra = {dict(request.extra)!r}: {', '.join(clash)} is set by"
      " the request's own options."
    )
  return out | dict(request.extra)


def reply(
  text: str, request: Request, api: str, prices: Prices, seconds: float
) -> Reply:
  """The answer in a response's body.

  >>> r = reply('{"choices": [{"text": " Hi", "finish_reason": "stop"}]}',
  ...           Request("Say hi."), "completions", Prices(), 0.1)
  >>> r.text, r.complete, r.estimated
  (' Hi', True, True)

  Args:
    text: the body.
    request: what was asked.
    api: "chat" or "completions".
    prices: of tokens.
    seconds: that it took.

  Raises:
    Unreadable: it is not JSON, or not of that form, or has no text.
  """
  parsed = _parsed(text)
  try:
    choice = parsed["choices"][0]
    said = choice["message"]["content"] if api == "chat" else choice["text"]
  except (KeyError, IndexError, TypeError):
    raise Unreadable(
      f"no choices[0].{'message.content' if api == 'chat' else 'text'} in"
      f" {text[:200]!r}"
    ) from None
  finish = choice.get("finish_reason")
  if not isinstance(said, str):
    raise Unreadable(f"no text, finish_reason {finish!r}: {text[:200]!r}")
  # Halves of a character that JSON's escapes can make: no text has them.
  said = said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
  prompt_tokens, completion_tokens, estimated = _usage(parsed, request, said)
  log_probs, score = (), None
  if request.choices:
    log_probs, said = _choices(choice, api, request.choices), ""
  elif request.score:
    score = _score(choice, api)
  return Reply(
    text=said,
    complete=finish != "length" or bool(request.choices),
    log_probs=log_probs,
    score=score,
    prompt_tokens=prompt_tokens,
    completion_tokens=completion_tokens,
    estimated=estimated,
    cost=prices.cost(prompt_tokens, completion_tokens),
    seconds=round(seconds, 4),
    raw=choice,
  )


def _parsed(text):
  try:
    parsed = json.loads(text, parse_constant=_refuse)
  except (ValueError, RecursionError) as e:
    raise Unreadable(f"not JSON ({e}): {text[:200]!r}") from None
  if not isinstance(parsed, Mapping):
    raise Unreadable(f"not a JSON object: {text[:200]!r}")
  if parsed.get("error"):
    raise Unreadable(f"an error: {str(parsed['error'])[:200]}")
  return parsed


def _refuse(constant):
  raise ValueError(f"{constant} is no JSON")


def _usage(parsed, request, said) -> tuple[int, int, bool]:
  usage = parsed.get("usage")
  if isinstance(usage, Mapping):
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    if all(type(c) is int and c >= 0 for c in counts):
      return *counts, False
  return request.estimated_tokens, len(said.encode()) // 4 + 1, True


def _top(choice, api) -> list[tuple[str, float]]:
  """The likeliest first tokens; [] where the endpoint does not offer them."""
  logprobs = choice.get("logprobs") or {}
  try:
    if api == "chat":
      top = logprobs["content"][0]["top_logprobs"]
      return [(t["token"], float(t["logprob"])) for t in top]
    return [(t, float(p)) for t, p in logprobs["top_logprobs"][0].items()]
  except (KeyError, IndexError, TypeError, ValueError, AttributeError):
    return []


def _choices(choice, api, choices: Sequence[str]) -> tuple[float, ...]:
  top = _top(choice, api)
  if not top:
    raise Unreadable(
      "no log-probabilities, which weighing choices needs: this endpoint does"
      " not offer them",
      final=True,
    )
  out = []
  for wanted in choices:
    # " m" and "m" are two tokens of one answer.
    found = [p for token, p in top if token.strip() == wanted.strip()]
    out.append(math.log(sum(map(math.exp, found))) if found else -math.inf)
  if all(map(math.isinf, out)):
    raise Unreadable(
      f"none of {', '.join(map(repr, choices))} among the likeliest tokens"
      f" {', '.join(repr(token) for token, _ in top[:8])}",
      final=True,
    )
  return tuple(out)


def _score(choice, api) -> float | None:
  logprobs = choice.get("logprobs") or {}
  try:
    if api == "chat":
      values = [t["logprob"] for t in logprobs["content"]]
    else:
      values = logprobs["token_logprobs"]
    return float(sum(values))
  except (KeyError, TypeError):
    return None
