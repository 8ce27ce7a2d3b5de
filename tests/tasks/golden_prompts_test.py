import itertools
import re

import pytest

from flan_jax.data import catalogue, forms, preprocessors, sources
from flan_jax.errors import UserError
from tests.data import made
from tests.tasks import golden_prompts


@pytest.mark.parametrize("name", golden_prompts.known())
def test_prompts_are_those_that_were_read(name, sample_data):
  task = golden_prompts.known()[name]
  file = golden_prompts.path(task)
  assert file.exists(), "run python -m tests.tasks.golden_prompts --update"
  assert golden_prompts.rendered(task) == file.read_text(encoding="utf-8"), (
    "If the new prompts read well, run"
    " python -m tests.tasks.golden_prompts --update and look at the diff."
  )


@pytest.mark.parametrize("name", golden_prompts.IN_FORMS)
def test_forms_without_a_template_are_those_that_were_read(name, sample_data):
  task = catalogue.get(name)
  file = golden_prompts.form_path(task)
  assert golden_prompts.in_forms(task) == file.read_text(encoding="utf-8")


def test_no_file_without_a_task():
  files = {p.stem for p in golden_prompts.FOLDER.glob("*.txt")}
  assert files == set(golden_prompts.known())
  forms = {p.stem for p in golden_prompts.FORMS.glob("*.txt")}
  assert forms == set(golden_prompts.IN_FORMS)


@pytest.mark.parametrize("name", catalogue.load())
def test_no_field_says_what_another_says(name, sample_data):
  """Without a template, a list in a line and the same in lines are one."""
  task = catalogue.get(name)
  split = task.splits.names[-1]
  rows = preprocessors.prepare_rows(task)(
    sources.source(task).get_dataset(split).take(3)
  )
  for row in rows.as_numpy_iterator():
    texts = [
      " ".join(re.findall(r"\w+", row[field].decode()))
      for field in forms.plain_fields(task)
    ]
    for one, other in itertools.permutations(texts, 2):
      # A title or a name may well be in a passage.
      if len(one.split()) > 3:
        assert one not in other, (one, other)


def test_plain_fields_are_fields():
  with pytest.raises(UserError, match="plain names 'premis', which is none of"):
    made.nli(plain=("premis",))
