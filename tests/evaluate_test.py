"""`evaluate.evaluate` from a checkpoint to the page, on the embedded sample."""

import json

import jax
import pytest

from flan_jax import evaluate
from flan_jax.convert import native
from flan_jax.data import catalogue, vocabulary_files
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import generation
from flan_jax.eval.evaluation import Evaluation
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.models import decoder, t5
from flan_jax.training import (
  checkpoint,
  compilation,
  optimiser,
  record,
  state,
)


@pytest.fixture(scope="module")
def vocabulary():
  yield vocabulary_lib.load("flan_jax")
  catalogue.unregister()


def made(kind, vocab_size, heads=1):
  sizes = {
    "vocab_size": vocab_size, "emb_dim": 8, "num_heads": heads, "head_dim": 8,
    "mlp_dim": 8,
  }
  if kind == "decoder_only":
    return decoder.DecoderOnly(decoder.DecoderConfig(num_layers=1, **sizes))
  return t5.EncoderDecoder(
    t5.T5Config(num_encoder_layers=1, num_decoder_layers=1, **sizes)
  )


@pytest.fixture(params=["encoder_decoder", "decoder_only"])
def settings(request, vocabulary, monkeypatch):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return {
    "eval_mixture_or_task_name": catalogue.registered_name("wnli"),
    "task_feature_lengths": {"inputs": 256, "targets": 32},
    "vocabulary": vocabulary,
    "model": made(request.param, vocabulary.vocab_size),
    "eval_examples": 4,
    "batch_size": 8,
  }


def test_from_checkpoint_to_page(settings, tmp_path):
  params = settings["model"].init(jax.random.key(0))
  saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints")
  saved.save(3, state.create(params, optimiser.adafactor(1e-3)), {"step": 3})
  saved.close()
  page = evaluate.evaluate(
    **settings,
    initial_checkpoint_path=str(saved.directory),
    output_dir=tmp_path / "out",
  )
  assert page == tmp_path / "out" / "report.html"
  value = json.loads((tmp_path / "out" / "report.json").read_text())
  result = Evaluation.from_json(value["after"])
  templates = catalogue.get("wnli").rankable_templates
  assert result.tasks["wnli"].rows == 4
  assert result.tasks["wnli"].templates == templates
  lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
  assert len(lines) == result.examples == 2 * 4 * len(templates)


def saved(model, folder, mixture="flan_wnli", train="flan_sst2", config=""):
  """A MODEL_DIR as the trainer leaves one: record, vocabulary, checkpoint."""
  params = model.init(jax.random.key(0))
  checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
  made_state = state.create(params, optimiser.adafactor(1e-3))
  checkpoints.save(3, made_state, {"step": 3, **native.extra_of(model.config)})
  checkpoints.close()
  vocabulary_files.keep(vocabulary_lib.load("flan_jax"), folder / "vocabulary")
  made_record = record.Record(
    "train", (), config, (), {},
    {"train": {"mixture": "m", "tasks": {train: {}}},
     "eval": {"mixture": mixture, "tasks": {}}},
  )
  record.claim(folder, made_record)
  return folder


LINES = "PROMPT_PREFIX = 'Q: '\nPROMPT_SUFFIX = ' A:'\nINPUTS_EOS = False\n"


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
def test_a_run_says_what_to_evaluate_and_how(
  vocabulary, tmp_path, kind, monkeypatch
):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  run = saved(made(kind, 4096), tmp_path / "run", config=LINES)
  page = evaluate.evaluate(
    initial_checkpoint_path=str(run),
    task_feature_lengths={"inputs": 256, "targets": 8},
    eval_examples=2, batch_size=8, output_dir=tmp_path / "out",
  )
  value = json.loads(page.with_suffix(".json").read_text())
  assert set(value["after"]["tasks"]) == {"wnli"}
  assert set(value["after"]["by_score"]) == {"sum", "mean", "calibrated"}
  lines = (tmp_path / "out" / "predictions.jsonl").read_text().split("\n")
  row = json.loads(lines[0])
  assert row["inputs_text"].startswith("Q: ")
  assert row["inputs_text"].endswith(" A:")
  # Another prompt is another evaluation, and has another folder.
  with pytest.raises(UserError, match="(?s)OUTPUT_DIR .*holds another run.*wrapper"):
    evaluate.evaluate(
      initial_checkpoint_path=str(run), prompt_suffix=" Answer:",
      task_feature_lengths={"inputs": 256, "targets": 8},
      eval_examples=2, batch_size=8, output_dir=tmp_path / "out",
    )


def test_what_was_trained_on_is_refused(vocabulary, tmp_path, monkeypatch):
  """By the run, or by the run that it began from."""
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  model = made("encoder_decoder", 4096)
  first = saved(model, tmp_path / "first", train="flan_wnli_template_2")
  began = f"INITIAL_CHECKPOINT_PATH = {str(first)!r}\n"
  second = saved(model, tmp_path / "second", config=began)
  options = {
    "task_feature_lengths": {"inputs": 256, "targets": 8},
    "eval_examples": 1, "batch_size": 8, "output_dir": tmp_path / "out",
  }
  for run in (first, second):
    with pytest.raises(
      UserError, match="flan_wnli: by flan_wnli_template_2\nEvaluate another"
    ):
      evaluate.evaluate(initial_checkpoint_path=str(run), **options)
  page = evaluate.evaluate(
    initial_checkpoint_path=str(second), allow_seen=True, **options
  )
  assert "not held out, but trained on: flan_wnli" in page.read_text()


def test_a_checkpoint_of_no_run_needs_a_mixture(settings, tmp_path):
  folder = saved(settings["model"], tmp_path / "run")
  (folder / "run.json").unlink()
  del settings["eval_mixture_or_task_name"]
  with pytest.raises(UserError, match="EVAL_MIXTURE_OR_TASK_NAME=flan_holdout"):
    evaluate.evaluate(
      **settings, initial_checkpoint_path=str(folder),
      output_dir=tmp_path / "out",
    )
  (folder / "run.json").write_text("{")
  with pytest.raises(UserError, match="run.json, the record .* cannot be read"):
    evaluate.evaluate(
      **settings, initial_checkpoint_path=str(folder),
      output_dir=tmp_path / "out",
    )


def test_options_are_shown_or_not(settings, tmp_path):
  for shown in (True, False):
    folder = saved(settings["model"], tmp_path / f"run{shown}")
    out = tmp_path / f"out{shown}"
    page = evaluate.evaluate(
      **{**settings, "eval_examples": 1}, options_shown=shown,
      initial_checkpoint_path=str(folder), output_dir=out,
    )
    assert json.loads(page.with_suffix(".json").read_text())["after"][
      "options_shown"] is shown
    text = (out / "predictions.jsonl").read_text()
    assert ("OPTIONS:" in text) is shown


def test_generated_answers_are_kept_and_not_made_again(
  settings, tmp_path, monkeypatch
):
  """Beside the scores; a second start reads them."""
  settings["eval_mixture_or_task_name"] = catalogue.registered_name("e2e_nlg")
  settings["task_feature_lengths"] = {"inputs": 256, "targets": 4}
  options = {
    **settings, "eval_examples": 2, "output_dir": tmp_path / "out",
    "initial_checkpoint_path": str(saved(settings["model"], tmp_path / "run")),
  }
  evaluate.evaluate(**options)
  names = ("generated.jsonl", "predictions.jsonl")
  first = [(tmp_path / "out" / n).read_bytes() for n in names]
  row = json.loads(first[0].split(b"\n")[0])
  assert (row["task"], row["split"], row["number"]) == (
    "e2e_nlg", "validation", 0
  )
  assert set(row["answers"][0]) == {"text", "tokens", "complete", "score"}
  asked = []
  answers = generation.continuous.answers

  def counted(model, params, inputs, **fields):
    asked.extend(inputs)
    return answers(model, params, inputs, **fields)

  monkeypatch.setattr(generation.continuous, "answers", counted)
  evaluate.evaluate(**options)
  assert [(tmp_path / "out" / n).read_bytes() for n in names] == first
  assert asked == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder_only"])
def test_ten_datasets_compile_a_program_for_each_shape(
  vocabulary, kind, sample_data
):
  """Ranked and generated ones; another checkpoint compiles nothing more."""
  names = (
    "rte", "cb", "copa", "sst2", "trec", "openbookqa", "piqa", "e2e_nlg",
    "samsum", "trivia_qa",
  )
  model = made(kind, vocabulary.vocab_size)
  rows = EvaluationSet.prepare(
    [catalogue.get(n) for n in names], vocabulary=vocabulary,
    lengths={"inputs": 256, "targets": 8}, batch_size=16, max_examples=2,
    kind=kind,
  )
  ranking, generating = rows.plans(("validation", "test"))
  shapes = len(ranking.shapes) + len(generating.shapes)
  assert len({e.task for e in (*ranking.examples, *generating.examples)}) == 10
  assert shapes <= 16
  compiled = []

  def listen(event, *_, **__):
    if event == "/jax/core/compile/backend_compile_duration":
      compiled.append(event)

  params = [model.init(jax.random.key(i)) for i in range(2)]
  jax.block_until_ready(params)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    evaluate.evaluate_tasks(model, params[0], rows)
    assert 2 < len(compiled) <= shapes
    before = len(compiled)
    evaluate.evaluate_tasks(model, params[1], rows)
    assert len(compiled) == before
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_checkpoint_that_is_not_there(settings, tmp_path):
  with pytest.raises(UserError, match="nothing"):
    evaluate.evaluate(
      **settings,
      initial_checkpoint_path=str(tmp_path / "nothing"),
      output_dir=tmp_path / "out",
    )
  assert not (tmp_path / "out").exists()


def test_a_vocabulary_larger_than_the_embedding(settings, tmp_path):
  settings["model"] = made(settings["model"].kind, 4000)
  folder = saved(settings["model"], tmp_path / "run")
  with pytest.raises(UserError, match="4,096 ids, the model's embedding 4,000"):
    evaluate.evaluate(
      **settings,
      initial_checkpoint_path=str(folder),
      output_dir=tmp_path / "out",
    )


def test_answers_by_ranking_and_generation(settings, sample_data, tmp_path):
  """Both at once; the inputs of a decoder begin with its begin id."""
  model = settings["model"]
  rows = EvaluationSet.prepare(
    [catalogue.get("wnli"), catalogue.get("e2e_nlg")],
    vocabulary=settings["vocabulary"],
    lengths={"inputs": 256, "targets": 8},
    batch_size=8, max_examples=2, splits=("test",), kind=model.kind,
  )
  begun = model.kind == "decoder_only"
  for example in rows.examples["test"]:
    assert (example.inputs[0] == 0) == begun
  params = model.init(jax.random.key(0))
  result = evaluate.evaluate_tasks(model, params, rows)
  assert set(result.tasks) == {"wnli", "e2e_nlg"}
  lines = tmp_path / "predictions.jsonl"
  again = evaluate.evaluate_tasks(
    model, params, rows, predictions=lines, splits=("test",)
  )
  assert again.headline == result.headline
  kinds = {type(json.loads(x)["prediction"]) for x in lines.open()}
  assert kinds == {int, str}


def test_a_second_process_finds_the_programs(tmp_path, monkeypatch, settings):
  """As in training: what one evaluation compiles the next one reads."""
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(compilation, "MIN_COMPILE_SECONDS", 0.0)
  run = saved(settings.pop("model"), tmp_path / "run")
  found = []
  for name in ("one", "two"):
    jax.clear_caches()
    evaluate.evaluate(
      **settings, initial_checkpoint_path=str(run),
      output_dir=tmp_path / name,
    )
    found.append(sorted((tmp_path / "cache" / "compiled").glob("*-cache")))
  assert found[0]
  assert found[0] == found[1]
  assert jax.config.jax_compilation_cache_dir is None
