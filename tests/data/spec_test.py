"""What is wrong with a task's literal is said when it is written."""

import re

import pytest

from flan_jax.data import spec
from flan_jax.errors import UserError
from tests.data import made


def templates(index: int, inputs: str, targets: str = "{answer}"):
  """The made task's templates with one of them replaced."""
  pairs = [(t.inputs, t.targets) for t in made.nli().templates]
  pairs[index] = (inputs, targets)
  return tuple(pairs)


@pytest.mark.parametrize(
  ("pair", "message"),
  [
    (
      ("{premis} so {hypothesis}?", "{answer}"),
      "template 3, inputs: unknown field {premis}; the nearest is {premise},"
      " known are premise, hypothesis, answer, options.",
    ),
    (("So {hypothesis}?", "{answers}"), "targets: unknown field {answers}"),
    (("So {hypothesis}?\\n{options}", "{answer}"), "two characters here"),
    (("{premise}n\n\nSo {hypothesis}?", "{answer}"), "a lost backslash"),
    ((" So {hypothesis}?", "{answer}"), "padded with white space"),
    (("So {hypothesis?", "{answer}"), "template 3, inputs: "),
    (("So {{hypothesis}}?", "{answer}"), "literal braces are not supported"),
    (("So {hypothesis}?", "yes"), "target 'yes' names no field"),
    (("So {hypothesis}?", "It is {answer}"), "no choice matches target"),
    (("So {hypothesis}? {answer}", "{answer}"), "inputs show the answer"),
    (("So {hypothesis}?", "{hypothesis}"), "inputs show the field"),
    (("So {hypothesis}?", "{options}"), "{options} belongs in inputs"),
  ],
)
def test_a_wrong_template_is_named(pair, message):
  with pytest.raises(spec.SpecError, match=re.escape(message)) as e:
    made.nli(templates=templates(3, *pair))
  assert str(e.value).startswith("task 'made': template 3")


@pytest.mark.parametrize(
  ("choices", "message"),
  [
    (("yes",), "choices ('yes',): at least two are needed."),
    ((), "choices (): at least two are needed."),
    (("yes", "no", "yes"), "choices ('yes', 'no', 'yes') repeat a text."),
    (("yes", ""), "choices ('yes', ''): empty or padded text."),
    (("yes", "no "), "choices ('yes', 'no '): empty or padded text."),
  ],
)
def test_choices_that_cannot_be_told_apart(choices, message):
  with pytest.raises(spec.SpecError, match=re.escape(f"'made': {message}")):
    made.nli(choices=choices)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"name": "Made"}, "a name is lower case letters, digits and _"),
    ({"inputs": {}}, "inputs is empty"),
    ({"inputs": {"answer": "a"}}, "may not name a field 'answer'"),
    ({"target": "note"}, "give either choices .* or target, not both"),
    ({"label": None}, "choices need label"),
    ({"choices": None, "target": "note"}, "label 'label' has no choices"),
    ({"references": "note"}, "references are for targets"),
    ({"metrics": "accuracy"}, "metrics is a tuple of at least one name"),
    ({"templates": made.nli().templates[:9]}, "9 templates; every task has 10"),
    ({"templates": templates(0, "So?", "{premise}{x}")}, "unknown field {x}"),
    ({"templates": ("So?",) * 10}, r"template 0 is 'So\?'; write a pair"),
  ],
)
def test_parts_that_do_not_go_together(changes, message):
  with pytest.raises(spec.SpecError, match=f"task '.*ade': .*{message}"):
    made.nli(**changes)


def test_at_most_three_templates_are_turned_around():
  turned = [
    (f"{i}. A premise of {{hypothesis}}, {{answer}}:", "{premise}")
    for i in range(4)
  ]
  kept = [(t.inputs, t.targets) for t in made.nli().templates[:6]]
  with pytest.raises(spec.SpecError, match="4 templates turned around; 3 at"):
    made.nli(templates=(*kept, *turned))


def test_a_source_needs_a_version():
  with pytest.raises(UserError, match=r"tfds\('glue/cola'\) has no version"):
    spec.tfds("glue/cola")
