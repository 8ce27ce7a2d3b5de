import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from flan_jax.training import compilation

# A child compiles one function with the cache in the folder, and says how
# many entries it found and how many it gave.
CHILD = """
import os, sys, time
import jax, jax.numpy as jnp
from flan_jax.training import compilation
compilation.MIN_COMPILE_SECONDS = 0.0
cache = compilation.Compilations(sys.argv[1])
found = len(list(cache._own.glob("*-cache")))
while not os.path.exists(sys.argv[2]):
  time.sleep(0.01)
value = jax.jit(lambda x: jnp.sin(x) @ x + 7)(jnp.ones((8, 8)))
assert abs(float(value[0, 0]) - 13.7317) < 1e-3, value
given = cache.publish()
if len(sys.argv) > 3:
  os._exit(0)
cache.close()
print(found, given)
"""


@pytest.fixture
def cache_in(monkeypatch):
  """Opens caches that keep everything, and closes them."""
  assert jax.config.jax_compilation_cache_dir is None
  monkeypatch.setattr(compilation, "MIN_COMPILE_SECONDS", 0.0)
  made = []

  def open_one(folder):
    made.append(compilation.Compilations(folder))
    return made[-1]

  yield open_one
  for one in made:
    one.close()
  assert jax.config.jax_compilation_cache_dir is None


def entries(folder):
  return sorted(p.name for p in folder.glob("*-cache"))


def test_a_program_is_compiled_once(tmp_path, cache_in):
  def compiled():
    hits = []

    def listen(event, **_):
      if event == "/jax/compilation_cache/cache_hits":
        hits.append(event)

    jax.monitoring.register_event_listener(listen)
    cache = cache_in(tmp_path)
    jax.jit(lambda x: x * 3 + 19)(jnp.ones((4,)))
    new = cache.publish()
    cache.close()
    jax.monitoring.unregister_event_listener(listen)
    return new, len(hits)

  new, hits = compiled()
  assert new >= 1
  assert hits == 0
  names = entries(tmp_path)
  new, hits = compiled()
  assert new == 0
  assert hits >= 1
  assert entries(tmp_path) == names
  # Nothing of a process that is closed is left.
  assert not list(tmp_path.glob("process-*"))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
  cache, go = tmp_path / "cache", tmp_path / "go"
  words = [sys.executable, "-c", CHILD, str(cache), str(go)]
  children = [
    subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  # Both are there, and neither has compiled.
  deadline = time.monotonic() + 300
  while len(list(cache.glob("process-*"))) < 2 and time.monotonic() < deadline:
    time.sleep(0.05)
  go.write_text("")
  said = [child.communicate(timeout=300)[0].split() for child in children]
  assert [child.returncode for child in children] == [0, 0]
  assert [int(found) for found, _ in said] == [0, 0]
  kept = entries(cache)
  assert sum(int(given) for _, given in said) == len(kept) > 0
  # One that is killed leaves its folder, which the next one removes.
  assert subprocess.run([*words, "die"]).returncode == 0
  assert len(list(cache.glob("process-*"))) == 1
  third = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
  assert third.stdout.split() == [str(len(kept)), "0"]
  assert not list(cache.glob("process-*"))


def test_the_oldest_go_first(tmp_path, cache_in, monkeypatch):
  for number in range(4):
    entry = tmp_path / f"jit_{number}-cache"
    entry.write_bytes(b"x" * 100)
    os.utime(entry, (number, number))
  monkeypatch.setattr(compilation, "MAX_BYTES", 250)
  cache_in(tmp_path)
  assert entries(tmp_path) == ["jit_2-cache", "jit_3-cache"]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, cache_in):
  (tmp_path / "file").write_text("")
  cache = cache_in(tmp_path / "file" / "cache")
  assert cache.directory is None
  assert cache.publish() == 0
  assert jax.config.jax_compilation_cache_dir is None


def test_the_user_s_own_is_left_alone(tmp_path, cache_in):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
  try:
    assert cache_in(tmp_path / "ours").directory is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
  finally:
    jax.config.update("jax_compilation_cache_dir", None)


def test_where_it_is(monkeypatch, tmp_path):
  monkeypatch.setenv("FLAN_JAX_CACHE", str(tmp_path))
  assert compilation.folder("default") == tmp_path / "compiled"
  assert compilation.folder(None) is None
