import subprocess
import sys

CODE = """
from flan_jax.training import allocator
done = allocator.keep_freed_memory()
import numpy as np
for _ in range(3):
  np.ones(64 * 2**20, np.uint8).sum()
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
  np.ones(64 * 2**20, np.uint8).sum()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_freed_piece_is_used_again_without_new_pages():
  out = subprocess.run(
    [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
  )
  done, faults = out.stdout.split()
  # Ten pieces of 64 MB are 163,840 pages of 4 kB when mapped afresh.
  assert done == "False" or int(faults) < 16_384
