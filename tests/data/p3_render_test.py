"""A prompt gives the text that PromptSource gives, and no more than that."""

import copy
import doctest
import random

import jinja2
import numpy as np
import pytest

from flan_jax.data import (
  p3_adapters,
  p3_datasets,
  p3_jinja,
  p3_prompts,
  p3_render,
)
from flan_jax.data.p3_jinja import PromptError, RowError
from flan_jax.data.p3_prompts import Prompt
from tests.data import p3_examples
from tests.data import p3_reference as reference


def prompt(jinja, choices=None, name="ask"):
  return Prompt("mine", None, name, jinja, choices, original_task=True)


def apply(jinja, row, choices=None, **kwargs):
  seed = kwargs.pop("seed", 0)
  program = p3_render.compiled(prompt(jinja, choices), **kwargs)
  return program.apply(row, seed=seed)


# What a prompt may print that shows which environment it has.
CASES = [
  ("{{a}}\n|||\n{{b}}\n", None, {"a": " x ", "b": "y"}),
  ("{{a}} ||| {{answer_choices[b]}}", "no ||| y|||es", {"a": "x", "b": 2}),
  ("{% if b %}{{a}} ||| {{b}}{% endif %}", None, {"a": "x", "b": ""}),
  ("{{answer_choices}} ||| {{a}}", None, {"a": None}),
  ("{{a}} ||| <b>&amp;\"{{b}}\"", None, {"a": "<i>", "b": "'"}),
  ("{{a ~ b}} {{a + b}} ||| {{a | length}}", None, {"a": "xy", "b": "z"}),
  ("{% for x in a %}{{loop.index}}{{x}}{% endfor %} ||| {{a|last}}", None,
   {"a": ["p", "q"]}),
  ("{{a | most_frequent | join(' ')}} ||| {{a[-1]}}", None,
   {"a": ["q", "p", "p", "q", "r"]}),
  ("{% set x = [] %}{% for y in a %}{% set z = x.append(y) %}{% endfor %}"
   "{{x | join('+')}} ||| {{b}}", None, {"a": ["p", "q"], "b": 1.50}),
  ("{{a | trim('.')}} {{ [a, b][1] }} ||| {{b or 'none'}}", None,
   {"a": "..p.", "b": ""}),
  ("{{a}} ||| {{answer_choices | join(', ')}}", "{{b | join('|||')}}",
   {"a": "x", "b": ["p", "q"]}),
  ("{{a.text[0]}} ||| {{ {'1': 'one'}[b] }}", None,
   {"a": {"text": ["t"]}, "b": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("jinja", "choices", "row"), CASES)
@pytest.mark.parametrize("truncate", [True, False])
def test_as_promptsource(jinja, choices, row, truncate):
  made = prompt(jinja, choices)
  env = reference.environment()
  want = reference.apply(made, dict(row), env, truncate)
  program = p3_render.compiled(made, truncate=truncate)
  assert program.apply(row) == want
  assert program.choices(row) == reference.choices(made, dict(row), env)


@pytest.mark.parametrize("size", [2047, 2048, 2053, 2054, 5000])
def test_what_is_printed_is_cut_as_there(size):
  for word in ("abc ", "x"):
    text = (word * size)[:size]
    made = prompt("{{a}} {{a + a}} ||| {{a}}")
    want = reference.apply(made, {"a": text}, reference.environment())
    assert apply("{{a}} {{a + a}} ||| {{a}}", {"a": text}) == want
  assert apply("{{a}} ||| y", {"a": "x" * size}, truncate=False)[0] == (
    "x" * size
  )


def test_separators_in_values_are_text():
  row = {"a": "p ||| q", "b": ["r ||| s"], "c": {"d": "|||"}}
  assert apply("{{a}} {{b[0]}} ||| {{c.d}}", row) == ["p ||| q r ||| s", "|||"]
  choices = "{{a}} ||| {{b[0]}}"
  got = p3_render.compiled(prompt("x ||| {{answer_choices[1]}}", choices))
  assert got.choices(row) == ["p ||| q", "r ||| s"]
  assert got.apply(row) == ["x", "r ||| s"]


def test_values_of_tensorflow_and_numpy():
  row = {
    "a": b"caf\xc3\xa9", "b": np.int64(1), "c": np.array([b"p", b"q"], object),
    "d": np.array([2, 3]), "e-f": {"text": (np.str_("t"),)},
  }  # fmt: skip
  text = "{{a}} {{c | join('+')}} {{d[1]}} {{e_f.text[0]}} ||| {{c[b]}}"
  assert apply(text, row) == ["café p+q 3 t", "q"]
  assert apply("{% if c %}{{c.index('q')}}{% endif %} ||| x", row)[0] == "1"


def test_a_prompt_does_not_change_the_row():
  row = {"a": ["p", "q"]}
  assert apply("{% set x = a.pop() %}{{x}} ||| {{a | length}}", row)[1] == "1"
  assert row == {"a": ["p", "q"]}


def test_choice_is_drawn_by_example_and_seed():
  text = "{{ ['a', 'b', 'c', 'd'] | choice }}{{ [1, 2, 3] | random }} ||| x"
  drawn = [apply(text, {}, seed=n)[0] for n in range(40)]
  assert len(set(drawn)) > 6
  assert drawn == [apply(text, {}, seed=n)[0] for n in range(40)]
  made = prompt(text)
  want = reference.apply(made, {}, reference.environment(random.Random("7")))
  assert apply(text, {}, seed=7) == want


@pytest.mark.parametrize(
  ("text", "row", "said"),
  [
    ("{{texts}} ||| x", {"text": "t"}, "no field 'texts'.*nearest is 'text'"),
    ("{{a.txt}} ||| x", {"a": {"text": 1}}, "no attribute 'txt'"),
    ("{{a - 1}} ||| x", {"a": 1}, "cannot be applied to a row"),
    ("{{answer_choices[0]}} ||| x", {"answer_choices": ["p"]}, "may have no"),
  ],
)
def test_what_is_not_defined_is_an_error(text, row, said):
  with pytest.raises(PromptError, match=f"mine.*{said}") as caught:
    apply(text, row)
  assert not isinstance(caught.value, RowError) or "may have" in said


@pytest.mark.parametrize(
  ("text", "row", "said"),
  [
    ("{{a}} ||| {{answer_choices[b]}}", {"a": "x", "b": -1}, "label is -1"),
    ("{{a}} ||| {{['p', 'q'][b]}}", {"a": "x", "b": -1}, "label is -1"),
    ("{{a}} ||| {{answer_choices[b]}}", {"a": "x", "b": 2}, "no item 2"),
    (
      "{{a}} ||| {{answer_choices[{0: 1}[b]]}}",
      {"a": "x", "b": 9},
      "no item 9",
    ),
    ("{{a}} ||| {{ {'p': 1}[b] }}", {"a": "x", "b": "q"}, "no item 'q'"),
    ("{{a[0]}} ||| x", {"a": []}, "without item 0"),
    ("{{a | choice}} ||| x", {"a": []}, "empty list"),
  ],
)
def test_rows_without_label_or_item(text, row, said):
  with pytest.raises(RowError, match=said):
    apply(text, row, "no ||| yes")


def test_literal_indices_from_the_end_stay():
  row = {"a": ["p", "q"]}
  assert apply("{{answer_choices[-1]}} ||| {{a[-2]}}", row, "n ||| y") == [
    "y", "p",
  ]  # fmt: skip


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("{{a.__class__}}", "line 1 uses Python's own '__class__'"),
    ("{{a['__class__']}}", "Python's own '__class__'"),
    ("{{a | attr('x')}}", "the filter 'attr'.*there are abs"),
    ("{{a.format(b)}}", "the method 'format'"),
    ("{{a.mro()}}", "the method 'mro'"),
    ("{% include 'x' %}", "the statement 'Include'"),
    ("{% macro m() %}{% endmacro %}", "the statement 'Macro'"),
    ("{% for x in a recursive %}{% endfor %}", "a loop that calls itself"),
    ("{{ a | choice", "does not parse, line 1"),
    ("{{a | chioce}}", "chioce"),
  ],
)
def test_refused_by_name_when_compiled(text, said):
  with pytest.raises(PromptError, match=f"mine, prompt 'evil'.*{said}"):
    p3_render.compiled(prompt(f"{text} ||| x", name="evil"), truncate=False)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
     "{% endfor %}", "loops more than 100,000 times"),
    ("{% for i in range(10 ** 9) %}{% endfor %}", "cannot be applied"),
    ("{{ 'x' * 10 ** 9 }}", "larger than a prompt may make"),
    ("{{ [1] * 10 ** 9 }}", "larger than"),
    ("{{ 9 ** (9 ** 9) }}", "larger than"),
    ("{% set ns = namespace(x='xy') %}{% for i in range(90) %}"
     "{% set ns.x = ns.x + ns.x %}{% endfor %}", "larger than"),
    ("{% set ns = namespace(x='xy') %}{% for i in range(90) %}"
     "{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "larger than"),
    ("{% set ns = namespace(x='xy') %}{% for i in range(90) %}"
     "{% set ns.x = ns.x.replace('x', ns.x) %}{% endfor %}", "larger than"),
    ("{% set ns = namespace(x='xy') %}{% for i in range(90) %}"
     "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}", "larger than"),
    ("{% for i in range(99999) %}{{a * 200}}{% endfor %}", "writes more than"),
    ("{{ '%99999999d' | format(1) }}", "larger than"),
    ("{{ '%*d' % (99999999, 1) }}", "larger than"),
    ("{{ a['mro'] }}", "no attribute|no element"),
    ("{{ range.mro }}", "tries to reach Python|no attribute"),
    ("{{ namespace(f=range).f.__call__ }}", "__call__"),
    ("{% set f = a.lower %}{{ f.__self__ }}", "__self__"),
  ],
)  # fmt: skip
def test_refused_by_name_when_run(text, said):
  with pytest.raises(PromptError, match=f"mine, prompt 'ask'.*({said})"):
    apply(f"{text} ||| x", {"a": "ab"}, truncate=False)


def test_rendered():
  program = p3_render.compiled(
    prompt("{{a}} ||| {{answer_choices[b]}}", "n|||y")
  )
  assert program.fixed_choices == ("n", "y")
  got = program.render({"a": "p", "b": 1})
  assert got == p3_render.Rendered("p", "y", ("n", "y"), 1)
  with pytest.raises(RowError, match="its inputs are empty"):
    program.render({"a": " ", "b": 1})
  around = p3_render.compiled(prompt("{% if b %}{{a}} ||| x{% endif %}"))
  with pytest.raises(p3_render.NotAppliedError, match="1 parts"):
    around.render({"a": "p", "b": 0})
  assert around.render({"a": "p", "b": 1}).label == -1


@pytest.mark.slow
def test_every_prompt_of_the_release(promptsource):
  """2,085 prompts, each on examples of its schema; `choice` seeded alike.

  An example whose computed index is below 0 is not of the schema: there the
  original takes the last choice, and we say that the row has no label.
  """
  strict = reference.environment(random.Random(0), jinja2.StrictUndefined)
  compared, without, unlike = 0, [], []
  for name, file in p3_prompts.datasets(promptsource).items():
    for one in p3_prompts.read(file, name):

      def renders(example, one=one):
        try:
          return any(reference.apply(one, copy.deepcopy(example), strict))
        except Exception:
          return False

      examples = p3_examples.examples(one, renders, count=2)
      program, equal = p3_render.compiled(one), 0
      for example in examples:
        env = reference.environment(random.Random("7"))
        want = reference.apply(one, copy.deepcopy(example), env)
        try:
          equal += program.apply(example, seed=7) == want
        except RowError:
          continue
        env = reference.environment(random.Random("7"))
        choices = reference.choices(one, copy.deepcopy(example), env)
        assert program.choices(example, seed=7) == choices
        if not equal:
          unlike.append(one.where)
      compared += bool(equal)
      if not equal:
        without.append(one.where)
  assert not unlike
  assert without == []
  assert compared == 2085


@pytest.mark.parametrize(
  "module", [p3_adapters, p3_datasets, p3_prompts, p3_render]
)
def test_examples_in_docstrings(module):
  result = doctest.testmod(module)
  assert result.attempted > 0
  assert result.failed == 0


def test_limits_are_above_what_the_release_needs():
  assert p3_jinja.MAX_STEPS >= 10_000
  assert p3_jinja.MAX_SIZE >= 100_000
