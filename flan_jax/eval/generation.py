"""Generation: answers in free text, for tasks and for a user's own prompts.

Inputs go through a few fixed lengths (`buckets.py`); each distinct input is
answered once. Source: Wei et al., 2022 (arXiv 2109.01652), section 2.4.

Dimension key: B batch, K answers per input, S source, T target.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax.eval import buckets
from flan_jax.models import decoding, stop_strings
from flan_jax.models.decoding_config import DecodeConfig


class Prompt(Protocol):
  """What is answered: tokens, begin id and EOS included where a model has them.

  `data/evaluation.py: EvalExample` is one.
  """

  inputs: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer of a model.

  Attributes:
    text: as the vocabulary decodes it, without end id and stop string.
    tokens: without the end id; with those that hold the stop string.
    complete: whether the model ended it; False is an answer cut at the limit.
    score: see `DecodeConfig.return_scores`; None: not asked for.
  """

  text: str
  tokens: tuple[int, ...]
  complete: bool
  score: float | None = None


@dataclasses.dataclass(frozen=True)
class Generated:
  """One example with the model's answers.

  Attributes:
    example: as it was given.
    answers: one, or `num_samples`, the best hypothesis first.
  """

  example: Any
  answers: tuple[Answer, ...]

  @property
  def text(self) -> str:
    """The first answer's."""
    return self.answers[0].text

  @property
  def complete(self) -> bool:
    """The first answer's."""
    return self.answers[0].complete


@dataclasses.dataclass(frozen=True)
class Plan:
  """Examples and the batches that answer them; reusable.

  Attributes:
    examples: as they were given.
    batches_BS: inputs, padded with -1.
    places: for each example its batch and its row there.
    max_decode_len: tokens of the longest answer, end id included.
  """

  examples: tuple[Prompt, ...]
  batches_BS: tuple[np.ndarray, ...]
  places: tuple[tuple[int, int], ...]
  max_decode_len: int

  @property
  def shapes(self) -> set[tuple[int, ...]]:
    """Distinct shapes: as many compilations are needed."""
    return {b.shape for b in self.batches_BS}


def plan(
  examples: Sequence[Prompt],
  *,
  batch_size: int,
  lengths: Mapping[str, int],
  name: Callable[[Any], str] = buckets.example_name,
  limit_name: str = "TASK_FEATURE_LENGTHS",
) -> Plan:
  """Batches that answer every example.

  Args:
    examples: of any number of datasets and templates.
    batch_size: inputs per batch.
    lengths: `inputs` and `targets`, the limits in tokens.
    name: what messages call an example.
    limit_name: what they call the option that limits inputs.

  Raises:
    UserError: an input that is empty or over the limit.
  """
  buckets.check_lengths(lengths, batch_size)
  distinct: dict[bytes, list[int]] = {}
  for number, example in enumerate(examples):
    buckets.check_input(example, lengths["inputs"], name, limit_name)
    distinct.setdefault(example.inputs.tobytes(), []).append(number)
  sizes = buckets.INPUT_SIZES(lengths["inputs"])
  shaped = [
    ((buckets.fit(len(examples[numbers[0]].inputs), sizes),), numbers)
    for numbers in distinct.values()
  ]
  batches, places = [], [None] * len(examples)
  for (size,), members in buckets.group(shaped, at_least=batch_size).items():
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      for row, numbers in enumerate(part):
        for number in numbers:
          places[number] = (len(batches), row)
      inputs = [examples[numbers[0]].inputs for numbers in part]
      batches.append(buckets.pad_inputs(inputs, batch_size, size))
  return Plan(
    tuple(examples), tuple(batches), tuple(places), lengths["targets"]
  )


def generate(
  model: Any,
  params: Any,
  examples: Sequence[Prompt] | Plan,
  *,
  decode: Callable[[list[int]], str],
  batch_size: int | None = None,
  lengths: Mapping[str, int] | None = None,
  config: DecodeConfig | None = None,
  end_ids: Sequence[int] | None = None,
  name: Callable[[Any], str] = buckets.example_name,
  progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
  """Answers to every example; results in the order given.

  >>> generate(model, params, examples, decode=vocabulary.decode,
  ...          batch_size=32, lengths={"inputs": 512, "targets": 64},
  ...          end_ids=(1,))[0].text                       # doctest: +SKIP
  'The Eagle is a cheap coffee shop by the river.'

  Args:
    model: see `decoding.decode`.
    params: the model's parameters.
    examples: or the `plan` of such, made once for many calls.
    decode: tokens (without end id and padding) to text.
    batch_size: as for `plan`; not with a plan.
    lengths: as for `plan`; answers have at most `lengths["targets"]` tokens.
    config: how to decode; its `max_decode_len` is that of the plan. Default:
      greedy, up to one of `end_ids`.
    end_ids: the tokens that end an answer; not with a config.
    name: what messages call an example.
    progress: called with (batches done, batches in all).

  Raises:
    UserError: what `plan` and `decoding.decode` raise.
  """
  if not isinstance(examples, Plan):
    examples = plan(
      examples, batch_size=batch_size, lengths=lengths, name=name
    )
  if (config is None) == (end_ids is None):
    raise ValueError("give end_ids, or a config that holds them")
  config = dataclasses.replace(
    config or DecodeConfig(end_ids=tuple(end_ids)),
    max_decode_len=examples.max_decode_len,
  )
  names = [{} for _ in examples.batches_BS]
  for example, (batch, row) in zip(
    examples.examples, examples.places, strict=True
  ):
    names[batch].setdefault(row, example)
  results = []
  for inputs_BS, member in zip(examples.batches_BS, names, strict=True):
    results.append(
      decoding.decode(
        model,
        params,
        inputs_BS,
        config,
        text=decode if config.stop_strings else None,
        name=lambda row, member=member: name(member[row]),
      )
    )
    if progress:
      progress(len(results), len(examples.batches_BS))
  return [
    Generated(example, _answers(results[batch], row, config, decode))
    for example, (batch, row) in zip(
      examples.examples, examples.places, strict=True
    )
  ]


def _answers(decoded, row: int, config, decode) -> tuple[Answer, ...]:
  out = []
  for k, tokens_T in enumerate(decoded.tokens_BKT[row]):
    tokens = [int(t) for t in tokens_T if t >= 0]
    if tokens and tokens[-1] in config.end_ids:
      tokens.pop()
    text, _ = stop_strings.cut(
      decode(tokens) if tokens else "", config.stop_strings
    )
    scores_BK = decoded.scores_BK
    out.append(
      Answer(
        text=text,
        tokens=tuple(tokens),
        complete=bool(decoded.complete_BK[row, k]),
        score=None if scores_BK is None else float(scores_BK[row, k]),
      )
    )
  return tuple(out)
