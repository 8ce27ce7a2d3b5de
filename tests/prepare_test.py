"""The preparing job: what it shows, prepares, tries again and reports."""

import functools
import os
import pathlib
import signal
import sys
import time

import pytest
import seqio
import tensorflow_datasets as tfds

from flan_jax import prepare
from flan_jax.data import copies, preparing
from flan_jax.data.copies import Dataset
from flan_jax.errors import UserError
from tests.data import builders

MIXTURE = "prepare_test"
NAMES = ("made_lines", "made_other", "made_pair/one", "made_pair/two")


@pytest.fixture
def server(monkeypatch):
  out = builders.Server()
  monkeypatch.setenv(builders.ADDRESS, out.address)
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  tfds.disable_progress_bar()
  yield out
  out.close()
  seqio.set_tfds_data_dir_override(None)


@pytest.fixture
def mixture():
  """Registers a mixture of TFDS datasets by name, and takes it back."""
  written = []

  def register(*specs):
    for i, spec in enumerate(specs):
      name = f"{MIXTURE}_{i}"
      source = seqio.TfdsDataSource(spec, splits=["train"])
      seqio.TaskRegistry.add(
        name, source=source, output_features={}, preprocessors=[]
      )
      written.append(name)
    seqio.MixtureRegistry.add(MIXTURE, written, default_rate=1.0)
    return MIXTURE

  yield register
  for name in written:
    seqio.TaskRegistry.remove(name)
  seqio.MixtureRegistry.remove(MIXTURE)


class InProcess:
  """Tries in this process: a child without the seconds that one starts in."""

  def __init__(self, dataset, folder, modules):
    del modules
    try:
      self._result = preparing.prepare(dataset.name, dataset.version, folder)
    except Exception as e:
      self._result = preparing.result_of(e, folder)

  def poll(self):
    return self._result


@pytest.fixture
def in_process(monkeypatch):
  run = functools.partial(preparing.run, start=InProcess)
  monkeypatch.setattr(preparing, "run", run)


def run(folder, **changes):
  kwargs = {
    "mixture_or_task_name": MIXTURE,
    "tfds_data_dir": str(folder),
    "builder_modules": ("tests.data.builders",),
    "backoff": 0.0,
  }
  return prepare.prepare_data(**{**kwargs, **changes})


def test_table(server, mixture, tmp_path, capsys):
  folder = tmp_path / "not_made"
  mixture(
    "made_lines:1.0.0", "made_old:1.0.0", "made_by_hand:1.0.0",
    "made_unregistered:1.0.0",
  )
  states = run(folder, dry=True)
  assert states == {
    "made_lines:1.0.0": copies.DOWNLOADABLE,
    "made_old:1.0.0": copies.GONE,
    "made_by_hand:1.0.0": copies.BY_HAND,
    "made_unregistered:1.0.0": copies.DOWNLOADABLE,
  }
  out = capsys.readouterr().out
  size = len(builders.content("lines.txt"))
  assert f"made_lines:1.0.0         downloadable  {size} bytes" in out
  assert "serves 2.0.0" in out
  assert "made_by_hand:1.0.0, by hand:\n  Ask for lines.txt\n  by letter." in out
  assert f"2 to prepare: about {5 * size / 1000:.1f} kB of disk, " in out
  assert "knows no size of: made_unregistered:1.0.0" in out
  assert not server.asked
  assert not folder.exists()


def test_one_that_fails_stops_no_other_and_run_again_it_goes_on(
  server, mixture, in_process, tmp_path, capsys
):
  mixture("made_lines:1.0.0", "made_other:1.0.0", "made_broken:1.0.0")
  server.answers["lines.txt"] = ["wrong", "late"]
  server.answers["other.txt"] = ["truncated", "missing"]
  with pytest.raises(UserError) as e:
    run(tmp_path, retries=1, parallel=1)
  said = str(e.value)
  assert "2 of 3 datasets could not be prepared; the same command goes" in said
  log = preparing.log_path(Dataset("made_other", "1.0.0", ()), tmp_path)
  assert (
    "\n  made_other:1.0.0: DownloadError: Failed to get url"
    f" {server.address}/other.txt. HTTP code: 404. (log: {log})" in said
  )
  assert "\n  made_broken:1.0.0: ValueError: row 1 has no end (log" in said
  assert "made_lines" not in said
  assert "Traceback" not in said
  out = capsys.readouterr().out
  assert "wrong checksum" in out
  assert "tried again in 0 s" in out
  assert "made_lines:1.0.0: prepared, 40 train rows, " in out
  assert "now: 1 prepared, 2 downloadable" in out
  assert server.asked.count("broken.txt") == 1
  with pytest.raises(UserError, match="1 of 3"):
    run(tmp_path, retries=1, parallel=1)
  assert "made_other:1.0.0: prepared, 40" in capsys.readouterr().out
  assert server.asked.count("lines.txt") == 2
  # The third run finds both, and fetches nothing.
  before = len(server.asked)
  with pytest.raises(UserError, match="1 of 3"):
    run(tmp_path, retries=0)
  assert len(server.asked) == before
  out = capsys.readouterr().out
  assert f"data: {tmp_path}\n" in out
  assert "  made_lines/1.0.0" in out


def test_all_prepared(server, mixture, in_process, tmp_path, capsys):
  mixture("made_lines:1.0.0", "made_by_hand:1.0.0")
  states = run(tmp_path / "new")
  assert states == {
    "made_lines:1.0.0": copies.PREPARED,
    "made_by_hand:1.0.0": copies.BY_HAND,
  }
  assert "now: 1 prepared, 1 by hand" in capsys.readouterr().out
  assert "to prepare" not in capsys.readouterr().out
  assert run(tmp_path / "new") == states


def test_damaged_is_a_failure(server, mixture, in_process, tmp_path):
  mixture("made_lines:1.0.0")
  half = tmp_path / "made_lines" / "1.0.0"
  half.mkdir(parents=True)
  (half / "features.json").write_text("{}")
  with pytest.raises(UserError, match=f"half a copy, .* remove {half}"):
    run(tmp_path)
  assert not server.asked


def test_too_little_disk(server, mixture, tmp_path, monkeypatch):
  mixture("made_lines:1.0.0")
  monkeypatch.setattr(prepare, "_free", lambda folder: 10)
  with pytest.raises(UserError, match="downloads alone are .* has 10 bytes"):
    run(tmp_path)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"parallel": 0}, "PARALLEL is 0; give 1 or more"),
    ({"retries": -1}, "RETRIES is -1; give 0 or more"),
    ({"backoff": -1.0}, "BACKOFF is -1.0"),
    ({"mixture_or_task_name": "flan_rtee"}, "nearest is 'flan_rte'"),
    ({"builder_modules": ("no_such",)}, "BUILDER_MODULES names 'no_such'"),
    ({"tfds_data_dir": __file__}, "is a file, not a folder"),
  ],
)
def test_bad_input(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    run(tmp_path, **changes)


def test_where_to(server, mixture, tmp_path, monkeypatch, capsys):
  mixture("made_lines:1.0.0")
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  run(None, tfds_data_dir=None, dry=True)
  out = capsys.readouterr().out
  assert f"data: {tmp_path}/tensorflow_datasets (TFDS's default" in out
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "given"))
  run(None, tfds_data_dir=None, dry=True)
  assert f"data: {tmp_path}/given\n" in capsys.readouterr().out


# ------------------------------------------------------------- the processes


class Watch:
  def __init__(self):
    self.waits, self.results = [], {}

  def begun(self, dataset):
    pass

  def working(self, dataset, fetched, written):
    pass

  def waiting(self, dataset, reason, seconds):
    self.waits.append((dataset.name, reason, seconds))

  def ended(self, dataset, result):
    self.results[dataset.name] = result


def test_some_at_a_time_and_configs_of_one_dataset_in_turn(tmp_path):
  running, seen = set(), []

  class Fake:
    def __init__(self, dataset, folder, modules):
      self.dataset, self.polls = dataset, 0
      running.add(dataset)
      seen.append([d.name for d in running])
      assert len({d.builder for d in running}) == len(running) <= 2

    def poll(self):
      self.polls += 1
      if self.polls < 3:
        return None
      running.remove(self.dataset)
      return preparing.Result(copies.PREPARED)

  datasets = [Dataset(n, "1.0.0", ()) for n in NAMES]
  results = preparing.run(datasets, tmp_path, Watch(), start=Fake)
  assert len(results) == len(NAMES)
  assert {r.kind for r in results.values()} == {copies.PREPARED}
  assert max(len(names) for names in seen) == 2


def test_waits_double_and_what_no_try_helps_is_not_tried(tmp_path):
  started = []

  class Fails:
    def __init__(self, dataset, folder, modules):
      self.name = dataset.name
      started.append(self.name)

    def poll(self):
      kind = preparing.AGAIN if self.name == "a" else preparing.FINAL
      return preparing.Result(kind, "no")

  watch = Watch()
  datasets = [Dataset("a", "1.0.0", ()), Dataset("b", "1.0.0", ())]
  began = time.monotonic()
  preparing.run(
    datasets, tmp_path, watch, retries=2, backoff=0.2, start=Fails
  )
  assert time.monotonic() - began >= 0.6
  assert watch.waits == [("a", "no", 0.2), ("a", "no", 0.4)]
  assert sorted(started) == ["a", "a", "a", "b"]
  assert watch.results["b"].kind == preparing.FINAL


def child(folder, program):
  return preparing.Child(
    Dataset("x/y", "1.0.0", ()),
    folder,
    command=(sys.executable, "-S", "-c", program),
  )


def ended(process):
  while (result := process.poll()) is None:
    time.sleep(0.02)
  return result


@pytest.mark.parametrize(
  ("program", "reason"),
  [
    ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL (out of memory?)"),
    ("import sys; print('said', file=sys.stderr); sys.exit(5)", "code 5"),
  ],
)
def test_a_process_that_says_nothing(tmp_path, program, reason):
  result = ended(child(tmp_path, program))
  assert result.kind == preparing.AGAIN
  assert reason in result.reason
  log = tmp_path / "downloads" / "logs" / "x-y-1.0.0.log"
  assert ("said" in log.read_text()) == ("said" in program)


def test_ctrl_c_ends_the_processes(tmp_path):
  """The terminal's signal reaches this process; its children are ended."""
  processes = []

  class Sleeps(preparing.Child):
    def __init__(self, dataset, folder, modules):
      command = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
      super().__init__(dataset, folder, modules, command)
      processes.append(self._process)

    def poll(self):
      os.kill(os.getpid(), signal.SIGINT)

  # A shell starts what runs in its background with the signal ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  datasets = [Dataset("a", "1.0.0", ())]
  try:
    with (
      pytest.raises(KeyboardInterrupt, match="the same command goes on"),
      prepare._interrupted(),
    ):
      preparing.run(datasets, tmp_path, Watch(), start=Sleeps)
  finally:
    signal.signal(signal.SIGINT, before)
  assert [p.poll() for p in processes] == [-signal.SIGTERM]


@pytest.mark.slow
def test_with_real_processes(server, mixture, tmp_path, capsys):
  mixture(*(f"{name}:1.0.0" for name in NAMES), "made_broken:1.0.0")
  server.answers["lines.txt"] = ["late", "wrong"]
  server.answers["other.txt"] = ["truncated"]
  server.answers["a.txt"] = ["missing"]
  with pytest.raises(UserError, match="1 of 5") as e:
    run(tmp_path, retries=1)
  assert "made_broken:1.0.0: ValueError: row 1 has no end" in str(e.value)
  for name in NAMES:
    assert (tmp_path / name / "1.0.0" / "dataset_info.json").is_file()
  # Shared by the two configs, and fetched once.
  assert server.asked.count("a.txt") == 2
  out = capsys.readouterr().out
  assert "IncompleteRead" in out
  log = preparing.log_path(Dataset("made_broken", "1.0.0", ()), tmp_path)
  assert "Traceback" in log.read_text()
  left = [p.name for p in pathlib.Path(tmp_path).rglob("*incomplete*")]
  assert left == []
