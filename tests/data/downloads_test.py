"""What is said of datasets before, and what one try of preparing one does."""

import json
import pathlib
import re

import pytest
import seqio
import tensorflow_datasets as tfds

from flan_jax.data import copies, downloads, preparing, sources, spec
from flan_jax.data.copies import Dataset
from flan_jax.errors import UserError
from tests.data import builders, made

SIZE = len(builders.content("lines.txt"))


@pytest.fixture
def server(monkeypatch):
  out = builders.Server()
  monkeypatch.setenv(builders.ADDRESS, out.address)
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  tfds.disable_progress_bar()
  yield out
  out.close()


@pytest.fixture
def folder(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  yield tmp_path
  seqio.set_tfds_data_dir_override(None)


def ask(folder, name, version="1.0.0", **kwargs):
  return downloads.ask(Dataset(name, version, (), **kwargs), folder)


def files(folder):
  return sorted(
    str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
  )


def test_each_dataset_once_with_its_tasks(tmp_path):
  def task(source):
    return seqio.Task("t", source, {}, [])

  def function(split, shuffle_files):
    raise AssertionError((split, shuffle_files))

  ours = made.nli(name="one", source=spec.tfds("made_lines:1.0.0", manual=""))
  jsonl = made.nli(name="two", source=spec.Jsonl(str(tmp_path / "{split}.x")))
  tasks = [
    task(sources.source(ours)),
    task(sources.source(jsonl)),
    task(seqio.TfdsDataSource("made_pair/two:1.0.0", splits=["train"])),
    task(seqio.TfdsDataSource("made_lines:1.0.0", splits=["train"])),
    task(seqio.FunctionDataSource(function, ["train"])),
  ]
  assert downloads.of_tasks(tasks) == [
    Dataset("made_lines", "1.0.0", ("t", "t"), ""),
    Dataset(str(tmp_path / "{split}.x"), "", ("t",)),
    Dataset("made_pair/two", "1.0.0", ("t",)),
  ]
  text = downloads.of_tasks(tasks)[1]
  status = downloads.ask(text, tmp_path)
  assert status.state == copies.BY_HAND
  assert not status.try_it
  assert status.note.startswith("Write ")
  assert "train.x" in status.note
  (tmp_path / "train.x").write_text("{}\n")
  assert downloads.ask(text, tmp_path).state == copies.PREPARED


def test_sizes_are_those_of_the_config_and_nothing_is_fetched(server, folder):
  one, two = ask(folder, "made_pair/one"), ask(folder, "made_pair/two")
  assert [s.state for s in (one, two)] == [copies.DOWNLOADABLE] * 2
  assert (one.bound, two.bound) == ("", "")
  assert one.download == len(builders.content("a.txt"))
  assert two.download == 2 * one.download
  assert one.generated is None
  unsized = ask(folder, "made_unregistered")
  assert unsized.download is None
  assert unsized.bound == copies.AT_LEAST
  assert not server.asked
  assert not files(folder)


def test_sizes_of_a_builder_that_reads_what_it_fetched(
  server, folder, monkeypatch
):
  def reads(self, dl_manager):
    path = dl_manager.download(f"{server.address}/a.txt")
    return {"train": self._generate_examples(path.read_text())}

  monkeypatch.setattr(builders.MadePair, "_split_generators", reads)
  status = ask(folder, "made_pair/one")
  assert status.state == copies.DOWNLOADABLE
  assert status.bound == copies.AT_MOST
  assert status.download == 2 * len(builders.content("a.txt"))


def test_by_hand_with_the_steps(server, folder):
  status = ask(folder, "made_by_hand")
  assert status.state == copies.BY_HAND
  assert not status.try_it
  manual = folder / "downloads" / "manual"
  assert status.note == (
    f"Ask for lines.txt\nby letter.\nPut the files into {manual}, and run this"
    " again."
  )
  # The task's own word goes first; "" says that none is needed.
  assert ask(folder, "made_by_hand", manual="Write.").note.startswith("Write.")
  assert ask(folder, "made_by_hand", manual="").state == copies.DOWNLOADABLE
  manual.mkdir(parents=True)
  (manual / "another.txt").write_text("")
  assert ask(folder, "made_by_hand").try_it
  with pytest.raises(FileNotFoundError) as e:
    preparing.prepare("made_by_hand", "1.0.0", folder)
  assert preparing.result_of(e.value, folder).kind == copies.BY_HAND
  (manual / "lines.txt").write_bytes(builders.content("x"))
  result = preparing.prepare("made_by_hand", "1.0.0", folder)
  assert result.kind == copies.PREPARED


@pytest.mark.parametrize(
  ("name", "version", "note"),
  [
    ("made_old", "1.0.0", "TFDS .* serves 2.0.0; there: 0.9.0"),
    ("made_linse", "1.0.0", "no dataset 'made_linse'; the nearest is made_li"),
    ("made_pair/tow", "1.0.0", "no config 'tow' of made_pair; .* is two"),
  ],
)
def test_gone(server, folder, name, version, note):
  old = folder / "made_old" / "0.9.0"
  old.mkdir(parents=True)
  (old / "dataset_info.json").write_text("{}")
  status = ask(folder, name, version)
  assert status.state == copies.GONE
  assert not status.try_it
  assert re.search(note, status.note)


def test_prepared_whole_and_then_as_seqio_reads_it(server, folder):
  server.answers["lines.txt"] = ["late"]
  result = preparing.prepare("made_lines", "1.0.0", folder)
  assert (result.kind, result.rows) == (copies.PREPARED, {"train": 40})
  status = ask(folder, "made_lines")
  assert status.state == copies.PREPARED
  assert status.where == folder / "made_lines" / "1.0.0"
  assert status.generated == result.size > SIZE
  rows = sources.tfds_builder("made_lines", "1.0.0").as_dataset("train")
  texts = {r["text"].decode() for r in rows.as_numpy_iterator()}
  assert texts == set(builders.content("lines.txt").decode().splitlines())
  assert not [f for f in files(folder) if "incomplete" in f or ".tmp." in f]
  # Nothing of it is fetched or written again.
  before = server.asked.copy()
  preparing.prepare("made_lines", "1.0.0", folder)
  assert server.asked == before == ["lines.txt"]


def test_the_config_that_a_bare_name_means_is_kept(server, folder):
  preparing.prepare("made_pair/two", "1.0.0", folder)
  assert ask(folder, "made_pair").state == copies.DOWNLOADABLE
  preparing.prepare("made_pair", "1.0.0", folder)
  assert ask(folder, "made_pair").state == copies.PREPARED
  assert (folder / "made_pair" / "one" / "1.0.0").is_dir()
  assert server.asked.count("a.txt") == 1


@pytest.mark.parametrize(
  ("answer", "reason"),
  [
    ("wrong", "NonMatchingChecksumError: Artifact http.*wrong checksum"),
    ("truncated", "IncompleteRead"),
    ("missing", r"DownloadError: Failed to get url .*HTTP code: 404"),
  ],
)
def test_a_bad_answer_leaves_nothing_and_the_next_try_is_good(
  server, folder, answer, reason
):
  server.answers["lines.txt"] = [answer]
  with pytest.raises(Exception, match=reason.partition(": ")[2] or reason) as e:
    preparing.prepare("made_lines", "1.0.0", folder)
  result = preparing.result_of(e.value, folder)
  assert result.kind == preparing.AGAIN
  assert "\n" not in result.reason
  assert "To debug" not in result.reason
  assert len(result.reason) <= 450
  assert files(folder) == ["downloads/made_lines.lock"]
  assert ask(folder, "made_lines").state == copies.DOWNLOADABLE
  assert preparing.prepare("made_lines", "1.0.0", folder).rows["train"] == 40


def test_rows_that_fail_leave_the_download_alone(server, folder):
  for _ in range(2):
    with pytest.raises(ValueError, match="has no end"):
      preparing.prepare("made_broken", "1.0.0", folder)
  assert server.asked == ["broken.txt"]
  assert all(f.startswith("downloads/") for f in files(folder))
  assert ask(folder, "made_broken").state == copies.DOWNLOADABLE


def test_what_a_killed_process_left_is_not_prepared(server, folder):
  home = folder / "made_lines"
  for left in (
    home / "incomplete.ABC123_1.0.0", home / preparing.UNFINISHED / "x"
  ):
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{}")
  assert ask(folder, "made_lines").state == copies.DOWNLOADABLE
  preparing.prepare("made_lines", "1.0.0", folder)
  assert ask(folder, "made_lines").state == copies.PREPARED
  # Ours is taken away; TFDS's may be another process's that still runs.
  left = sorted(p.name for p in home.iterdir())
  assert left == ["1.0.0", "incomplete.ABC123_1.0.0"]


def test_damaged_copies(server, folder):
  preparing.prepare("made_lines", "1.0.0", folder)
  place = folder / "made_lines" / "1.0.0"
  shard = next(place.glob("*tfrecord*"))
  data = shard.read_bytes()
  for spoil in (lambda: shard.write_bytes(b""), shard.unlink):
    spoil()
    status = ask(folder, "made_lines")
    assert status.state == copies.DAMAGED
    assert not status.try_it
    assert "1 of its 1 files are missing or empty" in status.note
    assert f"remove {place}" in status.note
  shard.write_bytes(data)
  assert ask(folder, "made_lines").state == copies.PREPARED
  half = folder / "made_other" / "1.0.0"
  half.mkdir(parents=True)
  (half / shard.name).write_bytes(data)
  status = ask(folder, "made_other")
  assert status.state == copies.DAMAGED
  assert "without dataset_info.json" in status.note


def test_two_processes_do_not_prepare_the_same(server, folder):
  lock = folder / "downloads" / "made_lines.lock"
  lock.parent.mkdir()
  with (
    preparing._locked(lock, "made_lines:1.0.0"),
    pytest.raises(UserError, match="another process is preparing") as e,
  ):
    preparing.prepare("made_lines", "1.0.0", folder)
  assert preparing.result_of(e.value, folder).kind == preparing.FINAL


def test_what_no_further_try_helps():
  folder = pathlib.Path("data")
  for error in (
    ImportError("no module named py7zr"),
    OSError(28, "No space left on device"),
    OSError("Not enough disk space. Needed: 1"),
  ):
    assert preparing.result_of(error, folder).kind == preparing.FINAL
  assert preparing.result_of(OSError("reset"), folder).kind == preparing.AGAIN
  assert len(json.dumps(copies.reason(ValueError("x" * 9999)))) < 450


def test_modules_of_builders_that_cannot_be_imported():
  with pytest.raises(UserError, match="BUILDER_MODULES names 'no.such'"):
    copies.import_builders(["no.such"])
