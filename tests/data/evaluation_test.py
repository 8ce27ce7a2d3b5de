import pytest
import seqio
import tensorflow as tf

from flan_jax.data import catalogue, evaluation, spec, template
from flan_jax.errors import UserError
from tests.data import made

LENGTHS = {"inputs": 200, "targets": 60}


@pytest.fixture
def data_dir(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  made.write_tfds(tmp_path, train=made.rows(40), test=made.rows(6))
  yield tmp_path
  seqio.set_tfds_data_dir_override(None)


def examples(task, split="test", lengths=LENGTHS, **kwargs):
  return evaluation.evaluation_examples(
    task, split, vocabulary=made.BYTES, lengths=lengths, **kwargs
  )


def test_every_row_under_every_template(data_dir):
  out = examples(made.nli())
  assert [(e.index, e.template) for e in out] == [
    (r, t) for r in range(6) for t in range(10)
  ]
  e = out[10 * 3]
  assert e.task == "made"
  assert e.inputs_text.endswith("\n\nOPTIONS:\n- yes\n- no")
  assert made.BYTES.decode(e.inputs) == e.inputs_text
  assert e.inputs[-1] == 1
  assert e.choices_text == ("yes", "no")
  assert [c.tolist() for c in e.choices] == [
    [*made.BYTES.encode("yes"), 1], [*made.BYTES.encode("no"), 1]]
  assert e.targets.tolist() == e.choices[e.label].tolist()
  assert e.targets_text == e.choices_text[e.label]


def test_a_wrapper_without_eos(data_dir):
  """The prompt stands before the answer as the chat form wants it."""
  chat = template.Wrapper("Q: ", "\nA:", eos=False)
  with_eos = examples(made.nli(), wrapper=template.Wrapper("Q: ", "\nA:"))
  for e, other in zip(
    examples(made.nli(), wrapper=chat), with_eos, strict=True
  ):
    assert e.inputs.tolist() == other.inputs.tolist()[:-1]
    assert made.BYTES.decode(e.inputs).endswith("\nA:")
    assert e.targets[-1] == 1
  task = catalogue.seqio_task(made.nli(), made.BYTES, wrapper=chat)
  for e in task.get_dataset(LENGTHS, "test").as_numpy_iterator():
    assert e["inputs"][-1] != 1
    assert e["targets"][-1] == 1


def test_turned_around_templates_are_generated(data_dir):
  turned = examples(made.nli(), templates=[9])
  assert len(turned) == 6
  for e in turned:
    assert (e.choices, e.choices_text, e.label) == ((), (), -1)
    assert e.references == (e.targets_text,)
    assert e.targets_text.startswith("premise ")


def test_same_texts_as_in_training(data_dir):
  """Also where they had to be trimmed."""
  task = made.nli()
  columns = made.rows(6)
  columns["premise"] = [p + " and so on" * 30 for p in columns["premise"]]
  made.write_tfds(data_dir, "long", train=made.rows(40), test=columns)
  long = made.nli(source=spec.tfds("long:1.0.0"))
  ours = {
    (e.index, e.template): (e.inputs_text, e.targets.tolist())
    for e in examples(long)
  }
  by_note = {e.index: e for e in examples(long, templates=[1])}
  stored = {}
  for note, index in (
    (e.inputs_text.split("hypothesis ")[1].split()[0], e.index)
    for e in by_note.values()
  ):
    stored[int(note)] = index
  for e in made.examples(task, columns, LENGTHS, num_epochs=10):
    key = (stored[int(e["example_index"])], int(e["template"]))
    text, targets = ours[key]
    assert e["inputs_pretokenized"].decode() == text
    assert e["targets"].tolist() == targets


def test_choices_of_each_row(tmp_path):
  lines = [
    {
      "premise": f"p{i}", "hypothesis": "h", "label": i % 2,
      "endings": ["a", "b", f"c{i}"][: 2 + i % 2],
    }
    for i in range(10)
  ]
  pattern = made.write_jsonl(tmp_path, train=lines, test=lines[:4])
  task = made.choosing(
    source=spec.Jsonl(pattern),
    splits=spec.Splits(validation=spec.last("train", 2), test="test"),
  )
  for e in examples(task, templates=[0]):
    assert e.choices_text == tuple(lines[e.index]["endings"])
    assert e.targets_text == lines[e.index]["endings"][e.label]


def test_options_that_do_not_fit_are_named(tmp_path):
  lines = [
    {"premise": "p", "hypothesis": "h", "label": 0, "endings": ["a", "b" * n]}
    for n in (1, 300, 400, 2, 3, 4, 5, 6)
  ]
  pattern = made.write_jsonl(tmp_path, train=lines, test=lines)
  task = made.choosing(
    source=spec.Jsonl(pattern),
    splits=spec.Splits(validation=spec.last("train", 2), test="test"),
  )
  message = (
    r"task 'made', split 'test': with its options and without any of its"
    r" fields, row 2 is \d+ tokens long under template 0, but inputs are cut"
    r" to 200\. Raise TASK_FEATURE_LENGTHS"
  )
  with pytest.raises(UserError, match=message):
    examples(task)


def test_references(tmp_path):
  lines = [
    {"text": f"text {i}", "summary": f"s{i}", "all": [f"s{i}", "other"][: 1 + i % 2]}
    for i in range(10)
  ]
  pattern = made.write_jsonl(tmp_path, train=lines, test=lines[:4])
  task = made.generating(
    references="all",
    source=spec.Jsonl(pattern),
    splits=spec.Splits(validation=spec.last("train", 2), test="test"),
  )
  for e in examples(task):
    if e.template == 9:
      assert e.references == (f"text {e.index}",)
    else:
      assert e.references == tuple(lines[e.index]["all"])
    assert e.choices == ()


def test_max_examples_counts_usable_rows(data_dir):
  columns = made.rows(40)
  made.write_tfds(data_dir, "odd", train=columns, test=columns)
  task = made.nli(
    source=spec.tfds("odd:1.0.0"), keep=lambda row: tf.equal(row["label"], 1)
  )
  out = examples(task, max_examples=5, templates=[0])
  assert len(out) == 5
  assert {e.label for e in out} == {1}


def test_not_one_usable_row(data_dir):
  task = made.nli(keep=lambda row: row["label"] > 5)
  message = "split 'test' has 6 rows, but not one is usable"
  with pytest.raises(UserError, match=message):
    examples(task)


def test_label_outside(data_dir):
  columns = made.rows(6)
  columns["label"][2] = 9
  made.write_tfds(data_dir, "wrong", train=made.rows(40), test=columns)
  task = made.nli(source=spec.tfds("wrong:1.0.0"))
  with pytest.raises(template.DataError, match="label 9 is outside its choic"):
    examples(task)


def test_groups_and_accepted_choices(tmp_path):
  rows = [
    {"premise": f"p{i}", "hypothesis": "h", "label": 0, "asked": f"q{i // 2}",
     "endings": ["a", "b", "c"], "accepted": ["c", "a"][: 2 - i % 2]}
    for i in range(4)
  ]
  task = made.choosing(
    source=spec.Jsonl(made.write_jsonl(tmp_path, test=rows)),
    splits=spec.Splits(train=None, validation=None, test="test"),
    group="asked",
    references="accepted",
  )
  found = evaluation.evaluation_examples(
    task, "test", vocabulary=made.BYTES, lengths=None, templates=[0]
  )
  assert [e.group for e in found] == ["q0", "q0", "q1", "q1"]
  assert [e.references for e in found] == [("c", "a"), ("c",)] * 2
  assert [e.targets_text for e in found] == ["a"] * 4
