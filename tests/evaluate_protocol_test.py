"""Protocols and series over the evaluation job, on the embedded sample."""

import functools
import json
import pathlib

import jax
import pytest

from flan_jax import config, evaluate, evaluate_protocol
from flan_jax.data import catalogue
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.models import t5
from flan_jax.training import checkpoint, optimiser, state

ROOT = pathlib.Path(__file__).parent.parent
GIN_FILES = {
  "eval_flan": ["INITIAL_CHECKPOINT_PATH"],
  "eval_t0": ["INITIAL_CHECKPOINT_PATH"],
  "eval_ablation_instructions": [
    "TRAINED_WITH_TEMPLATES", "TRAINED_WITHOUT", "TRAINED_WITH_NAMES",
  ],
  "eval_cluster_curve": [f"CLUSTERS_{n}" for n in range(1, 8)],
}


@pytest.fixture(scope="module")
def vocabulary():
  yield vocabulary_lib.load("flan_jax")
  catalogue.unregister()


@pytest.fixture
def job(vocabulary, monkeypatch, tmp_path):
  """The evaluation with two checkpoints to choose from."""
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  model = t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=vocabulary.vocab_size, emb_dim=8, num_heads=1, head_dim=8,
      mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1,
    )
  )
  paths = []
  for seed in range(2):
    params = model.init(jax.random.key(seed))
    saved = checkpoint.Checkpoints(tmp_path / f"run{seed}" / "checkpoints")
    saved.save(1, state.create(params, optimiser.adafactor(1e-3)), {"step": 1})
    saved.close()
    paths.append(str(saved.directory))
  return paths, functools.partial(
    evaluate.evaluate,
    task_feature_lengths={"inputs": 256, "targets": 32},
    vocabulary=vocabulary, model=model, eval_examples=4, batch_size=8,
  )


def test_a_series_is_tabled_and_tested(job, tmp_path):
  (first, second), run = job
  mixture = catalogue.registered_name("wnli")
  path = evaluate_protocol.evaluate_series(
    points=[("a", first, mixture), ("b/2", second, mixture), ("c", first, mixture)],
    evaluate=run, output_dir=str(tmp_path / "series"), title="seeds",
  )
  series, tested = json.loads(path.with_suffix(".json").read_text())
  assert [row["point"] for row in series["rows"]] == ["a", "b/2", "c"]
  row = series["rows"][0]
  assert (row["tasks"], row["n"]) == (1, 4)
  assert row["mean, 95 % interval"][0] <= row["mean"]
  assert row["natural language inference"] == row["mean"]
  assert tested["title"] == f"Differences from a on {mixture}"
  same = [r for r in tested["rows"] if r["point"] == "c"]
  assert [r["task"] for r in same] == [
    "wnli", "natural_language_inference", "mean of all tasks",
  ]
  assert {r["difference"] for r in same} == {0.0}
  assert same[0]["p"] == "1.0000"
  assert (tmp_path / "series" / "02_b_2" / "report.html").is_file()
  assert "## seeds" in path.with_suffix(".md").read_text()
  page = path.read_text()
  assert path == tmp_path / "series" / "series.html"
  assert "<a href='02_b_2/report.html'>b/2</a>" in page
  # Labels are no numbers: a bar a point.
  assert page.count("<rect ") == 3
  assert "<polyline" not in page


@pytest.mark.parametrize("name", ["flan", "t0"])
def test_a_protocol_s_table_stands_by_the_page(job, tmp_path, name):
  (first, _), run = job
  path = evaluate_protocol.evaluate_protocol(
    protocol=name,
    evaluate=functools.partial(
      run, initial_checkpoint_path=first, output_dir=str(tmp_path / "out"),
      eval_mixture_or_task_name=catalogue.registered_name("wnli"),
    ),
  )
  assert path == tmp_path / "out" / "protocol.md"
  (table,) = json.loads(path.with_suffix(".json").read_text())
  assert table["rows"][0]["task"] == "WNLI"


@pytest.mark.parametrize(
  ("points", "message"),
  [
    ([], "needs two points at least"),
    ([("a", "x", "m")], "needs two points at least"),
    ([("a", "x", "m"), ("a", "y", "m")], r"each \(label, mixture\) once"),
    ([("a", "x"), ("b", "y", "m")], r"\('a', 'x'\) is not \(label, checkpoint"),
    ([("a", None, "m"), ("b", "y", "m")], "three texts"),
    (["abc", "def"], "'abc' is not"),
  ],
)
def test_points_that_are_none(points, message):
  with pytest.raises(UserError, match=message):
    evaluate_protocol.evaluate_series(
      points=points, evaluate=None, output_dir="out"
    )


def test_what_has_no_effect_or_is_unknown():
  with pytest.raises(UserError, match="INITIAL_CHECKPOINT_PATH='x' has no effect"):
    evaluate_protocol.evaluate_series(
      points=[], evaluate=None, output_dir="out", initial_checkpoint_path="x"
    )
  with pytest.raises(UserError, match="PROTOCOL is 'flann'"):
    evaluate_protocol.evaluate_protocol(protocol="flann", evaluate=None)


@pytest.mark.parametrize("name", sorted(GIN_FILES))
def test_the_gin_files(name):
  flags = [(macro, "runs/x") for macro in GIN_FILES[name]]
  loaded = config.load([f"gin/{name}.gin"], flags, [str(ROOT)])
  assert "evaluate.evaluate" in loaded.text
  for left_out in GIN_FILES[name]:
    fewer = [flag for flag in flags if flag[0] != left_out]
    if left_out == "INITIAL_CHECKPOINT_PATH" or fewer != flags:
      with pytest.raises(UserError, match=f"%{left_out}, which no file"):
        config.load([f"gin/{name}.gin"], fewer, [str(ROOT)])
  with pytest.raises(UserError, match="PROTOCL"):
    config.load([f"gin/{name}.gin"], [*flags, ("PROTOCL", "t0")], [str(ROOT)])
