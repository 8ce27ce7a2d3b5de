import dataclasses
import json

import pytest

from flan_jax import evaluate
from flan_jax.data import catalogue, template
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import evaluation_set, generation
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.models import continuous
from tests.eval.fakes import CountingModel, example

LENGTHS = {"inputs": 64, "targets": 8}
CHOICES = {"rte": 2, "cb": 3}


class Vocabulary:
  eos_id = 1

  def decode(self, ids):
    return " ".join(f"w{i}" for i in ids)


@pytest.fixture
def rows(monkeypatch):
  """RTE and CB (ranked) and E2E (generated) from made-up rows."""
  calls = []

  def examples(task, split, *, templates, max_examples, **_):
    calls.append((task.name, split, tuple(templates)))
    count = CHOICES.get(task.name, 0)
    out = []
    for index in range(min(max_examples or 6, 6)):
      for t in templates:
        # The fake model prefers the choice with the smallest token.
        best = (index + t) % count if count else 0
        choices = [(5 + (c != best),) for c in range(count)]
        label = index % count if count else 0
        inputs = (2 + index, 2 + t, 3 + len(split), ord(task.name[0]))
        out.append(
          example(
            inputs, choices, label, task=task.name, template=t, index=index,
            references=("w7 w8", "w9"),
          )
        )
    return out

  def answers(model, params, inputs, *, config, **_):
    assert config.end_ids == (1,)
    for number in range(len(inputs)):
      yield continuous.Ended(number, (7, 8, 1), None, True)

  monkeypatch.setattr(
    evaluation_set.evaluation_data, "evaluation_examples", examples
  )
  monkeypatch.setattr(generation.continuous, "answers", answers)
  made = EvaluationSet.prepare(
    [catalogue.get(n) for n in ("rte", "cb", "e2e_nlg")],
    vocabulary=Vocabulary(), lengths=LENGTHS, batch_size=8,
  )
  made.calls = calls
  return made


def test_every_scored_template_of_both_splits_is_read_once(rows):
  assert sorted(c[:2] for c in rows.calls) == sorted(
    (t, s) for t in ("rte", "cb", "e2e_nlg") for s in ("validation", "test")
  )
  for name, _, templates in rows.calls:
    task = catalogue.get(name)
    assert templates
    assert not any(task.templates[t].turned_around for t in templates)
  evaluate.evaluate_tasks(CountingModel(), 0.0, rows)
  evaluate.evaluate_tasks(CountingModel(), 1.0, rows)
  assert len(rows.calls) == 6
  assert rows.rows["rte"] == {"validation": 6, "test": 6}


def test_a_second_evaluation_compiles_nothing(rows):
  model = CountingModel()
  first = evaluate.evaluate_tasks(model, 0.0, rows)
  compiled = len(model.encoded_shapes)
  assert compiled == len(rows.plans(("validation", "test"))[0].shapes)
  second = evaluate.evaluate_tasks(model, 1.0, rows)
  assert len(model.encoded_shapes) == compiled
  assert second.headline == first.headline


def test_numbers_by_hand(rows):
  result = evaluate.evaluate_tasks(CountingModel(), 0.0, rows)
  # Template t answers (index + t) mod 2 and the label is index mod 2.
  rte = result.tasks["rte"].main
  assert rte.scores == {t: 100.0 * (t % 2 == 0) for t in rte.scores}
  assert rte.best_dev_template == min(t for t in rte.scores if t % 2 == 0)
  assert rte.best_dev_score == 100.0
  cb = result.tasks["cb"].main
  assert cb.scores == {t: 100.0 * (t % 3 == 0) for t in cb.scores}
  assert (cb.majority, round(cb.chance, 3)) == (pytest.approx(100 / 3), 33.333)
  e2e = result.tasks["e2e_nlg"]
  assert e2e.main.spread.mean == pytest.approx(100.0)
  assert set(result.clusters) == {"natural_language_inference", "struct_to_text"}
  headline = result.headline
  assert headline["eval/rte/accuracy_mean"] == rte.spread.mean
  assert headline["eval/rte/accuracy_best_dev"] == 100.0
  assert headline["eval/e2e_nlg/rougeL_median"] == pytest.approx(100.0)
  nli = (rte.spread.mean + cb.spread.mean) / 2
  assert headline["eval/cluster/natural_language_inference"] == pytest.approx(nli)
  assert headline["eval/mean"] == pytest.approx((nli + 100) / 2)
  assert all(isinstance(v, float) for v in headline.values())


def test_json_and_back(rows):
  result = evaluate.evaluate_tasks(CountingModel(), 0.0, rows)
  text = json.dumps(result.to_json(), allow_nan=False)
  assert Evaluation.from_json(json.loads(text)) == result


def test_predictions_have_one_line_per_row_and_template(rows, tmp_path):
  path = tmp_path / "deep" / "predictions.jsonl"
  result = evaluate.evaluate_tasks(CountingModel(), 0.0, rows, predictions=path)
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(lines) == result.examples == sum(map(len, rows.examples.values()))
  keys = {(r["task"], r["split"], r["template"], r["index"]) for r in lines}
  assert len(keys) == len(lines)
  first = lines[0]
  assert (first["task"], first["split"]) == ("rte", "validation")
  assert first["choices"] == ["choice 0", "choice 1"]
  assert first["scores"] == [-6.0, -7.0]
  assert (first["prediction"], first["label"]) == (0, 0)
  last = lines[-1]
  assert last["prediction"] == "w7 w8"
  assert last["references"] == ["w7 w8", "w9"]
  assert last["complete"] is True


def test_predictions_that_cannot_be_written(rows, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="predictions file .* cannot be written"):
    evaluate.evaluate_tasks(
      CountingModel(), 0.0, rows, predictions=tmp_path / "file" / "x"
    )


def test_the_last_split_is_reported_and_one_alone_has_no_best(rows):
  result = evaluate.evaluate_tasks(
    CountingModel(), 0.0, rows, splits=("validation",)
  )
  assert result.split == "validation"
  assert result.tasks["rte"].main.best_dev_score is None
  assert result.clusters["natural_language_inference"].best_dev is None
  assert not any(k.endswith("best_dev") for k in result.headline)


def test_samples_are_the_same_prompts_for_every_model(rows):
  one = evaluate.evaluate_tasks(CountingModel(), 0.0, rows).samples
  two = evaluate.evaluate_tasks(CountingModel(), 5.0, rows).samples
  key = [(s.task, s.template, s.index) for s in one]
  assert key == [(s.task, s.template, s.index) for s in two]
  assert len(set(key)) == 6


def test_progress_counts_all_batches(rows):
  calls = []
  evaluate.evaluate_tasks(
    CountingModel(), 0.0, rows, progress=lambda *c: calls.append(c)
  )
  assert calls[-1][0] == calls[-1][1] == len({t for _, t in calls}) * calls[-1][1]
  assert [d for d, _ in calls] == sorted(d for d, _ in calls)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"names": []}, r"needs tasks, each once; got \[\]"),
    ({"names": ["rte", "rte"]}, r"each once; got \['rte', 'rte'\]"),
    ({"splits": ("tset",)}, r"splits \('tset',\): use some of"),
    ({"max_examples": 0}, "'rte': split 'validation' has no row"),
    ({"kind": "encoder"}, "kind 'encoder' of a model: use one of"),
  ],
)
def test_what_cannot_be_evaluated(monkeypatch, kwargs, message):
  monkeypatch.setattr(
    evaluation_set.evaluation_data, "evaluation_examples", lambda *a, **k: []
  )
  names = kwargs.pop("names", ["rte"])
  with pytest.raises(UserError, match=message):
    EvaluationSet.prepare(
      [catalogue.get(n) for n in names],
      vocabulary=Vocabulary(), lengths=LENGTHS, batch_size=8, **kwargs,
    )


def test_a_split_that_the_set_does_not_hold(rows):
  del rows.examples["validation"]
  with pytest.raises(UserError, match=r"the set holds \('test',\)"):
    evaluate.evaluate_tasks(CountingModel(), 0.0, rows, splits=("validation",))


def test_a_set_for_another_kind_of_model(rows):
  model = CountingModel(kind="decoder_only")
  with pytest.raises(UserError, match="for encoder_decoder models, but this"):
    evaluate.evaluate_tasks(model, 0.0, rows)


@pytest.mark.parametrize(
  ("kind", "begin", "expected"),
  [
    ("decoder_only", 2, [2, 0, 5, 1]),
    ("decoder_only", None, [0, 5, 1]),
    ("encoder_decoder", 2, [0, 5, 1]),
  ],
)
def test_inputs_of_a_decoder_begin_with_the_begin_id(
  monkeypatch, kind, begin, expected
):
  """At the limit of the inputs too: the begin id comes on top."""
  monkeypatch.setattr(
    evaluation_set.evaluation_data, "evaluation_examples",
    lambda *a, **k: [example((0, 5), [(5,), (6,)], task="rte")],
  )
  monkeypatch.setattr(
    evaluation_set.vocabulary_lib, "begin_id", lambda _: begin
  )
  made = EvaluationSet.prepare(
    [catalogue.get("rte")], vocabulary=Vocabulary(), batch_size=2, kind=kind,
    lengths={"inputs": 3, "targets": 4},
  )
  (batch,) = made.plans(("test",))[0].batches
  # Beside it the unconditional prompt: of an empty wrapper, EOS alone.
  free = [*expected[: len(expected) - 3], 1]
  assert made.unconditional.tolist() == free
  padding = [-1] * (len(expected) - len(free))
  assert batch.inputs_BS.tolist() == [expected, [*free, *padding]]
  assert made.end_ids == (1,)


def test_the_unconditional_prompt_is_the_wrapper_alone(monkeypatch):
  monkeypatch.setattr(
    evaluation_set.evaluation_data, "evaluation_examples",
    lambda *a, **k: [example((0, 5), [(5,), (6,)], task="rte")],
  )
  vocabulary = vocabulary_lib.load("flan_jax")

  def unconditional(kind, **fields):
    made = EvaluationSet.prepare(
      [catalogue.get("rte")], vocabulary=vocabulary, batch_size=2, kind=kind,
      lengths={"inputs": 8, "targets": 4}, wrapper=template.Wrapper(**fields),
    )
    return made.unconditional.tolist()

  ids = vocabulary.encode("Q:  A:")
  chat = {"prefix": "Q: ", "suffix": " A:"}
  assert unconditional("encoder_decoder", **chat) == [*ids, 1]
  assert unconditional("decoder_only", **chat, eos=False) == [0, *ids]
  assert unconditional("decoder_only", eos=False) == [0]
  assert unconditional("encoder_decoder", eos=False) == [1]


def test_how_tasks_are_answered(monkeypatch):
  """Ranked or generated; what that leaves without a choice is named."""
  monkeypatch.setattr(
    evaluation_set.evaluation_data, "evaluation_examples",
    lambda task, *a, **k: [
      example((5,), [(5,), (6,)] if task.choices else (), task=task.name)
    ],
  )

  def prepared(*names, **fields):
    return EvaluationSet.prepare(
      [catalogue.get(n) for n in names], vocabulary=Vocabulary(),
      batch_size=2, lengths={"inputs": 8, "targets": 4}, **fields,
    )

  def counts(*names, **fields):
    ranking, generating = prepared(*names, **fields).plans(("test",))
    return len(ranking.examples), len(generating.examples)

  assert counts("rte", "e2e_nlg") == (1, 1)
  assert counts("rte", "e2e_nlg", answer_by="generate") == (0, 2)
  assert counts("rte", answer_by="rank") == (1, 0)
  with pytest.raises(
    UserError, match="no set of choices to rank: e2e_nlg. .* by generation"
  ):
    prepared("rte", "e2e_nlg", answer_by="rank")
  with pytest.raises(UserError, match="no effect: no task has choices"):
    prepared("e2e_nlg", answer_by="generate")
  with pytest.raises(UserError, match="ANSWER_BY is 'ranking'; write 'rank'"):
    prepared("rte", answer_by="ranking")
  with pytest.raises(UserError, match="OPTIONS_SHOWN=False has no effect"):
    prepared("e2e_nlg", options_shown=False)
  hidden = prepared("rte", options_shown=False)
  assert not any(t.shows_options for t in hidden.tasks[0].templates)


def test_all_scores_stand_side_by_side(rows, tmp_path):
  """By mean and by calibrated score the fake model prefers the same."""
  path = tmp_path / "predictions.jsonl"
  by_sum = evaluate.evaluate_tasks(
    CountingModel(), 0.0, rows, predictions=path
  )
  main = {name: by_sum.tasks[name].main.spread.mean for name in CHOICES}
  assert by_sum.by_score["sum"] == pytest.approx(main)
  assert by_sum.by_score["mean"] == pytest.approx(main)
  calibrated = evaluate.evaluate_tasks(
    CountingModel(), 0.0, rows, score="calibrated"
  )
  assert calibrated.by_score == by_sum.by_score
  assert calibrated.tasks["rte"].main.spread.mean == pytest.approx(
    by_sum.by_score["calibrated"]["rte"]
  )
  # A score that no input changes tells nothing: every choice ties.
  line = json.loads(path.read_text().split("\n")[0])
  assert line["by_score"]["calibrated"] == [0.0, 0.0]
  assert line["by_score"]["mean"] == [-3.0, -3.5]
  assert line["score"] == "sum"


def test_choices_answered_by_generation(rows, tmp_path):
  """A text that is no choice counts as wrong, and is counted."""
  for split, examples in rows.examples.items():
    rows.examples[split] = [
      dataclasses.replace(e, choices_text=("W7 w8.", "other", "more"))
      if e.task == "cb" else e
      for e in examples
    ]
  rows.answer_by = "generate"
  path = tmp_path / "predictions.jsonl"
  result = evaluate.evaluate_tasks(
    CountingModel(), 0.0, rows, predictions=path
  )
  cb = result.tasks["cb"].main
  assert list(cb.scores.values()) == pytest.approx([100 / 3] * len(cb.scores))
  assert set(result.tasks["rte"].main.scores.values()) == {0.0}
  assert result.unmatched == {"rte": result.tasks["rte"].rows * len(
    result.tasks["rte"].templates)}
  assert result.by_score == {}
  lines = [json.loads(x) for x in path.read_text().split("\n") if x]
  line = next(x for x in lines if x["task"] == "cb")
  assert (line["text"], line["prediction"], line["label"]) == ("w7 w8", 0, 0)
  with pytest.raises(UserError, match="SCORE 'mean' has no effect"):
    evaluate.evaluate_tasks(CountingModel(), 0.0, rows, score="mean")


def test_an_older_evaluation_is_read(rows):
  value = evaluate.evaluate_tasks(CountingModel(), 0.0, rows).to_json()
  for name in ("by_score", "unmatched", "options_shown"):
    del value[name]
  assert Evaluation.from_json(value).by_score == {}
