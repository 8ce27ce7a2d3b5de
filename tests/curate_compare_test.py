"""Ways of selecting compared by held-out loss: the job, and going on with it."""

import json

import numpy as np
import pytest

from flan_jax import config, curate_compare
from flan_jax.curation import quality, rows, selection, selectors, trials
from flan_jax.curation.budget import Budget
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.training import optimiser

RECIPES = (
  selection.Recipe(selectors.Longest()),
  selection.Recipe(selectors.KCenter()),
  selection.Recipe(selectors.Random(), (quality.Lima(least=60),), name="lima"),
)


@pytest.fixture
def training():
  model = DecoderOnly(DecoderConfig(
    vocab_size=4096, emb_dim=8, num_heads=1, num_kv_heads=1, head_dim=8,
    num_layers=1, mlp_dim=8, dtype="float32",
  ))  # fmt: skip
  return trials.Training(
    model,
    optimiser.adamw(0.01),
    vocabulary_lib.load(),
    train_steps=4,
    batch_size=2,
    task_feature_lengths={"inputs": 64, "targets": 32},
    chat_format="plain",
  )


@pytest.fixture
def data(tmp_path):
  path = tmp_path / "mine.jsonl"
  rows.write(
    path,
    [
      {
        "instruction": f"Say the number {i}.",
        "output": f"It is {i}." + " So it is." * (i % 7),
      }
      for i in range(60)
    ],
  )
  return path


def compared(training, data, folder, **kinds):
  return curate_compare.compare(
    data={"mine": str(data)},
    output_dir=str(folder),
    recipes=RECIPES,
    budget=Budget(fraction=0.3),
    training=training,
    **{"seeds": 2, **kinds},
  )


def test_methods_are_compared_and_nothing_is_done_twice(
  training, data, tmp_path, monkeypatch
):
  folder = tmp_path / "out"
  table = compared(training, data, folder)
  named = {row["method"]: row for row in table}
  size = named["longest"]["rows"]
  assert named["k_center"]["rows"] == size
  assert named["lima"]["rows"] < size  # all that pass
  assert named["all rows"]["rows"] > 2 * size
  # As many random rows stand beside each method.
  assert {r["rows"] for n, r in named.items() if n.startswith("random")} == {
    size, named["lima"]["rows"],
  }  # fmt: skip
  for row in table:
    assert len(row["losses"]) == 2
    if row["random_loss"] is not None:
      assert row["difference"] == pytest.approx(
        row["loss"] - row["random_loss"]
      )
      random = named[f"random {row['rows']}"]["losses"]
      assert row["difference_deviation"] == pytest.approx(
        np.std(np.subtract(row["losses"], random), ddof=1)
      )
  longest = rows.read(folder / "mine/subsets/longest.jsonl")
  rest = rows.read(folder / "mine/subsets/all.jsonl")
  held = rows.read(folder / "mine/held_out.jsonl")
  assert len(rest) + len(held) == 60
  assert not {r["id"] for r in rest} & {r["id"] for r in held}
  said = [r["output"].count("So it is") for r in longest]
  others = [r["output"].count("So") for r in rest if r not in longest]
  assert min(said) >= max(others)
  assert "Held-out loss" in (folder / "mine/report.html").read_text()
  lines = (folder / "mine/results.jsonl").read_text().splitlines()
  assert all(json.loads(x)["loss"] < json.loads(x)["start_loss"] for x in lines)

  # The last trial is lost in the middle of its line: it alone is done again.
  (folder / "mine/results.jsonl").write_text(
    "\n".join([*lines[:-1], lines[-1][:20]])
  )
  done = []
  run = trials.Trials.run

  def counted(self, subset, seed):
    done.append((subset.name, seed))
    return run(self, subset, seed)

  monkeypatch.setattr(trials.Trials, "run", counted)
  again = compared(training, data, folder)
  last = json.loads(lines[-1])
  assert done == [(f"{last['method']}.jsonl", last["seed"])]
  assert [r["losses"] for r in again] == [r["losses"] for r in table]
  assert (folder / "mine/results.jsonl").read_text().splitlines() == lines


def test_mistakes(training, data, tmp_path):
  with pytest.raises(UserError, match="SEEDS is 0"):
    compared(training, data, tmp_path / "out", seeds=0)
  with pytest.raises(UserError, match="HELD_OUT is 1.0"):
    compared(training, data, tmp_path / "out", held_out=1.0)
  twice = (selection.Recipe(selectors.Longest()),) * 2
  with pytest.raises(UserError, match="the name 'longest' twice"):
    curate_compare.compare(
      data={"a": str(data)},
      output_dir=str(tmp_path),
      recipes=twice,
      budget=Budget(count=2),
      training=training,
    )


def test_gin_file():
  loaded = config.load(
    ["gin/curate_compare.gin"], [("DATA", "{'a': 'a.json'}")]
  )
  name, _ = config.job_arguments(loaded)
  assert name == "flan_jax.curate_compare.compare"
  assert len(loaded.value("RECIPES")) == 7
  assert loaded.value("FRACTION") == 0.1


@pytest.mark.slow
def test_every_method_of_the_gin_file_on_real_rows(shared, tmp_path):
  path = str(shared / "instructions/dolly_3k.json")
  loaded = config.load(
    ["gin/curate_compare.gin"],
    [
      ("DATA", f"{{'dolly': {path!r}}}"),
      ("OUTPUT_DIR", str(tmp_path)),
      ("SEEDS", "1"),
      ("TRAIN_STEPS", "5"),
      ("WARMUP_STEPS", "1"),
      ("MOST_HELD_OUT", "20"),
    ],
  )
  table = config.call_job(loaded)
  named = {row["method"]: row for row in table}
  assert set(named) - {n for n in named if n.startswith("random")} == {
    "all rows", "longest", "k_center", "ltd", "facility_location", "k_means",
    "lima", "copies",
  }  # fmt: skip
  share = named["all rows"]["rows"] / 10
  assert all(
    share <= r["rows"] < share + 1 for n, r in named.items() if n != "all rows"
  )
  for line in (tmp_path / "dolly/results.jsonl").read_text().splitlines():
    one = json.loads(line)
    assert one["loss"] < one["start_loss"]
