"""Super-NaturalInstructions as tasks and mixtures, from made and real files."""

import collections
import doctest
import json
import math
import pathlib
import time

import pytest
import seqio
from flan_jax.tasks import flan_2022 as table

from flan_jax import config
from flan_jax.data import (
  catalogue,
  counts,
  flan_2022,
  mixtures,
  seen,
  super_ni,
  super_ni_files,
  super_ni_prompts,
  template,
)
from flan_jax.errors import UserError
from tests.data import made

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTHS = {"inputs": 900, "targets": 16}
KEPT = (
  "template", "trimmed", "example_index", "inputs_pretokenized",
  "targets_pretokenized",
)


def task(number, rows=150, **changes):
  value = {
    "Definition": [f"Task {number}: say the number"],
    "Categories": ["Textual Entailment"],
    "Positive Examples": [
      {"input": f"p{i}", "output": str(i), "explanation": "It is"}
      for i in range(4)
    ],
    "Negative Examples": [{"input": "n", "output": "0"}],
    "Instances": [
      {"id": f"{number}-{i}", "input": f"row {number}/{i}",
       "output": [f"first {i}", f"second {i}"]}
      for i in range(rows)
    ],
  }  # fmt: skip
  return {**value, **changes}


def write(folder, tasks, train, test, track="default"):
  (folder / "tasks").mkdir(parents=True, exist_ok=True)
  splits = folder / "splits" / track
  splits.mkdir(parents=True, exist_ok=True)
  for name, value in tasks.items():
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "tasks" / f"{name}.json").write_text(text)
  (splits / "train_tasks.txt").write_text("\n".join(train))
  (splits / "test_tasks.txt").write_text("\n".join(test))
  (splits / "excluded_tasks.txt").write_text("")
  return folder


@pytest.fixture
def small(tmp_path):
  names = [f"task{n:03}_made" for n in range(1, 5)]
  tasks = {name: task(i) for i, name in enumerate(names)}
  return write(tmp_path / "ni", tasks, names[:2], names[2:])


@pytest.fixture(autouse=True)
def registry():
  yield
  super_ni.unregister()


def register(folder, **kwargs):
  super_ni.SuperNI(str(folder), **kwargs).register(made.BYTES)


def drawn(count, *, seed=1, lengths=LENGTHS, name=super_ni.TRAIN):
  resolved = mixtures.resolve(name)
  stream = mixtures.examples(resolved, lengths, seed=seed, passthrough=KEPT)
  return [e for _, e in zip(range(count), stream, strict=False)]


def asked(index=0, lengths=LENGTHS, most=None):
  resolved = mixtures.resolve(super_ni.EVAL, split="test")
  ours = mixtures.catalogue_tasks(resolved)[index]
  return ours, ours.evaluation_examples(
    "test", vocabulary=made.BYTES, lengths=lengths, templates=(0,),
    max_examples=most, wrapper=template.PLAIN, shots=0,
  )  # fmt: skip


def test_docstrings():
  for module in (super_ni, super_ni_files):
    assert doctest.testmod(module).failed == 0


# ------------------------------------------------------------- the register


def test_1600_tasks_register_lazily_as_one_pipeline(tmp_path, monkeypatch):
  names = [f"task{n:04}_made" for n in range(1, 1601)]
  tasks = {name: task(i, 12) for i, name in enumerate(names)}
  folder = write(tmp_path, tasks, names[:1500], names[1500:])
  with monkeypatch.context() as patch:
    patch.setattr(json, "loads", None)  # no file is opened
    began = time.process_time()
    register(folder)
    assert time.process_time() - began < 5
  assert len([n for n in seqio.TaskRegistry.names() if "made" in n]) == 1600
  resolved = mixtures.resolve(super_ni.TRAIN)
  assert resolved.present == ("super_ni_training_tasks",)
  assert resolved.rows["super_ni_training_tasks"] == {
    "train": 1500 * 11, "validation": 1500
  }
  # Neighbours in the stream are of many tasks.
  said = {e["inputs_pretokenized"].split(b":")[1] for e in drawn(100)}
  assert len(said) > 80


def test_samples_and_first_instances(small):
  register(small)
  rows = mixtures.resolve(super_ni.TRAIN).rows["super_ni_training_tasks"]
  assert rows == {"train": 200, "validation": 20}
  ours = mixtures.catalogue_tasks(mixtures.resolve(super_ni.TRAIN))[0]
  inputs = {
    split: {ours.row(split, n).input for n in ours.order(split)}
    for split in ("train", "validation")
  }
  assert len(inputs["train"]) == 200
  assert len(inputs["validation"]) == 20
  assert not inputs["train"] & inputs["validation"]
  # A sample, not the first ones.
  assert any(int(i.split("/")[1]) >= 110 for i in inputs["train"])
  one, examples = asked()
  assert (one.name, one.cluster) == ("task003_made", "Textual Entailment")
  assert all(f"Input: row 2/{e.index}." in e.inputs_text for e in examples)
  assert [e.index for e in examples] == list(range(100))
  assert examples[7].references == ("first 7", "second 7")
  assert mixtures.resolve("super_ni_task001_made").rows == {
    "super_ni_task001_made": {"train": 100, "validation": 10}
  }


def test_few_training_rows_are_of_the_catalogue_alone(small):
  register(small)
  training = mixtures.resolve(super_ni.TRAIN)
  mixtures.check_train_examples(training, None)
  with pytest.raises(UserError, match="TRAIN_EXAMPLES=32 .* 1 of the 1 tasks"):
    mixtures.check_train_examples(training, 32)


def test_tasks_that_a_run_has_seen(small):
  register(small)
  whole = mixtures.resolve(super_ni.EVAL, split="test")

  def by(name):
    return seen.seen([{"train": {"tasks": {name: {}}}}], whole)

  assert by("super_ni_training_tasks") == {}
  assert set(by("super_ni_flan_2022_tasks")) == {
    "super_ni_task003_made", "super_ni_task004_made"
  }


# ------------------------------------------------------------- the examples


def test_mix_and_references_are_drawn_evenly_and_by_seed(small):
  register(small, encoding="mix")
  total = 2000
  examples = drawn(total)
  found = collections.Counter(int(e["template"]) for e in examples)
  assert set(found) == set(range(5))
  for n in found.values():
    assert abs(n - total / 5) < 5 * math.sqrt(total * 0.2 * 0.8)
  first = sum(e["targets_pretokenized"].startswith(b"first") for e in examples)
  assert abs(first - total / 2) < 5 * math.sqrt(total / 4)
  for e in examples[:200]:
    how = super_ni_prompts.MIX[int(e["template"])]
    text = e["inputs_pretokenized"].decode()
    assert text.startswith("Definition: ") == how.definition
    assert text.count(" Positive Example") == how.positives
    assert text.count(" Negative Example") == min(how.negatives, 1)
    assert ("Explanation: It is." in text) == how.explanations
    assert made.BYTES.decode(e["inputs"].tolist()) == text
    assert made.BYTES.decode(e["targets"].tolist()) == (
      e["targets_pretokenized"].decode()
    )

  def told(examples):
    return [(e["inputs_pretokenized"], e["targets_pretokenized"], int(e["template"])) for e in examples]

  assert told(examples[:300]) == told(drawn(300))
  assert told(examples[:300]) != told(drawn(300, seed=2))


def test_an_instance_is_never_cut(small):
  long = "x " * 400
  rows = [{"input": f"{i} {long * (i % 2)}", "output": ["yes and more"]} for i in range(60)]
  value = task(1, Instances=rows)
  write(small, {"task001_made": value}, ["task001_made"], ["task003_made"])
  register(small, encoding="def")
  lengths = {"inputs": 200, "targets": 5}
  examples = drawn(200, lengths=lengths)
  for e in examples:
    text = e["inputs_pretokenized"].decode()
    assert int(text.split("Input: ")[1].split(".")[0]) % 2 == 0
    assert text.endswith("Output: ")
    assert len(e["inputs"]) <= 200
    assert len(e["targets"]) == 5
    assert int(e["trimmed"]) == len("yes and more") + 1 - 5
  (found,) = counts.count(mixtures.resolve(super_ni.TRAIN), "train", lengths).values()
  assert found.read == 54
  assert found.too_long == found.read - len({e["example_index"].item() for e in drawn(400, lengths=lengths)})
  write(small, {"task003_made": value}, ["task002_made"], ["task003_made"])
  register(small)
  with pytest.raises(UserError, match="instance 1 is longer than TASK_FEATURE"):
    asked(lengths=lengths)


def test_the_cross_lingual_track(small):
  write(small, {}, ["task001_made"], ["task004_made"], "xlingual")
  register(small, track="xlingual", eval_encoding="def")
  one, examples = asked()
  assert one.metrics == ("super_ni_characters",)
  assert one.name == "task004_made"
  assert "Positive" not in examples[0].inputs_text


# --------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (task(1, Definition=[]), "task001_made.json: there is no Definition"),
    (task(1, Definition=[" "]), "task001_made.json: there is no Definition"),
    ({k: v for k, v in task(1).items() if k != "Definition"}, "no Definition"),
    (task(1, Instances=[{"input": "x", "output": []}]), "task001_made.json, instance 0: an input and at least one"),
    (task(1, Instances=[{"input": "x", "output": [3]}]), "instance 0: an input"),
    (task(1, **{"Negative Examples": [{"input": "x"}]}), "Negative Examples, number 0: an input and an output"),
    ("{", "task001_made.json cannot be read"),
  ],
)  # fmt: skip
def test_files_that_are_not_as_published(small, value, message):
  write(small, {"task001_made": value}, ["task001_made"], ["task003_made"])
  register(small)
  with pytest.raises(UserError, match=message):
    mixtures.resolve(super_ni.TRAIN)


@pytest.mark.parametrize(
  ("train", "test", "message"),
  [
    (["task001_mode"], ["task003_made"], r"train_tasks.txt names task001_mode, but there is no .*1 of 1 tasks are absent; the nearest file is task001_made"),
    (["task001_made"], ["task9"], "test_tasks.txt names task9"),
    (["task001_made"], ["task001_made"], "task001_made is in train_tasks.txt and in test_tasks.txt"),
    (["task001_made"] * 2, ["task003_made"], "names task001_made more than once"),
    ([], ["task003_made"], "train_tasks.txt names no task"),
  ],
)  # fmt: skip
def test_lists_that_do_not_fit(small, train, test, message):
  write(small, {}, train, test)
  with pytest.raises(UserError, match=message):
    register(small)


def test_options_are_checked(small, tmp_path):
  with pytest.raises(UserError, match="SUPER_NI_DIR is not set"):
    super_ni.SuperNI().register(made.BYTES)
  with pytest.raises(UserError, match="is not a folder"):
    register(tmp_path / "none")
  with pytest.raises(UserError, match="is no checkout of natural-instructions"):
    register(small, track="xlingual")
  for kwargs, message in (
    ({"track": "english"}, "SUPER_NI_TRACK is 'english'"),
    ({"instances": 0}, "SUPER_NI_INSTANCES=0"),
    ({"encoding": "pos9"}, "SUPER_NI_ENCODING is 'pos9'"),
    ({"eval_encoding": "mix"}, "SUPER_NI_EVAL_ENCODING is 'mix'"),
  ):
    with pytest.raises(UserError, match=message):
      super_ni.SuperNI(str(small), **kwargs)


# ---------------------------------------------------------------- FLAN 2022


def test_flan_2022_has_them(small, sample_data):
  write(small, {"task690_mmlu": task(9)}, ["task001_made"], ["task003_made"])
  catalogue.register(made.BYTES)
  collection = flan_2022.Flan2022(
    missing_submixtures="skip", others={"niv2": super_ni.SuperNI(str(small))}
  )
  try:
    collection.register(made.BYTES)
    (part,) = (p for p in table.SUB_MIXTURES if p.name == "niv2")
    assert part.names == (super_ni.FLAN_2022,)
    found = mixtures.resolve("flan_2022_train").parts["niv2"]
    assert found.tasks == ("super_ni_flan_2022_tasks",)
    assert found.share == pytest.approx(0.20 / 0.68)
    rows = mixtures.resolve(super_ni.FLAN_2022).rows
    # Four tasks of 150 instances, without the one of MMLU.
    assert rows["super_ni_flan_2022_tasks"] == {"train": 560, "validation": 40}
    examples = drawn(400, name=super_ni.FLAN_2022)
    zero_shot = sum(b"Positive" not in e["inputs_pretokenized"] for e in examples)
    assert abs(zero_shot - 200) < 5 * math.sqrt(100)
  finally:
    flan_2022.unregister()
    catalogue.unregister()


# ------------------------------------------------------------ the real data


def test_the_real_tasks(shared):
  register(shared / "superni")
  rows = mixtures.resolve(super_ni.TRAIN).rows["super_ni_training_tasks"]
  assert rows == {"train": 500, "validation": 50}
  names = mixtures.resolve(super_ni.EVAL, split="test").present
  assert len(names) == 5
  assert "super_ni_task1388_cb_entailment" in names


@pytest.mark.slow
def test_twenty_steps(shared, tmp_path):
  flags = {
    "SUPER_NI_DIR": str(shared / "superni"),
    "MODEL_DIR": str(tmp_path / "run"),
    "EVAL_EXAMPLES": 2,
    "t5.T5Config.emb_dim": 16,
    "t5.T5Config.mlp_dim": 16,
  }
  job = config.load(
    ["gin/tk_instruct.gin"],
    [(k, repr(v)) for k, v in flags.items()],
    [str(ROOT)],
  )
  folder = config.call_job(job, ["test"])
  report = json.loads((folder / "report.json").read_text())
  assert set(report["run"]["data"]["train"]["tasks"]) == {
    "super_ni_training_tasks"
  }
  for when in ("before", "after"):
    found = report[when]["tasks"]
    assert len(found) == 5
    assert "rougeL" in found["task190_snli_classification"]["metrics"]
  assert report["run"]["left_out"]["super_ni_training_tasks"]["too_long"] == 0
