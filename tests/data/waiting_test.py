"""Which task a mixture's stream waits for, while it stands still."""

import dataclasses
import functools
import itertools
import threading

import pytest
import seqio

from flan_jax.data import catalogue, mixtures
from flan_jax.data.waiting import Waiting
from flan_jax.training import input as input_lib

LENGTHS = {"inputs": 128, "targets": 64}


@pytest.mark.usefixtures("sample_data")
def test_the_stream_is_the_same_and_says_what_it_asks_for():
  catalogue.register()
  tasks = ["flan_sst2", "flan_cb"]
  mixture = seqio.Mixture("watched_mixture", [(t, 1.0) for t in tasks])
  plain = mixtures.Resolved(mixture, tuple(tasks), (), {}, {})
  waiting = Waiting()
  assert waiting.task is None
  watched = dataclasses.replace(
    plain, mixture=waiting.watched(mixture, "train")
  )
  streams = [mixtures.examples(r, LENGTHS, seed=3) for r in (plain, watched)]
  a, b = ([x["targets"].tolist() for x in itertools.islice(s, 40)]
          for s in streams)
  assert a == b
  assert waiting.task in tasks


@pytest.mark.usefixtures("sample_data")
def test_a_task_alone():
  catalogue.register()
  task = seqio.TaskRegistry.get("flan_sst2")
  waiting = Waiting()
  assert waiting.watched(task, "train") is task
  assert waiting.task == "flan_sst2"


def test_the_task_that_stands_still_is_named():
  import tensorflow as tf

  go_on = threading.Event()

  def rows(stops):
    for number in itertools.count():
      if stops and number == 10:
        go_on.wait(60)
      yield number

  names = ("quick", "slow", "swift")
  feature = seqio.Feature(seqio.PassThroughVocabulary(64), add_eos=False)
  source = seqio.FunctionDataSource(lambda **_: None, ["train"])
  tasks = [
    seqio.Task(name, source, output_features=dict.fromkeys(LENGTHS, feature))
    for name in names
  ]
  waiting = Waiting()
  mixture = waiting.watched(
    seqio.Mixture("a_slow_one", [(t, 1.0) for t in tasks]), "train"
  )
  # What seqio calls with the tasks' datasets, in their order.
  made = mixture._sample_fn(
    [
      tf.data.Dataset.from_generator(
        functools.partial(rows, name == "slow"),
        output_signature=tf.TensorSpec([], tf.int64),
      )
      for name in names
    ],
    [1.0, 1.0, 1.0],
    0,
  )
  said, drawn = [], 0

  def stalled(seconds):
    # A busy machine may take as long for the first example.
    if drawn >= 10 and not said:
      said.append(waiting.task)
      go_on.set()

  stream = input_lib.ReadAhead(
    made.as_numpy_iterator(), stall_seconds=2.0, on_stall=stalled
  )
  for _ in range(100):
    next(stream)
    drawn += 1
  stream.close()
  assert said == ["slow"]
