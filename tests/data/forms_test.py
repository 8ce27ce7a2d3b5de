"""Forms: fewer templates, none, or the dataset's name instead."""

import doctest

import pytest
import seqio

from flan_jax.data import catalogue, forms, template
from flan_jax.errors import UserError
from tests.data import made

LENGTHS = {"inputs": 400, "targets": 60}


def test_docstrings():
  result = doctest.testmod(forms)
  assert result.failed == 0
  assert result.attempted > 0


@pytest.fixture
def drawn(tmp_path):
  """form -> the examples of a made task in it, ten epochs of 20 rows."""
  made.write_tfds(tmp_path, train=made.rows(40), test=made.rows(6))
  seqio.set_tfds_data_dir_override(str(tmp_path))

  def examples(form):
    task = catalogue.seqio_task(made.nli(), made.BYTES, form=forms.get(form))
    dataset = task.get_dataset(LENGTHS, "train", seed=0, num_epochs=10)
    return list(dataset.as_numpy_iterator())

  yield examples
  seqio.set_tfds_data_dir_override(None)


def test_prompts_are_drawn_from_the_form(drawn):
  assert {int(e["template"]) for e in drawn("templates_4")} == {0, 1, 2, 3}
  assert {int(e["template"]) for e in drawn("template_7")} == {7}
  for e in drawn("no_template"):
    number = int(e["template"])
    assert number == forms.NO_TEMPLATE
    row = int(e["note"].split()[1])
    prompt = f"premise {row} holds\nhypothesis {row} follows".encode()
    assert e["inputs_pretokenized"] == prompt
    assert e["targets_pretokenized"] == (b"yes", b"no")[row % 2]
  for e in drawn("dataset_name"):
    assert e["inputs_pretokenized"].startswith(b"[Made] premise ")


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_fewer_templates_are_the_first_ones(count):
  form = forms.get(f"templates_{count}")
  assert form.templates == tuple(range(count))
  table = template.tables(made.nli(), form.templates)
  assert table.template_T == form.templates
  whole = template.tables(made.nli())
  for few, all_ten in zip(table[2:], whole[2:], strict=True):
    width = len(few[0])
    assert few == tuple(row[:width] for row in all_ten[:count])


@pytest.mark.parametrize("name", catalogue.load())
def test_without_a_template_only_the_fields_are_left(name):
  task = catalogue.get(name)
  none = forms.template(task, forms.NO_TEMPLATE)
  assert set(none.input_fields) == set(forms.plain_fields(task))
  text = none.inputs
  for field in none.input_fields:
    text = text.replace("{" + field + "}", "")
  assert not text.strip()
  assert none.targets == ("{answer}" if task.choices else "{target}")
  assert not none.turned_around
  named = forms.template(task, forms.DATASET_NAME)
  title = forms.title(task)
  assert named.inputs == f"[{title}] {none.inputs}"
  assert title.endswith(f": {task.paper_name}")
  assert forms.rankable(task, forms.NO_TEMPLATE) == bool(task.choices)


def test_fields_of_turned_around_templates_alone_are_not_shown():
  """Such a field may hold the answer."""
  task = made.nli()
  assert forms.plain_fields(task) == ("premise", "hypothesis")
  templates = [
    t if t.turned_around else (t.inputs.replace("{hypothesis}", ""), t.targets)
    for t in task.templates
  ]
  assert forms.plain_fields(made.nli(templates=tuple(templates))) == ("premise",)


def test_names():
  assert catalogue.registered_name("rte") == "flan_rte"
  assert (
    catalogue.registered_name("rte", forms.get("no_template"))
    == "flan_rte_no_template"
  )
  with pytest.raises(UserError, match="no form 'no_templates'.*'no_template'"):
    forms.get("no_templates")
  with pytest.raises(UserError, match="no template 10, only 0 to 9"):
    forms.template(made.nli(), 10)
