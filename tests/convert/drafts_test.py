"""Drafts: what a killed process leaves, and what another still writes."""

import os
import signal
import subprocess
import sys

import pytest

from flan_jax.convert import drafts

CHILD = """
import sys, time
from flan_jax.convert import drafts
with drafts.folder(sys.argv[1], overwrite=True) as draft:
  (draft / "half").write_text("")
  print(draft, flush=True)
  time.sleep(300)
"""


def made(path):
  with drafts.folder(path, overwrite=True) as draft:
    (draft / "whole").write_text("")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_draft_of_a_killed_process(tmp_path, caplog, sent):
  out = tmp_path / "out[1]"
  child = subprocess.Popen(
    [sys.executable, "-c", CHILD, str(out)], stdout=subprocess.PIPE, text=True
  )
  try:
    left = child.stdout.readline().strip()
    made(out)
    assert os.path.isdir(left)
    assert not caplog.records
  finally:
    child.send_signal(sent)
    child.wait()
    child.stdout.close()
  other = tmp_path / ".out[1].b.abcdefgh.draft"
  other.mkdir()
  made(out)
  assert sorted(tmp_path.iterdir()) == [other, out]
  assert [p.name for p in out.iterdir()] == ["whole"]
  assert f"Removed {left}, which a conversion that was killed" in caplog.text
