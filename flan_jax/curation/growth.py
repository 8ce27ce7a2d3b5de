"""Growing a pool of instructions, round by round.

Each round asks for new instructions, with some of the pool in the prompt, and
admits those that pass the rules of wording and are unlike all earlier ones.
Self-Instruct and Alpaca differ in what a prompt shows and in how a reply is
read.

Everything that is drawn comes from the seed and the number of the round, so a
run that goes on from its journal asks what it asked before.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flan_jax.curation import overlap, rouge_l, text_rules, tokens
from flan_jax.curation.asking import Asker
from flan_jax.curation.decisions import Decisions
from flan_jax.endpoint.request import Reply, Request
from flan_jax.errors import UserError
from flan_jax.training import checks

STAGE = "instruction"
NEAR = "near-duplicate"


@dataclasses.dataclass(frozen=True)
class Growth:
  """When an instruction is admitted, and when to stop.

  >>> Growth(target=0)
  Traceback (most recent call last):
  flan_jax.errors.UserError: TARGET is 0; give 1 or more.

  Attributes:
    target: instructions to admit; the round that reaches it is kept whole.
    prompts_per_round: requests of a round, which do not see one another.
    most_requests: stop after so many; None: no limit.
    novelty_rounds: of the mean similarity that stops a run.
    most_similar: the run stops when the candidates of the last
      `novelty_rounds` rounds had, in the mean, a higher ROUGE-L with what is
      most like each; None: never.
    barren_rounds: the run stops after so many rounds without one admission.
    rules: of wording.
    limit: the overlap above which an instruction is dropped.
    tokenizer: of overlap, see `tokens.TOKENIZERS`.
    workers: threads that compute overlap.
    seed: of what is drawn.

  Raises:
    UserError: a number out of range, an unknown tokenizer.
  """

  target: int = 50_000
  prompts_per_round: int = 5
  most_requests: int | None = None
  novelty_rounds: int = 10
  most_similar: float | None = 0.7
  barren_rounds: int = 20
  rules: text_rules.Rules = dataclasses.field(default_factory=text_rules.Rules)
  limit: rouge_l.Limit = dataclasses.field(default_factory=rouge_l.Limit)
  tokenizer: str | tokens.Tokenize = "rouge"
  workers: int = 1
  seed: int = 0

  def __post_init__(self):
    checks.numbers(
      target=self.target,
      prompts_per_round=self.prompts_per_round,
      novelty_rounds=self.novelty_rounds,
      barren_rounds=self.barren_rounds,
      workers=self.workers,
    )
    if self.most_requests is not None:
      checks.numbers(most_requests=self.most_requests)
    if self.most_similar is not None and not 0 < self.most_similar <= 1:
      raise UserError(
        f"MOST_SIMILAR is {self.most_similar}; give a ROUGE-L above 0 and at"
        " most 1, or None."
      )
    tokens.resolve(self.tokenizer)


@dataclasses.dataclass(frozen=True)
class Piece:
  """A candidate as a reply has it.

  Attributes:
    row: at least `instruction`.
    reason: why its form is refused; None: it is not.
  """

  row: dict[str, Any]
  reason: str | None = None


@dataclasses.dataclass(frozen=True)
class _Candidate:
  """A piece, the number of its request, its place in the reply, what it saw."""

  request: int
  place: int
  shown: tuple[str, ...]
  piece: Piece


@dataclasses.dataclass(frozen=True)
class Admitted:
  """An instruction that joined the pool.

  Attributes:
    id: `<method>_000001` and so on.
    row: at least `instruction`.
    request: number of the request that gave it, from 0.
    seeds: ids of what stood in its prompt.
    nearest: (text, ROUGE-L) of the ten most similar at that time.
    mean_similarity: with all of the pool.
  """

  id: str
  row: dict[str, Any]
  request: int
  seeds: tuple[str, ...]
  nearest: tuple[tuple[str, float], ...]
  mean_similarity: float

  @property
  def instruction(self) -> str:
    return self.row["instruction"]


@dataclasses.dataclass(frozen=True)
class Asked:
  """A request of a round, and ids of what its prompt shows."""

  request: Request
  shown: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Grown:
  """What a run admitted.

  Attributes:
    admitted: in order.
    requests: that were asked.
    stopped: why it stopped.
    rounds: one row for each: candidates, admissions, mean similarity.
  """

  admitted: list[Admitted]
  requests: int
  stopped: str
  rounds: list[dict[str, Any]]


def grow(
  options: Growth,
  known: Iterable[str],
  ask: Callable[[int, Sequence[Admitted]], Asked],
  read: Callable[[Reply], list[Piece]],
  *,
  asker: Asker,
  decisions: Decisions,
  method: str,
  say: Callable[[str], None] = print,
  shrink: bool = False,
) -> Grown:
  """Asks and admits until there are enough, or it gets nowhere.

  Args:
    options: see `Growth`.
    known: instructions of the seeds, which are not compared with one another.
    ask: (number of the request, what was admitted so far) -> the request.
    read: candidates in a reply without an error.
    asker: the generator.
    decisions: gets one for each candidate and each reply without any.
    method: begins the ids.
    say: what tells of progress.
    shrink: see `Asker.ask`.

  Raises:
    UserError: nothing was admitted; what the generator raises.
  """
  pool = overlap.Pool(
    known,
    tokenizer=options.tokenizer,
    limit=options.limit,
    workers=options.workers,
  )
  admitted: list[Admitted] = []
  rounds: list[dict[str, Any]] = []
  recent: collections.deque = collections.deque(maxlen=options.novelty_rounds)
  barren = requests = 0
  stopped = ""
  while not stopped:
    count = options.prompts_per_round
    if options.most_requests is not None:
      count = min(count, options.most_requests - requests)
    asked = [ask(requests + k, admitted) for k in range(count)]
    replies = asker.ask([a.request for a in asked], shrink=shrink)
    found = [
      _Candidate(requests + k, place, asked[k].shown, piece)
      for k, reply in enumerate(replies)
      for place, piece in enumerate(_pieces(reply, read))
    ]
    before = len(admitted)
    scores = _decide(found, options, pool, admitted, decisions, method)
    requests += count
    decisions.flush()
    recent.append(scores)
    barren = 0 if len(admitted) > before else barren + 1
    rounds.append(
      {
        "requests": requests,
        "candidates": len(found),
        "admitted": len(admitted) - before,
        "similarity": _mean(scores),
      }
    )
    say(_line(len(rounds), rounds[-1], len(admitted), options.target))
    stopped = _stop(options, len(admitted), requests, recent, barren)
  say(f"stopped: {stopped}")
  if not admitted:
    reasons = decisions.counts.get(STAGE, {})
    raise UserError(
      f"Of {sum(reasons.values()):,} candidates in {requests:,} replies none"
      f" was admitted: {_counted(reasons) or 'the replies had none'}. See"
      f" {decisions.path}. {asker.model} may need another prompt form"
      " (PROMPT_PREFIX, PROMPT_SUFFIX, API) or a larger temperature."
    )
  return Grown(admitted, requests, stopped, rounds)


def _pieces(reply: Reply, read) -> list[Piece]:
  if reply.error:
    return [Piece({"error": reply.error}, "no answer")]
  if not reply.text.strip():
    return [Piece({"text": reply.text}, "empty reply")]
  return read(reply) or [Piece({"text": reply.text}, "another format")]


def _decide(
  found: Sequence[_Candidate], options, pool, admitted, decisions, method
) -> list[float]:
  """Decides on the candidates of a round; similarities of those compared."""
  reasons = [
    c.piece.reason or options.rules.reason(c.piece.row["instruction"])
    for c in found
  ]
  # Each is compared with those before it too.
  verdicts = iter(
    pool.admit(
      [
        c.piece.row["instruction"]
        for c, reason in zip(found, reasons, strict=True)
        if reason is None
      ]
    )
  )
  scores = []
  for c, reason in zip(found, reasons, strict=True):
    id = f"{method}_request_{c.request}_{c.place}"
    more: dict[str, Any] = {"request": c.request}
    if reason is None:
      verdict = next(verdicts)
      nearest = tuple((pool[j], round(s, 4)) for j, s in verdict.nearest)
      mean = round(verdict.mean, 4)
      more |= {"nearest": nearest, "mean_similarity": mean}
      scores.append(verdict.score or 0.0)
      if verdict.novel:
        id = f"{method}_{len(admitted) + 1:06d}"
        admitted.append(
          Admitted(
            id=id,
            row=c.piece.row,
            request=c.request,
            seeds=c.shown,
            nearest=nearest,
            mean_similarity=mean,
          )
        )
      else:
        reason = NEAR
    decisions.write(STAGE, id, c.piece.row, reason=reason, **more)
  return scores


def _stop(options, admitted, requests, recent, barren) -> str:
  """Why to stop; "": go on."""
  if admitted >= options.target:
    return f"{admitted:,} instructions are admitted"
  if options.most_requests is not None and requests >= options.most_requests:
    return f"MOST_REQUESTS = {options.most_requests:,} requests are asked"
  if barren >= options.barren_rounds:
    return f"{barren:,} rounds admitted nothing"
  scores = [s for found in recent for s in found]
  similarity = _mean(scores)
  if (
    options.most_similar is not None
    and len(recent) == options.novelty_rounds
    and similarity is not None
    and similarity > options.most_similar
  ):
    return (
      f"novelty has fallen: the candidates of the last {len(recent)} rounds"
      f" have a mean similarity of {similarity:.2f}, over MOST_SIMILAR ="
      f" {options.most_similar}"
    )
  return ""


def _mean(scores: Sequence[float]) -> float | None:
  return round(sum(scores) / len(scores), 4) if scores else None


def _counted(reasons) -> str:
  return ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())


def _line(number, row, total, target) -> str:
  similarity = row["similarity"]
  text = "none" if similarity is None else f"{similarity:.2f}"
  return (
    f"round {number:,}: {row['admitted']:,} of {row['candidates']:,} candidates"
    f" admitted, mean similarity {text}; {total:,} of {target:,}"
  )
