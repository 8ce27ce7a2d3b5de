"""Which task a mixture's stream waits for, while it stands still."""

import dataclasses
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

  def rows(name, stops):
    def generate():
      for number in itertools.count():
        if stops and number == 30:
          go_on.wait(60)
        yield {"inputs": [5, 6, 1], "targets": [7 + len(name) % 3, 1]}

    spec = {n: tf.TensorSpec([None], tf.int32) for n in LENGTHS}

    def dataset(split, shuffle_files, seed=None):
      return tf.data.Dataset.from_generator(generate, output_signature=spec)

    return seqio.FunctionDataSource(dataset, ["train"])

  feature = seqio.Feature(seqio.PassThroughVocabulary(64), add_eos=False)
  tasks = [
    seqio.Task(
      name, rows(name, stops), output_features=dict.fromkeys(LENGTHS, feature),
      shuffle_buffer_size=2,
    )
    for name, stops in (("quick", False), ("slow", True), ("swift", False))
  ]  # fmt: skip
  mixture = seqio.Mixture("a_slow_one", [(t, 1.0) for t in tasks])
  waiting = Waiting()
  resolved = mixtures.Resolved(
    waiting.watched(mixture, "train"), ("quick", "slow", "swift"), (), {}, {}
  )
  said = []

  def stalled(seconds):
    said.append(waiting.task)
    go_on.set()

  stream = input_lib.ReadAhead(
    mixtures.examples(resolved, LENGTHS, seed=0, passthrough=()),
    stall_seconds=2.0,
    on_stall=stalled,
  )
  try:
    for _ in range(300):
      next(stream)
  finally:
    go_on.set()
    stream.close()
  assert said == ["slow"]
