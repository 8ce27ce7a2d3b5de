"""Manifests, rows, and the selection job with its page."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from flan_jax import config, curate_select, judge
from flan_jax.curation import (
  decisions,
  embeddings,
  manifest,
  quality,
  report,
  rows,
  selection,
  selectors,
)
from flan_jax.curation.budget import Budget
from flan_jax.data import sft
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.models.decoder import DecoderConfig, DecoderOnly
from flan_jax.models.t5 import EncoderDecoder
from flan_jax.models.t5_network import T5Config
from tests import browser


def write_rows(path, count=12):
  made = [
    {
      "instruction": f"Describe the animal number {i} <script>.",
      "output": f"It has {i} legs & a tail." + " It runs." * i,
      "category": "even" if i % 2 == 0 else "odd",
    }
    for i in range(count)
  ]
  path.write_text("".join(json.dumps(r) + "\n" for r in made))
  return path


def test_a_manifest_is_written_read_and_checked(tmp_path):
  data = write_rows(tmp_path / "in.jsonl")
  folder = manifest.begin(tmp_path / "run")
  rows.write(folder / "data.jsonl", rows.read(data)[:3])
  made = manifest.write(
    folder,
    method="random",
    inputs={"data": data, "seeds": [data]},
    outputs=("data.jsonl",),
    options={"count": 3},
    counts={"selection": {"kept": 3, "not taken": 9}},
    models={"judge": {"model": "some-judge"}},
    totals={"tokens": 12},
    notes=["a note"],
  )
  assert manifest.read(folder) == made
  assert made.inputs["data"][0].rows == 12
  assert made.outputs["data.jsonl"].rows == 3
  assert judge.manifest_models([folder / "manifest.json"]) == ["some-judge"]
  assert manifest.beside(folder / "data.jsonl") == made
  assert manifest.beside(data) is None
  said = manifest.summary(made, folder / "data.jsonl")
  assert said["method"] == "random"
  assert said["models"] == {"judge": "some-judge"}
  # What a training run records of its files.
  collection = sft.SFT([str(folder / "data.jsonl"), str(data)])
  assert manifest.recorded(collection.data_paths) == {"data.jsonl": said}
  # The fingerprint is of what was done, not of when.
  later = dataclasses.replace(made, created="later", command=["x"])
  assert later.fingerprint() == made.fingerprint()
  other = dataclasses.replace(made, options={"count": 4})
  assert other.fingerprint() != made.fingerprint()

  (folder / "data.jsonl").write_text("{}\n")
  with pytest.raises(UserError, match="was changed after the curation run"):
    manifest.beside(folder / "data.jsonl")
  # A run that begins again has no manifest until it is done.
  manifest.begin(folder)
  assert manifest.beside(folder / "data.jsonl") is None


def test_manifests_that_are_none(tmp_path):
  file = tmp_path / "manifest.json"
  with pytest.raises(UserError, match="cannot be read"):
    manifest.read(tmp_path)
  file.write_text('{"format": "another"}')
  with pytest.raises(UserError, match="its 'format' is 'another'"):
    manifest.read(file)
  assert manifest.beside(tmp_path / "data.jsonl") is None
  file.write_text(json.dumps({"format": manifest.FORMAT, "method": "x"}))
  with pytest.raises(UserError, match="is damaged"):
    manifest.read(file)
  written = {"inputs": {}, "outputs": (), "counts": {}}
  with pytest.raises(UserError, match="model 'judge' has no 'model'"):
    manifest.write(
      tmp_path, method="x", options={}, models={"judge": {}}, **written
    )
  with pytest.raises(UserError, match="options are no JSON"):
    manifest.write(tmp_path, method="x", options={"a": np.nan}, **written)
  with pytest.raises(UserError, match=r"gone.jsonl cannot be read"):
    manifest.write(
      tmp_path, method="x", options={}, **{**written, "outputs": ("gone.jsonl",)}
    )
  with pytest.raises(UserError, match="OUTPUT_DIR"):
    manifest.begin(file / "below")


def test_rows_of_every_format(tmp_path, shared):
  seeds = rows.read(shared / "instructions/self_instruct_seed_tasks.jsonl")
  assert len(seeds) == 175
  assert sum(not row["input"] for row in seeds) == 50
  dolly = rows.read(shared / "instructions/dolly_3k.json")
  assert len(dolly) == 2996
  assert dolly[7]["id"] == "dolly_3k-7"
  cot = rows.read(shared / "cot/gsm8k_train.tsv")
  assert len(cot) == 7473
  assert cot[0]["output"].endswith("April and May.\nThe answer is 72")
  path = tmp_path / "p.json"
  path.write_text('[{"prompt": "Say it.", "completion": "It."}]')
  (row,) = rows.read([path])
  assert (row["instruction"], row["input"], row["output"]) == (
    "Say it.", "", "It.",
  )  # fmt: skip
  assert row["source"] == "p"


@pytest.mark.parametrize(
  ("name", "text", "match"),
  [
    ("a.jsonl", '{"instruction": "x"}\n', "line 1 has no 'output'"),
    ("a.jsonl", '{"instruction": 3, "output": "x"}\n', "a int as its 'instr"),
    ("a.jsonl", "[1]\n", "line 1 is a list"),
    ("a.jsonl", "{\n", "line 1"),
    ("a.jsonl", "\n", "has no row"),
    ("a.json", "{}", "must be a list of rows"),
    ("a.json", '[{"instruction": "x", "instances": []}]', "a list with some"),
    ("a.csv", "x", "its ending is '.csv'"),
    ("a.json", '[{"id": 1, "instruction": "x", "output": ""},'
     ' {"id": "1", "instruction": "y", "output": ""}]', "the same id '1'"),
  ],
)  # fmt: skip
def test_rows_that_cannot_be_read(tmp_path, name, text, match):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(UserError, match=match):
    rows.read(path)


@browser.needed
def test_a_browser_draws_the_page_in_light_and_dark(tmp_path):
  vectors = tmp_path / "x.npy"
  np.save(vectors, np.random.default_rng(0).normal(size=(12, 6)))
  curate_select.select(
    output_dir=tmp_path / "run", data_path=write_rows(tmp_path / "in.jsonl"),
    recipe=selection.Recipe(
      selectors.KCenter(), (quality.Lima(least=40, most=None),)
    ),
    budget=Budget(fraction=0.25), vocabulary=vocabulary_lib.load(),
    embedder=embeddings.FromFile(vectors, "an encoder"),
  )
  page = tmp_path / "run" / report.PAGE
  plots = page.read_text().count("<svg ")
  # Lengths, verbs, similarity, coverage and the map.
  assert plots >= 7
  browser.check(page, tmp_path, plots)


def test_a_run_leaves_rows_decisions_manifest_and_page(tmp_path):
  data = write_rows(tmp_path / "in.jsonl")
  vectors = tmp_path / "x.npy"
  np.save(vectors, np.random.default_rng(0).normal(size=(12, 6)))
  vocabulary = vocabulary_lib.load()
  kinds = {
    "data_path": data,
    "recipe": selection.Recipe(
      selectors.KCenter(),
      (quality.Lima(least=40, most=None),),
    ),
    "budget": Budget(fraction=0.25),
    "vocabulary": vocabulary,
  }
  folder = tmp_path / "run"
  out = curate_select.select(
    output_dir=folder,
    embedder=embeddings.FromFile(vectors, "an encoder"),
    **kinds,
  )
  taken = rows.read(out)
  assert len(taken) == 3
  said = list(decisions.read(folder / "decisions.jsonl"))
  dropped = [d for d in said if d["stage"] == "filter: lima" and not d["kept"]]
  assert {d["reason"] for d in dropped} == {"has fewer than 40 characters"}
  last = [d for d in said if d["stage"] == "selection"]
  assert len(dropped) + len(last) == 12
  kept = sorted((d["place"], d["id"]) for d in last if d["kept"])
  assert [i for _, i in kept] == [row["id"] for row in taken]
  made = manifest.beside(out)
  assert made.models == {
    "embeddings": {"model": "an encoder", "path": str(vectors)}
  }
  assert made.counts["selection"]["kept"] == 3
  assert made.inputs["embeddings"][0].path == str(vectors)
  counted = sum(
    len(vocabulary.encode(rows.prompt(r))) + len(vocabulary.encode(r["output"]))
    for r in taken
  )
  assert made.totals["tokens_kept"] == counted
  page = (folder / report.PAGE).read_text()
  for heading in (
    "What was decided", "Lengths", "Diversity", "Similarity", "Coverage",
    "Map", "with examples", "Tokens, cost", "What ran",
  ):  # fmt: skip
    assert heading in page
  assert "<script" not in page
  assert "&lt;script&gt;" in page
  assert not re.search(r"https?://(?!www.w3.org)", page)

  # The same again: the same rows. Without vectors: no map.
  first = made.fingerprint()
  curate_select.select(
    output_dir=folder,
    embedder=embeddings.FromFile(vectors, "an encoder"),
    **kinds,
  )
  assert manifest.read(folder).fingerprint() == first
  kinds["recipe"] = selection.Recipe(selectors.Random())
  curate_select.select(output_dir=tmp_path / "plain", **kinds)
  assert "<h2>Map" not in (tmp_path / "plain" / report.PAGE).read_text()
  with pytest.raises(UserError, match="MEMORY_GIB is 0"):
    curate_select.select(output_dir=folder, memory_gib=0.0, **kinds)


@pytest.mark.parametrize("kind", ["decoder_only", "encoder_decoder"])
def test_a_text_has_the_same_vector_alone_and_in_a_batch(kind):
  if kind == "decoder_only":
    model = DecoderOnly(DecoderConfig(
      vocab_size=4096, emb_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
      num_layers=1, mlp_dim=32, dtype="float32",
    ))  # fmt: skip
    params = model.init(jax.random.key(0))
  else:
    model = EncoderDecoder(T5Config(
      vocab_size=4096, emb_dim=16, num_heads=2, head_dim=8,
      num_encoder_layers=1, num_decoder_layers=1, mlp_dim=32, dtype="float32",
    ))  # fmt: skip
    params = model.init(jax.random.key(0))
  vocabulary = vocabulary_lib.load()
  texts = ["Name a fruit.", "Describe, at length, how a bridge is built." * 3]

  def embed(some, **kinds):
    return embeddings.mean_states(model, params, vocabulary, some, **kinds)

  both = embed(texts, length=64)
  alone = np.concatenate([embed([t], length=64, batch_size=1) for t in texts])
  assert both.shape == (2, 16)
  np.testing.assert_allclose(both, alone, atol=1e-5)
  assert np.abs(both[0] - both[1]).max() > 1e-3
  if kind == "decoder_only":  # by hand, of one text without padding
    begin = vocabulary_lib.begin_id(vocabulary)
    ids = np.array([[begin, *vocabulary.encode(texts[0])]])
    hidden = model.hidden(params, {"decoder_input_tokens": ids})
    np.testing.assert_allclose(both[0], hidden[0, 1:].mean(0), atol=1e-5)
  with pytest.raises(UserError, match="1 texts have no token"):
    embed(["", "a"])


def test_vectors_of_a_checkpoint_are_kept(tmp_path):
  calls = []

  class Counting:
    @property
    def identity(self):
      return {"model": "m"}

    def __call__(self, texts, *, told=None):
      calls.append(len(texts))
      return np.ones((len(texts), 2), np.float32)

  one = embeddings.cached(Counting(), ["a", "b"], tmp_path)
  again = embeddings.cached(Counting(), ["a", "b"], tmp_path)
  embeddings.cached(Counting(), ["a", "c"], tmp_path)
  assert np.array_equal(one, again)
  assert calls == [2, 2]


@pytest.mark.parametrize(
  "files",
  [
    ["curate_random"], ["curate_longest"], ["curate_lima"], ["curate_copies"],
    ["curate_k_center", "curation/vectors_file"],
    ["curate_k_means", "curation/vectors_sentence_encoder"],
    ["curate_facility_location", "curation/vectors_checkpoint"],
    ["curate_ltd", "curation/vectors_file", "curation/groups_field"],
  ],
)  # fmt: skip
def test_gin_files(files):
  flags = [("DATA_PATH", "dolly.json")]
  if "curation/vectors_file" in files:
    flags.append(("EMBEDDINGS_PATH", "x.npy"))
  if "curation/vectors_checkpoint" in files:
    flags.append(("EMBEDDING_CHECKPOINT_PATH", "c"))
  if "curation/vectors_sentence_encoder" in files:
    flags.append(("SENTENCE_ENCODER_PATH", "e"))
  if "curation/groups_field" in files:
    flags.append(("GROUP_FIELD", "task"))
  loaded = config.load([f"gin/{f}.gin" for f in files], flags)
  name, arguments = config.job_arguments(loaded)
  assert name == "flan_jax.curate_select.select"
  assert arguments["data_path"] == "dolly.json"
  with pytest.raises(UserError, match="FRACTION"):
    config.load(
      [f"gin/{f}.gin" for f in files], [*flags, ("FRACTON", "0.1")]
    )
