import functools
import json
import logging
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.training import (
  checkpoint,
  integrity,
  loss,
  optimiser,
  restore,
  state,
  step,
)
from tests.training import step_test

MIB = 1 << 20


def train_state(seed=0, make=None):
  """Every kind of leaf a run has: scalars, float32, bfloat16, empty nodes."""
  keys = jax.random.split(jax.random.key(seed), 3)
  params = {
    "encoder": {"kernel": jax.random.normal(keys[0], (16, 24))},
    "low": jax.random.normal(keys[1], (7,), jnp.bfloat16),
  }
  make = make or optimiser.adamw(0.1)
  train = state.create(params, make)
  return train.replace(
    step=jnp.int32(seed),
    opt_state=jax.tree.map(
      lambda x: x + jnp.asarray(seed, x.dtype), train.opt_state
    ),
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    assert x.weak_type == y.weak_type
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save_all(directory, steps, metrics=None, **kwargs):
  checkpoints = checkpoint.Checkpoints(directory, **kwargs)
  for at in steps:
    scalars = metrics[at] if metrics else None
    assert checkpoints.save(at, train_state(at), {"at": at}, scalars)
  checkpoints.close()


def restored(directory, template=None):
  checkpoints = checkpoint.Checkpoints(directory)
  try:
    return checkpoints.restore_latest(
      train_state(99) if template is None else template
    )
  finally:
    checkpoints.close()


def data_file(path):
  """The largest file of a checkpoint: arrays."""
  files = [p for p in path.rglob("*") if p.is_file()]
  return max(
    files, key=lambda p: p.stat().st_size * (p.name != "manifest.json")
  )


@pytest.mark.parametrize("make", [optimiser.adamw, optimiser.adafactor])
def test_what_is_restored_is_what_was_saved(tmp_path, make):
  saved = train_state(5, make(0.1, clip_global_norm=1.0))
  extra = {"data_position": 160, "seed": [0, 1], "nested": {"a": None}}
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.restore_latest(saved) is None
  assert checkpoints.latest_path() is None
  checkpoints.save(5, saved, extra, final=True)
  assert checkpoints.latest_path() == tmp_path / "checkpoint_5"
  checkpoints.close()
  found = restored(tmp_path, train_state(99, make(0.1)))
  assert (found.extra, found.step) == (extra, 5)
  assert_same(found.state, saved)
  # The template may be abstract.
  abstract = jax.eval_shape(lambda: train_state(99, make(0.1)))
  assert_same(restored(tmp_path, abstract).state, saved)


def test_restored_to_the_sharding_that_is_asked(tmp_path):
  save_all(tmp_path, [1])
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  template = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    train_state(99),
  )
  found = restored(tmp_path, template).state
  assert_same(found, train_state(1))
  assert all(x.sharding == sharding for x in jax.tree.leaves(found))


def test_donating_after_save_does_not_change_what_is_saved(tmp_path):
  """The save is in flight while the next steps would overwrite the buffers.

  On a CPU Orbax holds a view of them, for which JAX declines the donation; on
  an accelerator it has copied them before `save` returns.
  """
  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0
  )
  make = functools.partial(jax.random.normal, shape=(8, MIB // 4))
  tree = {f"w{i}": make(jax.random.key(i)) for i in range(4)}
  # Drawn again: a numpy view of ours would itself keep it from being donated.
  expected = {f"w{i}": np.asarray(make(jax.random.key(i))) for i in range(4)}
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, tree, {})
  for _ in range(5):
    tree = overwrite(tree)
  jax.block_until_ready(tree)
  assert checkpoints.wait()
  checkpoints.close()
  found = restored(tmp_path, tree).state
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value)
  # What was restored can be donated, and the file is not written through.
  jax.block_until_ready(overwrite(found))
  np.testing.assert_array_equal(
    restored(tmp_path, tree).state["w1"], expected["w1"]
  )


def test_keeps_the_newest_and_the_best(tmp_path):
  metrics = {
    1: {"loss": 3.0},
    2: {"loss": 1.0},
    3: {"loss": float("nan")},
    4: {},
    5: {"loss": 2.0},
  }
  save_all(
    tmp_path, metrics, metrics, keep=2, best_metric="loss", best_mode="min"
  )
  assert checkpoint.Checkpoints(tmp_path).steps == [2, 4, 5]
  # The best is known after a restart, too.
  save_all(
    tmp_path,
    [6, 7],
    {6: {"loss": 4.0}, 7: {"loss": 5.0}},
    keep=1,
    best_metric="loss",
    best_mode="min",
  )
  assert checkpoint.Checkpoints(tmp_path).steps == [2, 7]
  assert not list(tmp_path.glob("*.deleting"))


def test_keeps_those_of_a_period_for_good(tmp_path):
  save_all(tmp_path, range(2, 14, 2), keep=1, keep_period=4)
  assert checkpoint.Checkpoints(tmp_path).steps == [4, 8, 12]
  with pytest.raises(UserError, match="keep_period=0"):
    checkpoint.Checkpoints(tmp_path, keep_period=0)


def test_one_in_between_stays_until_the_next(tmp_path):
  """It takes no place of those that a whole run would keep."""
  save_all(tmp_path, [4, 8, 9], keep=2, period=4)
  assert checkpoint.Checkpoints(tmp_path).steps == [4, 8, 9]
  save_all(tmp_path, [12], keep=2, period=4)
  assert checkpoint.Checkpoints(tmp_path).steps == [8, 12]


def test_going_back(tmp_path):
  save_all(tmp_path, [4, 8, 9, 12], keep=9, period=4)
  flip_one_bit(data_file(tmp_path / "checkpoint_8"))
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=9, period=4)
  checkpoints.restore_latest(train_state(99))
  # 9 is none of the period, and 8 is damaged.
  found = checkpoints.go_back(12, train_state(99))
  assert found.step == 4
  assert_same(found.state, train_state(4))
  assert checkpoints.steps == [4]
  # The steps after it can be saved again; there is nothing before it.
  assert checkpoints.save(8, train_state(88), {"at": 88}, final=True)
  assert checkpoints.go_back(4, train_state(99)) is None
  assert checkpoints.steps == [4, 8]
  checkpoints.close()
  assert_same(restored(tmp_path).state, train_state(88))


def test_going_back_one_process_alone_deletes(tmp_path, monkeypatch):
  save_all(tmp_path, [4, 8, 12], keep=9, period=4)
  deleted = []
  monkeypatch.setattr(checkpoint.processes, "is_first", lambda: False)
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=9, period=4)

  def wait(where):
    # The first process deletes between the two places where all wait.
    if where == "went back":
      for step in (8, 12):
        assert (tmp_path / f"checkpoint_{step}").exists()
        checkpoint.integrity.remove(tmp_path / f"checkpoint_{step}")
        deleted.append(step)

  monkeypatch.setattr(checkpoint.processes, "wait_for_all", wait)
  assert checkpoints.go_back(8, train_state(99)).step == 4
  assert deleted == [8, 12]
  assert checkpoints.steps == [4]
  checkpoints.close()


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
  make = optimiser.adafactor(0.1, min_dim_size_to_factor=4, beta1=0.9)
  run = jax.jit(
    functools.partial(
      step.train_step,
      model=step_test.TinyModel(dropout_rate=0.3),
      optimiser=make,
      loss_config=loss.LossConfig(),
      accumulate=2,
      dropout_seed=7,
    ),
    donate_argnums=0,
  )

  def train(start, upto):
    for number in range(int(start.step), upto):
      start, metrics = run(start, step_test.ragged_batch(number))
    return start, metrics

  whole, metrics = train(step_test.fresh(make), 6)
  half, _ = train(step_test.fresh(make), 3)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(3, half, {"step": 3})
  checkpoints.close()
  found = restored(tmp_path, step_test.fresh(make)).state
  resumed, resumed_metrics = train(found, 6)
  assert_same(resumed, whole)
  assert_same(resumed_metrics, metrics)


def test_a_step_is_saved_once(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, train_state(1), {})
  assert checkpoints.save(1, train_state(2), {}, final=True)
  checkpoints.close()
  assert_same(restored(tmp_path).state, train_state(1))
  with pytest.raises(UserError, match="neither wrote nor restored it"):
    checkpoint.Checkpoints(tmp_path).save(1, train_state(1), {})


def truncate(path):
  path.write_bytes(path.read_bytes()[:-7])


def flip_one_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


DAMAGE = {
  "truncated": (truncate, r"state/.* has \d+ bytes instead of \d+"),
  "bit flipped": (flip_one_bit, "state/.* differs from its checksum"),
  "lost": (lambda path: path.unlink(), "state/.* is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_torn_checkpoint_is_named_and_the_previous_one_used(
  tmp_path, caplog, damage
):
  save_all(tmp_path, [1, 2, 3])
  spoil, fault = DAMAGE[damage]
  spoil(data_file(tmp_path / "checkpoint_3"))
  with caplog.at_level(logging.WARNING):
    found = restored(tmp_path)
  assert found.step == 2
  assert_same(found.state, train_state(2))
  (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
  assert "checkpoint_3 is torn" in record.getMessage()
  with pytest.raises(integrity.Torn, match=fault) as caught:
    integrity.check(tmp_path / "checkpoint_3.torn")
  assert caught.value.fault in record.getMessage()
  # The step can be saved again, and the torn one is still there.
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.restore_latest(train_state(99))
  checkpoints.save(3, train_state(3), {}, final=True)
  checkpoints.close()
  assert restored(tmp_path).step == 3
  assert (tmp_path / "checkpoint_3.torn").is_dir()


@pytest.mark.parametrize("text", ["", "{", '{"crc32": 1}', "altered"])
def test_a_damaged_manifest_is_torn(tmp_path, text):
  save_all(tmp_path, [2, 3])
  manifest = tmp_path / "checkpoint_3" / integrity.MANIFEST
  if text == "altered":
    text = manifest.read_text().replace('"at": 3', '"at": 4')
  manifest.write_text(text)
  with pytest.raises(integrity.Torn, match=r"manifest\.json") as caught:
    integrity.check(tmp_path / "checkpoint_3")
  assert caught.value.finished
  assert restored(tmp_path).step == 2


def test_no_whole_checkpoint_left(tmp_path):
  save_all(tmp_path, [1, 2])
  for number in (1, 2):
    truncate(data_file(tmp_path / f"checkpoint_{number}"))
  with pytest.raises(UserError) as caught:
    restored(tmp_path)
  message = str(caught.value)
  assert "no usable checkpoint is left" in message
  assert "checkpoint_1: state/" in message
  assert "checkpoint_2: state/" in message
  # A second attempt does not start anew.
  with pytest.raises(UserError, match="no usable checkpoint"):
    restored(tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "checkpoint_1",
    "checkpoint_2",
  ]


def test_an_interrupted_first_save_starts_anew(tmp_path, caplog):
  save_all(tmp_path, [1])
  (tmp_path / "checkpoint_1" / integrity.MANIFEST).unlink()
  assert restored(tmp_path) is None
  assert "its save was interrupted" in caplog.text


def test_another_structure_is_said_array_by_array(tmp_path):
  save_all(tmp_path, [1])
  other = train_state(1)
  other.params["encoder"] = {"kernel": jnp.zeros((16, 25))}
  other.params["new"] = jnp.zeros(2)
  other.params["low"] = jnp.zeros(7)
  with pytest.raises(UserError) as caught:
    restored(tmp_path, other)
  message = str(caught.value)
  assert "missing: params/new" in message
  assert (
    "differing: params/encoder/kernel is float32[16, 24], needed is"
    " float32[16, 25]" in message
  )
  assert "params/low is bfloat16[7], needed is float32[7]" in message
  with pytest.raises(UserError, match="unexpected: opt_state/0/mu"):
    restored(tmp_path, train_state(1, optimiser.adafactor(0.1)))


class DiskFull:
  """No file may grow beyond `limit_bytes`: writes fail, as on a full disk."""

  def __init__(self, limit_bytes):
    self.limit_bytes = limit_bytes

  def __enter__(self):
    self.old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, self.old[1]))

  def __exit__(self, *_):
    resource.setrlimit(resource.RLIMIT_FSIZE, self.old)


def large_tree(seed):
  return {"w": jax.random.normal(jax.random.key(seed), (MIB // 4,))}


def test_a_failing_save_does_not_end_the_run(tmp_path, caplog):
  checkpoints = checkpoint.Checkpoints(tmp_path, max_failed_saves=2)
  checkpoints.save(1, large_tree(1), {}, final=True)
  with DiskFull(MIB // 8), caplog.at_level(logging.WARNING):
    checkpoints.save(2, large_tree(2), {})
    assert not checkpoints.wait()
  assert "checkpoint_2 failed" in caplog.text
  assert "newest kept:" in caplog.text
  assert not (tmp_path / "checkpoint_2").exists()
  # It works again: the count starts anew.
  assert checkpoints.save(3, large_tree(3), {}, final=True)
  with DiskFull(MIB // 8):
    for number in (4, 5):
      checkpoints.save(number, large_tree(number), {})
      assert not checkpoints.wait()
    checkpoints.save(6, large_tree(6), {})
    with pytest.raises(UserError, match="3 in a row failed"):
      checkpoints.wait()
  checkpoints.close()
  found = restored(tmp_path, large_tree(0))
  assert found.step == 3
  np.testing.assert_array_equal(found.state["w"], large_tree(3)["w"])


def test_the_final_save_must_not_fail(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with (
    DiskFull(MIB // 8),
    pytest.raises(UserError, match="checkpoint_1 failed"),
  ):
    checkpoints.save(1, large_tree(1), {}, final=True)
  checkpoints.close()


def test_a_folder_that_vanishes_is_a_failed_save(tmp_path, caplog):
  checkpoints = checkpoint.Checkpoints(tmp_path / "run")
  (tmp_path / "run").rmdir()
  (tmp_path / "run").write_text("a file now")
  assert not checkpoints.save(1, train_state(1), {})
  assert "The run goes on" in caplog.text
  checkpoints.close()


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(
    UserError, match=r"MODEL_DIR=.*file/run cannot be written"
  ):
    checkpoint.Checkpoints(tmp_path / "file" / "run")
  with pytest.raises(UserError, match="MODEL_DIR=/proc cannot be written"):
    checkpoint.Checkpoints("/proc")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"keep": 0}, "keep at least 1"),
    ({"keep_best": 1}, "by a metric"),
    ({"best_metric": "loss", "best_mode": "least"}, "best_mode='least'"),
  ],
)
def test_refused(tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    checkpoint.Checkpoints(tmp_path, **options)


def test_a_mistyped_best_metric(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, best_metric="validation/los")
  with pytest.raises(UserError, match="did you mean 'validation/loss'"):
    checkpoints.save(1, train_state(1), {}, {"validation/loss": 1.0})
  with pytest.raises(TypeError):
    checkpoints.save(1, train_state(1), {"array": np.zeros(2)})
  checkpoints.close()


def test_parameters_alone(tmp_path, caplog):
  save_all(tmp_path, [1, 2])
  params = train_state(2).params
  assert_same(restore.restore_params(tmp_path), params)
  assert_same(restore.restore_params(tmp_path, params), params)
  first = restore.restore_params(tmp_path / "checkpoint_1")
  assert_same(first, train_state(1).params)
  with pytest.raises(UserError) as caught:
    restore.restore_params(tmp_path, {"low": jnp.zeros(8), "new": jnp.zeros(1)})
  assert "missing: params/new" in str(caught.value)
  assert "unexpected: params/encoder/kernel" in str(caught.value)
  assert "differing: params/low" in str(caught.value)
  # A torn one is passed over, and nothing in another run's folder is touched.
  truncate(data_file(tmp_path / "checkpoint_2"))
  assert_same(restore.restore_params(tmp_path), train_state(1).params)
  assert "checkpoint_2" in caplog.text
  assert (tmp_path / "checkpoint_2").is_dir()
  with pytest.raises(UserError, match="bytes instead of"):
    restore.restore_params(tmp_path / "checkpoint_2")


def test_no_checkpoint_to_take_parameters_from(tmp_path):
  with pytest.raises(UserError, match="no folder checkpoint_N"):
    restore.restore_params(tmp_path)
  with pytest.raises(UserError, match="does not exist"):
    restore.restore_params(tmp_path / "nowhere")


def test_orbax_is_quiet_and_others_are_not(tmp_path, caplog):
  with caplog.at_level(logging.INFO, logger="absl"):
    save_all(tmp_path, [1])
    restored(tmp_path)
    logging.getLogger("absl").info("of another library")
  assert [r.getMessage() for r in caplog.records] == ["of another library"]


def test_manifest_is_readable_json(tmp_path):
  save_all(tmp_path, [1], {1: {"loss": 2.5}})
  text = (tmp_path / "checkpoint_1" / integrity.MANIFEST).read_text()
  manifest = json.loads(text)["manifest"]
  assert manifest["metrics"] == {"loss": 2.5}
  assert manifest["arrays"]["params/low"] == {"shape": [7], "dtype": "bfloat16"}
