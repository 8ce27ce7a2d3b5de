"""Downloads: what TFDS knows of the datasets of a mixture, without fetching.

`of_tasks` lists the datasets, `ask` says of one whether it is prepared, can be
downloaded (and how many bytes that is), needs files that are fetched by hand
(and which), or is no longer served. `data/preparing.py` prepares them.
"""

import difflib
import inspect
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax.data import copies, sources
from flan_jax.data.copies import Dataset, Status
from flan_jax.errors import UserError


def of_tasks(tasks: Iterable[seqio.Task]) -> list[Dataset]:
  """The datasets that tasks read, each once, in the order of the tasks.

  Tasks that seqio has cached, and those that read neither TFDS nor JSON-lines,
  need nothing prepared and are left out.

  >>> of_tasks([seqio.get_mixture_or_task("flan_rte")])  # doctest: +SKIP
  [Dataset('super_glue/rte', '1.0.2', tasks=('flan_rte',), manual=None)]
  """
  found: dict[tuple[str, str], Dataset] = {}
  for task in tasks:
    source, manual = task.source, None
    if task.cache_dir:
      continue
    if isinstance(source, sources.TfdsSource):
      name, version = source.tfds.name, source.tfds.version
      manual = source.tfds.manual
    elif isinstance(source, sources.JsonlSource):
      name, version = source.pattern, ""
    elif isinstance(source, seqio.TfdsDataSource) and source.tfds_dataset.name:
      name, _, version = source.tfds_dataset.name.rpartition(":")
    else:
      continue
    old = found.get((name, version))
    readers = (*old.tasks, task.name) if old else (task.name,)
    if manual is None and old:
      manual = old.manual
    jsonl = None if version else source
    found[name, version] = Dataset(name, version, readers, manual, jsonl)
  return list(found.values())


def ask(dataset: Dataset, folder: pathlib.Path) -> Status:
  """What is known of a dataset; nothing is fetched or written to `folder`.

  >>> ask(Dataset("super_glue/rte", "1.0.2", ()), folder).state
  ... # doctest: +SKIP
  'downloadable'

  Args:
    dataset: from `of_tasks`.
    folder: TFDS data directory, seqio's override.
  """
  if not dataset.version:
    try:
      dataset.source.sizes()
    except sources.NotPreparedError as e:
      steps = f"{e.command[0].upper()}{e.command[1:]}."
      return Status(dataset, copies.BY_HAND, note=steps)
    where = pathlib.Path(dataset.name).parent
    return Status(dataset, copies.PREPARED, where)
  try:
    builder = sources.tfds_builder(dataset.name, dataset.version)
  except sources.NotPreparedError as e:
    return _unprepared(dataset, folder, e.found)
  return copies.check(dataset, builder)


def _unprepared(dataset, folder: pathlib.Path, found: Sequence[str]) -> Status:
  there = f"; there: {', '.join(found)}" if found else ""
  try:
    builder_cls = tfds.builder_cls(dataset.builder)
  except Exception:  # TFDS has several for a name that it does not know
    return Status(dataset, copies.GONE, note=_unknown(dataset.builder) + there)
  try:
    builder, served = _builder(builder_cls, dataset)
  except UserError as e:
    return Status(dataset, copies.GONE, note=str(e) + there)
  except Exception as e:  # a module that a builder wants, for one
    note = f"TFDS cannot load it: {copies.reason(e)}"
    return Status(dataset, copies.GONE, note=note)
  if builder is None:
    note = f"TFDS {tfds.__version__} serves {' and '.join(served)}{there}"
    return Status(dataset, copies.GONE, note=note)
  where = folder / pathlib.Path(builder.data_dir).relative_to(
    builder.data_dir_root
  )
  if where.is_dir() and any(where.iterdir()):
    note = (
      f"half a copy, without dataset_info.json; remove {where} and run this"
      " again"
    )
    return Status(dataset, copies.DAMAGED, where, note=note)
  urls, bound, by_hand = _downloads(builder)
  generated = int(builder.info.dataset_size or 0) or None
  steps = dataset.manual
  if steps is None and by_hand:
    steps = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  if steps:
    put = copies.manual_folder(folder)
    return Status(
      dataset,
      copies.BY_HAND,
      urls=urls,
      bound=bound,
      generated=generated,
      note=f"{inspect.cleandoc(steps)}\nPut the files into {put}, and run this"
      " again.",
      try_it=put.is_dir() and any(put.iterdir()),
    )
  return Status(
    dataset, copies.DOWNLOADABLE, None, urls, bound, generated, try_it=True
  )


def _unknown(name: str) -> str:
  near = difflib.get_close_matches(name, tfds.list_builders(), 1)
  hint = f"; the nearest is {near[0]}" if near else ""
  return f"TFDS {tfds.__version__} has no dataset {name!r}{hint}"


def _builder(builder_cls, dataset: Dataset):
  """The builder, or None where its version cannot be made, and those that can.

  TFDS makes the version that the code is for and the newest, no others.
  """
  config = dataset.name.partition("/")[2] or None
  known = list(builder_cls.builder_configs)
  if config and config not in known:
    near = difflib.get_close_matches(config, known, 1, 0.0)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise UserError(
      f"TFDS {tfds.__version__} has no config {config!r} of"
      f" {dataset.builder}{hint}"
    )
  with tempfile.TemporaryDirectory() as empty:
    builder = builder_cls(config=config, data_dir=empty)
    made = {builder.canonical_version, max(builder.versions)}
    served = sorted(str(v) for v in made if not v.tfds_version_to_prepare)
    if dataset.version not in served:
      return None, served
    return (
      builder_cls(config=config, version=dataset.version, data_dir=empty),
      served,
    )


def _downloads(builder) -> tuple[Mapping[str, int], str, bool]:
  """Addresses and sizes, what bound these are, whether files are fetched by
  hand: for one config where the builder says it without the files."""
  known = {u: int(i.size) for u, i in (builder.url_infos or {}).items()}
  whole = True
  with tempfile.TemporaryDirectory() as empty:
    asked = _Asked(pathlib.Path(empty))
    try:
      splits = builder._split_generators(asked)
      if inspect.isgenerator(splits):
        list(splits)
    except Exception:
      # Those that read what they fetched before they go on; and Beam's.
      whole = False
  sizes = {u: known[u] for u in asked.urls if u in known}
  if len(sizes) < len(asked.urls):
    return sizes, copies.AT_LEAST, asked.by_hand or not whole
  if whole:
    return sizes, copies.EXACTLY, asked.by_hand
  return known, copies.AT_MOST, True


class _Asked:
  """In the place of TFDS's download manager: notes what is asked of it."""

  def __init__(self, folder: pathlib.Path):
    self.urls: dict[str, None] = {}
    self.by_hand = False
    self.download_dir = folder

  def download(self, urls):
    for url in tf.nest.flatten(urls):
      self.urls[str(getattr(url, "url", url))] = None
    return self.extract(urls)

  download_and_extract = download

  def extract(self, paths):
    path = tfds.core.Path(self.download_dir / "nothing")
    return tf.nest.map_structure(lambda _: path, paths)

  def iter_archive(self, path):
    del path
    return iter(())

  @property
  def manual_dir(self):
    self.by_hand = True
    return tfds.core.Path(self.download_dir)
