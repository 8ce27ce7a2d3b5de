"""PromptSource's YAML is read as data, whole, by a safe loader."""

import collections

import pytest

from flan_jax.data import p3_datasets, p3_prompts
from flan_jax.errors import UserError

GOOD = """\
dataset: mine
templates:
  aa-1: !Template
    answer_choices: Yes ||| No
    id: aa-1
    jinja: '{{text}} ||| {{answer_choices[label]}}'
    metadata: &id001 !TemplateMetadata
      choices_in_prompt: false
      metrics: [Accuracy]
      original_task: true
    name: 'ask '
    reference: ''
  aa-2: !Template
    answer_choices: null
    id: aa-2
    jinja: '{{text}} ||| x'
    metadata: *id001
    name: again
    reference: ''
"""


def written(tmp_path, text):
  file = tmp_path / "mine" / "templates.yaml"
  file.parent.mkdir()
  file.write_text(text)
  return file


def test_one_file(tmp_path):
  again, ask = p3_prompts.read(written(tmp_path, GOOD), "mine")
  assert (ask.name, again.name) == ("ask ", "again")
  assert ask.ranked
  assert not again.ranked
  assert again.original_task
  assert again.metrics == ("Accuracy",)
  assert p3_prompts.task_name(ask) == "t0_mine_ask_"
  assert p3_prompts.folder(tmp_path) == tmp_path
  assert p3_prompts.load(tmp_path, "mine") == (again, ask)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("a: [1,\nb: 2", r"templates.yaml, line 3, column \d+: .*expected"),
    (
      "templates: !!python/object/apply:os.system [true]",
      "line 1, column 12: could not determine a constructor",
    ),
    ("[1, 2]", "has no `templates:`"),
    ("templates: {a: 3}", "prompt a is 3, not a !Template"),
    ("templates: {a: !Template {name: x}}", "prompt a: `jinja` is None"),
    (
      "templates: {a: !Template {name: x, jinja: [y]}}",
      r"`jinja` is \['y'\]; a str is needed",
    ),
  ],
)
def test_what_is_no_such_file(tmp_path, text, said):
  with pytest.raises(UserError, match=said):
    p3_prompts.read(written(tmp_path, text), "mine")


def test_names_that_are_not_there(tmp_path):
  written(tmp_path, GOOD)
  with pytest.raises(UserError, match="nearest is 'mine'"):
    p3_prompts.load(tmp_path, "mines")
  with pytest.raises(UserError, match=r"launch/p3\.sh"):
    p3_prompts.folder(tmp_path / "mine" / "none")


def test_the_whole_release(promptsource):
  found = p3_prompts.datasets(promptsource)
  prompts = [p for n, f in found.items() for p in p3_prompts.read(f, n)]
  assert (len(found), len(prompts)) == (279, 2085)
  assert sum(p.answer_choices is None for p in prompts) == 940
  assert sum(p.original_task for p in prompts) == 1535
  said = collections.Counter(p.choices_in_prompt for p in prompts)
  assert said == {True: 841, False: 1209, None: 35}
  metrics = collections.Counter(m for p in prompts for m in p.metrics)
  assert metrics["Accuracy"] == 1283
  assert metrics["Squad"] == 151
  for name, file in found.items():
    names = [p.name for p in p3_prompts.read(file, name)]
    assert len(set(names)) == len(names)


def test_counts_of_t0s_list(promptsource):
  """Prompts and original-task prompts with choices, as the release has them."""
  sets = {
    d.key: p3_prompts.load(promptsource, d.dataset, d.subset)
    for d in p3_datasets.all_datasets()
  }
  assert len(sets["glue/mrpc"]) == 7
  assert len(sets["trec"]) == 18
  ranked = {
    d.key: sum(p.ranked for p in sets[d.key]) for d in p3_datasets.evaluated()
  }
  assert ranked == {
    "super_glue/rte": 10, "super_glue/cb": 15, "anli/r1": 15, "anli/r2": 15,
    "anli/r3": 15, "super_glue/wsc.fixed": 10, "winogrande/winogrande_xl": 5,
    "super_glue/copa": 12, "story_cloze/2016": 5, "hellaswag": 4,
    "super_glue/wic": 10,
  }  # fmt: skip
  assert sum(ranked.values()) == 116
