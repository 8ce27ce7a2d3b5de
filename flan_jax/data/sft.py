"""Instruction and chat data of one's own as a collection of tasks.

Names in seqio's registry:
  sft_train      conversations to train on; its validation split is the held-out
                 ones, for the loss
  sft_held_out   the held-out ones as a test split, to be answered

Source of the practice: Ouyang et al., 2022 (InstructGPT, arXiv 2203.02155),
section 3.5, whose held-out rows are those of other users.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import seqio

from flan_jax.data import (
  chat_formats,
  chat_template,
  registry,
  sft_examples,
  sft_files,
  sft_formats,
  sft_records,
  sft_tasks,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.collection import Collection
from flan_jax.data.sft_records import ASSISTANT, USER, Filter, Record, Turn
from flan_jax.errors import UserError, check_known

TRAIN, HELD_OUT = "sft_train", "sft_held_out"
TRAIN_ON = ("all", "last")

_written = registry.Written("the instruction data")


@dataclasses.dataclass(frozen=True)
class SFT(Collection):
  """Files of instruction data, for a run.

  >>> SFT("rows.jsonl").register(vocabulary)  # doctest: +SKIP
  >>> mixtures.resolve("sft_train").rows  # doctest: +SKIP
  {'sft_train': {'train': 2851, 'validation': 145}}

  Attributes:
    files: paths or globs of .jsonl, .json and .parquet files.
    format: of their rows, a name of `sft_formats.FORMATS`, or "auto".
    chat_format: a name of `chat_formats.FORMATS`, or a `ChatFormat`;
      "tokenizer" for the template that comes with the vocabulary, or the path
      of a *.jinja file with one.
    on_bad_row: "error" or "skip", see `sft_files.read`.
    held_out: share of the conversations that is held out.
    split_by: key of the metadata, such as "user_id": conversations with the
      same value are on the same side. None: those with the same prompt are.
    eval_files: files of held-out conversations; `held_out` is 0 then.
    seed: decides what is held out.
    train_on: "all" answers of a conversation, or the "last".
    too_long: "turns" leaves out the last turns of a conversation that is too
      long for a row (for an encoder-decoder the first ones), "row" the whole.
    blank_users: every user's turn that is trained on is empty (response
      tuning, Hewitt et al., 2024, arXiv 2409.14254).
    filters: functions from conversations to conversations, applied in order
      to all that is read, before any is held out.
    kind: of the model, which `for_model` says.
  """

  files: str | Sequence[str] | None = None
  format: str = sft_files.AUTO
  chat_format: str | chat_formats.ChatFormat = "plain"
  on_bad_row: str = "error"
  held_out: float = 0.05
  split_by: str | None = None
  eval_files: str | Sequence[str] | None = None
  seed: int = 0
  train_on: str = "all"
  too_long: str = "turns"
  blank_users: bool = False
  filters: tuple[Filter, ...] = ()
  kind: str = sft_examples.DECODER_ONLY

  def __post_init__(self):
    for name, value, known in (
      ("SFT_FORMAT", self.format, (sft_files.AUTO, *sft_formats.FORMATS)),
      ("ON_BAD_ROW", self.on_bad_row, sft_files.ON_BAD_ROW),
      ("SFT_TRAIN_ON", self.train_on, TRAIN_ON),
      ("SFT_TOO_LONG", self.too_long, sft_examples.TOO_LONG),
    ):
      check_known(name, value, known)
    if not self._in_template:
      if isinstance(self.chat_format, str):
        known = (*chat_formats.FORMATS, chat_template.TOKENIZER)
        check_known("CHAT_FORMAT", self.chat_format, known)
      elif not isinstance(self.chat_format, chat_formats.ChatFormat):
        raise UserError(
          f"CHAT_FORMAT is a {type(self.chat_format).__name__}; write the name"
          " of a format, or @chat_formats.ChatFormat() with its texts."
        )
    if not 0 <= self.held_out < 1:
      raise UserError(
        f"SFT_HELD_OUT is {self.held_out}; it is a share of the rows, from 0"
        " to less than 1."
      )
    if self.eval_files is not None and self.held_out:
      raise UserError(
        f"SFT_EVAL_FILES and SFT_HELD_OUT={self.held_out} both say what is held"
        " out; set SFT_HELD_OUT=0 beside SFT_EVAL_FILES."
      )
    if self.eval_files is None and not self.held_out:
      raise UserError(
        "SFT_HELD_OUT is 0 and there are no SFT_EVAL_FILES: nothing is held"
        " out for the loss on rows that were not trained on. Give one of them."
      )
    if self.eval_files is not None and self.split_by is not None:
      raise UserError(
        f"SFT_SPLIT_BY={self.split_by!r} has no effect beside SFT_EVAL_FILES;"
        " leave it out."
      )
    object.__setattr__(self, "filters", tuple(self.filters))

  @property
  def _in_template(self) -> bool:
    """Whether the chat format is a Jinja template."""
    how = self.chat_format
    return isinstance(how, str) and (
      how == chat_template.TOKENIZER or how.endswith(chat_template.SUFFIX)
    )

  def for_model(self, kind: str) -> "SFT":
    return dataclasses.replace(self, kind=kind)

  @functools.cached_property
  def read(self) -> tuple[dict[str, list[Record]], list[sft_files.FileCounts]]:
    """Conversations by split, and what became of the lines of the files.

    Raises:
      UserError: see `sft_files.read`; a side of the split has no rows; a row
        has no `split_by`; a filter leaves nothing.
    """
    names = sft_files.files(self.files or (), "SFT_FILES")
    records, counts = sft_files.read(names, self.format, self.on_bad_row)
    records = self._filtered(records)
    if self.eval_files is None:
      train, held = self._split(records)
    else:
      others = sft_files.files(self.eval_files, "SFT_EVAL_FILES")
      both = sorted(set(names) & set(others))
      if both:
        raise UserError(
          f"{both[0]} is in SFT_FILES and in SFT_EVAL_FILES; what is held out"
          " is not trained on."
        )
      train = records
      held, more = sft_files.read(others, self.format, self.on_bad_row)
      held, counts = self._filtered(held), counts + more
    # Held-out rows as they would be asked, in an order that says nothing.
    held.sort(key=self._draw)
    return {
      "train": [self._trained(r) for r in train],
      "validation": held,
      "test": held,
    }, counts

  def _filtered(self, records: list[Record]) -> list[Record]:
    for function in self.filters:
      left = list(function(records))
      if not left:
        raise UserError(
          f"SFT_FILTERS: {_name(function)} leaves none of {len(records):,}"
          " conversations."
        )
      records = left
    return records

  def _trained(self, record: Record) -> Record:
    """A conversation as it is trained on."""
    turns = record.turns
    if self.blank_users:
      turns = tuple(Turn(USER, "") if t.role == USER else t for t in turns)
    if self.train_on == "last":
      earlier = (dataclasses.replace(t, trained=False) for t in turns[:-1])
      turns = (*earlier, turns[-1])
    return dataclasses.replace(record, turns=turns)

  def _key(self, record: Record) -> str:
    if self.split_by is None:
      return record.prompt
    value = record.metadata.get(self.split_by)
    if value is None:
      raise UserError(
        f"{record.where}: it has no {self.split_by!r}, by which SFT_SPLIT_BY"
        " holds rows out. Give every row one, or leave SFT_SPLIT_BY out."
      )
    return str(value)

  def _draw(self, record: Record) -> float:
    """A number from 0 to 1 that depends on the key and the seed alone."""
    text = f"{self.seed}\n{self._key(record)}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

  def _split(self, records: list[Record]):
    train, held = [], []
    for record in records:
      side = held if self._draw(record) < self.held_out else train
      side.append(record)
    if not (train and held):
      lacking = "held out" if train else "left to train on"
      raise UserError(
        f"SFT_HELD_OUT={self.held_out}: of {len(records):,} conversations none"
        f" is {lacking}; give another share or more rows."
      )
    return train, held

  # ------------------------------------------------------------ Collection

  @property
  def own_files(self) -> str:
    groups = (self.files, self.eval_files)
    return ", ".join(str(n) for g in groups for n in sft_files.listed(g))

  @property
  def data_paths(self) -> tuple[str, ...]:
    return tuple(
      path
      for group, option in (
        (self.files, "SFT_FILES"),
        (self.eval_files, "SFT_EVAL_FILES"),
      )
      if group
      for path in sft_files.files(group, option)
    )

  def maker(
    self,
    vocabulary: seqio.Vocabulary,
    lengths: Mapping[str, int],
    inputs_eos: bool = True,
  ) -> sft_examples.Maker:
    """What makes examples of this run's conversations."""
    return sft_examples.Maker(
      vocabulary,
      self.renderer(vocabulary),
      lengths,
      self.kind,
      self.too_long,
      inputs_eos,
    )

  def renderer(self, vocabulary: seqio.Vocabulary) -> sft_examples.Renderer:
    """Conversation -> text in the run's chat format."""
    how = self.chat_format
    if self._in_template:
      return chat_template.of(vocabulary, how).render
    if isinstance(how, str):
      how = chat_formats.FORMATS[how]
    return functools.partial(chat_formats.render, how=how)

  def tasks(self) -> list[sft_tasks.SftTask]:
    """To train on, and held out; no file is read."""
    return [
      sft_tasks.SftTask(
        name=name,
        testing=name == HELD_OUT,
        rows=lambda: self.read[0],
        files=lambda: self.read[1],
        maker=self.maker,
        described=self._described(),
        split=self._split_by(),
      )
      for name in (TRAIN, HELD_OUT)
    ]

  def _split_by(self) -> str:
    """What decides which rows are held out; a digest."""
    names = [_name(f) for f in self.filters]
    values = (self.held_out, self.seed, self.split_by, self.format, names)
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]

  def _described(self) -> str:
    """What decides the examples, but the data and where they lie."""
    values: dict[str, Any] = {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(self)
      if f.name not in ("files", "eval_files", "filters")
    }
    return repr((values, [_name(f) for f in self.filters]))

  def register(
    self,
    vocabulary: seqio.Vocabulary,
    *,
    wrapper: template.Wrapper = template.PLAIN,
  ) -> None:
    """Writes the two tasks to seqio's registry, in place of earlier ones.

    Raises:
      UserError: something is to surround prompts beside the chat format, the
        vocabulary has no token for what ends a turn, or another project has
        one of the names.
    """
    for name, value in (
      ("PROMPT_PREFIX", wrapper.prefix),
      ("PROMPT_SUFFIX", wrapper.suffix),
    ):
      if value:
        raise UserError(
          f"{name}={value!r} has no effect on instruction data: CHAT_FORMAT"
          " says what surrounds a turn. Leave it out."
        )
    self._check_end(vocabulary)
    _written.clear()
    for task in self.tasks():
      _written.add(
        sft_tasks.seqio_task(
          task,
          vocabulary,
          wrapper,
          weighted=self.kind == sft_examples.DECODER_ONLY,
        )
      )

  def _check_end(self, vocabulary: seqio.Vocabulary):
    """That what ends an answer is a token that generation stops at."""
    if self.kind != sft_examples.DECODER_ONLY:
      return
    record = sft_records.conversation(
      [Turn(USER, "Is it so?"), Turn(ASSISTANT, "Yes.")]
    )
    (found,) = self.maker(vocabulary, {}).examples([record])
    if isinstance(found, str):
      raise UserError(
        f"CHAT_FORMAT {self.chat_format!r} puts nothing before an answer."
      )
    last = int(found.targets[found.weights.nonzero()[0][-1]])
    ends = vocabulary_lib.end_ids(vocabulary)
    if last not in ends:
      raise UserError(
        f"CHAT_FORMAT {self.chat_format!r} ends an answer with"
        f" {found.targets_text.partition('Yes.')[2].strip()!r}, of which"
        f" {vocabulary} makes tokens that end no text (its ends are"
        f" {', '.join(map(str, ends))}): a model would never stop. Use a format"
        " that ends with EOS, such as plain, alpaca or tulu, or a vocabulary"
        " with that token."
      )


def _name(function: Filter) -> str:
  inner = getattr(function, "func", function)  # of a partial
  said = f"{inner.__module__}.{inner.__qualname__}"
  if inner is not function:
    said += repr((function.args, sorted(function.keywords.items())))
  return said


def unregister() -> None:
  """Removes what `SFT.register` wrote from seqio's registry."""
  _written.clear()
