"""Which task a mixture's stream waits for, while it stands still."""

import dataclasses
import itertools

import pytest
import seqio

from flan_jax.data import catalogue, mixtures
from flan_jax.data.waiting import Waiting

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
