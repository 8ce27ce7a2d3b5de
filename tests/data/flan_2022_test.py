"""FLAN 2022: the table, and what its mixtures draw on the embedded sample."""

import collections
import csv
import doctest
import math

import pytest
import seqio
import tensorflow as tf
from flan_jax.tasks import flan_2022 as table

from flan_jax.data import (
  catalogue,
  flan_2022,
  mixtures,
  prompt_types,
  sample,
  sources,
  spec,
)
from flan_jax.errors import UserError
from tests.data import made

PARTS = {part.name: part for part in table.SUB_MIXTURES}
LENGTHS = {"inputs": 2048, "targets": 512}
# Five standard deviations: a fair draw fails once in two million tests.
DEVIATIONS = 5


def about(count, share, total):
  return abs(count - share * total) <= DEVIATIONS * math.sqrt(
    share * (1 - share) * total
  )


def test_docstrings():
  assert doctest.testmod(flan_2022).failed == 0


def test_shares_and_caps_are_the_published_ones():
  assert {p.name: (p.share, p.cap, p.inverted) for p in PARTS.values()} == {
    "flan": (0.40, 30_000, 0.0),
    "t0": (0.32, 20_000, 0.0),
    "niv2": (0.20, 5_000, 0.0),
    "cot": (0.05, 100_000, 0.3),
    "dialog": (0.03, 200_000, 0.3),
  }
  assert sum(p.share for p in PARTS.values()) == pytest.approx(1)
  assert [len(PARTS[n].tasks) for n in ("flan", "cot", "dialog")] == [71, 9, 2]
  assert set(PARTS["flan"].tasks) < set(catalogue.load())
  assert set(table.HELD_IN) < set(PARTS["flan"].tasks)
  known = {kind.name for kind in prompt_types.ALL}
  assert {t for p in PARTS.values() for t in p.prompt_types} == known


# The CSV's names where ours are shorter.
OURS = {
  "ag_news_subset": "ag_news",
  "imdb_reviews": "imdb",
  "paws_wiki": "paws",
  "glue_mrpc": "mrpc",
  "glue_qqp": "qqp",
  "yelp_polarity_reviews": "yelp",
  "web_nlg_en": "web_nlg",
}


def test_capped_rates_sum_up_to_the_published_ones(shared):
  with open(shared / "facts" / "flan2021_datasets.csv") as file:
    sizes = {
      OURS.get(row["task"], row["task"]): int(row["train_examples"])
      for row in csv.DictReader(file)
    }
  flan = PARTS["flan"]
  assert set(flan.tasks) - set(sizes) == {"lambada", "unified_qa_science"}
  total = sum(min(sizes[t], flan.cap) for t in flan.tasks if t in sizes)
  # Published with LAMBADA's and UnifiedQA science's few thousand: 1,495,430.
  assert total == 1_492_650


def test_tasks_read_all_rows_but_for_those_that_did_not():
  for part in table.SUB_MIXTURES:
    for task in flan_2022.tasks(part, None):
      short = task.splits.max_train_examples == spec.MAX_TRAIN_EXAMPLES
      assert short == (task.name in table.KEPT_SHORT)


def test_every_task_has_every_prompt_type():
  lacking = collections.defaultdict(set)
  for part in table.SUB_MIXTURES:
    for task in flan_2022.tasks(part, None):
      ways = flan_2022.lines(part, task)
      assert sum(w.weight for w in ways) == pytest.approx(1)
      types = {w.type for w in ways}
      wanted = set(part.prompt_types)
      if part.inverted:
        wanted |= {f"{t}_inverted" for t in part.prompt_types}
      if types != wanted:
        lacking[task.name] = wanted - types
  # Its answers mean nothing without the others (its notes).
  assert lacking == {"cosmos_qa": {"fs_noopt", "zs_noopt"}}


@pytest.mark.parametrize("name", flan_2022.load())
def test_tasks_beside_the_catalogue(name):
  task = flan_2022.load()[name]
  assert task.inversions
  assert not any(t.turned_around for t in task.templates)
  wording = [t.inputs for t in (*task.templates, *task.inversions)]
  assert len(set(wording)) == len(wording)
  for other in {**catalogue.load(), **flan_2022.load()}.values():
    if other.name != name:
      shared = {t.inputs for t in task.templates} & {
        t.inputs for t in other.templates
      }
      assert not shared, (other.name, shared)


def test_chains_come_first_and_answers_last():
  for name, task in flan_2022.load().items():
    for template in task.templates:
      if name.startswith("cot_"):
        assert template.target_fields == ("rationale", "target")
        assert template.targets.rstrip(".").endswith("{target}")
        assert template.input_fields == ("question",)


@pytest.fixture(scope="module")
def collected(sample_dir):
  """The collection over the embedded sample, and seqio's registry back."""
  tasks = {**catalogue.load(), **flan_2022.load()}
  sample.write_sample(tuple(tasks.values()), sample_dir)
  catalogue.register(made.BYTES)
  flan_2022.Flan2022(missing_submixtures="skip").register(made.BYTES)
  seqio.set_tfds_data_dir_override(str(sample_dir))
  yield
  seqio.set_tfds_data_dir_override(None)
  flan_2022.unregister()
  catalogue.unregister()


def test_sample_has_rows_of_every_task(collected):
  for task in flan_2022.load().values():
    source = sources.source(task)
    assert min(source.rows(s) for s in task.splits.names) >= 3, task.name


def test_shares_are_renormalised_and_said(collected):
  parts = mixtures.resolve("flan_2022_train").parts
  here = 0.40 + 0.05 + 0.03
  for name in ("flan", "cot", "dialog"):
    assert parts[name].share == pytest.approx(PARTS[name].share / here)
    assert len(parts[name].tasks) == parts[name].known
  for name in ("t0", "niv2"):
    assert parts[name].share == 0
    assert parts[name].absent == (
      f"nothing is registered as {PARTS[name].names[0]}"
    )


def test_ablations(collected):
  def parts(name):
    return mixtures.resolve(f"flan_2022_{name}_train").parts

  assert "cot" not in parts("no_cot")
  assert parts("no_cot")["dialog"].share == pytest.approx(0.03 / 0.43)
  assert all(
    t.endswith("_2022_no_few_shot") for t in parts("no_few_shot")["flan"].tasks
  )
  inversions = parts("no_inversions")
  assert all(t.endswith("_no_inversions") for t in inversions["cot"].tasks)
  assert all(t.endswith("_2022") for t in inversions["flan"].tasks)
  flat = parts("no_balancing")
  rows = mixtures.resolve("flan_2022_cot_train").rows
  total = sum(r["train"] for r in mixtures.resolve("flan_2022_no_balancing_train").rows.values())
  assert flat["cot"].share == pytest.approx(
    sum(r["train"] for r in rows.values()) / total
  )


def test_registered_twice_is_the_same(collected):
  before = set(seqio.TaskRegistry.names())
  flan_2022.Flan2022(missing_submixtures="skip").register(made.BYTES)
  assert set(seqio.TaskRegistry.names()) == before
  names = {n for n in before if "_2022" in n}
  # Two variants of 71, three of 11.
  assert len(names) == 2 * 71 + 3 * 11


def test_an_absent_part_is_refused(collected):
  flan_2022.Flan2022().register(made.BYTES)
  try:
    with pytest.raises(UserError, match="2 of 5 sub-mixtures are absent") as e:
      mixtures.resolve("flan_2022_train")
    assert "t0 (32 % of the examples): nothing is registered" in str(e.value)
    mixtures.resolve("flan_2022_cot_train")
  finally:
    flan_2022.Flan2022(missing_submixtures="skip").register(made.BYTES)


def test_others_that_cannot_be_registered(collected):
  class Broken:
    def register(self, vocabulary, *, wrapper):
      raise UserError("Its prompts are not here; fetch them.")

  with pytest.raises(UserError, match="fetch them"):
    flan_2022.Flan2022(others={"t0": Broken()}).register(made.BYTES)
  flan_2022.Flan2022(
    missing_submixtures="skip", others={"t0": Broken()}
  ).register(made.BYTES)
  absent = mixtures.resolve("flan_2022_train").parts["t0"].absent
  assert absent.endswith("t0_flan_2022_train: Its prompts are not here; fetch them.")
  with pytest.raises(UserError, match="others is 'to'; known .*nearest is 't0'"):
    flan_2022.Flan2022(others={"to": Broken()})


def cot_and_dialog():
  return mixtures.resolve("flan_2022_cot_train"), mixtures.resolve(
    "flan_2022_dialog_train"
  )


def drawn(resolved, count):
  kept = (
    "template", "prompt_type", "shots", "example_index",
    "inputs_pretokenized", "targets_pretokenized",
  )
  stream = mixtures.examples(resolved, LENGTHS, seed=1, passthrough=kept)
  return [e for _, e in zip(range(count), stream, strict=False)]


@pytest.mark.slow
def test_mixture_draws_at_its_shares(collected):
  """Which part an example is of shows in its prompt type and template."""
  resolved = mixtures.resolve("flan_2022_train")
  total = 3000
  examples = drawn(resolved, total)
  counts = collections.Counter(e["prompt_type"].decode() for e in examples)
  noopt = counts["zs_noopt"] + counts["fs_noopt"]
  inverted = counts["zs_opt_inverted"] + counts["fs_opt_inverted"]
  flan = resolved.parts["flan"].share
  # Half of FLAN's prompts are without options, but for CosmosQA's.
  cosmos = resolved.rates["flan_cosmos_qa_2022"]
  assert about(noopt, (flan - cosmos) / 2, total), counts
  # Chains of thought and dialog alone are turned around.
  assert about(inverted, (1 - flan) * 0.3 / 1.3, total), counts
  few = sum(n for name, n in counts.items() if name.startswith("fs"))
  assert about(few, 0.5, total), counts


def test_parts_are_drawn_at_their_shares(collected):
  assert_drawn_at_their_shares(mixtures.resolve("flan_2022_train"))


def test_with_every_part_shares_are_the_published_ones(collected):
  joined = ("t0_flan_2022_train", "super_ni_flan_2022_train")
  for name in joined:
    task = made.seqio_task(made.nli(name=name), made.rows(8))
    seqio.TaskRegistry.add_provider(name, task)
  try:
    resolved = mixtures.resolve("flan_2022_train")
  finally:
    for name in joined:
      seqio.TaskRegistry.remove(name)
  assert {n: p.share for n, p in resolved.parts.items()} == pytest.approx(
    {"flan": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog": 0.03}
  )
  assert_drawn_at_their_shares(resolved)


def assert_drawn_at_their_shares(resolved):
  """The draw that seqio makes, of streams that name their task."""
  tasks = resolved.mixture.tasks
  streams = [tf.data.Dataset.from_tensors(i).repeat() for i in range(len(tasks))]
  rates = [resolved.mixture.get_rate(task) for task in tasks]
  mixed = tf.data.Dataset.sample_from_datasets(streams, rates, seed=3)
  total = 5000
  seen = collections.Counter(
    tasks[i].name for i in mixed.take(total).as_numpy_iterator()
  )
  for name, part in resolved.parts.items():
    count = sum(seen[t] for t in part.tasks)
    assert about(count, part.share, total), (name, count)


@pytest.mark.slow
def test_the_query_is_in_no_exemplar(collected):
  for resolved in cot_and_dialog():
    examples = drawn(resolved, 400)
    few = [e for e in examples if e["prompt_type"] in (b"fs_opt",)]
    assert few
    for e in few:
      inputs = e["inputs_pretokenized"].decode()
      target = e["targets_pretokenized"].decode()
      assert target not in inputs
    shots = {int(e["shots"]) for e in examples if e["prompt_type"][:2] == b"fs"}
    assert len(shots) > 3
