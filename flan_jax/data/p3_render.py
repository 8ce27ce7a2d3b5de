r"""Prompts rendered: one example to inputs, targets and choices.

`Compiled.apply` gives what PromptSource's `apply` gives, on examples whose
fields are there, and the same for a given seed:

>>> prompt = Prompt("boolq", None, "ask",
...   "{{passage}} {{question}}? ||| {{answer_choices[label]}}", "No ||| Yes")
>>> compiled(prompt).apply({"passage": "Ice floats.",
...   "question": "Does ice float", "label": 1})
['Ice floats. Does ice float?', 'Yes']

Source: Bach et al., 2022 (arXiv 2202.01279), PromptSource 0.2.3.
"""

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from flan_jax.data import p3_jinja
from flan_jax.data.p3_jinja import MARK, PromptError, RowError
from flan_jax.data.p3_prompts import Prompt

# PromptSource: 300 words of 4.7 characters and the spaces between them.
MAX_CHARACTERS = 2048

# A field's name that examples may not have.
CHOICES = "answer_choices"

_SCALARS = frozenset((str, int, float, bool, type(None)))


class NotAppliedError(RowError):
  """A prompt that does not apply to a row: an `if` around it says so."""


@dataclasses.dataclass(frozen=True)
class Rendered:
  """One example under one prompt.

  Attributes:
    inputs, targets: texts, neither empty.
    choices: texts; () where the prompt has none.
    label: position of `targets` in `choices`; -1 without choices, or where no
      choice is the target.
  """

  inputs: str
  targets: str
  choices: tuple[str, ...] = ()
  label: int = -1


@functools.cache
def environment() -> p3_jinja.Environment:
  """The one environment of all prompts."""
  return p3_jinja.Environment()


@functools.lru_cache(maxsize=4096)
def compiled(prompt: Prompt, *, truncate: bool = True) -> "Compiled":
  """A prompt's program, compiled on the first call.

  Args:
    prompt: of `p3_prompts`.
    truncate: whether what is printed is cut to 2,048 characters, as T0 does.

  Raises:
    PromptError: the program does not parse, or asks for what prompts may not.
  """
  return Compiled(prompt, truncate)


class Compiled:
  """A prompt that is ready to be applied to examples.

  Attributes:
    prompt: what was compiled.
    fields: names that the program reads from an example.
    fixed_choices: the choices, where they are the same for every example.
  """

  def __init__(self, prompt: Prompt, truncate: bool = True):
    self.prompt = prompt
    text = prompt.jinja
    if truncate:
      # As PromptSource does it: in the text, so that it binds to what stands
      # last before the braces.
      cut = f" | string | truncate({MAX_CHARACTERS}) }}}}"
      text = text.replace("}}", cut)
    self._main = p3_jinja.compile_text(environment(), text, prompt.where)
    self._shows_choices = CHOICES in self._main.fields
    self._choices = None
    self.fixed_choices: tuple[str, ...] | None = None
    fields = self._main.fields
    if prompt.answer_choices is not None:
      self._choices = p3_jinja.compile_text(
        environment(), prompt.answer_choices, prompt.where
      )
      fields |= self._choices.fields
      if not self._choices.fields and not self._choices.draws:
        self.fixed_choices = tuple(self._split(self._choices, {}))
    self.fields = tuple(sorted(fields - {CHOICES}))

  def apply(self, example: Mapping[str, Any], seed: Any = 0) -> list[str]:
    """The parts of the rendered text, stripped: inputs and targets.

    Args:
      example: a row; bytes, numpy arrays and numbers are made Python's own.
      seed: of what the prompt draws; the same seed gives the same text.

    Returns:
      As many texts as the prompt writes `|||`, and one; a prompt that does
      not apply to the row writes none and gives [''].

    Raises:
      PromptError: a field that is not there (the nearest is named), a loop
        without end, an attempt to reach Python; names prompt and reason.
      RowError: the row has no label, or no such item in a list.
    """
    return self._apply(plain_row(example, self.prompt.where), seed)

  def choices(
    self, example: Mapping[str, Any], seed: Any = 0
  ) -> list[str] | None:
    """The choices of an example; None for a prompt without.

    Raises:
      PromptError, RowError: as `apply`.
    """
    if self._choices is None:
      return None
    row = plain_row(example, self.prompt.where)
    return self._choices_of(row, p3_jinja.Run(seed))

  def render(self, row: Mapping[str, Any], seed: Any = 0) -> Rendered:
    """Inputs, targets, choices and label of a row of Python's own values.

    Raises:
      PromptError: as `apply`.
      RowError: as `apply`, and where the prompt does not apply to the row:
        inputs or targets are empty, or there are not these two parts.
    """
    parts = self._apply(row, seed)
    if len(parts) != 2:
      raise NotAppliedError(
        f"{self.prompt.where}: it gives {len(parts)} parts, not inputs and"
        " targets"
      )
    if not parts[0] or not parts[1]:
      raise RowError(
        f"{self.prompt.where}: its {'targets' if parts[0] else 'inputs'} are"
        " empty"
      )
    choices = ()
    if self._choices is not None:
      choices = tuple(self._choices_of(row, p3_jinja.Run(seed)))
    label = choices.index(parts[1]) if parts[1] in choices else -1
    return Rendered(parts[0], parts[1], choices, label)

  def _apply(self, row, seed) -> list[str]:
    run = p3_jinja.Run(seed)
    values = {k: _own(v) for k, v in row.items()}
    values[CHOICES] = None
    if self._choices is not None and self._shows_choices:
      values[CHOICES] = self._choices_of(row, run)
    values[p3_jinja.RUN] = run
    return self._split(self._main, values, row)

  def _choices_of(self, row, run) -> list[str]:
    if self.fixed_choices is not None:
      return list(self.fixed_choices)
    values = {k: _own(v) for k, v in row.items()}
    values[p3_jinja.RUN] = run
    return self._split(self._choices, values, row)

  def _split(self, program, values, row=None) -> list[str]:
    values.setdefault(p3_jinja.RUN, p3_jinja.Run(0))
    template = program.template
    try:
      pieces = template.root_render_func(template.new_context(values))
      text = self._joined(pieces) if program.loops else "".join(pieces)
    except RowError as e:
      raise RowError(f"{self.prompt.where}: {e}") from None
    except PromptError as e:
      raise PromptError(f"{self.prompt.where}: {e}.") from None
    except jinja2.UndefinedError as e:
      raise PromptError(self._undefined(e, row or {})) from None
    except jinja2.sandbox.SecurityError as e:
      raise PromptError(
        f"{self.prompt.where}: it tries to reach Python ({e})."
      ) from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as e:
      raise PromptError(
        f"{self.prompt.where}: it cannot be applied to a row"
        f" ({type(e).__name__}: {e})."
      ) from None
    return [part.strip() for part in text.split(MARK)]

  def _joined(self, pieces) -> str:
    out, size = [], 0
    for piece in pieces:
      size += len(piece)
      if size > p3_jinja.MAX_SIZE:
        raise PromptError(
          f"it writes more than {p3_jinja.MAX_SIZE:,} characters"
        )
      out.append(piece)
    return "".join(out)

  def _undefined(self, error, row) -> str:
    said = f"{self.prompt.where}: {error}"
    gone = [f for f in self.fields if f not in row]
    if not gone:
      return f"{said}."
    near = difflib.get_close_matches(gone[0], row, 1, 0.0)
    return (
      f"{said}: the rows have no field {gone[0]!r}, only {', '.join(row)}"
      + (f"; the nearest is {near[0]!r}." if near else ".")
    )


def plain_row(example: Mapping[str, Any], where: str) -> dict[str, Any]:
  """An example with Python's own values and names that Jinja can say.

  T0 writes `-` in a field's name as `_`.

  >>> plain_row({"label-coarse": np.int64(3), "text": b"Who?"}, "trec")
  {'label_coarse': 3, 'text': 'Who?'}

  Raises:
    PromptError: the example has a field called `answer_choices`.
  """
  row = {str(k).replace("-", "_"): plain(v) for k, v in example.items()}
  if CHOICES in row:
    raise PromptError(
      f"{where}: a row may have no field {CHOICES!r}; the prompt's choices have"
      " that name."
    )
  return row


def plain(value: Any) -> Any:
  """The same of str, int, float, bool, None, list and dict alone.

  >>> plain({"text": [b"a", np.str_("b")], "at": np.array([1, 2])})
  {'text': ['a', 'b'], 'at': [1, 2]}
  """
  if type(value) in _SCALARS:
    return value
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, Mapping):
    return {plain(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, np.ndarray):
    return plain(value.tolist())
  if isinstance(value, np.generic):
    return plain(value.item())
  return str(value)


def _own(value):
  """A copy of lists and tables: a prompt may change them."""
  if type(value) in _SCALARS:
    return value
  if isinstance(value, list):
    return [_own(v) for v in value]
  return {k: _own(v) for k, v in value.items()}
