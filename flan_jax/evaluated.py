"""The checkpoint that a job evaluates: opened, on the devices, with a folder.

    opened, model, vocabulary = open_model("runs/mine")
    params, partition = load_params(opened, model, layout)
    with computing(partition):
      evaluate_tasks(model, params, rows)

A model that no device holds lies on a mesh as in training (gin/hardware/*.gin),
and rows are split over its devices. Several processes run the same job: each
computes its devices' part, the first one's files are the evaluation's.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from flan_jax.convert import load
from flan_jax.data import remote, sample
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.training import checks, compilation, processes, sharding
from flan_jax.training import record as record_lib


def open_model(
  initial_checkpoint_path: str, model: Any = None, vocabulary: Any = None
) -> tuple[Any, Any, Any]:
  """The opened checkpoint, its model and its vocabulary, which fit together.

  Raises:
    UserError: they do not, or one is neither given nor in the checkpoint.
  """
  opened = load.opened(initial_checkpoint_path)
  model = load.model_of(opened, model)
  vocabulary = load.vocabulary_of(opened, vocabulary)
  checks.vocabulary(vocabulary, model)
  vocabulary_lib.check_padding(vocabulary, model.kind)
  return opened, model, vocabulary


def load_params(
  opened: Any,
  model: Any,
  layout: sharding.Layout | None = None,
) -> tuple[Any, sharding.Partition]:
  """The parameters on the devices, and how they lie there.

  Args:
    opened: from `open_model`.
    model: of the checkpoint.
    layout: None: the whole model on each device, rows split over them.

  Raises:
    UserError: the mesh does not divide the devices, the heads or a parameter;
      what `convert/load.py: load_params` raises.
  """
  partition = sharding.Partition.of(
    layout or sharding.Layout(), config=model.config
  )
  where = partition.params if partition.mesh.size > 1 else None
  return load.load_params(opened, model, where), partition


def address(initial_checkpoint_path: str | os.PathLike, opened: Any) -> str:
  """Where the checkpoint is, for records: of a bucket not this machine's copy.

      address("gs://bucket/mine", opened)
      # gs://bucket/mine/checkpoints/checkpoint_300

  Args:
    initial_checkpoint_path: as it was given.
    opened: from `open_model`.
  """
  if not remote.is_remote(initial_checkpoint_path):
    return str(opened.path)
  home = remote.as_path(initial_checkpoint_path)
  copy = remote.place(home, sample.copies_directory())
  return str(home / opened.path.relative_to(copy))


@contextlib.contextmanager
def computing(partition: sharding.Partition) -> Iterator[None]:
  """Inside, programs lay their arrays out on the mesh, and compiled ones are
  kept for the next start, as training keeps its own (`compilation.py`).

  Args:
    partition: from `load_params`.
  """
  where = compilation.folder(compilation.DEFAULT)
  kept = contextlib.closing(compilation.Compilations(where))
  with kept, partition.laid_out():
    yield


def claim_folder(
  output_dir: str | os.PathLike | None, record: record_lib.Record
) -> pathlib.Path:
  """OUTPUT_DIR with the evaluation's record in it; of several processes each
  has a folder of its own, the first one OUTPUT_DIR itself.

  Args:
    output_dir: None: a folder below `runs/`, see `record.choose_directory`.
    record: of the evaluation.

  Raises:
    UserError: it cannot be written, or holds another evaluation; processes
      with different configurations or data.
  """
  folder = record_lib.choose_directory(output_dir, record, option="OUTPUT_DIR")
  processes.check_equal(record.fingerprint())
  folder = processes.own_folder(folder)
  if not processes.is_first():
    # What counts, and is gone on from, is the first one's.
    shutil.rmtree(folder, ignore_errors=True)
  record_lib.claim(folder, record, option="OUTPUT_DIR")
  return folder
