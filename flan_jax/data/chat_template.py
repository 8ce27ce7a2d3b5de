"""A tokenizer's own chat template: Jinja, in the sandbox of prompts.

The template renders a conversation as a whole, once; which of its characters
are trained is read from the text. Where the template marks answers itself
(`{% generation %}`), these are. Elsewhere an answer is what the conversation up
to it has more than the conversation that asks for it.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import seqio
from jinja2 import nodes

from flan_jax.data import p3_jinja, replacing, tokenizers
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.chat_formats import BOS, EOS, Piece, Rendered
from flan_jax.data.sft_records import Record
from flan_jax.errors import UserError

# As CHAT_FORMAT, the template that comes with the vocabulary.
TOKENIZER = "tokenizer"
SUFFIX = ".jinja"

MAX_CHARACTERS = 10_000_000
MAX_SECONDS = 5.0

# Around what a template marks as generated; noncharacters, in no text.
_OPEN, _CLOSE = "\ufdd2", "\ufdd3"
_MARKS = re.compile(f"[{_OPEN}{_CLOSE}]")


class _Generation(jinja2.ext.Extension):
  """`{% generation %}`: what is between is the assistant's."""

  tags = frozenset(("generation",))

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def mark(text):
      return nodes.Output([nodes.TemplateData(text)], lineno=line)

    return [mark(_OPEN), *body, mark(_CLOSE)]


class _Run(p3_jinja.Run):
  """One rendering, which ends after `MAX_SECONDS` whatever it does."""

  __slots__ = ("_steps", "_until")

  def __init__(self):
    super().__init__(0)
    self._until = time.monotonic() + MAX_SECONDS

  @property
  def steps(self) -> int:
    return self._steps

  @steps.setter
  def steps(self, value: int):
    self._steps = value
    if value and time.monotonic() > self._until:
      raise p3_jinja.PromptError(f"it takes longer than {MAX_SECONDS:g} s")


def _raise(message: Any):
  raise p3_jinja.PromptError(f"it refuses the conversation: {message}")


def _to_json(value: Any, indent: int | None = None) -> str:
  text = json.dumps(value, ensure_ascii=False, indent=indent)
  p3_jinja.bounded(len(text))
  return text


class Environment(p3_jinja.Environment):
  """The sandbox of prompts, with what chat templates need beside.

  There is no `strftime_now`: a run would depend on the day it is started.
  Templates that ask whether it is there have a date of their own.
  """

  offered = (*p3_jinja.FILTERS, "indent", "dictsort", "tojson")
  statements = (
    *p3_jinja.Environment.statements,
    nodes.AssignBlock,
    nodes.Break,
    nodes.Continue,
  )
  methods = p3_jinja.METHODS | {"removeprefix", "removesuffix"}

  def __init__(self):
    super().__init__(
      undefined=jinja2.Undefined,
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=(jinja2.ext.loopcontrols, _Generation),
    )
    self.filters["tojson"] = _to_json
    self.globals["raise_exception"] = _raise

  def call(self, context, obj, *args, **kwargs):
    if isinstance(obj, jinja2.Undefined):
      name = obj._undefined_name
      raise p3_jinja.PromptError(f"it calls {name!r}, which is not there")
    return super().call(context, obj, *args, **kwargs)

  def unsafe_undefined(self, obj, attribute):
    raise p3_jinja.PromptError(f"it uses {attribute!r}, which is Python's own")


@functools.cache
def environment() -> Environment:
  """The one environment of all templates."""
  return Environment()


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """A template that is ready to render.

  >>> template = ChatTemplate(
  ...   "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}"
  ...   "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
  ...   tokens={"eos_token": "</s>"})
  >>> template.text([{"role": "user", "content": "Hi"}], prompt=True)
  'user: Hi</s>assistant: '

  Attributes:
    source: the Jinja text.
    where: how messages name it.
    tokens: `bos_token`, `eos_token` and others that it may write.
    begun: whether the batch puts BOS before the text, so that the template's
      own is taken off.
    inline: whether the vocabulary reads these tokens in a text.
  """

  source: str
  where: str = "the chat template"
  tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  begun: bool = False
  inline: bool = True

  def check(self):
    """Compiles it.

    Raises:
      UserError: it does not parse, or wants what templates may not.
    """
    _ = self._program

  @functools.cached_property
  def _program(self) -> p3_jinja.Program:
    return p3_jinja.compile_text(environment(), self.source, self.where)

  def text(
    self,
    messages: Sequence[Mapping[str, str]],
    *,
    prompt: bool = False,
    marked: bool = False,
  ) -> str:
    """What the template makes of messages.

    Args:
      messages: with `role` and `content`.
      prompt: whether the cue of an answer follows.
      marked: whether the marks around what is generated stay in.

    Raises:
      UserError: the template loops without end, makes too long a text, wants
        what is not there, or refuses the messages; one sentence.
    """
    values = {
      "messages": [dict(m) for m in messages],
      "add_generation_prompt": prompt,
      "tools": None,
      "documents": None,
      **self.tokens,
      p3_jinja.RUN: _Run(),
    }
    template = self._program.template
    context = template.new_context(values)
    parts, size = [], 0
    try:
      for part in template.root_render_func(context):
        size += len(part)
        if size > MAX_CHARACTERS:
          raise p3_jinja.PromptError(
            f"its text is longer than {MAX_CHARACTERS:,} characters"
          )
        parts.append(part)
    except p3_jinja.PromptError as e:
      raise UserError(f"{self.where}: {e}.") from None
    except (
      jinja2.TemplateError,
      ArithmeticError,
      AttributeError,
      LookupError,
      MemoryError,
      RecursionError,
      TypeError,
      ValueError,
    ) as e:
      said = str(e).splitlines()[0] if str(e) else type(e).__name__
      raise UserError(f"{self.where} cannot be rendered: {said}.") from None
    whole = "".join(parts).replace(p3_jinja.MARK, p3_jinja.SEPARATOR)
    return whole if marked else _MARKS.sub("", whole)

  def render(self, record: Record, *, prompt: bool = False) -> Rendered:
    """A conversation as pieces, as `chat_formats.render` has it."""
    messages = _messages(record)
    if prompt:
      return self._rendered(self.text(messages[:-1], prompt=True), [], [])
    text = self.text(messages, marked=True)
    if _OPEN in text:
      text, spans = self._marked(text, record)
    else:
      spans = self._compared(messages, text, record)
    return self._rendered(text, spans, [t.trained for t in record.turns[1::2]])

  def _marked(self, whole: str, record: Record):
    """The text, and the spans between the marks."""
    spans, text = [], ""
    for part in re.split(f"({_OPEN}[^{_CLOSE}]*{_CLOSE})", whole):
      begin = len(text)
      text += _MARKS.sub("", part)
      if part.startswith(_OPEN):
        spans.append((begin, len(text)))
    if len(spans) != len(record.turns) // 2:
      raise UserError(
        f"{self.where} marks {len(spans)} answers of a conversation with"
        f" {len(record.turns) // 2} ({record.where})."
      )
    return text, spans

  def _compared(self, messages, text: str, record: Record):
    """The spans by which an answered conversation is longer than an asked."""
    spans = []
    first = len(messages) - len(record.turns)
    for end in range(first + 2, len(messages) + 1, 2):
      asked = self.text(messages[: end - 1], prompt=True)
      said = text if end == len(messages) else self.text(messages[:end])
      said = said.rstrip()
      if not (text.startswith(said) and said.startswith(asked)):
        raise UserError(
          f"{self.where} writes earlier turns in another way once there are"
          f" later ones ({record.where}), so what of the text is the answer"
          " cannot be told. Name a CHAT_FORMAT of the table, or mark the answer"
          " in the template with {% generation %}."
        )
      spans.append((len(asked), len(said)))
    return spans

  def _rendered(self, text: str, spans, trained: list[bool]) -> Rendered:
    bos = self.tokens.get("bos_token")
    start = len(bos) if self.begun and bos and text.startswith(bos) else 0
    cuts = {start, len(text), *(at for span in spans for at in span)}
    of_span = dict(zip((begin for begin, _ in spans), trained, strict=True))
    closing = {end for _, end in spans}
    pieces: list[Piece] = []
    ends: list[int] = []
    for begin, end in itertools.pairwise(sorted(cuts)):
      pieces += self._parts(text[begin:end], of_span.get(begin, False))
      if end in closing:
        ends.append(len(pieces))
    return Rendered(pieces, ends, start > 0)

  def _parts(self, text: str, trained: bool) -> list[Piece]:
    """A text, taken apart at tokens that the vocabulary does not read in it."""
    names = {"bos_token": BOS, "eos_token": EOS}
    special = {
      self.tokens[n]: mark for n, mark in names.items() if self.tokens.get(n)
    }
    if self.inline or not special:
      return [Piece(text, trained)]
    pattern = "|".join(map(re.escape, special))
    return [
      Piece(special.get(part, part), trained, part in special)
      for part in re.split(f"({pattern})", text)
      if part
    ]


def _messages(record: Record) -> list[dict[str, str]]:
  out = []
  if record.system:
    out.append({"role": "system", "content": record.system})
  for turn in record.turns:
    said = "\n\n".join(t for t in (turn.text, turn.input) if t)
    # A record cannot say what is generated.
    out.append({"role": turn.role, "content": _MARKS.sub("\ufffd", said)})
  return out


def of(vocabulary: seqio.Vocabulary, name: str = TOKENIZER) -> ChatTemplate:
  """The template that comes with a vocabulary, or one in a file.

  Looked for: `chat_template.jinja` and `tokenizer_config.json` beside the
  vocabulary's file, or the metadata of a GGUF file.

  Args:
    vocabulary: of the run.
    name: "tokenizer", or the path of a *.jinja file.

  Raises:
    UserError: there is none, or it cannot be compiled.
  """
  inner = replacing.innermost(vocabulary)
  inline = isinstance(inner, tokenizers.TokenizerVocabulary)
  path = None
  if inline:
    path = inner.path
  elif isinstance(inner, seqio.SentencePieceVocabulary):
    path = pathlib.Path(inner.sentencepiece_model_file)
  source, where = _source(path, vocabulary, name)
  tokens = {}
  for token, id_ in (
    ("bos_token", inner.bos_id), ("eos_token", inner.eos_id)
  ):  # fmt: skip
    if id_ is not None and id_ >= 0 and path is not None:
      tokens[token] = vocabulary_lib.token_text(vocabulary, id_)
  begun = vocabulary_lib.begin_id(vocabulary) is not None
  made = ChatTemplate(source, where, tokens, begun, inline)
  made.check()
  return made


def _source(path, vocabulary, name: str) -> tuple[str, str]:
  if name != TOKENIZER:
    try:
      return pathlib.Path(name).expanduser().read_text("utf-8"), name
    except (OSError, UnicodeDecodeError) as e:
      raise UserError(f"CHAT_FORMAT {name!r} cannot be read: {e}.") from None
  found = None
  if path is not None and path.suffix == ".gguf":
    from flan_jax.data import gguf_file  # its reader is not needed elsewhere

    key = "tokenizer.chat_template"
    found = gguf_file.metadata(gguf_file.open_gguf(path), key)
  elif path is not None:
    beside = path.with_name("chat_template.jinja")
    if beside.is_file():
      return beside.read_text("utf-8"), str(beside)
    config = tokenizers.json_beside(path, "tokenizer_config.json")
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
      named = {t.get("name"): t.get("template") for t in found}
      found = named.get("default")
  if not isinstance(found, str):
    raise UserError(
      f"CHAT_FORMAT is {TOKENIZER!r}, but no chat template comes with"
      f" {vocabulary}. Name a format of the table or a *{SUFFIX} file."
    )
  return found, f"the chat template of {path}"
