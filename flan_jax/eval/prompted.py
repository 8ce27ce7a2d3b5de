"""Prompted tasks: questions whose prompts a benchmark has written itself.

MMLU and BIG-Bench Hard are read from local folders (`mmlu.py`, `bbh.py`) into
questions with a heading, worked exemplars and a query; `evaluation_set` makes
tokens of them, with as many exemplars as fit, and the rest of the evaluation
is as for every other task.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.evaluation import EvalExample
from flan_jax.errors import UserError
from flan_jax.eval.evaluation_set import EvaluationSet

SPLIT = "test"


@dataclasses.dataclass(frozen=True)
class PromptedTask:
  """One task of a benchmark, in the form that `protocol.py` takes.

  Attributes:
    name: of the task, such as `mmlu_anatomy`.
    paper_name: as tables print it.
    cluster: the heading under which it is shown.
    family: tasks of one family count as one in `family_mean`.
    kind: `classification` (the choices are ranked) or `generation`.
    metrics: names of metrics.
    chance: the score of guessing evenly; None where choices tell it.
    templates: it has one prompt.
    references: whether several answers are accepted; None.
  """

  name: str
  paper_name: str
  cluster: str
  family: str | None
  kind: str
  metrics: tuple[str, ...]
  chance: float | None = None
  templates: tuple[str, ...] = ("published",)
  references: str | None = None

  def scored_templates(self, form: Any) -> tuple[int, ...]:
    """Its one prompt, in any form."""
    del form
    return (0,)


@dataclasses.dataclass(frozen=True)
class Question:
  """One question with what stands before it.

  Attributes:
    heading: instruction, with the blank line after it; may be "".
    exemplars: solved questions, each with what parts it from the next.
    query: the question, up to where the answer begins.
    choices: what is ranked, as it follows the query, blank included; () where
      the answer is generated.
    label: the right choice; -1 without choices.
    references: right answers as texts.
  """

  heading: str
  exemplars: tuple[str, ...]
  query: str
  choices: tuple[str, ...]
  label: int
  references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Form:
  """How prompts become a model's inputs.

  Attributes:
    prefix, suffix: text around every prompt, such as marks of a chat form.
    eos: whether EOS follows it; None: in an encoder-decoder model alone.
  """

  prefix: str = ""
  suffix: str = ""
  eos: bool | None = None


def evaluation_set(
  questions: Mapping[PromptedTask, Sequence[Question]],
  *,
  vocabulary: Any,
  kind: str,
  lengths: Mapping[str, int],
  batch_size: int,
  form: Form = Form(),
  max_examples: int | None = None,
) -> EvaluationSet:
  """Questions as an evaluation set, each with the exemplars that fit.

  Exemplars are left out from the last on until the prompt fits; the question
  is never cut. `EvalExample.shots` has the number left.

  Args:
    questions: of every task, in the order to be shown.
    vocabulary: of the model.
    kind: of the model: `encoder_decoder` or `decoder_only`.
    lengths: `inputs` and `targets`, limits in tokens.
    batch_size: inputs per batch.
    form: what surrounds prompts.
    max_examples: questions at most per task, the first; None: all.

  Raises:
    UserError: a question that does not fit without exemplars, or choices that
      begin with the same token.
  """
  begin = None
  if kind == "decoder_only":
    begin = vocabulary_lib.begin_id(vocabulary)
  eos = kind == "encoder_decoder" if form.eos is None else form.eos
  ends = vocabulary_lib.end_ids(vocabulary)
  around = ([] if begin is None else [begin]), (list(ends[:1]) if eos else [])
  examples = []
  for task, asked in questions.items():
    asked = asked[:max_examples]
    if not asked:
      raise UserError(f"task {task.name!r} has no question.")
    letters = _first_tokens(task, asked, vocabulary)
    for index, question in enumerate(asked):
      text, tokens, shots = _fitting(
        task.name, index, question, vocabulary, form, around, lengths["inputs"]
      )
      target = question.references[0]
      examples.append(
        EvalExample(
          task=task.name,
          template=0,
          index=index,
          inputs=tokens,
          inputs_text=text,
          choices=tuple(
            np.array([letters[c]], np.int32) for c in question.choices
          ),
          choices_text=tuple(c.strip() for c in question.choices),
          label=question.label,
          targets=np.zeros(0, np.int32),
          targets_text=target,
          references=question.references,
          shots=shots,
        )
      )
  return EvaluationSet(
    tasks=tuple(questions),
    cluster_of={task.name: task.cluster for task in questions},
    examples={SPLIT: examples},
    vocabulary=vocabulary,
    lengths=dict(lengths),
    batch_size=batch_size,
    kind=kind,
    end_ids=ends,
  )


def _first_tokens(task, questions, vocabulary) -> dict[str, int]:
  """The token that stands for each choice: the last of its text, as published
  for MMLU's letters, before which some tokenizers put a blank of its own."""
  texts = sorted({c for q in questions for c in q.choices})
  if not texts:
    return {}
  ids = vocabulary_lib.encode_batch(vocabulary, texts)
  found = {text: int(one[-1]) for text, one in zip(texts, ids, strict=True)}
  if len(set(found.values())) != len(found):
    raise UserError(
      f"task {task.name!r}: the vocabulary has no token of its own for each of"
      f" {', '.join(map(repr, texts))} ({found}); evaluate with a chain of"
      " thought, which is generated."
    )
  return found


def _fitting(name, index, question, vocabulary, form, around, limit):
  begin, end = around
  for shots in range(len(question.exemplars), -1, -1):
    text = (
      form.prefix
      + question.heading
      + "".join(question.exemplars[:shots])
      + question.query
      + form.suffix
    )
    ids = vocabulary_lib.encode_batch(vocabulary, [text])[0]
    tokens = [*begin, *(int(i) for i in ids), *end]
    if len(tokens) <= limit:
      return text, np.array(tokens, np.int32), shots
  raise UserError(
    f"task {name!r}, question {index}: without exemplars its prompt is"
    f" {len(tokens)} tokens long, but inputs have {limit}. Raise"
    " TASK_FEATURE_LENGTHS['inputs'] to the former; no question is cut."
  )
