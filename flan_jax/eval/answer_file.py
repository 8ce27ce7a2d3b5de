"""AnswerFile: answers on disk, one line of JSON each, as they come.

While answers are made, lines are added to `<name>.partial.jsonl` in the order
in which they end; `end` writes all of them in the order of the examples under
the file's own name. A run that is started again reads what is there, wherever
the first one was killed, and both leave the same file.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError


class AnswerFile:
  """Answers to examples, kept as soon as they are there.

  >>> file = AnswerFile("out/generated.jsonl", run="0123abcd",
  ...                   key=lambda e: {"task": e.task})  # doctest: +SKIP
  >>> file.begin(examples)                               # doctest: +SKIP
  {0: [{'text': 'yes', 'tokens': [5], 'complete': True, 'score': None}]}

  A line has what `key` gives, then `number` (of the example), `prompt` (a
  checksum of its tokens), `run` and `answers`, each with its `tokens`: texts
  that were generated, or choices that were scored.

  Args:
    path: of the finished file, `*.jsonl`; its folder is made.
    run: names the model and the options; answers of another run are refused.
    key: what a line says of an example.
    share: of several processes that compute the same answers, gives each the
      lines of the first; None: this is the only one.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    run: str,
    key: Callable[[Any], Mapping[str, Any]],
    share: Callable[[list], list] | None = None,
  ):
    self.path = pathlib.Path(path)
    self.partial = self.path.with_suffix(".partial.jsonl")
    self._run, self._key, self._share = run, key, share
    self._file = None
    self._lines: dict[int, dict[str, Any]] = {}

  def begin(self, examples: Sequence[Any]) -> dict[int, list[dict[str, Any]]]:
    """The answers that are there already, by the number of their example.

    Raises:
      UserError: the file is of another run or of other examples, is damaged
        other than by a last line that was not finished, or cannot be written.
    """
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      known = self.path if self.path.exists() else self.partial
      if known.exists():
        self._read(known, examples)
      self._file = self.partial.open("a", encoding="utf-8")
    except OSError as e:
      raise self._unwritable(e) from None
    if self._share is not None:
      lines = map(_line, self._share(list(self._lines.values())))
      self._lines = {line["number"]: line for line in lines}
    return {n: line["answers"] for n, line in self._lines.items()}

  def add(
    self, number: int, example: Any, answers: Sequence[Mapping[str, Any]]
  ) -> None:
    """Keeps the answers to one example."""
    line = {
      **self._key(example),
      "number": number,
      "prompt": checksum(example),
      "run": self._run,
      "answers": [dict(a) for a in answers],
    }
    self._lines[number] = line
    try:
      self._file.write(_text(line))
      self._file.flush()
    except OSError as e:
      raise self._unwritable(e) from None

  def end(self, examples: Sequence[Any]) -> None:
    """Writes the finished file, in the order of the examples."""
    draft = self.path.with_name(f".{self.path.name}.draft")
    try:
      self._file.close()
      with draft.open("w", encoding="utf-8") as file:
        for number in range(len(examples)):
          file.write(_text(self._lines[number]))
      os.replace(draft, self.path)
      self.partial.unlink(missing_ok=True)
    except OSError as e:
      raise self._unwritable(e) from None

  def _read(self, path: pathlib.Path, examples):
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
      # The line that was being written when the run was killed.
      with path.open("r+b") as file:
        file.truncate(len(whole))
    for row, text in enumerate(whole.split(b"\n")[:-1], 1):
      try:
        line = _line(json.loads(text))
        number, prompt, run = (line[k] for k in ("number", "prompt", "run"))
      except (ValueError, TypeError, KeyError) as e:
        raise UserError(
          f"{path}, line {row} is no answer ({e!r}); remove the file, and its"
          " answers are made anew."
        ) from None
      if run != self._run:
        raise UserError(
          f"{path}, line {row} holds an answer of another checkpoint or of"
          " other options. Give another OUTPUT_DIR, or remove the file."
        )
      if number >= len(examples) or prompt != checksum(examples[number]):
        raise UserError(
          f"{path}, line {row} answers another prompt than example {number} of"
          " this evaluation. Give another OUTPUT_DIR, or remove the file."
        )
      self._lines[number] = line

  def _unwritable(self, error: OSError) -> UserError:
    return UserError(
      f"answers cannot be kept in {str(self.path)!r}: {error.strerror}. Give"
      " an OUTPUT_DIR that you may write to."
    )


def checksum(example: Any) -> str:
  """Sixteen hex digits of the tokens that a model reads."""
  tokens = example.inputs.astype("<i4").tobytes()
  return hashlib.sha256(tokens).hexdigest()[:16]


def _line(value: Mapping[str, Any]) -> dict[str, Any]:
  """A line as it was kept: JSON has no tuples."""
  answers = [{**a, "tokens": tuple(a["tokens"])} for a in value["answers"]]
  return {**value, "answers": answers}


def _text(line: Mapping[str, Any]) -> str:
  return json.dumps(line, ensure_ascii=False) + "\n"
