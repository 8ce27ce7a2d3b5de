"""Self-Instruct's further steps: the classification test, and instances.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2 and
appendix A; the rules are those of its code.
"""

import dataclasses
import random
import re
from collections.abc import Sequence

from flan_jax.curation import wording as wording_lib
from flan_jax.curation.asking import Asker, Decoding
from flan_jax.curation.bootstrap import ANOTHER_FORMAT, CUT_OFF
from flan_jax.curation.decisions import Decisions
from flan_jax.curation.growth import Admitted
from flan_jax.curation.seeds import Seed
from flan_jax.curation.wording import Wording
from flan_jax.endpoint.request import Reply
from flan_jax.errors import UserError
from flan_jax.training import checks

CLASSIFICATION = Decoding(3, stop=("\n", "Task"))
# Requests that are on their way before decisions are written.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Instances:
  """How instructions are sorted and given instances.

  Attributes:
    classification_examples, other_examples: seeds of each kind in the prompt
      of the classification test, at most.
    instance_examples: seeds in the prompt for instances, at most.
    most: instances of an instruction; of more, so many are drawn.
    classification_max_tokens: of the answer to the test.
    label_max_tokens: of instances of a batch with a classification task.
    max_tokens: of instances of a batch with none.
    batch: instructions whose prompts share one of these lengths.
    presence_penalty: see `Decoding`.
    seed: of what is drawn.

  Raises:
    UserError: a number out of range.
  """

  classification_examples: int = 12
  other_examples: int = 19
  instance_examples: int = 8
  most: int = 5
  classification_max_tokens: int = 3
  label_max_tokens: int = 300
  max_tokens: int = 350
  batch: int = 5
  presence_penalty: float = 1.5
  seed: int = 0

  def __post_init__(self):
    checks.numbers(
      classification_examples=self.classification_examples,
      other_examples=self.other_examples,
      instance_examples=self.instance_examples,
      most_instances=self.most,
      classification_max_tokens=self.classification_max_tokens,
      label_max_tokens=self.label_max_tokens,
      instance_max_tokens=self.max_tokens,
      instance_batch=self.batch,
    )
    if self.batch > _AT_ONCE:
      raise UserError(
        f"INSTANCE_BATCH is {self.batch}; it is at most {_AT_ONCE}."
      )


def examples(
  seeds: Sequence[Seed], count: int, seed: int, name: str
) -> list[Seed]:
  """Up to so many seeds, drawn once for all prompts, in their own order."""
  draws = random.Random(f"{seed} {name}")
  chosen = draws.sample(range(len(seeds)), min(count, len(seeds)))
  return [seeds[i] for i in sorted(chosen)]


def classify(
  admitted: Sequence[Admitted],
  seeds: Sequence[Seed],
  options: Instances,
  wording: Wording,
  *,
  asker: Asker,
  decisions: Decisions,
) -> dict[str, bool]:
  """Whether each instruction is a classification task, by id.

  An instruction without an answer is none of the result: it is dropped.

  Raises:
    UserError: no seed of one of the two kinds; what the generator raises.
  """
  name = "the classification test"
  yes = wording_lib.check_examples(seeds, True, name)
  no = wording_lib.check_examples(seeds, False, name)
  shown = examples(yes, options.classification_examples, options.seed, "yes")
  shown += examples(no, options.other_examples, options.seed, "no")
  random.Random(f"{options.seed} mixed").shuffle(shown)
  decoding = dataclasses.replace(
    CLASSIFICATION,
    max_tokens=options.classification_max_tokens,
    stop=("\n", wording.task.rstrip(":：")),
  )
  out: dict[str, bool] = {}
  for batch in _batches(admitted, _AT_ONCE):
    replies = asker.ask(
      [
        decoding.request(
          wording_lib.classification_prompt(a.instruction, shown, wording)
        )
        for a in batch
      ]
    )
    for a, reply in zip(batch, replies, strict=True):
      said = reply.text.strip()
      row = {"instruction": a.instruction, "answer": said}
      if reply.error:
        row["error"] = reply.error
      else:
        out[a.id] = said.strip(" .。") in wording.yeses
        row["is_classification"] = out[a.id]
      decisions.write(
        "classification", a.id, row, reason="no answer" if reply.error else None
      )
    decisions.flush()
  return out


def make(
  admitted: Sequence[Admitted],
  is_classification: dict[str, bool],
  seeds: Sequence[Seed],
  options: Instances,
  wording: Wording,
  *,
  asker: Asker,
  decisions: Decisions,
) -> list[tuple[Admitted, str, str]]:
  """(instruction, input, output) of all instances that pass.

  Labels come first for classification, inputs for all else. The longest
  answer of a request depends on the batch that it is in, as published.

  Raises:
    UserError: no seed of a kind that is needed; what the generator raises.
  """
  wanted = [a for a in admitted if a.id in is_classification]
  prompts = {}
  for output_first in sorted(set(is_classification.values())):
    kind = wording_lib.check_examples(seeds, output_first, "making instances")
    prompts[output_first] = examples(
      kind, options.instance_examples, options.seed, f"instances {output_first}"
    )
  stop = (f"{wording.example} {options.most + 1}", wording.task)
  out = []
  for several in _batches(wanted, options.batch * (_AT_ONCE // options.batch)):
    requests = []
    for batch in _batches(several, options.batch):
      some = any(is_classification[a.id] for a in batch)
      decoding = Decoding(
        options.label_max_tokens if some else options.max_tokens,
        presence_penalty=options.presence_penalty,
        stop=stop,
      )
      for a in batch:
        labels = is_classification[a.id]
        prompt = wording_lib.instance_prompt(
          a.instruction, prompts[labels], wording, output_first=labels
        )
        requests.append(decoding.request(prompt))
    for a, reply in zip(several, asker.ask(requests), strict=True):
      out += [
        (a, given, output)
        for given, output in _decide(
          a, reply, is_classification[a.id], options, wording, decisions
        )
      ]
    decisions.flush()
  return out


def read_inputs_first(
  text: str, wording: Wording = wording_lib.ENGLISH
) -> list[tuple[str, str] | str]:
  r"""Pairs of input and output; a text in another format stands as it is.

  >>> read_inputs_first("Example 1\n1, 2\nOutput: 3\nExample 2\n4\nOutput: 4")
  [('1, 2', '3'), ('4', '4')]
  >>> read_inputs_first("Output: Paris")
  [('', 'Paris')]
  """
  mark = rf"{re.escape(wording.example)}\s*\d+[.:：]?"
  parts = re.split(mark, text) if re.search(mark, text) else [text]
  out: list[tuple[str, str] | str] = []
  for part in parts:
    if part.strip():
      given, found, output = part.partition(wording.output)
      out.append((given.strip(), output.strip()) if found else part.strip())
  return out


def read_labels_first(
  text: str, wording: Wording = wording_lib.ENGLISH
) -> list[tuple[str, str] | str]:
  r"""Pairs of input and label; what stands before the first label as it is.

  >>> text = "Class label: good\nI like it.\nClass label: bad\nOh no."
  >>> read_labels_first(text)
  [('I like it.', 'good'), ('Oh no.', 'bad')]
  """
  before, *parts = text.split(wording.label)
  out: list[tuple[str, str] | str] = [before.strip()] if before.strip() else []
  for part in parts:
    label, _, given = part.strip().partition("\n")
    if part.strip():
      out.append((given.strip(), label.strip()))
  return out


def reasons(pairs: Sequence[tuple[str, str]]) -> list[str | None]:
  """Why each pair of input and output is dropped; None: it is kept.

  >>> reasons([("a", "b"), ("a", "b"), ("c", "c"), ("d", "")])
  [None, 'copy', 'output is the input', 'empty output']
  >>> reasons([("a", "b"), ("a", "c"), ("", "d")])[2]
  'an input has two outputs'

  An input with different outputs drops all pairs of its instruction.
  """
  out: list[str | None] = [_reason(*pair) for pair in pairs]
  left = [pair for pair, why in zip(pairs, out, strict=True) if why is None]
  outputs: dict[str, str] = {}
  for given, output in left:
    if given and outputs.setdefault(given, output) != output:
      return [why or "an input has two outputs" for why in out]
  seen = set()
  for i, pair in enumerate(pairs):
    if out[i] is None:
      out[i] = "copy" if pair in seen else None
      seen.add(pair)
  return out


def _reason(given: str, output: str) -> str | None:
  if not output:
    return "empty output"
  if given == output:
    return "output is the input"
  for name, text in (("input", given), ("output", output)):
    if text.endswith((":", "：")):
      return f"{name} ends with a colon"
  return None


def _decide(a, reply: Reply, labels, options, wording, decisions):
  """The pairs of one instruction that are kept."""
  row = {"instruction": a.instruction}
  if reply.error or not reply.text.strip():
    reason = "no answer" if reply.error else "empty reply"
    row["error" if reply.error else "text"] = reply.error or reply.text
    decisions.write("instance", a.id, row, reason=reason)
    return []
  read = read_labels_first if labels else read_inputs_first
  found = read(reply.text, wording)
  if not found:
    found = [reply.text.strip()]
  why: list[str | None] = [
    ANOTHER_FORMAT if isinstance(f, str) else None for f in found
  ]
  if not reply.complete:
    why[-1] = CUT_OFF
  places = [i for i, reason in enumerate(why) if reason is None]
  for i, reason in zip(
    places, reasons([found[i] for i in places]), strict=True
  ):
    why[i] = reason
  places = [i for i, reason in enumerate(why) if reason is None]
  draws = random.Random(f"{options.seed} {a.id}")
  for i in draws.sample(places, max(0, len(places) - options.most)):
    why[i] = "over MOST_INSTANCES"
  kept = []
  for i, (pair, reason) in enumerate(zip(found, why, strict=True)):
    if isinstance(pair, str):
      fields = {"text": pair}
    else:
      fields = {"input": pair[0], "output": pair[1]}
      if reason is None:
        kept.append(pair)
    decisions.write("instance", f"{a.id}_{i}", row | fields, reason=reason)
  return kept


def _batches(items: Sequence, size: int):
  for start in range(0, len(items), size):
    yield items[start : start + size]
