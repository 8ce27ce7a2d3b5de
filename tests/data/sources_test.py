import pathlib
import re

import pytest
import seqio

from flan_jax.data import sources, spec
from flan_jax.errors import UserError
from tests.data import made


@pytest.fixture
def data_dir(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  yield tmp_path
  seqio.set_tfds_data_dir_override(None)


def jsonl_task(pattern, **changes):
  splits = spec.Splits(validation=spec.last("train", 2), test="test")
  return made.nli(source=spec.Jsonl(pattern), splits=splits, **changes)


def lines(count):
  columns = made.rows(count)
  return [
    dict(zip(columns, row, strict=True))
    for row in zip(*columns.values(), strict=True)
  ]


def indexes(source, split, **kwargs):
  rows = source.get_dataset(split, **kwargs).as_numpy_iterator()
  return [(int(r["example_index"]), r["note"].decode()) for r in rows]


def test_making_a_source_touches_no_disk(monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError("the disk was read")

  monkeypatch.setattr(pathlib.Path, "is_file", fail)
  monkeypatch.setattr(sources, "data_dir", fail)
  sources.source(made.nli())
  sources.source(jsonl_task("nowhere/{split}.jsonl"))


def test_tfds_splits_are_cut_from_the_copy_that_is_there(data_dir):
  made.write_tfds(data_dir, train=made.rows(40), test=made.rows(7))
  source = sources.source(made.nli())
  assert source.is_prepared()
  assert source.slices() == {
    "train": ("train", 0, 36),
    "validation": ("train", 36, 40),
    "test": ("test", 0, 7),
  }
  assert [source.rows(s) for s in sources.SPLITS] == [36, 4, 7]
  train, validation = indexes(source, "train"), indexes(source, "validation")
  assert [i for i, _ in train] == list(range(36))
  assert [i for i, _ in validation] == list(range(4))
  notes = {n for _, n in train} | {n for _, n in validation}
  assert len(notes) == 40  # no row is in both


def test_shards_are_every_nth_row_and_keep_their_numbers(data_dir):
  made.write_tfds(data_dir, train=made.rows(40), test=made.rows(7))
  source = sources.source(made.nli())
  whole = indexes(source, "train")
  for shard in range(3):
    info = seqio.ShardInfo(index=shard, num_shards=3)
    assert indexes(source, "train", shard_info=info) == whole[shard::3]


def test_not_prepared_names_what_to_do(data_dir):
  source = sources.source(made.nli(source=spec.tfds("super_glue/rte:1.0.2")))
  assert not source.is_prepared()
  with pytest.raises(sources.NotPreparedError) as e:
    source.rows("train")
  assert str(e.value) == (
    f"Dataset super_glue/rte:1.0.2 is not prepared in {data_dir}. Prepare it"
    f" with: tfds build super_glue/rte:1.0.2 --data_dir={data_dir}"
  )
  assert isinstance(e.value, UserError)
  assert (e.value.name, e.value.version) == ("super_glue/rte", "1.0.2")


def test_not_prepared_names_versions_that_are_there(data_dir):
  made.write_tfds(
    data_dir, version="1.2.0", train=made.rows(8), test=made.rows(2)
  )
  with pytest.raises(sources.NotPreparedError, match=r"\(there: 1\.2\.0\)"):
    sources.source(made.nli()).rows("train")


def test_not_prepared_says_what_has_to_be_fetched_by_hand(data_dir):
  task = made.nli(source=spec.tfds("story_cloze/2016:1.0.0"))
  with pytest.raises(sources.NotPreparedError, match="fetched by hand into"):
    sources.source(task).rows("train")


def test_found_once_it_is_prepared(data_dir):
  source = sources.source(made.nli())
  assert not source.is_prepared()
  made.write_tfds(data_dir, train=made.rows(8), test=made.rows(2))
  assert source.is_prepared()


def test_split_that_is_not_ours(data_dir):
  made.write_tfds(data_dir, train=made.rows(8), test=made.rows(2))
  message = "task 'made' has no split 'dev', only train, validation, test"
  with pytest.raises(UserError, match=message):
    sources.source(made.nli()).rows("dev")


def test_source_split_that_is_missing(data_dir):
  made.write_tfds(data_dir, train=made.rows(8))
  with pytest.raises(spec.SpecError, match="no split 'test', only train"):
    sources.source(made.nli()).rows("train")


def test_jsonl(tmp_path):
  rows = lines(10)
  for i, row in enumerate(rows):
    row["endings"] = ["a", "b", "c"][: 2 + i % 2]
  pattern = made.write_jsonl(tmp_path, train=rows, test=rows[:3])
  source = sources.source(jsonl_task(pattern))
  assert [source.rows(s) for s in sources.SPLITS] == [8, 2, 3]
  got = list(source.get_dataset("validation").as_numpy_iterator())
  assert [g["note"] for g in got] == [b"note 8", b"note 9"]
  assert [g["endings"].tolist() for g in got] == [
    [b"a", b"b"], [b"a", b"b", b"c"]]
  assert got[0]["label"] == 0


def test_jsonl_that_is_not_there(tmp_path):
  source = sources.source(jsonl_task(str(tmp_path / "{split}.jsonl")))
  assert not source.is_prepared()
  wanted = re.escape(str(tmp_path / "train.jsonl"))
  with pytest.raises(sources.NotPreparedError, match=f"write {wanted}, one"):
    source.rows("train")


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"premise": ', r"train\.jsonl, line 3 is not JSON"),
    ("[1, 2]", r"train\.jsonl, line 3 is a list; write one JSON object"),
    ('{"premise": "a"}', r"train\.jsonl, line 3: key 'hypothesis' is in some"),
  ],
)
def test_bad_line_names_file_and_line(tmp_path, line, message):
  pattern = made.write_jsonl(tmp_path, train=lines(8), test=lines(2))
  file = tmp_path / "train.jsonl"
  text = file.read_text().splitlines()
  file.write_text("\n".join([*text[:2], line, *text[2:]]))
  with pytest.raises(UserError, match=message):
    sources.source(jsonl_task(pattern)).get_dataset("train")


def test_column_of_two_kinds(tmp_path):
  rows = lines(8)
  rows[2]["label"] = "yes"
  pattern = made.write_jsonl(tmp_path, train=rows, test=lines(2))
  with pytest.raises(UserError, match="key 'label' of .* is not the same kind"):
    sources.source(jsonl_task(pattern)).get_dataset("train")


def test_splits_that_a_task_has_not(tmp_path):
  pattern = made.write_jsonl(tmp_path, test=lines(5))
  task = made.nli(
    source=spec.Jsonl(pattern),
    splits=spec.Splits(train=None, validation=None, test="test"),
  )
  source = sources.source(task)
  assert source.splits == ("test",)
  assert len(indexes(source, "test")) == 5
  with pytest.raises(UserError, match="has no split 'train', only test"):
    source.get_dataset("train")
