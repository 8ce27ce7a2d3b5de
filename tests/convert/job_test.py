"""The conversion job, as a user runs it."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from flan_jax import config
from flan_jax.convert import hf, job, source, trees
from flan_jax.errors import UserError
from flan_jax.models.t5 import EncoderDecoder
from flan_jax.models.t5_network import T5Config

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {
  "vocab_size": 4200,
  "emb_dim": 32,
  "num_heads": 4,
  "head_dim": 8,
  "mlp_dim": 64,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
}
CONFIG = T5Config(**SIZES)
VOCABULARY = "flan_jax/data/vocabularies"


def run(files=(), **macros):
  flags = [(name, repr(value)) for name, value in macros.items()]
  paths = ["gin/convert.gin", *files]
  return config.call_job(config.load(paths, flags, [str(ROOT)]), ["test"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A Hugging Face folder with a tokenizer."""
  path = tmp_path_factory.mktemp("hf") / "model"
  random = np.random.default_rng(0)
  tree = jax.eval_shape(EncoderDecoder(CONFIG).init, jax.random.key(0))
  flat = {
    name: random.standard_normal(x.shape).astype(np.float32)
    for name, x in trees.flatten(tree).items()
  }
  model = sorted((ROOT / VOCABULARY).glob("*.model"))[0]
  spiece = path.parent / "spiece.model"
  spiece.write_bytes(model.read_bytes())
  return hf.write_hf(path, CONFIG, flat.items(), tokenizer_files=[spiece])


def tensors(path):
  opened = source.open_source(path)
  return {name: opened.read(name) for name in opened.shapes}


def same(a, b, dtype=None):
  assert a.keys() == b.keys()
  for name, x in a.items():
    want = b[name] if dtype is None else b[name].astype(dtype)
    assert x.dtype == want.dtype
    assert x.tobytes() == want.tobytes(), name


def inside(path):
  return sorted(p.name for p in path.iterdir())


@pytest.mark.parametrize("scan", [False, True])
def test_every_format_and_back(folder, tmp_path, capsys, scan):
  whole = tensors(folder)
  steps = [("t5x", {}), ("flan_jax", {"SCAN_LAYERS": scan}), ("hf", {})]
  at = folder
  files = []
  for name, options in steps:
    # T5X does not say what model it is: the next step takes it from MODEL.
    if source.open_source(at).config is None:
      files = ["gin/models/t5_1_1_small.gin"]
      options = options | {f"t5.T5Config.{k}": v for k, v in SIZES.items()}
      options["DROPOUT_RATE"] = 0.1
    run(
      files,
      INPUT_PATH=str(at),
      OUTPUT_PATH=str(tmp_path / name),
      OUTPUT_FORMAT=name,
      **options,
    )
    files = []
    at = tmp_path / name
    same(tensors(at), whole)
    assert (at / "spiece.model").read_bytes() == (
      folder / "spiece.model"
    ).read_bytes()
  for name in ("model.safetensors", "config.json"):
    assert (at / name).read_bytes() == (folder / name).read_bytes()
  assert inside(tmp_path) == ["flan_jax", "hf", "t5x"]
  said = capsys.readouterr().out
  assert f"reading {folder} (hf)" in said
  assert f"wrote {at}: {len(whole)} tensors" in said.replace("\n", "")
  assert "tokenizer: spiece.model" in said


@pytest.mark.parametrize("name", ["t5x", "flan_jax", "hf"])
def test_bfloat16(folder, tmp_path, name):
  run(
    INPUT_PATH=str(folder),
    OUTPUT_PATH=str(tmp_path / "out"),
    OUTPUT_FORMAT=name,
    OUTPUT_DTYPE="bfloat16",
  )
  same(tensors(tmp_path / "out"), tensors(folder), "bfloat16")


@pytest.mark.parametrize("name", ["t5x", "flan_jax"])
def test_float16_is_read_and_not_written(folder, tmp_path, name):
  half = tmp_path / "half"
  run(
    INPUT_PATH=str(folder),
    OUTPUT_PATH=str(half),
    OUTPUT_FORMAT="hf",
    OUTPUT_DTYPE="float16",
  )
  out = tmp_path / "out"
  run(INPUT_PATH=str(half), OUTPUT_PATH=str(out), OUTPUT_FORMAT=name)
  same(tensors(out), tensors(half), "float32")


def test_what_is_left_out_is_said(t5x_fixtures, tmp_path, capsys):
  run(
    INPUT_PATH=str(t5x_fixtures / "t5_1_0/legacy/checkpoint_4"),
    OUTPUT_PATH=str(tmp_path / "out"),
    OUTPUT_FORMAT="flan_jax",
  )
  assert "left out: the optimiser's state" in capsys.readouterr().out
  assert source.open_source(tmp_path / "out").step == 4


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"OUTPUT_FORMAT": "safetensors"}, "OUTPUT_FORMAT is 'safetensors'; known"),
    ({"OUTPUT_DTYPE": "fp16"}, "OUTPUT_DTYPE is 'fp16'; .*'float16'"),
    ({"OUTPUT_DTYPE": "float16"}, "'float16' with OUTPUT_FORMAT='t5x'"),
    ({"SCAN_LAYERS": True}, "SCAN_LAYERS=True has no effect with"),
    ({"INPUT_PATH": "/nowhere/at_all"}, "/nowhere/at_all does not exist"),
  ],
)
def test_refused(folder, tmp_path, changes, message):
  macros = {
    "INPUT_PATH": str(folder),
    "OUTPUT_PATH": str(tmp_path / "out"),
    "OUTPUT_FORMAT": "t5x",
  }
  with pytest.raises(UserError, match=message):
    run(**macros | changes)
  assert inside(tmp_path) == []


def test_needs_the_paths(tmp_path):
  with pytest.raises(UserError, match="--gin.OUTPUT_PATH="):
    run(INPUT_PATH="x", OUTPUT_FORMAT="hf")


def test_t5x_does_not_say_its_model(t5x_fixtures, tmp_path):
  macros = {
    "INPUT_PATH": str(t5x_fixtures / "t5_1_1/legacy/checkpoint_4"),
    "OUTPUT_PATH": str(tmp_path / "out"),
    "OUTPUT_FORMAT": "hf",
  }
  with pytest.raises(UserError, match="does not say what model it is"):
    run(**macros)
  with pytest.raises(UserError, match="(?s)does not fit MODEL.*reshaped"):
    run(["gin/models/t5_1_1_small.gin"], DROPOUT_RATE=0.1, **macros)
  assert inside(tmp_path) == []


def test_model_that_contradicts(folder, tmp_path):
  with pytest.raises(UserError, match="(?s)another model.*emb_dim: 32 "):
    run(
      ["gin/models/t5_1_1_small.gin"],
      DROPOUT_RATE=0.1,
      INPUT_PATH=str(folder),
      OUTPUT_PATH=str(tmp_path / "out"),
      OUTPUT_FORMAT="t5x",
    )


def test_what_exists_is_kept(folder, tmp_path):
  out = tmp_path / "out"
  out.mkdir()
  (out / "notes.txt").write_text("mine")
  macros = {
    "INPUT_PATH": str(folder),
    "OUTPUT_PATH": str(out),
    "OUTPUT_FORMAT": "t5x",
  }
  with pytest.raises(UserError, match="exists and is kept.*OVERWRITE=True"):
    run(**macros)
  assert inside(out) == ["notes.txt"]
  run(**macros, OVERWRITE=True)
  assert "notes.txt" not in inside(out)
  same(tensors(out), tensors(folder))
  assert inside(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["t5x", "flan_jax", "hf"])
@pytest.mark.parametrize(
  ("raised", "caught"),
  [
    (OSError(28, "No space left on device"), UserError),
    (KeyboardInterrupt(), KeyboardInterrupt),
    (UserError("damaged"), UserError),
  ],
  ids=["disk_full", "ctrl_c", "damaged"],
)
def test_nothing_half_written(
  folder, tmp_path, monkeypatch, name, raised, caught
):
  opened = source.open_source(folder)
  read = opened.read

  def failing(tensor):
    if tensor == list(opened.shapes)[20]:
      raise raised
    return read(tensor)

  opened.read = failing
  monkeypatch.setattr(job, "open_source", lambda path: opened)
  with pytest.raises(caught) as error:
    run(
      INPUT_PATH=str(folder),
      OUTPUT_PATH=str(tmp_path / "deep/out"),
      OUTPUT_FORMAT=name,
    )
  assert inside(tmp_path / "deep") == []
  if caught is KeyboardInterrupt:
    assert "nothing was written" in str(error.value)
  if isinstance(raised, OSError):
    assert "No space left on device" in str(error.value)


@pytest.mark.slow
def test_ctrl_c_from_the_command_line(tmp_path):
  """A conversion of some seconds, stopped in its middle."""
  big = T5Config(
    vocab_size=40_000, emb_dim=512, num_encoder_layers=2, num_decoder_layers=2
  )
  tree = jax.eval_shape(EncoderDecoder(big).init, jax.random.key(0))
  random = np.random.default_rng(0)
  hf.write_hf(
    tmp_path / "in",
    big,
    (
      (name, random.standard_normal(x.shape).astype(np.float32))
      for name, x in trees.flatten(tree).items()
    ),
  )
  # A shell's background jobs, and so what they start, ignore Ctrl-C.
  listening = (
    "import runpy, signal, sys; sys.argv.pop(0);"
    " signal.signal(signal.SIGINT, signal.default_int_handler);"
    " runpy.run_path(sys.argv[0], run_name='__main__')"
  )
  command = [
    *(sys.executable, "-c", listening, "launch/run.py"),
    "--gin_file=gin/convert.gin",
    f"--gin.INPUT_PATH={tmp_path / 'in'}",
    f"--gin.OUTPUT_PATH={tmp_path / 'out'}",
    "--gin.OUTPUT_FORMAT=t5x",
  ]
  for _ in range(5):
    process = subprocess.Popen(
      command, cwd=ROOT, stderr=subprocess.PIPE, text=True,
      stdout=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    while process.poll() is None and not list(tmp_path.glob(".out.*.draft/t*")):
      time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    if not (tmp_path / "out").exists():
      break
    # Done before the signal came, on a machine with much else to do.
    assert process.returncode == 0 or "nothing was written" not in said
    shutil.rmtree(tmp_path / "out")
  assert process.returncode == 130, said
  assert "stopped; nothing was written to" in said
  assert "last checkpoint" not in said
  assert inside(tmp_path) == ["in"]
