import re

import pytest
import tensorflow as tf

from flan_jax.data import spec, template
from tests.data import made


def text(example, name="inputs"):
  return example[f"{name}_pretokenized"].decode()


def expected(task, row, index, wrapper=template.PLAIN):
  """The plain-Python rendering that the graph has to equal."""
  choices = task.choices or ()
  values = {field: row[name] for field, name in task.inputs.items()}
  if choices:
    values["answer"] = choices[row[task.label]]
    values["options"] = template.options(choices)
  else:
    values["target"] = row[task.target]
  chosen = task.templates[index]
  prompt = wrapper.prefix + chosen.inputs + wrapper.suffix
  return prompt.format(**values), chosen.targets.format(**values)


def test_docstring_example():
  table = template.tables(made.nli(), [0], template.FLAN_CUE)
  assert table.input_text_TP == (
    ("0 ", "\n\nIs it true that ", "\n\n", " X 1 FLAN"),
  )
  assert template.options(["yes", "no"]) == "OPTIONS:\n- yes\n- no"


@pytest.mark.parametrize("wrapper", [template.PLAIN, template.FLAN_CUE])
def test_every_row_is_its_template_over_its_own_fields(wrapper):
  """Fields stay with their row under shuffle, repeat and every template."""
  task, columns = made.nli(), made.rows(700)
  dataset = made.seqio_task(task, columns, wrapper=wrapper).get_dataset(
    None, split="train", shuffle=True, seed=1, num_epochs=3
  )
  seen, drawn = [], set()
  for e in dataset.as_numpy_iterator():
    i = int(e["example_index"])
    row = {k: v[i] for k, v in columns.items()}
    assert (text(e), text(e, "targets")) == expected(
      task, row, int(e["template"]), wrapper
    )
    assert e["premise"].decode() == row["premise"]
    assert e["note"].decode() == row["note"]
    assert e["label"] == row["label"]
    seen.append(i)
    drawn.add(int(e["template"]))
  assert sorted(seen) == sorted(list(range(700)) * 3)
  assert drawn == set(range(10))


def test_dynamic_choices_of_any_number():
  endings = [["a", "b"], ["c", "d", "e"], ["f", "g"], ["h", "i", "j", "k"]]
  columns = {**made.rows(4), "endings": tf.ragged.constant(endings)}
  columns["label"] = [1, 2, 0, 3]
  for e in made.examples(made.choosing(), columns, num_epochs=30):
    i = int(e["example_index"])
    assert [c.decode() for c in e["choices"]] == endings[i]
    if e["template"] == 0:
      assert text(e).endswith("\n\n" + template.options(endings[i]))
    if e["template"] < 9:
      assert text(e, "targets") == endings[i][columns["label"][i]]


def test_generation_and_references():
  task = made.generating(references="all")
  columns = {
    "text": ["one", "two"],
    "summary": ["1", "2"],
    "all": tf.ragged.constant([["1", "I"], ["2"]]),
  }
  for e in made.examples(task, columns, num_epochs=10):
    i = int(e["example_index"])
    row = {"text": columns["text"][i], "summary": columns["summary"][i]}
    assert (text(e), text(e, "targets")) == expected(
      task, row, int(e["template"])
    )
    assert [r.decode() for r in e["references"]] == [["1", "I"], ["2"]][i]
  plain = made.generating()
  columns.pop("all")
  assert made.examples(plain, columns)[0]["references"].tolist() == [b"1"]


def test_same_seed_same_draws_other_seed_other_draws_new_in_each_epoch():
  task, columns = made.nli(), made.rows(300)

  def draws(seed):
    out = made.examples(task, columns, seed=seed, num_epochs=2)
    assert [int(e["example_index"]) for e in out] == [*range(300)] * 2
    return [int(e["template"]) for e in out]

  assert draws(0) == draws(0)
  assert draws(0) != draws(1)
  both = draws(0)
  first, second = both[:300], both[300:]
  same = sum(a == b for a, b in zip(first, second, strict=True))
  assert 10 <= same <= 60  # a tenth by chance
  for index in range(10):
    assert 30 <= both.count(index) <= 95  # 60 by chance


@pytest.mark.parametrize("label", [-1, 2])
def test_label_outside_choices_names_task_row_and_label(label):
  columns = made.rows(8)
  columns["label"][5] = label
  message = (
    f"task 'made': label {label} is outside its choices (counted from 0) in"
    " row 5. Drop such rows with keep=, or correct 'label'."
  )
  task = made.seqio_task(made.nli(), columns)
  dataset = task.get_dataset(None, split="train", shuffle=False)
  with pytest.raises(template.DataError, match=f"^{re.escape(message)}$"):
    list(template.user_errors(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("wrong", [["x"], ["x", "x"], ["x", " "]])
def test_choices_that_cannot_be_told_apart(wrong):
  columns = made.rows(3)
  columns["endings"] = tf.ragged.constant([["a", "b"], ["a", "é"], wrong])
  columns["label"] = [0, 1, 0]
  task = made.seqio_task(made.choosing(), columns)
  dataset = task.get_dataset(None, split="train", shuffle=False)
  with pytest.raises(template.DataError) as e:
    list(template.user_errors(dataset.as_numpy_iterator()))
  assert str(e.value) == (
    f"task 'made': the {len(wrong)} choices in row 2 are not at least two,"
    " all different and none empty. Drop such rows with keep=."
  )


def test_rows_without_text_and_rows_not_kept_are_left_out():
  columns = made.rows(6)
  columns["premise"][1] = "  \n"
  columns["label"][3] = -1
  task = made.nli(keep=lambda row: row["label"] >= 0)
  left = made.examples(task, columns)
  assert [int(e["example_index"]) for e in left] == [0, 2, 4, 5]


def test_prepare_runs_before_fields_are_read():
  def prepare(row):
    return {**row, "loud": tf.strings.upper(row["premise"])}

  task = made.nli(
    prepare=prepare, inputs={"premise": "loud", "hypothesis": "hypothesis"}
  )
  assert made.examples(task, made.rows(1))[0]["premise"] == b"PREMISE 0 HOLDS"


def test_missing_feature_names_those_there():
  columns = made.rows(2)
  columns.pop("premise")
  message = r"task 'made': its rows have no feature 'premise', only .*hypo"
  with pytest.raises(spec.SpecError, match=message):
    made.examples(made.nli(), columns)


def test_sequence_where_a_text_is_needed():
  columns = made.rows(2)
  columns["premise"] = [["a", "b"], ["c", "d"]]
  message = r"feature 'premise' has rank 1 in a row, not 0; join it in prepare"
  with pytest.raises(spec.SpecError, match=message):
    made.examples(made.nli(), columns)


def test_reserved_field_name():
  templates = tuple(
    (t.inputs.replace("{premise}", "{inputs}"),
     t.targets.replace("{premise}", "{inputs}"))
    for t in made.nli().templates
  )
  task = made.nli(
    inputs={"inputs": "premise", "hypothesis": "hypothesis"},
    templates=templates,
  )
  with pytest.raises(spec.SpecError, match="may not name a field 'inputs'"):
    template.tables(task)


def test_template_out_of_range():
  with pytest.raises(ValueError, match="no template 10, only 0 to 9"):
    template.tables(made.nli(), [10])


def test_references_need_a_target_or_choices_of_the_row():
  with pytest.raises(spec.SpecError, match="references are for targets, or"):
    made.nli(references="accepted")
