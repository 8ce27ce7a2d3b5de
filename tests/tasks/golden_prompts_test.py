import pytest

from flan_jax.data import catalogue
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
