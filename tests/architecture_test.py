"""The house stays as README and the design describe it."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "flan_jax").rglob("*.py"))
# What a room may import from the others; `data` never sees jax.
ROOMS = {
  "models": set(),
  "page": set(),
  "endpoint": set(),
  "data": {"tasks", "page"},
  "training": {"models", "data"},
  "eval": {"models", "data", "page", "convert", "endpoint"},
  "convert": {"models", "data", "training"},
  # Nothing but jobs at the top imports it.
  "curation": {
    "models", "data", "training", "convert", "eval", "endpoint", "page",
  },
}
TENSORFLOW = ("tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text")


def imported(path, top_only=False):
  tree = ast.parse(path.read_text())
  nodes = tree.body if top_only else list(ast.walk(tree))
  names = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
  for path in SOURCES:
    if path.relative_to(ROOT).parts[1] != room:
      continue
    for name in imported(path):
      parts = name.split(".")
      if parts[0] == "flan_jax" and len(parts) > 1:
        other = parts[1]
        allowed = ROOMS[room] | {room, "errors", "config"}
        assert other in allowed, f"{path}: {room} imports {name}"
      if room == "data":
        assert parts[0] != "jax", f"{path}: data imports jax"


def test_tensorflow_stays_in_data():
  for path in SOURCES:
    if path.relative_to(ROOT).parts[1] == "data":
      continue
    for name in imported(path, top_only=True):
      assert name.split(".")[0] not in TENSORFLOW, f"{path}: {name}"


def test_files_are_one_noun_and_short():
  assert not list((ROOT / "flan_jax").rglob("utils.py"))
  for path in SOURCES:
    lines = len(path.read_text().splitlines())
    assert lines <= 450, f"{path} has {lines} lines; split it"


@pytest.mark.parametrize("module", ["flan_jax", "flan_jax.tasks"])
def test_import_is_light_and_has_no_effect(module):
  code = (
    f"import time, sys; t = time.perf_counter(); import {module};"
    " s = time.perf_counter() - t;"
    f" heavy = [m for m in {(*TENSORFLOW, 'jax')!r} if m in sys.modules];"
    " print(s, heavy)"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    cwd="/", capture_output=True, text=True, check=True, timeout=60,
  ).stdout
  seconds, _, heavy = out.partition(" ")
  assert heavy.strip() == "[]"
  assert float(seconds) < 1.0


def test_no_register_at_import():
  code = (
    "import importlib, pkgutil, flan_jax, flan_jax.tasks, seqio\n"
    "for pkg in (flan_jax, flan_jax.tasks):\n"
    "  for m in pkgutil.walk_packages(pkg.__path__, pkg.__name__ + '.'):\n"
    "    if not m.name.endswith('seqio_module'):\n"
    "      importlib.import_module(m.name)\n"
    "print(len(list(seqio.TaskRegistry.names())),"
    " len(list(seqio.MixtureRegistry.names())))"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    cwd="/", capture_output=True, text=True, check=True, timeout=120,
  ).stdout
  assert out.split() == ["0", "0"]


def test_nothing_of_this_machine_is_named():
  banned = ("/wo" + "rk/", "py" + "pi.org", "/ro" + "ot/")
  listed = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
  )
  if listed.returncode:
    pytest.skip("not a git checkout")
  for name in listed.stdout.split():
    path = ROOT / name
    if path.suffix in (".py", ".gin", ".md", ".sh", ".toml", ".txt", ".yaml"):
      text = path.read_text()
      for word in banned:
        assert word not in text, f"{name} names {word}"


def test_ruff_has_nothing_to_say():
  result = subprocess.run(
    [sys.executable, "-m", "ruff", "check", "."],
    cwd=ROOT, capture_output=True, text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
