"""TFDS data directories without data: descriptions alone, with rows made up.

`write` has every registered builder write its dataset_info.json and its
features, with the sizes of its splits; `made_rows` serves rows that fit the
features. What reads them takes the path of prepared data: splits are cut by
TFDS, and each row passes through the dataset's own serialised form.
"""

import contextlib
import random
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from flan_jax.tasks import published_rows

from flan_jax.data import catalogue, sample, sample_rows, spec

# TFDS 4.9.10: dataset -> the splits that its code makes; for all others
# train, validation and test.
SPLITS = {
  "ag_news_subset": "train test",
  "bool_q": "train validation",
  "coqa": "train test",
  "definite_pronoun_resolution": "train test",
  "drop": "train dev",
  "glue/mnli": "train validation_matched validation_mismatched test_matched"
  " test_mismatched",
  "imdb_reviews/plain_text": "train test unsupervised",
  "lambada": "train test",
  "math_dataset/algebra__linear_1d": "train test",
  "natural_questions_open": "train validation",
  "opinion_abstracts/idebate": "train",
  "opinion_abstracts/rotten_tomatoes": "train",
  "para_crawl/enda": "train",
  "para_crawl/ende": "train",
  "para_crawl/enes": "train",
  "para_crawl/enfr": "train",
  "piqa": "train validation",
  "quac": "train validation",
  "sentiment140": "train test",
  "squad/v1.1": "train validation",
  "squad/v2.0": "train validation",
  "story_cloze/2016": "validation test",
  "trec": "train test",
  "winogrande": "train_xs train_s train_m train_l train_xl test validation",
  "wsc273": "test",
  "yelp_polarity_reviews": "train test",
}
# Rows of a split that is not trained on.
EVALUATION_ROWS = 5_000
# Rows of a training split of which 30,000 are used.
MANY_ROWS = 1_000_000
# Made rows a split; its size in dataset_info.json is another, larger one.
SERVED = 24


# Training rows of the two extras that `published_rows` does not have.
OTHER_ROWS = {"lambada": 4_669, "unified_qa/ai2_science_middle": 605}

# Why a task's rows are the embedded sample's and not made up.
FROM_SAMPLE = {
  "arc_challenge": "the key must be the label of one of the choices",
  "arc_easy": "the key must be the label of one of the choices",
  "hellaswag": "a label is any number, and only 0 to 3 are kept",
  "record": "an answer must be one of the names",
  "sentiment140": "polarity is any number, and only 0, 2 and 4 have a meaning",
  "story_cloze": "a label is any number, and only 1 and 2 are kept",
  "unified_qa_science": "options are marked in the text by (A), (B) ...",
  "winogrande": "a sentence has one gap, written _",
  "wsc273": "the pronoun's place must lie in the text",
}


def split_names(dataset: str) -> list[str]:
  return SPLITS.get(dataset, "train validation test").split()


def sizes(task: spec.Task) -> dict[str, int]:
  """Rows of the source's splits that leave the published training rows.

  Rows that are cut from the training split are added to it; from 30,000 on
  it has a million.
  """
  out = dict.fromkeys(split_names(task.source.name), EVALUATION_ROWS)
  if task.splits.train is not None:
    rows = (published_rows.TRAIN_ROWS | OTHER_ROWS)[task.source.name]
    held = [
      rows
      for rows in (task.splits.validation, task.splits.test)
      if isinstance(rows, spec.Rows) and rows.split == task.splits.train_split
    ]
    cut = max((rows.count + rows.skip for rows in held), default=0)
    capped = rows >= spec.MAX_TRAIN_EXAMPLES
    out[task.splits.train_split] = MANY_ROWS if capped else rows + cut
  return out


def write(folder, task: spec.Task):
  """The description of a task's dataset, as its own builder writes it."""
  builder = tfds.builder(task.source.spec, data_dir=folder)
  template = tfds.core.ShardedFileTemplate(
    data_dir=builder.data_path,
    dataset_name=builder.name,
    filetype_suffix="tfrecord",
  )
  builder.info.set_splits(
    tfds.core.SplitDict([
      tfds.core.SplitInfo(
        name=name,
        shard_lengths=[count],
        num_bytes=0,
        filename_template=template.replace(split=name),
      )
      for name, count in sizes(task).items()
    ])
  )
  builder.data_path.mkdir(parents=True, exist_ok=True)
  builder.info.write_to_directory(builder.data_path)


def random_value(feature, draw: random.Random):
  """A value that fits a feature; texts are short sentences."""
  features = tfds.features
  if isinstance(feature, features.FeaturesDict):
    return {k: random_value(f, draw) for k, f in feature.items()}
  if isinstance(feature, features.Sequence):
    fixed = getattr(feature, "_length", None)
    many = range(fixed if fixed is not None else draw.randint(2, 6))
    inner = feature.feature
    if isinstance(inner, features.FeaturesDict):
      rows = [random_value(inner, draw) for _ in many]
      return {k: [row[k] for row in rows] for k in inner}
    return [random_value(inner, draw) for _ in many]
  if isinstance(feature, features.ClassLabel):
    return draw.randrange(feature.num_classes)
  dtype = np.dtype(feature.np_dtype)
  if dtype.kind == "b":
    return draw.random() < 0.5
  if dtype.kind in "iu":
    return draw.randrange(256)
  if dtype.kind == "f":
    return draw.uniform(0, 5)
  words = ["".join(draw.choices("aeilnorst", k=6)) for _ in range(4)]
  return " ".join(words).capitalize() + "."


def rows_of_the_sample(source: spec.Tfds, features) -> dict[str, list]:
  """Split -> the embedded sample's rows of a dataset."""
  file = sample.embedded()[source.spec]
  return sample_rows.read(file.read_text("utf-8"), source.spec, features)


def as_rows(rows, features) -> tf.data.Dataset:
  """Rows as TFDS reads them from a file: serialised, parsed, decoded."""
  written = [
    features.serialize_example(features.encode_example(row)) for row in rows
  ]
  return tf.data.Dataset.from_tensor_slices(written).map(
    features.deserialize_example
  )


@contextlib.contextmanager
def made_rows(folder):
  """While it lasts, `SERVED` rows are read from any split in `folder`.

  They are made up, but for the datasets of `FROM_SAMPLE`. A split that the
  description has not, or an empty one, is refused.
  """
  from_sample = {
    source.name: source
    for source in (catalogue.get(name).source for name in FROM_SAMPLE)
  }

  def read(builder, split, **_):
    assert builder.info.splits[split].num_examples > 0
    name, _, _ = split.partition("[")
    features = builder.info.features
    dataset = str(builder.data_path.relative_to(folder).parent)
    if dataset in from_sample:
      rows = rows_of_the_sample(from_sample[dataset], features)[name]
    else:
      draw = random.Random(f"{dataset} {split}")
      rows = [random_value(features, draw) for _ in range(SERVED)]
    return as_rows(rows, features)

  # `tfds.testing.mock_data` replaces the same method, and with it what finds a
  # folder's description, which is wanted here.
  with mock.patch.object(
    tfds.core.dataset_builder.FileReaderBuilder, "_as_dataset", read
  ):
    yield
