"""P3 as seqio tasks: names, rates, rows, drops, lengths, evaluation."""

import dataclasses
import gzip
import json
import pathlib

import numpy as np
import pytest
import seqio

from flan_jax.data import (
  catalogue,
  counts,
  forms,
  mixtures,
  p3,
  p3_adapters,
  p3_datasets,
  p3_pipeline,
  p3_prompts,
  p3_sources,
  p3_tasks,
  sources,
  template,
)
from flan_jax.data import vocabulary as vocabularies
from flan_jax.data.p3_prompts import Prompt
from flan_jax.errors import UserError
from flan_jax.eval import protocol

ASK = Prompt(
  "mine", None, "ask", "{{text}} Good? ||| {{answer_choices[label]}}",
  "no ||| yes", original_task=True,
)  # fmt: skip
SOME = Prompt(
  "mine", None, "some", "{% if label %}{{text}} ||| {{label}}{% endif %}"
)
NEVER = Prompt(
  "mine", None, "zz", "{% if label > 5 %}{{text}} ||| x{% endif %}"
)
ROWS = [{"text": f"Row {n} is long enough.", "label": n % 2} for n in range(6)]


def dataset(**kwargs):
  found = dataclasses.replace(
    p3_datasets.by_name("app_reviews"),
    dataset="mine",
    splits=p3_datasets.by_name("dream").splits,
  )
  return dataclasses.replace(found, **kwargs)


def prompt_set(tmp_path, prompts=(ASK, SOME), rows=ROWS, **kwargs):
  folder = tmp_path / "mine"
  folder.mkdir(exist_ok=True)
  text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
  for split in ("train", "validation"):
    (folder / f"{split}.jsonl").write_text(text + "\n\n")
  return p3_tasks.PromptSet(dataset(), prompts, tmp_path, **kwargs)


def examples(prompts, name, lengths=None, wrapper=template.PLAIN, **kwargs):
  made = p3_tasks.seqio_tasks(prompts, vocabularies.load(), wrapper)
  found = made[name].get_dataset(
    lengths, kwargs.pop("split", "train"), shuffle=False, seed=0, **kwargs
  )
  return list(template.user_errors(found.as_numpy_iterator()))


# ----------------------------------------------------------------- mixtures


def test_published_counts_and_rates(promptsource):
  sets = p3.P3(prompts=str(promptsource)).sets()
  found = p3.mixtures(sets)
  counted = {
    name: (len(parts), sum(rate for _, rate in parts))
    for name, parts in found.items()
  }
  assert counted["t0_train"] == (313, 17_277_798)
  assert counted["t0_plus_train"] == (392, 20_672_671)
  assert counted["t0_plus_plus_train"] == (464, 23_118_591)
  assert counted["t0_p_8_03_train"] == counted["t0_train"]
  assert counted["t0_d_55_train"] == counted["t0_plus_plus_train"]
  assert counted["t0_p_1_train"][0] == 35
  assert counted["t0_p_5_7_train"][0] == 222
  assert counted["t0_flan_2022_train"][0] == 193
  evaluated = [counted[f"{m}_eval"][0] for m in p3_datasets.MIXTURES]
  assert evaluated == [116, 112, 80]
  first = dict(found["t0_p_1_train"])
  # The cap divides by all prompts, so that the rate of one stays.
  assert first["t0_gigaword_TLDR"] == 500_000 // 9
  assert "t0_anli_r2_GPT_3_style" in dict(found["t0_eval"])
  for mixture in p3_datasets.MIXTURES:
    trained = {t for t, _ in found[f"{mixture}_train"]}
    assert not trained & {t for t, _ in found[f"{mixture}_eval"]}
    assert p3.training_tasks(sets, mixture) == [
      t for t, _ in found[f"{mixture}_train"]
    ]
  with pytest.raises(UserError, match="nearest is 't0_plus'"):
    p3.training_tasks(sets, "t0_pus")


def test_table_is_the_facts(shared):
  import csv

  with (shared / "facts" / "t0_datasets.csv").open() as file:
    facts = {
      p3_prompts.dataset_name(r["hf_name"], r["subset"]): r
      for r in csv.DictReader(file)
      if r["n_prompts"] != "0"
    }
  for d in p3_datasets.all_datasets():
    row = facts[p3_prompts.dataset_name(d.dataset, d.subset)]
    trained = [row[f"{m}_train"] for m in ("t0", "t0p", "t0pp")]
    assert trained == [str(int(d.trains(m))) for m in p3_datasets.MIXTURES]
    held = [row[f"{m}_heldout"] for m in ("t0", "t0p", "t0pp")]
    ours = [d.held_out and not d.trains(m) for m in p3_datasets.MIXTURES]
    assert held == [str(int(o)) for o in ours], d.key
    if not d.round and d.rows:
      assert d.rows == int(row["train_size"])
    if row["cap_per_prompt"]:
      assert d.rate(int(row["n_prompts"])) == int(row["cap_per_prompt"])
    if d.tfds:
      assert d.tfds.partition(":")[0] in row["tfds"].split(";"), d.key


def test_registering(promptsource, request):
  collection = p3.P3(prompts=str(promptsource))
  vocabulary = vocabularies.load()
  request.addfinalizer(p3.unregister)
  collection.register(vocabulary)
  collection.register(vocabulary, wrapper=template.Wrapper(eos=False))
  task = seqio.TaskRegistry.get("t0_super_glue_rte_GPT_3_style")
  assert not task.output_features["inputs"].add_eos
  prompts = catalogue.of_seqio(task)
  (number,) = catalogue.form_of(task).templates
  assert prompts.templates[number].name == "GPT-3 style"
  assert prompts.name == "t0_super_glue_rte"
  assert len(seqio.MixtureRegistry.get("t0_train").tasks) == 313
  resolved = mixtures.Resolved(
    seqio.MixtureRegistry.get("t0_eval"), (), (), {}, {}
  )
  tasks = mixtures.catalogue_tasks(resolved)
  form_of = mixtures.forms_of(resolved)
  scored = [protocol.scored_templates(t, form_of[t.name]) for t in tasks]
  assert len(tasks) == 11
  assert sum(map(len, scored)) == 116
  assert scored == [protocol.scored_templates(t) for t in tasks]
  with pytest.raises(UserError, match="P3_ON_BAD_ROW is 'skp'.*'skip'"):
    p3.P3(on_bad_row="skp")
  with pytest.raises(UserError, match="P3_DATA_DIR 'nowhere' is not a folder"):
    p3.P3(data_dir="nowhere")


# --------------------------------------------------------------------- rows


def test_examples_of_a_folder(tmp_path):
  prompts = prompt_set(tmp_path)
  found = examples(prompts, "t0_mine_ask", {"inputs": 64, "targets": 16})
  vocabulary = vocabularies.load()
  assert [int(e["example_index"]) for e in found] == list(range(6))
  for number, e in enumerate(found):
    text = f"Row {number} is long enough. Good?"
    assert e["inputs_pretokenized"] == text.encode()
    assert e["inputs"].tolist() == [*vocabulary.encode(text), 1]
    answer = ("no", "yes")[number % 2]
    assert e["targets"].tolist() == [*vocabulary.encode(answer), 1]
    assert (int(e["template"]), int(e["trimmed"])) == (0, 0)
  some = examples(prompts, "t0_mine_some")
  assert [int(e["example_index"]) for e in some] == [1, 3, 5]
  assert {int(e["template"]) for e in some} == {1}


def test_lengths_and_wrapper(tmp_path):
  prompts = prompt_set(tmp_path)
  wrapper = template.Wrapper("Q: ", " A:", eos=False)
  lengths = {"inputs": 9, "targets": 2}
  vocabulary = vocabularies.load()
  tail = vocabulary.encode(" A:")
  found = examples(prompts, "t0_mine_ask", lengths, wrapper)
  for e in found:
    whole = vocabulary.encode(e["inputs_pretokenized"].decode())
    head = vocabulary.encode(e["inputs_pretokenized"].decode()[: -len(" A:")])
    assert e["inputs"].tolist() == [*head[: 9 - len(tail)], *tail]
    assert len(e["targets"]) <= 2
    assert e["targets"][-1] == 1
    assert int(e["trimmed"]) >= len(whole) - 9
  plain = examples(prompts, "t0_mine_ask", lengths)
  for e in plain:
    assert len(e["inputs"]) == 9
    assert e["inputs"][-1] == 1
  evaluated = prompts.evaluation_examples(
    "test", vocabulary=vocabulary, lengths=lengths, templates=(0,),
    max_examples=None, wrapper=wrapper, shots=0,
  )  # fmt: skip
  assert [e.inputs.tolist() for e in evaluated] == [
    e["inputs"].tolist() for e in found
  ]


def test_what_is_left_out_is_counted(tmp_path):
  rows = [*ROWS, {"text": "Unlabelled.", "label": -1}, "{bad", "[1]"]
  prompts = prompt_set(tmp_path, rows=rows, on_bad_row="skip")
  made = p3_tasks.seqio_tasks(prompts, vocabularies.load())
  mixture = seqio.Mixture("mine", [(t, 1.0) for t in made.values()])
  resolved = mixtures.Resolved(mixture, tuple(made), (), {}, {})
  found = counts.count(resolved)
  assert found["t0_mine_ask"] == counts.Counts(9, 0, 3)
  assert found["t0_mine_some"] == counts.Counts(9, 3, 2)
  for name, c in found.items():
    assert len(examples(prompts, name)) == c.used


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ("{bad", r"train.jsonl, line 7, column 2: not JSON \(Expecting property"),
    ("[1]", "train.jsonl, line 7: a list, not an object"),
    ('{"txt": "x", "label": 1}', "no field 'text', only txt, label"),
  ],
)
def test_bad_rows(tmp_path, line, said):
  prompts = prompt_set(tmp_path, rows=[*ROWS, line])
  with pytest.raises(UserError, match=said):
    examples(prompts, "t0_mine_ask")


def test_a_prompt_that_applies_to_no_row(tmp_path):
  prompts = prompt_set(tmp_path, prompts=(ASK, NEVER))
  made = p3_tasks.seqio_tasks(prompts, vocabularies.load())
  assert made["t0_mine_ask"].source.sizes() == {"train": 6, "validation": 6}
  with pytest.raises(
    sources.NotPreparedError,
    match="prompt 'zz' applies to none of the first 6 rows of split 'train'",
  ):
    made["t0_mine_zz"].source.sizes()


def test_batches_without_an_example(tmp_path):
  prompts = prompt_set(tmp_path, prompts=(NEVER,))
  vocabulary = vocabularies.load()
  features = {n: seqio.Feature(vocabulary) for n in ("inputs", "targets")}
  wrapper = template.Wrapper("", " A:")
  with seqio.utils.map_seed_manager(initial_seed=0):
    found = p3_pipeline.render_rows(prompts, 0, wrapper)(
      prompts.inner.get_dataset("train"), features, {"inputs": 8, "targets": 8}
    )
  assert list(found) == []


def test_a_folder_that_is_not_there(tmp_path):
  prompts = p3_tasks.PromptSet(dataset(), (ASK,), tmp_path)
  with pytest.raises(sources.NotPreparedError, match=r"mine/train\.jsonl"):
    prompts.inner.sizes()
  prompts = prompt_set(tmp_path)
  (tmp_path / "mine" / "train-00000-of-00001.parquet").write_bytes(b"")
  with pytest.raises(UserError, match="files of several kinds"):
    prompts.inner.sizes()


def test_training_rows_alone_are_enough(tmp_path):
  prompt_set(tmp_path)
  (tmp_path / "mine" / "validation.jsonl").unlink()
  prompts = p3_tasks.PromptSet(dataset(), (ASK,), tmp_path)
  made = p3_tasks.seqio_tasks(prompts, vocabularies.load())["t0_mine_ask"]
  assert list(made.splits) == ["train"]
  assert made.num_input_examples("train") == 6


def test_gzip_and_parquet(tmp_path):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  folder = tmp_path / "mine"
  folder.mkdir()
  with gzip.open(folder / "validation.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(r) + "\n" for r in ROWS[:3])
  for part, rows in enumerate((ROWS[:2], ROWS[2:])):
    name = f"train-{part:05}-of-00002.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
  prompts = p3_tasks.PromptSet(dataset(), (ASK,), tmp_path)
  assert prompts.inner.sizes() == {"train": 6, "validation": 3}
  assert [row for _, row in prompts.rows("train")] == ROWS
  assert [row for _, row in prompts.rows("validation")] == ROWS[:3]
  assert len(prompts.inner.fingerprint()) == 8


def test_draws_follow_the_seed(tmp_path):
  text = "{{text}} {{['a', 'b', 'c', 'd', 'e'] | choice}} ||| x"
  draws = Prompt("mine", None, "draw", text)
  prompts = prompt_set(tmp_path, prompts=(draws,))
  made = p3_tasks.seqio_tasks(prompts, vocabularies.load())["t0_mine_draw"]

  def texts(seed):
    found = made.get_dataset(None, "train", shuffle=False, seed=seed)
    return [e["inputs_pretokenized"] for e in found.as_numpy_iterator()]

  assert texts(0) == texts(0)
  assert texts(0) != texts(1)


# --------------------------------------------------------------- evaluation


def test_evaluation(tmp_path):
  rows = [*ROWS, {"text": "Unlabelled.", "label": -1}]
  again = dataclasses.replace(ASK, name="b", answer_choices="bad ||| good")
  prompts = prompt_set(tmp_path, prompts=(ASK, again, SOME), rows=rows)
  assert prompts.scored_templates(forms.PLAIN) == (0, 1)
  found = prompts.evaluation_examples(
    "test", vocabulary=vocabularies.load(), lengths=None, templates=(0, 1),
    max_examples=None, wrapper=template.PLAIN, shots=0,
  )  # fmt: skip
  assert [(e.index, e.template) for e in found] == [
    (n, t) for n in range(6) for t in (0, 1)
  ]
  one = found[3]
  assert (one.choices_text, one.label) == (("bad", "good"), 1)
  assert one.targets_text == "good"
  assert np.array_equal(one.choices[1], one.targets)
  assert one.task == "t0_mine"
  few = prompts.evaluation_examples(
    "test", vocabulary=vocabularies.load(), lengths=None, templates=(0,),
    max_examples=2, wrapper=template.PLAIN, shots=0,
  )  # fmt: skip
  assert [e.index for e in few] == [0, 1]


def test_a_prompt_is_evaluated_on_the_rows_that_it_applies_to(tmp_path):
  """As COPA's, which ask for a cause or for an effect."""
  part = dataclasses.replace(
    ASK, name="b", jinja=f"{{% if label == 1 %}}{ASK.jinja}{{% endif %}}"
  )
  prompts = prompt_set(tmp_path, prompts=(ASK, part))
  labels = [row["label"] for row in ROWS]
  arguments = {
    "vocabulary": vocabularies.load(), "lengths": None, "templates": (0, 1),
    "wrapper": template.PLAIN, "shots": 0,
  }  # fmt: skip
  found = prompts.evaluation_examples("test", max_examples=None, **arguments)
  by = {t: [e.index for e in found if e.template == t] for t in (0, 1)}
  assert by[0] == list(range(6))
  assert by[1] == [i for i, label in enumerate(labels) if label == 1]
  assert 0 < len(by[1]) < 6
  # So many rows of each prompt, whichever they are.
  few = prompts.evaluation_examples("test", max_examples=2, **arguments)
  for t in (0, 1):
    assert [e.index for e in few if e.template == t] == by[t][:2]


def test_evaluation_refuses(tmp_path):
  arguments = {
    "vocabulary": vocabularies.load(), "lengths": None, "templates": (0,),
    "max_examples": None, "wrapper": template.PLAIN, "shots": 0,
  }  # fmt: skip
  prompts = prompt_set(tmp_path)
  with pytest.raises(UserError, match="no few-shot form"):
    prompts.evaluation_examples("test", **{**arguments, "shots": 2})
  with pytest.raises(UserError, match="none of its prompts"):
    prompts.evaluation_examples("test", **{**arguments, "templates": ()})
  other = dataclasses.replace(ASK, jinja="{{text}} ||| perhaps")
  prompts = prompt_set(tmp_path, prompts=(other,))
  with pytest.raises(UserError, match="'perhaps' is none of"):
    prompts.evaluation_examples("test", **arguments)


# ---------------------------------------------------------------- real data


TFDS_ROWS = {
  "ai2_arc/ARC-Easy": {
    "question": "Why?", "answerKey": 1,
    "choices": {"text": ["a", "b", "c", "d"], "label": [0, 1, 2, 3]},
  },
  "anli/r1": {"context": "It rains.", "hypothesis": "It is wet.", "label": 0},
  "ag_news": {"title": "Rain", "description": "It rains.", "label": 3},
  "hellaswag": {
    "context": "A man sits. he", "endings": ["a", "b", "c", "d"], "label": 2,
    "activity_label": "Sitting", "split_type": "", "source_id": "",
  },
  "openbookqa/main": {
    "question": {"stem": "Ice is", "choice_A": "hot", "choice_B": "cold",
                 "choice_C": "red", "choice_D": "old"}, "answerKey": 1,
  },
  "race/high": {
    "article": "Ice.", "questions": ["Hot?", "Cold?"], "answers": ["B", "A"],
    "options": [["a", "b", "c", "d"], ["e", "f", "g", "h"]],
  },
  "story_cloze/2016": {
    "context": "A b. C d. E f. G h.", "endings": ["I j.", "K l."], "label": 2,
  },
  "winogrande/winogrande_xl": {
    "sentence": "The cat saw _ .", "option1": "Kim", "option2": "Lee",
    "label": 1,
  },
}  # fmt: skip


@pytest.mark.parametrize("key", TFDS_ROWS)
def test_adapted_rows_suit_every_prompt(promptsource, key):
  one = p3_datasets.by_name(key)
  prompts = p3_tasks.PromptSet(
    one, p3_prompts.load(promptsource, one.dataset, one.subset)
  )
  assert one.adapter is not p3_adapters.same
  for row in one.adapter(TFDS_ROWS[key]):
    for number, prompt in enumerate(prompts.templates):
      found = prompts.compiled(number).render(p3_sources.named(row), 0)
      if prompt.ranked:
        assert found.label >= 0, prompt.where
  assert one.adapter(TFDS_ROWS[key])


@pytest.mark.slow
def test_rendered_text_is_t0s(promptsource, shared, tmp_path):
  """Rows that T0 was trained on, of the datasets that are here; the report is
  tests/golden/p3_compared.md."""
  from tests.data import p3_compared

  lines = list(
    p3_compared.compare(shared / "p3", shared / "tfds", promptsource)
  )
  report = p3_compared.table(lines)
  (tmp_path / "p3_compared.md").write_text(report, encoding="utf-8")
  assert sum(line.equal for line in lines) > 2500
  for line in lines:
    assert line.unlike == (), line.prompt
    kinds = line.equal + line.but_for_spaces + line.without_target
    assert line.matched == kinds
  golden = pathlib.Path(__file__).parents[1] / "golden" / "p3_compared.md"
  assert golden.read_text(encoding="utf-8") == report
