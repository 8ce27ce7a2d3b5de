"""Our rendering beside T0's own training examples, prompt by prompt.

  python -m tests.data.p3_compared P3_FOLDER TFDS_FOLDER [OUT.md]

P3_FOLDER holds `<dataset>_<subset>_<prompt>.jsonl.gz` with the inputs and
targets that T0 was trained on. A row is *matched* if a row of the local copy
has all the texts that the prompt prints of it. It is then *equal*, character
by character but for white space at the ends of the whole; or *equal but for
spaces* at the ends of lines (fields of the local copy were taken out of other
rendered prompts and have lost theirs); or *without target*, the inputs equal
and the sample's target empty (TREC, whose labels had been renamed when the
sample was made). Prompts that draw are tried with several seeds. Rows that the
copy has not are no evidence for or against.
"""

import dataclasses
import gzip
import json
import pathlib
import re
import sys

import seqio

from flan_jax.data import p3_datasets, p3_prompts, p3_sources, p3_tasks
from flan_jax.data.p3_jinja import RowError

SEEDS = 24
# TFDS's GEM has CommonGen with the fields of Hugging Face's.
ALSO = {"common_gen": "gem/common_gen:1.1.0"}


@dataclasses.dataclass(frozen=True)
class Line:
  """One prompt: rows that T0 has here, how many are matched, and how."""

  dataset: str
  prompt: str
  rows: int
  matched: int
  equal: int
  but_for_spaces: int
  without_target: int
  unlike: tuple = ()


def compare(p3: pathlib.Path, tfds: pathlib.Path, templates: pathlib.Path):
  """A `Line` for every prompt of a training dataset that is in `tfds`."""
  files = {
    _plain(f.name.removesuffix(".jsonl.gz")): f for f in p3.glob("*.jsonl.gz")
  }
  seqio.set_tfds_data_dir_override(str(tfds))
  try:
    for dataset in p3_datasets.training("t0"):
      dataset = dataclasses.replace(
        dataset, tfds=ALSO.get(dataset.key, dataset.tfds)
      )
      if dataset.tfds is None:
        continue
      prompts = p3_tasks.PromptSet(
        dataset, p3_prompts.load(templates, dataset.dataset, dataset.subset)
      )
      if prompts.inner.is_prepared():
        yield from _of_dataset(prompts, files)
  finally:
    seqio.set_tfds_data_dir_override(None)


def _plain(name: str) -> str:
  return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _of_dataset(prompts, files):
  rows = []
  for split in prompts.inner.sizes():
    inner = p3_sources.source(prompts.dataset, "compare", None)
    start, stop = 0, inner.sizes()[split]
    rows += _rows(inner, split, start, stop, prompts.dataset)
  for number, prompt in enumerate(prompts.templates):
    name = p3_prompts.task_name(prompt).removeprefix("t0_")
    file = files.get(_plain(name))
    if file is None:
      continue
    with gzip.open(file, "rt", encoding="utf-8") as lines:
      wanted = [json.loads(line) for line in lines]
    yield _line(prompts, number, wanted, rows)


def _rows(inner, split, start, stop, dataset):
  found = inner.read(split, start, stop)
  return [
    p3_sources.named(one)
    for row in found.as_numpy_iterator()
    for one in dataset.adapter(_python(row))
  ]


def _python(row):
  from flan_jax.data.p3_render import plain

  return plain(row)


def _line(prompts, number, wanted, rows) -> Line:
  program, prompt = prompts.compiled(number), prompts.templates[number]
  seeds = range(
    SEEDS if re.search(r"choice\b(?!s)|random", prompt.jinja) else 1
  )
  made = {_texts(program, row, seed) for row in rows for seed in seeds}
  spaced = {_unspaced(m) for m in made if m}
  asked = {m[0] for m in made if m}
  matched = equal = but_for_spaces = without_target = 0
  unlike = []
  for row in wanted:
    pair = (row["inputs"].strip(), row["targets"].strip())
    if pair in made:
      matched += 1
      equal += 1
      continue
    if _unspaced(pair) in spaced:
      matched += 1
      but_for_spaces += 1
      continue
    if not pair[1] and pair[0] in asked:
      matched += 1
      without_target += 1
      continue
    near = [r for r in rows if _same_row(program, r, pair)]
    if near:
      matched += 1
      unlike.append((pair, _texts(program, near[0], 0)))
  return Line(
    prompts.dataset.key,
    prompt.name,
    len(wanted),
    matched,
    equal,
    but_for_spaces,
    without_target,
    tuple(unlike),
  )


def _unspaced(pair):
  return tuple(re.sub(r"[ \t\r]+\n", "\n", text) for text in pair)


def _texts(program, row, seed):
  try:
    found = program.render(row, seed)
  except RowError:
    return None
  return found.inputs, found.targets


def _same_row(program, row, pair) -> bool:
  """Whether the row's texts that the program reads are all in the pair."""
  texts = [
    row[f].strip()[:120]
    for f in program.fields
    if isinstance(row.get(f), str) and row[f].strip()
  ]
  if not any(len(t) > 20 for t in texts):
    return False
  return all(t in pair[0] or t in pair[1] for t in texts)


def table(lines) -> str:
  """The report."""
  out = [
    "T0's own training examples beside our rendering, by prompt.",
    "",
    "`python -m tests.data.p3_compared P3_FOLDER TFDS_FOLDER OUT.md` writes"
    " this file.",
    "",
    "| dataset | prompt | T0's rows | in the local copy | equal | but for"
    " spaces | without target |",
    "|---|---|---:|---:|---:|---:|---:|",
  ]
  lines, columns = list(lines), ("rows", "matched", "equal")
  columns += ("but_for_spaces", "without_target")
  for line in lines:
    numbers = " | ".join(str(getattr(line, c)) for c in columns)
    out.append(f"| {line.dataset} | {line.prompt.strip()} | {numbers} |")
  sums = " | ".join(str(sum(getattr(x, c) for x in lines)) for c in columns)
  out.append(f"| all | {len(lines)} prompts | {sums} |")
  return "\n".join([*out, ""])


if __name__ == "__main__":
  p3, tfds, *rest = map(pathlib.Path, sys.argv[1:])
  found = list(compare(p3, tfds, p3_prompts.folder()))
  print(table(found))
  for one in found:
    for want, got in one.unlike[:2]:
      print(f"{one.dataset}, {one.prompt}:\n  T0's {want}\n  ours {got}")
  if rest:
    rest[0].write_text(table(found), encoding="utf-8")
