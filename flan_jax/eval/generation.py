"""Generation: answers in free text, for tasks and for a user's own prompts.

Inputs go through a few fixed lengths (`buckets.py`), and of one length through
one batch that is kept busy (`models/continuous.py`); beams and several samples
per input go batch by batch (`models/decoding.py`). Each distinct input is
answered once. With a file (`answer_file.py`) every answer is kept as soon as it
is there. Source: Wei et al., 2022 (arXiv 2109.01652), section 2.4.

Dimension key: B batch, K answers per input, S source, T target.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from flan_jax.eval import answer_file, buckets
from flan_jax.models import continuous, decoding, placement, stop_strings
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
  """Examples and the inputs that answer them; reusable.

  Attributes:
    examples: as they were given.
    inputs: distinct ones.
    of_example: for each example the number of its input.
    queues: length that inputs are padded to -> numbers of inputs.
    rows: inputs answered at a time; more where a mesh does not divide them.
    max_decode_len: tokens of the longest answer, end id included.
  """

  examples: tuple[Prompt, ...]
  inputs: tuple[np.ndarray, ...]
  of_example: tuple[int, ...]
  queues: Mapping[int, tuple[int, ...]]
  rows: int
  max_decode_len: int

  @property
  def shapes(self) -> set[tuple[int, ...]]:
    """Distinct shapes (rows, input length): as many compilations are needed."""
    return {(self.rows, length) for length in self.queues}


def plan(
  examples: Sequence[Prompt],
  *,
  batch_size: int,
  lengths: Mapping[str, int],
  name: Callable[[Any], str] = buckets.example_name,
  limit_name: str = "TASK_FEATURE_LENGTHS",
) -> Plan:
  """The inputs that answer every example, by length.

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
  numbers: dict[bytes, int] = {}
  inputs, of_example = [], []
  for example in examples:
    buckets.check_input(example, lengths["inputs"], name, limit_name)
    number = numbers.setdefault(example.inputs.tobytes(), len(inputs))
    if number == len(inputs):
      inputs.append(example.inputs)
    of_example.append(number)
  sizes = buckets.INPUT_SIZES(lengths["inputs"])
  shaped = [((buckets.fit(len(x), sizes),), i) for i, x in enumerate(inputs)]
  grouped = buckets.group(shaped, at_least=batch_size)
  return Plan(
    tuple(examples),
    tuple(inputs),
    tuple(of_example),
    {length: tuple(members) for (length,), members in grouped.items()},
    batch_size,
    lengths["targets"],
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
  file: answer_file.AnswerFile | None = None,
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
    file: keeps every answer as soon as it is there; inputs whose answers it
      has are not decoded again.
    progress: called with (inputs answered, inputs in all).

  Raises:
    UserError: what `plan`, `decoding.decode` and `AnswerFile` raise.
  """
  if not isinstance(examples, Plan):
    examples = plan(examples, batch_size=batch_size, lengths=lengths, name=name)
  if (config is None) == (end_ids is None):
    raise ValueError("give end_ids, or a config that holds them")
  config = dataclasses.replace(
    config or DecodeConfig(end_ids=tuple(end_ids)),
    max_decode_len=examples.max_decode_len,
  )
  asked: list[list[int]] = [[] for _ in examples.inputs]
  for number, of in enumerate(examples.of_example):
    asked[of].append(number)
  kept = file.begin(examples.examples) if file is not None else {}
  found: list[tuple[Answer, ...] | None] = [None] * len(examples.inputs)
  for number, answers in kept.items():
    found[examples.of_example[number]] = tuple(Answer(**a) for a in answers)
  todo = {
    length: [i for i in numbers if found[i] is None]
    for length, numbers in examples.queues.items()
  }
  done = len(found) - sum(map(len, todo.values()))
  if file is not None:
    # Examples that share an input with one that was answered.
    for i, answers in enumerate(found):
      for number in asked[i] if answers is not None else ():
        if number not in kept:
          file.add(number, examples.examples[number], _rows(answers))

  def called(i: int) -> str:
    return name(examples.examples[asked[i][0]])

  for i, answers in _found(
    model, params, examples, todo, config, decode, called
  ):
    found[i] = answers
    done += 1
    if file is not None:
      for number in asked[i]:
        file.add(number, examples.examples[number], _rows(answers))
    if progress:
      progress(done, len(found))
  if file is not None:
    file.end(examples.examples)
  if progress and found and not any(todo.values()):
    progress(done, len(found))
  return [
    Generated(example, found[of])
    for example, of in zip(examples.examples, examples.of_example, strict=True)
  ]


def _found(model, params, planned: Plan, todo, config, decode, called):
  """(number of the input, its answers), as they come."""
  text = decode if config.stop_strings else None
  rows = placement.round_up(planned.rows)
  for length, numbers in todo.items():
    inputs = [planned.inputs[i] for i in numbers]
    if continuous.suits(config):
      for ended in continuous.answers(
        model,
        params,
        inputs,
        rows=rows,
        length=length,
        config=config,
        text=text,
        name=lambda n, numbers=numbers: called(numbers[n]),
      ):
        answer = _answer(
          ended.tokens, ended.complete, ended.log_prob, config, decode
        )
        yield numbers[ended.number], (answer,)
      continue
    for start in range(0, len(numbers), rows):
      part = numbers[start : start + rows]
      decoded = decoding.decode(
        model,
        params,
        buckets.pad_inputs(inputs[start : start + rows], rows, length),
        config,
        text=text,
        name=lambda row, part=part: called(part[row]),
      )
      for row, i in enumerate(part):
        yield i, _answers(decoded, row, config, decode)


def _answers(decoded, row: int, config, decode) -> tuple[Answer, ...]:
  out = []
  for k, tokens_T in enumerate(decoded.tokens_BKT[row]):
    scores_BK = decoded.scores_BK
    out.append(
      _answer(
        tuple(int(t) for t in tokens_T if t >= 0),
        bool(decoded.complete_BK[row, k]),
        None if scores_BK is None else float(scores_BK[row, k]),
        config,
        decode,
      )
    )
  return tuple(out)


def _answer(tokens, complete: bool, score, config, decode) -> Answer:
  if tokens and tokens[-1] in config.end_ids:
    tokens = tokens[:-1]
  text, _ = stop_strings.cut(
    decode(list(tokens)) if tokens else "", config.stop_strings
  )
  return Answer(text, tokens, complete, score)


def _rows(answers: tuple[Answer, ...]) -> list[dict[str, Any]]:
  return [dataclasses.asdict(a) for a in answers]
