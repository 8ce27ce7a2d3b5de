"""Steps whose loss or gradient is not finite: counted, and written down.

The step itself leaves parameters and optimiser as they are (`step.py`), on the
device. What is here looks at metrics that were fetched anyway, so no step
waits. Some steps in a row mean that the parameters have gone wrong: the run
goes back to the checkpoint before them and passes over the batches up to them,
as in Chowdhery et al., 2022 (PaLM, arXiv 2204.02311, section 5.1).
"""

import dataclasses
import itertools
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

# Rows of a batch whose texts are written down.
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Series:
  """Steps in a row that were not finite, from `first` to `last`."""

  first: int
  last: int

  def __len__(self) -> int:
    return self.last - self.first + 1


class Counter:
  """Counts such steps in a row.

  >>> counter = Counter(limit=2)
  >>> counter.see([{"step": 5, "train/nonfinite": 1.0},
  ...              {"step": 6, "train/nonfinite": 1.0}])
  Series(first=5, last=6)

  Attributes:
    in_a_row: of them up to the last step that was seen.
  """

  def __init__(self, limit: int, in_a_row: int = 0):
    """Args:
    limit: in a row, at which `see` returns them.
    in_a_row: as the checkpoint has it that the run goes on from.
    """
    self._limit = limit
    self.in_a_row = in_a_row

  def see(self, rows: Iterable[Mapping[str, float]]) -> Series | None:
    """Looks at rows of metrics; the steps in a row, once they are too many."""
    for row in rows:
      self.in_a_row = self.in_a_row + 1 if row["train/nonfinite"] else 0
      if self.in_a_row >= self._limit:
        step, count = int(row["step"]), self.in_a_row
        self.in_a_row = 0
        return Series(step - count + 1, step)
    return None


def write_down(
  directory: pathlib.Path,
  series: Series,
  *,
  passed_over: int,
  batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
  vocabulary: Any,
) -> pathlib.Path:
  """Writes the batches of `series` into `directory`, as ids and as texts.

  Args:
    directory: the run's; the file is `nonfinite_<first>_<last>.json` in it.
    series: of steps.
    passed_over: batches that the run has passed over so far: the batch of
      step n has the number n + passed_over, counted from 1.
    batches: makes the batches after a number of them again.
    vocabulary: that decodes them.

  Returns:
    The file: `steps`, each with `step`, `batch` (the number, which together
    with mixture and RANDOM_SEED names it), `crc32` of its arrays, and `rows`,
    a list of examples with `inputs` and `targets` as texts.
  """
  begin = series.first + passed_over
  again = batches(begin - 1)
  steps = []
  for i, batch in enumerate(itertools.islice(again, len(series))):
    steps.append(
      {
        "step": series.first + i,
        "batch": begin + i,
        "crc32": checksum(batch),
        "rows": _rows(batch, vocabulary),
      }
    )
  path = directory / f"nonfinite_{series.first}_{series.last}.json"
  path.write_text(json.dumps({"steps": steps}, indent=1), encoding="utf-8")
  return path


def checksum(batch: Mapping[str, np.ndarray]) -> str:
  """Eight hex digits of a batch's arrays, names and shapes.

  >>> checksum({"a": np.zeros((1, 2), np.int32)})
  '58f3a814'
  """
  crc = 0
  for name in sorted(batch):
    array = np.ascontiguousarray(batch[name])
    crc = zlib.crc32(f"{name}{array.dtype}{array.shape}".encode(), crc)
    crc = zlib.crc32(array.tobytes(), crc)
  return f"{crc:08x}"


def _rows(batch, vocabulary) -> list[list[dict[str, str]]]:
  """Of every row its examples, each with its texts."""
  sides = {
    "inputs": ("encoder_input_tokens", "encoder_segment_ids"),
    "targets": ("decoder_target_tokens", "decoder_segment_ids"),
  }
  sides = {side: names for side, names in sides.items() if names[0] in batch}
  out = []
  for b in range(min(len(batch["decoder_target_tokens"]), _ROWS)):
    examples: dict[int, dict[str, str]] = {}
    for side, (tokens, segments) in sides.items():
      ids_L = np.asarray(batch[tokens][b])
      default_L = (ids_L != 0).astype(np.int32)
      segments_L = (
        np.asarray(batch[segments][b]) if segments in batch else (default_L)
      )
      for number in range(1, int(segments_L.max(initial=0)) + 1):
        text = vocabulary.decode([int(i) for i in ids_L[segments_L == number]])
        examples.setdefault(number, {})[side] = text
    out.append(list(examples.values()))
  return out
