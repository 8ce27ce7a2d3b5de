"""The cache: written by Beam, read by Grain, refused where it is not a run's."""

import doctest
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
import seqio

from flan_jax import cache, cached_command, config
from flan_jax.data import (
  cached,
  cached_batches,
  cached_shards,
  cached_windows,
  catalogue,
  directory,
  features,
  layouts,
  mixtures,
  spec,
  template,
  vocabulary,
)
from flan_jax.errors import UserError
from flan_jax.training import cached_input
from tests import buckets
from tests.data import made

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTHS = {"inputs": 128, "targets": 32}
MIXTURE = "cache_test_mixture"
TASKS = {"flan_sst2": 3.0, "flan_rte": 1.0}


def write(folder, **changes):
  arguments = {
    "mixture_or_task_name": MIXTURE,
    "cache_dir": str(folder),
    "task_feature_lengths": LENGTHS,
    "vocabulary": vocabulary.load(),
    "draws": 2,
    "parallel": 1,
    **changes,
  }
  return cache.cache(**arguments)


@pytest.fixture(scope="module", autouse=True)
def mixture(sample_dir):
  """Two tasks of the embedded sample, and windows that suit them."""
  patch = pytest.MonkeyPatch()
  patch.setenv("TFDS_DATA_DIR", str(sample_dir))
  patch.setattr(cached_windows, "WINDOW", 512)
  catalogue.register(vocabulary.load())
  seqio.MixtureRegistry.add(MIXTURE, list(TASKS.items()))
  yield
  seqio.MixtureRegistry.remove(MIXTURE)
  catalogue.register(vocabulary.load())
  patch.undo()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp("cache")
  write(folder)
  return folder


@pytest.fixture
def copied(written, tmp_path):
  shutil.copytree(written, tmp_path / "cache")
  return tmp_path / "cache"


def found(folder, name=MIXTURE, lengths=LENGTHS, **changes):
  directory.choose(None)
  resolved = mixtures.resolve(name)
  return cached.find(folder, resolved, lengths=lengths, **changes)


def manifest_of(folder, task):
  (path,) = folder.glob(f"{task}/*/manifest.json")
  return path.parent, json.loads(path.read_text())


def layout(pack=True):
  return features.layout_for("encoder_decoder", LENGTHS, pack=pack)


def steps(folder, **changes):
  arguments = {"batch_size": 8, "seed": 5, **changes}
  return cached_batches.Steps(found(folder), layout(), **arguments)


def hashed(batch):
  data = b"".join(batch[name].tobytes() for name in sorted(batch))
  return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
  "module", [cache, cached, cached_batches, cached_command, cached_input]
)
def test_docs(module):
  assert doctest.testmod(module).failed == 0


def test_the_manifest_says_what_was_written(written):
  for name in TASKS:
    folder, manifest = manifest_of(written, name)
    task = seqio.TaskRegistry.get(name)
    rows = task.num_input_examples("train")
    assert manifest["rows"] == [rows, rows]
    assert manifest["key"]["rows"] == rows
    ours = catalogue.of_seqio(task)
    assert manifest["key"]["fingerprint"] == catalogue.fingerprint(ours)
    assert manifest["key"]["copy"] == task.source.fingerprint()
    assert manifest["key"]["vocabulary"] == vocabulary.fingerprint(
      vocabulary.load()
    )
    assert "seqio" in manifest["versions"]
    for shard in manifest["shards"]:
      data = (folder / shard["file"]).read_bytes()
      assert hashlib.sha256(data).hexdigest() == shard["sha256"]
  listed = json.loads((written / f"{MIXTURE}.train.json").read_text())
  assert listed["tasks"].keys() == TASKS.keys()
  assert not list(written.rglob("*.part*"))


def test_a_second_start_writes_nothing(copied, capsys):
  before = {p: p.stat().st_mtime_ns for p in copied.rglob("*")}
  write(copied)
  assert {p: p.stat().st_mtime_ns for p in copied.rglob("*")} == before
  assert "2 shards, of which 2 are there" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["removed", "cut", "flipped"])
def test_what_is_lost_is_written_again_and_is_the_same(copied, loss, capsys):
  folder, manifest = manifest_of(copied, "flan_rte")
  file = folder / manifest["shards"][0]["file"]
  whole = file.read_bytes()
  other, _ = manifest_of(copied, "flan_sst2")
  kept = [p.stat().st_mtime_ns for p in sorted(other.iterdir())]
  if loss == "removed":
    file.unlink()
  elif loss == "cut":
    file.write_bytes(whole[:-9])
  else:
    file.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
  write(copied, verify=loss == "flipped")
  assert "2 shards, of which 1 are there" in capsys.readouterr().out
  assert file.read_bytes() == whole
  assert [p.stat().st_mtime_ns for p in sorted(other.iterdir())] == kept


def test_other_draws_are_written_anew(copied, capsys):
  write(copied, draws=3, mixture_or_task_name="flan_rte")
  assert "written anew with other options: flan_rte" in capsys.readouterr().out
  assert len(manifest_of(copied, "flan_rte")[1]["rows"]) == 3


def test_examples_are_those_of_the_template_that_is_named(written):
  """Against seqio's tasks of one template, for those that are seen first."""
  read = steps(written)
  directory.choose(None)
  single, seen = {}, set()
  for step in range(2):
    batch = read[step]
    for b, row in enumerate(read.origins(step)):
      for i, (name, index, number) in enumerate(row, 1):
        task = f"{name}_template_{number}"
        seen.add(task)
        if task not in single and len(single) < 4:
          dataset = mixtures.registered(task).get_dataset(
            LENGTHS, split="train", shuffle=False, seed=0
          )
          single[task] = {
            int(x["example_index"]): x for x in dataset.as_numpy_iterator()
          }
        for side, (tokens, segments) in {
          "inputs": ("encoder_input_tokens", "encoder_segment_ids"),
          "targets": ("decoder_target_tokens", "decoder_segment_ids"),
        }.items():
          if task in single:
            got = batch[tokens][b][batch[segments][b] == i]
            np.testing.assert_array_equal(got, single[task][index][side])
  assert len(seen) > 8


def test_draws_are_different_draws(written):
  folder, manifest = manifest_of(written, "flan_sst2")
  from array_record.python import array_record_module

  file = str(folder / manifest["shards"][0]["file"])
  records = array_record_module.ArrayRecordReader(file).read_all()
  headers = np.array([np.frombuffer(r[:16], "<i4") for r in records])
  rows = manifest["key"]["rows"]
  np.testing.assert_array_equal(headers[:rows, 1], headers[rows:, 1])
  assert set(headers[:rows, 3]) == {0}
  assert (headers[:rows, 2] != headers[rows:, 2]).any()


def test_rates_are_seqio_s(written):
  read = steps(written)
  counts = read.windows.counts(100_000)
  mixture = seqio.MixtureRegistry.get(MIXTURE)
  rates = np.array([mixture.get_rate(t) for t in mixture.tasks])
  names = [t.name for t in found(written).tasks]
  assert names == [t.name for t in mixture.tasks]
  np.testing.assert_allclose(counts / 100_000, rates / rates.sum(), atol=1e-4)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_batches_are_the_same_on_any_number_of_hosts(written, hosts):
  whole = steps(written)
  each = 8 // hosts
  parts = [
    steps(written, rows=range(h * each, (h + 1) * each)) for h in range(hosts)
  ]
  for step in (0, 1, 50, 10**7):
    wanted = whole[step]
    got = [part[step] for part in parts]
    for h, part in enumerate(got):
      others = np.ones(8, bool)
      others[h * each : (h + 1) * each] = False
      assert not any(value[others].any() for value in part.values())
    summed = {n: sum(part[n] for part in got) for n in wanted}
    assert hashed(summed) == hashed(wanted)


def stream(folder, begin, **changes):
  return cached_batches.batches(steps(folder), start_step=begin, **changes)


def test_batches_are_the_same_after_any_number_of_starts(written):
  once = stream(written, 0)
  wanted = [hashed(next(once)) for _ in range(12)]
  once.close()
  got, begin = [], 0
  for length in (1, 4, 2, 5):
    again = stream(written, begin)
    got += [hashed(next(again)) for _ in range(length)]
    again.close()
    begin += length
  assert got == wanted
  assert hashed(steps(written, seed=6)[0]) != wanted[0]


@pytest.mark.slow
def test_batches_are_the_same_from_other_processes(written, monkeypatch):
  # They are new, and know nothing of the window that is set here.
  monkeypatch.setattr(cached_windows, "WINDOW", 32_768)
  alone = steps(written)
  several = stream(written, 2, workers=2)
  got = [hashed(next(several)) for _ in range(5)]
  several.close()
  assert got == [hashed(alone[step]) for step in range(2, 7)]


def test_a_decoder_s_rows_are_filled(written):
  room = layouts.DecoderOnly(256, begin_id=0)
  read = cached_batches.Steps(found(written), room, batch_size=16, seed=0)
  batches = [read[step] for step in range(10)]
  assert features.token_waste(batches)["total"] < 0.2
  for batch in batches:
    for b, row in enumerate(batch["decoder_segment_ids"]):
      assert row.max() == len(read.windows.row(b)[0]) or row.max() > 0


def test_a_damaged_record_names_its_file(copied):
  folder, manifest = manifest_of(copied, "flan_sst2")
  file = folder / manifest["shards"][0]["file"]
  data = bytearray(file.read_bytes())
  data[len(data) // 4 : -len(data) // 4] = bytes(len(data) // 2)
  file.write_bytes(data[: manifest["shards"][0]["bytes"]])
  read = steps(copied)
  said = r"shard_00000\.array_record cannot be"
  with pytest.raises(UserError, match=said):
    [read[step] for step in range(20)]


def test_a_stale_cache_says_what_differs(written, monkeypatch):
  with pytest.raises(UserError) as error:
    found(written, lengths={"inputs": 64, "targets": 32}, rebuild="do THIS")
  said = str(error.value)
  # The other's rows are short: 64 tokens cut none of them.
  assert "1 of 2 tasks" in said
  assert "lengths {'inputs': 128, 'targets': 32} -> {'inputs': 64" in said
  assert "do THIS" in said
  with pytest.raises(UserError, match="PROMPT_PREFIX"):
    found(written, wrapper=template.FLAN_CUE)
  real = catalogue.fingerprint
  monkeypatch.setattr(
    catalogue,
    "fingerprint",
    lambda t: "another" if t.name == "rte" else real(t),
  )
  with pytest.raises(UserError, match=r"1 of 2 tasks(.|\n)*flan_rte: finger"):
    found(written)


def test_another_vocabulary_is_refused(written):
  catalogue.register(seqio.ByteVocabulary())
  try:
    with pytest.raises(UserError, match="another vocabulary: its ids would"):
      found(written, name="flan_rte")
  finally:
    catalogue.register(vocabulary.load())


def test_longer_rows_are_served_if_nothing_was_cut(written, tmp_path):
  long = {"inputs": 1024, "targets": 64}
  write(tmp_path, task_feature_lengths=long, draws=1)
  longer = {"inputs": 2048, "targets": 512}
  for task in found(tmp_path, lengths=longer).tasks:
    assert pathlib.Path(task.path).is_relative_to(tmp_path)
  with pytest.raises(UserError, match="were cut to other lengths"):
    found(tmp_path, lengths={"inputs": 32, "targets": 16})


def test_json_lines_are_known_by_what_they_say(tmp_path):
  def lines(first):
    return "".join(
      json.dumps({"premise": p, "hypothesis": "h", "label": 0}) + "\n"
      for p in (first, "b", "c", "d", "e", "f")
    )

  task = made.nli(source=spec.Jsonl(str(tmp_path / "{split}.jsonl")))
  (tmp_path / "test.jsonl").write_text(lines("a"))
  keys = []
  for first in ("a", "a", "another"):
    (tmp_path / "train.jsonl").write_text(lines(first))
    keys.append(
      cached.key(
        catalogue.seqio_task(task, made.BYTES),
        split="train",
        lengths=LENGTHS,
        wrapper=template.PLAIN,
      )
    )
  assert keys[0] == keys[1]
  assert cached.differences(keys[1], keys[2]).startswith("copy ")
  assert str(tmp_path) not in json.dumps(
    {k: v for k, v in keys[0].items() if k != "fingerprint"}
  )


def test_an_unfinished_cache_and_an_empty_one_are_told_apart(copied, tmp_path):
  manifest_of(copied, "flan_rte")[0].joinpath("manifest.json").unlink()
  with pytest.raises(UserError, match="flan_rte: not finished"):
    found(copied)
  with pytest.raises(UserError, match="flan_rte: not in it"):
    found(tmp_path / "none")


def test_files_are_looked_at_before_they_are_read(copied):
  folder, manifest = manifest_of(copied, "flan_rte")
  sizes = folder / manifest["shards"][0]["sizes"]
  sizes.write_bytes(sizes.read_bytes()[:-4] + b"\1\1\1\1")
  with pytest.raises(UserError, match="is not what was written"):
    _ = steps(copied).windows
  (folder / manifest["shards"][0]["file"]).write_bytes(b"")
  with pytest.raises(UserError, match="has 0 bytes"):
    found(copied)


def test_options_that_cannot_be_are_refused(tmp_path):
  for changes, said in (
    ({"cache_dir": None}, "CACHE_DIR is not given"),
    ({"runner": "FlinkRuner"}, "nearest is 'FlinkRunner'"),
    ({"pipeline_options": ("project=x",)}, "--project=x"),
    ({"pipeline_options": ("--runner=x",)}, "RUNNER says which"),
    ({"draws": 0}, "DRAWS is 0"),
    ({"file_format": "h5"}, "FORMAT is 'h5'"),
    ({"file_format": "seqio"}, "DRAWS is 2, which has no effect"),
  ):
    with pytest.raises(UserError, match=said):
      write(tmp_path, **changes)
  given = cache.beam_options("FlinkRunner", 2, ("--flink_master=x",))
  assert given == {"runner": "FlinkRunner", "flags": ["--flink_master=x"]}


def test_a_cache_lives_in_a_bucket(written, tmp_path, monkeypatch, capsys):
  url = "gs://our-caches/flan"
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path))
  with pytest.raises(UserError, match=r"CACHE_DIR \(with FORMAT='seqio'\) is"):
    write(url, file_format="seqio", draws=1)
  with buckets.Store() as store, buckets.served(store):
    assert str(write(url)) == f"{url}/{MIXTURE}.train.json"
    for name in TASKS:
      # What says that a shard is there comes after it.
      order = [n for n in store.written if f"/{name}/" in n]
      ends = [n.rpartition("/")[2].partition(".")[2] for n in order if "." in n]
      assert ends == ["sizes.npy", "array_record", "json", "json"]
    capsys.readouterr()
    number = len(store.written)
    write(url)
    assert "2 shards, of which 2 are there" in capsys.readouterr().out
    assert len(store.written) == number
    (lost,) = (
      n for n in store.objects if "flan_rte" in n and n.endswith("_record")
    )
    del store.objects[lost]
    write(url)
    assert "2 shards, of which 1 are there" in capsys.readouterr().out
    taken = next(cached_batches.batches(steps(url)))
  assert hashed(taken) == hashed(next(cached_batches.batches(steps(written))))


def test_what_a_shard_cannot_write_is_one_message(tmp_path, monkeypatch):
  def broken(*_):
    raise UserError('row 3: "no" such thing')

  monkeypatch.setattr(cached_shards, "_examples", broken)
  with pytest.raises(UserError, match='^row 3: "no" such thing$'):
    write(tmp_path, mixture_or_task_name="flan_rte")


def test_the_command_is_that_of_the_job():
  loaded = config.load(
    ["gin/flan_holdout_nli.gin", "gin/data/t5_vocabulary.gin"],
    [
      ("VOCABULARY_PATH", "/v/t5.model"),
      ("PROMPT_PREFIX", "'0 '"),
      ("TASK_FEATURE_LENGTHS", "{'inputs': 64, 'targets': 8}"),
    ],
    [str(ROOT)],
  )
  config._current = (loaded, ())
  try:
    made = cached_command.rebuild("/c", "flan_rte")
  finally:
    config._current = None
  assert "--gin_file=gin/data/t5_vocabulary.gin" in made
  assert "--gin.VOCABULARY_PATH=/v/t5.model" in made
  # It is a command that the launcher takes.
  import shlex

  words = [w.partition("=") for w in shlex.split(made)[2:]]
  files = [value for name, _, value in words if name == "--gin_file"]
  flags = [
    (name.removeprefix("--gin."), value)
    for name, _, value in words
    if name != "--gin_file"
  ]
  again = config.load(files, flags, [str(ROOT)])
  assert again.value("PROMPT_PREFIX") == "0 "
  assert again.value("TASK_FEATURE_LENGTHS") == {"inputs": 64, "targets": 8}
  assert again.value("VOCABULARY_PATH") == "/v/t5.model"


def test_seqio_reads_its_own_form(tmp_path):
  write(tmp_path, file_format="seqio", draws=1)
  write(tmp_path, file_format="seqio", draws=1)
  directory.choose(None)
  for name, splits in (("flan_rte", ("train", "validation")),):
    task = seqio.TaskRegistry.get(name)
    arguments = {"sequence_length": LENGTHS, "shuffle": False, "seed": 3}
    for split in splits:
      plain = list(
        task.get_dataset(split=split, **arguments).as_numpy_iterator()
      )
      assert task.cache_dir is None
      seqio.add_global_cache_dirs([str(tmp_path)])
      try:
        assert task.cache_dir == str(tmp_path / name)
        stats = task.get_cached_stats(split)
        read = list(
          task.get_dataset(
            split=split, use_cached=True, **arguments
          ).as_numpy_iterator()
        )
      finally:
        seqio.set_global_cache_dirs([])
        task._cache_dir = None
      assert stats["examples"] == task.num_input_examples(split) == len(read)
      for a, b in zip(plain, read, strict=True):
        for key in ("inputs", "targets", "template", "example_index"):
          np.testing.assert_array_equal(a[key], b[key])
  (tmp_path / "flan_rte" / "flan_jax.json").unlink()
  with pytest.raises(UserError, match="that another program wrote"):
    write(tmp_path, file_format="seqio", draws=1)


SMALL = {
  "MIXTURE_OR_TASK_NAME": "flan_sst2",
  "EVAL_MIXTURE_OR_TASK_NAME": None,
  "TASK_FEATURE_LENGTHS": LENGTHS,
  "BATCH_SIZE": 4,
  "CHECKPOINT_PERIOD": 2,
  "EVAL_PERIOD": 100,
  "t5.T5Config.emb_dim": 16,
}


def train(folder, written, train_steps, **changes):
  values = {
    **SMALL,
    "MODEL_DIR": str(folder),
    "CACHE_DIR": str(written),
    "TRAIN_STEPS": train_steps,
    **changes,
  }
  flags = [(name, repr(value)) for name, value in values.items()]
  loaded = config.load(["gin/flan_holdout_nli.gin"], flags, [str(ROOT)])
  return config.call_job(loaded, ["test"])


def losses(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {r["step"]: r["train/loss"] for r in rows if "train/loss" in r}


@pytest.mark.slow
def test_a_run_goes_on_from_the_cache_as_if_it_had_not_stopped(
  written, copied, tmp_path, capsys
):
  plain = train(tmp_path / "plain", written, 5)
  stopped = train(tmp_path / "stopped", written, 2)
  # Moved in between: what it holds is the same.
  train(tmp_path / "stopped", copied, 5)
  assert losses(plain) == losses(stopped)
  record = json.loads((plain / "run.json").read_text())
  assert record["data"]["cache"]["digest"] == found(written, "flan_sst2").digest
  assert record["data"]["cache"]["draws"] == [2]
  # Another cache, or none, is another run.
  write(copied, mixture_or_task_name="flan_sst2", draws=1)
  with pytest.raises(UserError, match=r"data cache\.digest"):
    train(tmp_path / "stopped", copied, 6)
  with pytest.raises(UserError, match=r"data cache\.digest"):
    train(tmp_path / "stopped", None, 6, CACHE_DIR=None)


def test_a_run_says_how_its_cache_is_written(written, tmp_path):
  other = {"inputs": 48, "targets": 16}
  with pytest.raises(UserError) as error:
    train(tmp_path, written, 2, TASK_FEATURE_LENGTHS=other)
  said = str(error.value)
  assert "flan_sst2: lengths" in said
  assert "launch/run.py --gin_file=gin/cache.gin" in said
  assert str(other) in said
  with pytest.raises(UserError, match="has no effect without CACHE_DIR"):
    train(tmp_path, written, 2, CACHE_DIR=None, CACHE_WORKERS=2)


@pytest.mark.slow
def test_each_process_reads_its_own_rows_of_the_same_run(tmp_path, sample_dir):
  from tests.training import processes_test

  sample, written = tmp_path / "sample", tmp_path / "cache"
  changes = {
    "CACHE_DIR": str(written),
    "TFDS_DATA_DIR": str(sample_dir),
    "TRAIN_STEPS": 3,
  }
  lengths = processes_test.SMALL["TASK_FEATURE_LENGTHS"]
  write(written, mixture_or_task_name="flan_sst2", task_feature_lengths=lengths)
  runs = []
  for count, mesh in ((1, {"data": 1}), (2, {"data": 2})):
    runs.append(tmp_path / f"run{count}")
    processes_test.finish(
      processes_test.start(runs[-1], count, sample, MESH=mesh, **changes)
    )
  one, two = (losses(run) for run in runs)
  assert one.keys() == two.keys() == {1, 2, 3}
  np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-5)
