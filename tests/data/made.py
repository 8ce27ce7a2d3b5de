"""A small task and data for tests, so that none needs the catalogue."""

import json

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data import preprocessors, spec

BYTES = seqio.ByteVocabulary()


def nli(**changes) -> spec.Task:
  """Ten templates over premise and hypothesis, the last turned around."""
  kwargs = {
    "name": "made",
    "paper_name": "Made",
    "source": spec.tfds("made_nli:1.0.0"),
    "splits": spec.Splits(validation=spec.last("train", 4), test="test"),
    "inputs": {"premise": "premise", "hypothesis": "hypothesis"},
    "choices": ("yes", "no"),
    "label": "label",
    "metrics": ("accuracy",),
    "templates": (
      ("{premise}\n\nIs it true that {hypothesis}\n\n{options}", "{answer}"),
      *(
        (f"Form {i}. {{hypothesis}} Given: {{premise}} yes or no?", "{answer}")
        for i in range(1, 9)
      ),
      ("Write a text from which follows, {answer}: {hypothesis}", "{premise}"),
    ),
  }
  return spec.Task(**{**kwargs, **changes})


def choosing(**changes) -> spec.Task:
  """Choices that differ from row to row."""
  return nli(choices=spec.from_features("endings"), **changes)


def generating(**changes) -> spec.Task:
  kwargs = {
    "choices": None,
    "label": None,
    "target": "summary",
    "inputs": {"text": "text"},
    "metrics": ("rouge",),
    "templates": (
      *((f"{i}. Sum up:\n\n{{text}}", "{target}") for i in range(9)),
      ("Expand: {target}", "{text}"),
    ),
  }
  return nli(**{**kwargs, **changes})


def rows(count: int) -> dict[str, list]:
  """Rows that tell their number in every field."""
  return {
    "premise": [f"premise {i} holds" for i in range(count)],
    "hypothesis": [f"hypothesis {i} follows" for i in range(count)],
    "label": [i % 2 for i in range(count)],
    "note": [f"note {i}" for i in range(count)],
  }


def seqio_task(
  task: spec.Task, columns, vocabulary=None, wrapper=None
) -> seqio.Task:
  """Our pipeline over columns in memory, with plain seqio around it."""
  size = len(next(iter(columns.values())))
  made = tf.data.Dataset.from_tensor_slices(columns)

  def dataset_fn(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return made

  feature = seqio.Feature(vocabulary or BYTES)
  args = () if wrapper is None else (range(spec.NUM_TEMPLATES), wrapper)
  return seqio.Task(
    task.name,
    source=seqio.FunctionDataSource(
      dataset_fn, ["train"], num_input_examples={"train": size}
    ),
    output_features={"inputs": feature, "targets": feature},
    preprocessors=[
      preprocessors.prepare_rows(task),
      seqio.CacheDatasetPlaceholder(required=False),
      preprocessors.render_rows(task, *args),
    ],
  )


def examples(task, columns, lengths=None, **kwargs):
  """What `seqio_task` yields, as numpy."""
  args = {"split": "train", "shuffle": False, "seed": 0, **kwargs}
  dataset = seqio_task(task, columns).get_dataset(lengths, **args)
  return list(dataset.as_numpy_iterator())


def write_jsonl(folder, **splits):
  """`<split>.jsonl` of rows in `folder`; the pattern for spec.Jsonl."""
  for split, lines in splits.items():
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / f"{split}.jsonl").write_text(text + "\n")
  return str(folder / "{split}.jsonl")


def write_tfds(folder, name="made_nli", version="1.0.0", **splits):
  """A prepared TFDS dataset; split -> columns."""
  import tensorflow_datasets as tfds

  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        "premise": tfds.features.Text(),
        "hypothesis": tfds.features.Text(),
        "note": tfds.features.Text(),
        "label": np.int64,
      }
    ),
    split_datasets={
      split: tf.data.Dataset.from_tensor_slices(columns)
      for split, columns in splits.items()
    },
  )
