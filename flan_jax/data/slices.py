"""Slices: our three splits in terms of a source's splits and rows.

Source: Wei et al., 2022 (arXiv 2109.01652), sections 2.1 and 2.3.
"""

import dataclasses
from collections.abc import Mapping

from flan_jax.errors import SpecError

# Wei et al., section 2.1: at most 30k training examples per dataset.
MAX_TRAIN_EXAMPLES = 30_000

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Rows:
  """Up to `count` rows of a source split, `skip` rows from one end."""

  split: str
  count: int
  end: str  # "first" or "last"
  skip: int = 0

  def span(self, size: int) -> Span:
    """(start, stop) in a split of `size` rows, as published."""
    if self.end == "first":
      return self.skip, self.skip + self.count
    return size - self.skip - self.count, size - self.skip


def first(split: str, count: int, skip: int = 0) -> Rows:
  """The first `count` rows of `split`: `first("validation", 200)`.

  With `skip`, the `count` rows after the first `skip` ones.
  """
  return Rows(split, count, "first", skip)


def last(split: str, count: int, skip: int = 0) -> Rows:
  """The last `count` rows of `split`: `last("train", 200)`.

  With `skip`, the `count` rows before the last `skip` ones. Rows that are cut
  from the training split leave it: no row is in both.
  """
  return Rows(split, count, "last", skip)


@dataclasses.dataclass(frozen=True)
class Splits:
  """Our three splits in terms of the source's.

  Wei et al., section 2.3 and appendix: development rows are taken from the
  end of train, and the published validation split is the test split where the
  test labels are hidden.

  >>> bool_q = Splits(validation=last("train", 200), test="validation")
  >>> bool_q.resolve({"train": 9427, "validation": 3270}, "boolq")
  {'train': 'train[:9227]', 'validation': 'train[9227:9427]', \
'test': 'validation[:3270]'}

  Where a dataset has one split, all three are cut from it:

  >>> web = Splits(validation=last("train", 200, 1000),
  ...              test=last("train", 1000))
  >>> web.resolve({"train": 50_000}, "web")
  {'train': 'train[:30000]', 'validation': 'train[48800:49000]', \
'test': 'train[49000:50000]'}

  A local copy may be smaller than the published dataset, so at most a quarter
  of a split is cut from it (no published dataset reaches that bound); where
  the published positions do not fit, what is cut lies at the ends, side by
  side, and training has the rest (tasks that read different rows of one split
  read the same ones then):

  >>> bool_q.resolve({"train": 24, "validation": 12}, "boolq")
  {'train': 'train[:18]', 'validation': 'train[18:24]', \
'test': 'validation[:12]'}
  >>> web.resolve({"train": 48}, "web")
  {'train': 'train[:24]', 'validation': 'train[24:36]', \
'test': 'train[36:48]'}

  A dataset that is for evaluation alone has a test split only:

  >>> Splits(train=None, validation=None, test="test").resolve(
  ...   {"test": 273}, "wsc273")
  {'test': 'test[:273]'}

  Attributes:
    validation, test: a source split, or rows of one; validation None: none.
    train: a source split (less what is cut from it), or rows of one; None:
      none.
    max_train_examples: training has at most so many rows, the first ones.
  """

  validation: str | Rows | None
  test: str | Rows
  train: str | Rows | None = "train"
  max_train_examples: int = MAX_TRAIN_EXAMPLES

  @property
  def names(self) -> tuple[str, ...]:
    """Those of our three splits that there are, in order."""
    ours = ("train", "validation", "test")
    return tuple(o for o in ours if getattr(self, o) is not None)

  @property
  def train_split(self) -> str | None:
    """The source split that training rows are from; None without any."""
    return self.train.split if isinstance(self.train, Rows) else self.train

  def resolve(self, sizes: Mapping[str, int], task: str) -> dict[str, str]:
    """TFDS slices (absolute rows) for a copy whose splits have `sizes`.

    Args:
      sizes: source split -> number of rows.
      task: the task's name, for messages.

    Raises:
      SpecError: a split is missing from `sizes`, or would be empty.
    """
    held = {
      ours: rows
      for ours in ("validation", "test")
      if isinstance(rows := getattr(self, ours), Rows)
      and rows.split == self.train_split
    }
    self._check_apart(held, task)
    spans = {}
    if self.train is not None:
      size = self._size(self.train_split, sizes, task)
      spans = self._as_published(held, size) or self._packed(held, size)
    out = {}
    for ours in self.names:
      theirs = getattr(self, ours)
      name = theirs.split if isinstance(theirs, Rows) else theirs
      n = self._size(name, sizes, task)
      if ours in spans:
        start, stop = spans[ours]
      elif isinstance(theirs, Rows):
        start, stop = (min(max(at, 0), n) for at in theirs.span(n))
      else:
        start, stop = 0, n
      if stop <= start:
        cut = sum(b - a for o, (a, b) in spans.items() if o != "train")
        raise SpecError(
          f"task {task!r}: split {ours!r} is empty: its source {name!r} has"
          f" {sizes[name]} rows, {cut} of them held out."
          " Prepare a copy with more rows."
        )
      out[ours] = f"{name}[{start or ''}:{stop}]"
    return out

  def _as_published(
    self, held: Mapping[str, Rows], size: int
  ) -> dict[str, Span] | None:
    """Spans of the training split; None where `size` rows are too few."""
    if any(rows.count > size // 4 for rows in held.values()):
      return None
    spans = {ours: rows.span(size) for ours, rows in held.items()}
    if isinstance(self.train, Rows):
      spans["train"] = self.train.span(size)
    else:
      starts = [spans[o][1] for o, r in held.items() if r.end == "first"]
      stops = [spans[o][0] for o, r in held.items() if r.end == "last"]
      spans["train"] = (max(starts, default=0), min(stops, default=size))
    ordered = sorted(spans.values())
    ends = [0, *(stop for _, stop in ordered)]
    starts = [*(start for start, _ in ordered), size]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
      return None
    start, stop = spans["train"]
    spans["train"] = start, min(stop, start + self.max_train_examples)
    return spans

  def _packed(self, held: Mapping[str, Rows], size: int) -> dict[str, Span]:
    """Spans in a small copy: what is held out at the ends, in order."""
    spans, start, stop = {}, 0, size
    for ours, rows in sorted(held.items(), key=lambda item: item[1].skip):
      count = min(rows.count, size // 4)
      if rows.end == "first":
        spans[ours] = start, start + count
        start += count
      else:
        spans[ours] = stop - count, stop
        stop -= count
    most = self.max_train_examples
    if isinstance(self.train, Rows):
      most = min(most, self.train.count)
    spans["train"] = start, min(stop, start + most)
    return spans

  def _check_apart(self, held: Mapping[str, Rows], task: str):
    """Rows counted from one end may not be counted twice."""
    named = dict(held)
    if isinstance(self.train, Rows):
      named = {"train": self.train, **held}
    seen: list[tuple[str, Rows]] = []
    for ours, rows in named.items():
      for other, there in seen:
        apart = (
          rows.end != there.end
          or rows.skip >= there.skip + there.count
          or there.skip >= rows.skip + rows.count
        )
        if not apart:
          raise SpecError(
            f"task {task!r}: {other} and {ours} are both cut from the"
            f" {rows.end} rows of {rows.split!r}; take one from the other end,"
            f" or give one a skip of at least {there.skip + there.count}."
          )
      seen.append((ours, rows))

  def _size(self, split: str, sizes: Mapping[str, int], task: str) -> int:
    if split not in sizes:
      raise SpecError(
        f"task {task!r}: its source has no split {split!r}, only"
        f" {', '.join(sorted(sizes)) or 'none'}."
      )
    return sizes[split]
