"""APE's search: proposals, scores by a bandit, variants of the best.

Source: Zhou et al., 2023, "Large language models are human-level prompt
engineers" (arXiv 2211.01910), section 3 and algorithm 1.
"""

import collections
import dataclasses
import random
from collections.abc import Callable, Sequence

from flan_jax.curation.ape_scores import Score
from flan_jax.curation.ape_templates import Example, Templates
from flan_jax.curation.asking import Asker, Decoding
from flan_jax.curation.bandit import Bandit
from flan_jax.curation.decisions import Decisions
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError
from flan_jax.training import checks

STAGE = "proposal"
PROPOSING = Decoding(50, temperature=0.9, top_p=0.9)


@dataclasses.dataclass(frozen=True)
class Search:
  """How instructions are proposed and scored.

  Attributes:
    subsamples: draws of examples that proposals are made from.
    demos: examples in each.
    prompts: proposals from each; published: 50 in all.
    method: "all", every candidate on the same `samples` examples; or "ucb", a
      bandit.
    samples: examples of "all".
    rounds: of the bandit.
    per_round: share of the candidates that a round scores.
    round_samples: examples on which each of them is scored.
    c: see `Bandit`.
    resampling: rounds of Monte-Carlo resampling, at most; 0: none. It stops
      when the best instruction is the one of the round before.
    keep: share of the candidates that variants are made of.
    variants: of each of them.
    seed: of what is drawn.
    decoding: of proposals and variants.

  Raises:
    UserError: a number out of range.
  """

  subsamples: int = 5
  demos: int = 5
  prompts: int = 10
  method: str = "all"
  samples: int = 20
  rounds: int = 20
  per_round: float = 0.334
  round_samples: int = 5
  c: float = 1.0
  resampling: int = 0
  keep: float = 0.1
  variants: int = 4
  seed: int = 0
  decoding: Decoding = PROPOSING

  def __post_init__(self):
    checks.numbers(
      subsamples=self.subsamples,
      demos=self.demos,
      prompts_per_subsample=self.prompts,
      search_samples=self.samples,
      ucb_rounds=self.rounds,
      ucb_samples=self.round_samples,
      variants=self.variants,
    )
    if self.method not in ("all", "ucb"):
      raise UserError(f"SEARCH is {self.method!r}; known are all, ucb.")
    if self.resampling < 0:
      raise UserError(
        f"RESAMPLING_ROUNDS is {self.resampling}; give 0 or more."
      )
    for name, value in (
      ("UCB_PER_ROUND", self.per_round), ("RESAMPLING_KEEP", self.keep),
    ):  # fmt: skip
      if not 0 < value <= 1:
        raise UserError(f"{name} is {value}; give a share above 0, at most 1.")
    Bandit(1, self.c)


@dataclasses.dataclass
class Candidate:
  """An instruction with its score.

  Attributes:
    instruction: its text.
    round: of resampling that made it; 0: a proposal.
    parent: that it is a variant of.
    score: mean; None: never scored.
    evaluated: scores in that mean.
  """

  instruction: str
  round: int = 0
  parent: str | None = None
  score: float | None = None
  evaluated: int = 0


def propose(
  examples: Sequence[Example],
  search: Search,
  templates: Templates,
  *,
  asker: Asker,
  decisions: Decisions,
) -> list[Candidate]:
  """Distinct proposals, in the order they came.

  Raises:
    UserError: fewer examples than `demos`, no proposal at all, an infilling
      that the generator does not offer.
  """
  if len(examples) < search.demos:
    raise UserError(
      f"DEMOS is {search.demos} and {len(examples)} examples are left for the"
      " search. Lower DEMOS or TEST_SAMPLES, or give more examples."
    )
  requests = []
  for number in range(search.subsamples):
    draws = random.Random(f"{search.seed} demos {number}")
    before, after = templates.proposal_parts(
      draws.sample(list(examples), search.demos)
    )
    decoding = _infilling(search.decoding, before, after, templates, asker)
    text = before
    if templates.mode == "insert" and templates.infill is not None:
      text = templates.infill.replace("{prefix}", before).replace(
        "{suffix}", after
      )
    requests += [
      decoding.request(text, number * search.prompts + k)
      for k in range(search.prompts)
    ]
  replies = asker.ask(requests)
  out = _distinct(replies, set(), decisions, 0, [None] * len(replies))
  if not out:
    raise UserError(
      f"none of {len(replies):,} replies has an instruction:"
      f" {decisions.counts.get(STAGE)}. See {decisions.path}."
    )
  return out


def _infilling(decoding, before, after, templates, asker) -> Decoding:
  if templates.mode == "forward" or templates.infill is not None:
    return decoding
  if not asker.takes_extra or asker.identity.get("api") == "chat":
    raise UserError(
      f"MODE 'insert' needs a model that fills in, and {asker.model} is asked"
      " only to go on. Give INFILL, such as"
      " '{prefix}<extra_id_0>{suffix}' for T5, or an endpoint with API"
      " 'completions' that takes a suffix."
    )
  return dataclasses.replace(
    decoding, extra={**decoding.extra, "suffix": after}
  )


def _distinct(
  replies: Sequence[Reply], known: set[str], decisions, number, parents
) -> list[Candidate]:
  """Instructions that are not known yet; adds them to `known`."""
  out = []
  for k, (reply, parent) in enumerate(zip(replies, parents, strict=True)):
    text = clean(reply.text)
    reason = None
    if reply.error:
      reason = "no answer"
    elif not text:
      reason = "empty reply"
    elif text in known:
      reason = "copy"
    row = {"instruction": text} if text else {"error": reply.error}
    decisions.write(
      STAGE, f"round_{number}_{k}", row, reason=reason, parent=parent
    )
    if reason is None:
      known.add(text)
      out.append(Candidate(text, number, parent))
  return out


def clean(text: str) -> str:
  r"""An instruction as a reply has it, without marks around it.

  >>> clean('<extra_id_0> "name the opposite"<extra_id_1> x')
  'name the opposite'

  Of T5's answers that is the text between the first two marks of places.
  """
  parts = text.split("<extra_id_1>")[0].split("<extra_id_0>")
  text = parts[-1].strip()
  for mark in ('"', "'", "`", "“”"):
    if len(text) > 1 and text[0] == mark[0] and text[-1] == mark[-1]:
      text = text[1:-1].strip()
  return text


def evaluate(
  candidates: Sequence[Candidate],
  examples: Sequence[Example],
  search: Search,
  score: Score,
  templates: Templates,
  *,
  asker: Asker,
  draw: str,
) -> list[Candidate]:
  """The candidates with their scores, best first; those never tried at the end.

  Args:
    candidates: distinct.
    examples: of which samples are drawn.
    search: how.
    score: of one candidate on one example.
    templates: of the search.
    asker: what answers, or weighs outputs.
    draw: names the round, so that its samples are fresh.
  """
  bandit = Bandit(len(candidates), search.c)
  times: collections.Counter = collections.Counter()

  def try_on(arms: Sequence[int], count: int, name: str):
    draws = random.Random(f"{search.seed} {draw} {name}")
    rows = draws.sample(range(len(examples)), min(count, len(examples)))
    places = [(arm, row) for arm in arms for row in rows]
    tried = []
    for arm, row in places:
      # Another draw, where the same pair comes again.
      tried.append(
        (candidates[arm].instruction, examples[row], times[arm, row])
      )
      times[arm, row] += 1
    scores = score(tried, templates, asker)
    for (arm, _), value in zip(places, scores, strict=True):
      if value is not None:
        bandit.add(arm, [value])

  if search.method == "all":
    try_on(range(len(candidates)), search.samples, "all")
  else:
    count = max(1, round(search.per_round * len(candidates)))
    for number in range(search.rounds):
      try_on(bandit.choose(count), search.round_samples, f"round {number}")
  return [
    dataclasses.replace(
      candidates[arm], score=bandit.mean(arm), evaluated=bandit.count(arm)
    )
    for arm in bandit.ranking()
  ]


def search(
  examples: Sequence[Example],
  options: Search,
  score: Score,
  templates: Templates,
  *,
  proposer: Asker,
  scorer: Asker,
  decisions: Decisions,
  say: Callable[[str], None] = print,
) -> tuple[list[Candidate], list[dict]]:
  """Candidates, best first, and one row for each round of resampling.

  With resampling, the best candidates of a round and variants of them are
  scored on fresh samples, until the best one stays the same (algorithm 1).

  Raises:
    UserError: nothing could be scored; see `propose`.
  """
  found = propose(
    examples, options, templates, asker=proposer, decisions=decisions
  )
  say(f"{len(found):,} distinct proposals")
  history = []
  known = {c.instruction for c in found}
  earlier: dict[str, Candidate] = {}
  for number in range(options.resampling + 1):
    ranked = evaluate(
      found, examples, options, score, templates, asker=scorer,
      draw=f"resampling {number}",
    )  # fmt: skip
    best = ranked[0]
    if best.score is None:
      raise UserError(
        f"none of {len(ranked):,} candidates could be scored: no request of"
        f" {scorer.model} was answered. See {decisions.path.parent}."
      )
    earlier |= {c.instruction: c for c in ranked}
    history.append(
      {"round": number, "candidates": len(ranked), "best": best.instruction,
       "score": best.score}
    )  # fmt: skip
    say(f"round {number}: {best.score:.4f} {best.instruction!r}")
    same = number and history[-2]["best"] == best.instruction
    if number == options.resampling or same:
      break
    kept = ranked[: max(1, round(options.keep * len(ranked)))]
    parents = [c.instruction for c in kept for _ in range(options.variants)]
    requests = [
      options.decoding.request(
        templates.variation_prompt(parent),
        number * options.variants + k % options.variants,
      )
      for k, parent in enumerate(parents)
    ]
    variants = _distinct(
      proposer.ask(requests), known, decisions, number + 1, parents
    )
    found = [*kept, *variants]
  rest = [c for t, c in earlier.items() if t not in {r.instruction
          for r in ranked}]  # fmt: skip
  return [*ranked, *rest], history
