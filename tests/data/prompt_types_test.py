"""Prompt types: how often each is drawn, and what its prompts look like."""

import collections
import functools
import re

import pytest
import seqio
from flan_jax.tasks import flan_2022 as table

from flan_jax.data import (
  catalogue,
  flan_2022,
  formats,
  prompt_types,
  spec,
  template,
)
from flan_jax.errors import UserError
from tests.data import made

FOUR = table.SubMixture("made", 1.0, 100, table.WITH_AND_WITHOUT)
TWO = table.SubMixture("made", 1.0, 100, table.WITH_OPTIONS, inverted=0.3)
LENGTHS = {"inputs": 3000, "targets": 200}
ROOMY = template.Wrapper(shot_tokens=2999)
ROW = re.compile(r"premise (\w+) holds")
INVERSIONS = (
  ("Which text lets one conclude {target}?", "{premise}"),
  ("Text: {premise}", "{hypothesis}\n{target}"),
)
# Five standard deviations: a fair draw fails once in two million tests.
DEVIATIONS = 5


@pytest.fixture(autouse=True)
def data(tmp_path):
  made.write_tfds(tmp_path, train=made.rows(44), test=made.rows(6))
  seqio.set_tfds_data_dir_override(str(tmp_path))
  yield
  seqio.set_tfds_data_dir_override(None)


@functools.cache
def asking():
  """Rows whose note is the target, with two inversions."""
  return made.nli(
    choices=None,
    label=None,
    target="note",
    metrics=("rouge",),
    templates=tuple(
      (f"{i}. {{premise}} What is noted?", "{hypothesis} Noted: {target}")
      for i in range(10)
    ),
    inversions=INVERSIONS,
  )


def examples(task, part=FOUR, epochs=50, wrapper=ROOMY, seed=0, **kwargs):
  one = flan_2022.seqio_task(part, task, made.BYTES, wrapper=wrapper, **kwargs)
  dataset = one.get_dataset(LENGTHS, "train", seed=seed, num_epochs=epochs)
  return list(dataset.as_numpy_iterator())


def texts(example):
  return tuple(
    example[f"{x}_pretokenized"].decode() for x in ("inputs", "targets")
  )


def about(count, share, total):
  return abs(count - share * total) <= DEVIATIONS * (
    share * (1 - share) * total
  ) ** 0.5


def test_shares_of_types_and_of_turned_around_templates():
  ways = prompt_types.lines(made.nli())
  share = collections.Counter()
  turned = collections.Counter()
  for way in ways:
    share[way.type] += way.weight
    if way.template == 9:
      turned[way.type] += way.weight
  assert share == pytest.approx(dict.fromkeys(table.WITH_AND_WITHOUT, 0.25))
  # One of the ten, in zero-shot prompts alone.
  assert turned == pytest.approx({"zs_opt": 0.025, "zs_noopt": 0.025})
  for way in ways:
    shown = made.nli().templates[way.template].shows_options
    assert shown == way.type.endswith("_opt") or way.template == 9
    assert way.formatted == way.chosen == (way.type == "zs_opt" and shown)
    assert way.few_shot == way.type.startswith("fs")


def test_a_type_without_templates_gives_its_share_to_the_others():
  every = made.nli(
    templates=tuple(
      (f"{i} {{premise}} {{hypothesis}}\n{{options}}", "{answer}")
      for i in range(10)
    )
  )
  share = collections.Counter()
  for way in prompt_types.lines(every):
    share[way.type] += way.weight
  assert share == pytest.approx({"zs_opt": 0.5, "fs_opt": 0.5})


def test_inversions_are_three_for_ten():
  ways = flan_2022.lines(TWO, asking())
  inverted = sum(w.weight for w in ways if w.type.endswith("_inverted"))
  assert inverted == pytest.approx(0.3 / 1.3)
  assert {w.template for w in ways} == set(range(12))
  none = flan_2022.lines(TWO, asking(), "no_inversions")
  assert {w.template for w in none} == set(range(10))
  zero = flan_2022.lines(TWO, asking(), "no_few_shot")
  assert {w.type for w in zero} == {"zs_opt", "zs_opt_inverted"}


def test_a_wrapper_of_the_run_is_the_only_layout():
  cue = {w.wrapper for w in prompt_types.lines(made.nli(), wrapper=template.FLAN_CUE)}
  assert cue == {template.FLAN_CUE}
  plain = {
    w.wrapper for w in prompt_types.lines(made.nli()) if w.few_shot
  }
  assert len(plain) == len(prompt_types.LAYOUTS)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  folder = tmp_path_factory.mktemp("drawn")
  made.write_tfds(folder, train=made.rows(44), test=made.rows(6))
  seqio.set_tfds_data_dir_override(str(folder))
  return examples(made.nli())


def test_types_are_drawn_equally_often(drawn):
  counts = collections.Counter(e["prompt_type"].decode() for e in drawn)
  assert len(drawn) == 2000
  assert set(counts) == set(table.WITH_AND_WITHOUT)
  for count in counts.values():
    assert about(count, 0.25, 2000), counts


def test_the_number_of_exemplars_is_spread(drawn):
  shots = collections.Counter(
    int(e["shots"]) for e in drawn if e["prompt_type"].startswith(b"fs")
  )
  total = sum(shots.values())
  assert set(shots) == set(range(1, prompt_types.MAX_SHOTS + 1))
  for count in shots.values():
    assert about(count, 1 / prompt_types.MAX_SHOTS, total), shots
  assert {
    int(e["shots"]) for e in drawn if e["prompt_type"].startswith(b"zs")
  } == {0}


def test_exemplars_are_other_rows_and_never_the_query(drawn):
  trained = {ROW.search(e["premise"].decode())[1] for e in drawn}
  assert len(trained) == 40  # the other four are held out
  for e in drawn:
    inputs, target = texts(e)
    if e["prompt_type"].startswith(b"zs"):
      if int(e["template"]) < 9:
        assert len(ROW.findall(inputs)) == 1
      continue
    *solved, asked = ROW.findall(inputs)
    assert len(solved) == int(e["shots"])
    assert asked not in solved
    assert len(set(solved)) == len(solved)
    assert e["premise"].decode() == f"premise {asked} holds"
    assert set(solved) <= trained
    # The same template: its words stand before every row.
    number = int(e["template"])
    words = "Is it true that" if number == 0 else f"Form {number}. "
    assert inputs.count(words) == len(solved) + 1
    assert target == ("yes", "no")[int(asked) % 2]


def test_marks_are_answers_and_point_at_the_right_option(drawn):
  seen = collections.Counter()
  for e in drawn:
    if e["prompt_type"] != b"zs_opt" or int(e["template"]) != 0:
      continue
    inputs, target = texts(e)
    right = ("yes", "no")[int(e["label"])]
    if target in ("yes", "no"):
      assert target == right
      seen["text"] += 1
      continue
    lines = [x for x in inputs.split("\n") if re.match(
      re.escape(target) + r"\W*(yes|no)[;.]?$", x)]
    (line,) = lines
    assert line.rstrip(";.").endswith(right)
    seen["mark"] += 1
  total = seen.total()
  share = len(formats.BULLETS) / len(formats.OPTION_MARKS)
  assert about(seen["text"], share, total), seen


def test_prompts_without_options_list_none(drawn):
  for e in drawn:
    inputs, target = texts(e)
    if e["prompt_type"].endswith(b"noopt"):
      assert "OPTIONS" not in inputs
      assert int(e["template"]) == 9 or target in ("yes", "no")
    elif e["prompt_type"] == b"fs_opt":
      assert inputs.count("OPTIONS:\n- yes\n- no") == int(e["shots"]) + 1


def test_layouts_vary_and_are_the_same_for_exemplars_and_query(drawn):
  heads = collections.Counter()
  for e in drawn:
    if e["prompt_type"] == b"fs_noopt":
      inputs, _ = texts(e)
      head = re.match(r"([^F]*)Form", inputs)[1]
      heads[head] += 1
      assert inputs.count(f"{head}Form") == int(e["shots"]) + 1
  assert set(heads) == {x.prefix for x in prompt_types.LAYOUTS}


def test_inversions_are_drawn_and_never_hide_behind_the_answer():
  made_examples = examples(asking(), TWO)
  total = len(made_examples)
  inverted = [
    e for e in made_examples if e["prompt_type"].endswith(b"_inverted")
  ]
  assert about(len(inverted), 0.3 / 1.3, total)
  few = [e for e in made_examples if e["prompt_type"].startswith(b"fs")]
  assert about(len(few), 0.5, total)
  for e in made_examples:
    inputs, target = texts(e)
    index = ROW.search(e["premise"].decode())[1]
    inverts = e["prompt_type"].endswith(b"_inverted")
    assert (int(e["template"]) >= 10) == inverts
    if int(e["template"]) == 10:
      assert target == f"premise {index} holds"
    elif int(e["template"]) == 11:
      assert target == f"hypothesis {index} follows\nnote {index}"
    else:
      assert target == f"hypothesis {index} follows Noted: note {index}"
    # What the query asks for is in no exemplar.
    assert f"hypothesis {index} " not in inputs


def test_dialogs_are_formatted_in_zero_shot_prompts():
  from flan_jax.data import ops

  def prepare(row):
    return {**ops.spoken({}, [row["premise"], row["hypothesis"]]), "reply": row["note"]}

  task = made.nli(
    choices=None, label=None, target="reply", metrics=("rouge",),
    inputs={"dialog": "dialog"}, turns="turns", prepare=prepare,
    templates=tuple((f"{i}\n{{dialog}}\nReply!", "{target}") for i in range(10)),
  )
  heads = collections.Counter()
  for e in examples(task, TWO):
    inputs, _ = texts(e)
    if e["prompt_type"] == b"zs_opt":
      heads[inputs.split("\n")[1]] += 1
      assert inputs.index("premise") < inputs.index("hypothesis")
    else:
      assert inputs.count("\nB: premise") == int(e["shots"]) + 1
  assert set(formats.DIALOG_HEADS) - {""} <= set(heads)


def test_a_row_of_the_same_group_is_no_exemplar(tmp_path):
  """A later turn of a dialog holds the reply to an earlier one."""
  rows = made.rows(44)
  rows["note"] = [f"group {i // 11}" for i in range(44)]
  made.write_tfds(tmp_path, "grouped", train=rows, test=rows)
  task = made.nli(group="note", source=spec.tfds("grouped:1.0.0"))
  for e in examples(task, epochs=10):
    *solved, asked = ROW.findall(e["inputs_pretokenized"].decode()) or ["-1"]
    assert int(asked) // 11 not in [int(row) // 11 for row in solved]


def test_tasks_of_one_seed_do_not_draw_the_same():
  twins = [made.nli(name=name) for name in ("made", "twin")]
  one, two = ([texts(e) for e in examples(t, epochs=2)] for t in twins)
  assert sum(a == b for a, b in zip(one, two, strict=True)) < len(one) / 4


def test_the_seed_decides():
  first, again, other = (
    [texts(e) for e in examples(made.nli(), epochs=2, seed=seed)]
    for seed in (1, 1, 2)
  )
  assert first == again
  assert sorted(first) != sorted(other)


def test_whole_exemplars_are_dropped_to_fit():
  tight = template.Wrapper(shot_tokens=400)
  shots = collections.Counter()
  for e in examples(made.nli(), epochs=10, wrapper=tight):
    if e["prompt_type"].startswith(b"fs"):
      assert len(e["inputs"]) <= 401
      assert int(e["trimmed"]) == 0
      shots[int(e["shots"])] += 1
  assert max(shots) < prompt_types.MAX_SHOTS


def test_a_budget_too_small_for_the_question():
  with pytest.raises(UserError, match="Raise FEW_SHOT_TOKENS"):
    examples(made.nli(), wrapper=template.Wrapper(shot_tokens=20))


def test_inversions_that_are_none():
  with pytest.raises(spec.SpecError, match="template 10 is an inversion and"):
    made.nli(inversions=(("{premise} again?", "{answer}"),))
  with pytest.raises(spec.SpecError, match="turns need a field 'dialog'"):
    made.nli(turns="turns")
  assert catalogue.fingerprint(asking()) != catalogue.fingerprint(
    made.nli(
      choices=None, label=None, target="note", metrics=("rouge",),
      templates=asking().templates,
    )
  )


