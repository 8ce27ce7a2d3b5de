"""How good an instruction is: execution accuracy, and log-probability.

Source: Zhou et al., 2023, "Large language models are human-level prompt
engineers" (arXiv 2211.01910), section 3.2; the metrics are those of its code
for the instruction-induction tasks.
"""

import collections
import dataclasses
import string
from collections.abc import Callable, Sequence

from flan_jax.curation.ape_templates import Example, Templates
from flan_jax.curation.asking import Asker, Decoding
from flan_jax.endpoint.request import Request
from flan_jax.errors import UserError, check_known

KINDS = ("execution", "log_probability")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
DECODING = Decoding(200, temperature=0.7)


def normalise(text: str) -> str:
  """What two answers are compared by.

  >>> normalise("Sentence 1: The cat and the-dog. More.")
  'the cat the dog'
  """
  text = text.replace(" and ", " ")
  for label in ("Sentence 1:", "Sentence 2:"):
    text = text.replace(label, "")
  text = text.strip().split("\n")[0].split(".")[0].lower().replace("-", " ")
  return " ".join(text.translate(_PUNCTUATION).split())


def exact_match(said: str, wanted: str) -> float:
  """1 where both are the same."""
  return float(said == wanted)


def f1(said: str, wanted: str) -> float:
  """F of the words that both have.

  >>> f1("a b", "b c")
  0.5
  """
  a, b = said.split(), wanted.split()
  common = (collections.Counter(a) & collections.Counter(b)).total()
  if not common:
    return 0.0
  precision, recall = common / len(a), common / len(b)
  return 2 * precision * recall / (precision + recall)


def exact_set(said: str, wanted: str) -> float:
  """1 where both have the same words, in any order."""
  return float(set(said.split()) == set(wanted.split()))


def contains(said: str, wanted: str) -> float:
  """1 where the answer has what is wanted in it.

  >>> contains("a big dog", "big"), contains("bigger", "big")
  (1.0, 0.0)
  """
  return float(bool(wanted) and f" {wanted} " in f" {said} ")


METRICS: dict[str, Callable[[str, str], float]] = {
  "exact_match": exact_match,
  "f1": f1,
  "exact_set": exact_set,
  "contains": contains,
}


@dataclasses.dataclass(frozen=True)
class Score:
  """How an instruction is scored on an example.

  Attributes:
    kind: "execution", the metric of the answer, in [0, 1]; or
      "log_probability", the mean log-probability of the tokens of the example's
      first output, in nats. That needs a checkpoint: endpoints no longer give
      log-probabilities of a given text.
    metric: of `METRICS`, for "execution".
    decoding: of answers, for "execution".

  Raises:
    UserError: an unknown name.
  """

  kind: str = "execution"
  metric: str = "exact_match"
  decoding: Decoding = DECODING

  def __post_init__(self):
    check_known("SCORE", self.kind, KINDS)
    check_known("METRIC", self.metric, METRICS)

  def __call__(
    self,
    tried: Sequence[tuple[str, Example, int]],
    templates: Templates,
    asker: Asker,
  ) -> list[float | None]:
    """A score for each (instruction, example, number of the draw).

    None where there is no answer: a request that failed is no score of 0.

    Raises:
      UserError: what the generator raises; log-probabilities of an endpoint.
    """
    if self.kind == "log_probability":
      if asker.takes_extra:
        raise UserError(
          f"SCORE 'log_probability' needs a checkpoint, and {asker.model} is an"
          " endpoint, which gives no log-probabilities of a given text. Add"
          " --gin_file=gin/backends/scorer.gin, or use SCORE 'execution'."
        )
      replies = asker.ask(
        [
          Request(
            templates.evaluation_prompt(instruction, example.input),
            target=templates.target(example.outputs[0]),
          )
          for instruction, example, _ in tried
        ]
      )
      return [
        None if r.error else r.score / r.completion_tokens for r in replies
      ]
    replies = asker.ask(
      [
        self.decoding.request(
          templates.evaluation_prompt(instruction, example.input),
          draw if self.decoding.temperature else 0,
        )
        for instruction, example, draw in tried
      ]
    )
    return [
      None if r.error else self.compare(r.text, example.outputs)
      for r, (_, example, _) in zip(replies, tried, strict=True)
    ]

  def compare(self, said: str, outputs: Sequence[str]) -> float:
    """The metric against the output that fits best."""
    metric = METRICS[self.metric]
    return max(metric(normalise(said), normalise(o)) for o in outputs)
