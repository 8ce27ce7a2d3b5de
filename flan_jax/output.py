"""OUTPUT_DIR in a bucket: a job's files are written here and kept there.

    loaded = config.load(["gin/eval_flan.gin"],
                         [("OUTPUT_DIR", "gs://my-bucket/eval"), ...])
    with kept(loaded):
      config.call_job(loaded)

Jobs append to their files and rename them, and a bucket does neither, so that
they write to a folder of this machine (`training/mirror.py`). What a job of the
same OUTPUT_DIR left is fetched first: it goes on on another machine too.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from flan_jax import config as config_lib
from flan_jax.data import remote
from flan_jax.errors import UserError

_log = logging.getLogger(__name__)
OPTION = "OUTPUT_DIR"
# How much work of a machine that is taken away is done again, at most.
PUSH_SECONDS = 60.0


@contextlib.contextmanager
def kept(config: config_lib.Config) -> Iterator[None]:
  """Inside, the job that was loaded writes to this machine.

  What changed is written to the bucket every minute and at the end, whatever
  the end is. Of several processes the first one's files are.

  Raises:
    UserError: the bucket is not of Cloud Storage, or cannot be read or written;
      the job trains.
  """
  given = config.value(OPTION)
  if not (isinstance(given, str) and remote.is_remote(given)):
    yield
    return
  # With JAX and TensorFlow, which some jobs do without.
  from flan_jax.data import sample
  from flan_jax.training import mirror as mirror_lib
  from flan_jax.training import processes

  home = remote.run_folder(given, OPTION)
  if config_lib.trains(config):
    raise UserError(
      f"{OPTION} is {given!r}, but this job trains runs below it, whose"
      " checkpoints are large: give a folder of a file system, or mount the"
      " bucket (Cloud Storage FUSE)."
    )
  if not processes.is_first():
    here = remote.place(
      processes.own_folder(home), sample.cache_directory() / "runs"
    )
    config_lib.rebind(OPTION, str(here))
    yield
    return
  with mirror_lib.Mirror(home, OPTION) as mirror:
    config_lib.rebind(OPTION, str(mirror.folder))
    with _every(PUSH_SECONDS, mirror.push):
      yield
    mirror.finish()
  print(f"{mirror.folder} is kept in {home}")


@contextlib.contextmanager
def _every(seconds: float, push: Callable[[], None]) -> Iterator[None]:
  ended = threading.Event()

  def work():
    while not ended.wait(seconds):
      try:
        push()
      except OSError as error:
        # The next time, or the end, which says so, may do better.
        _log.warning("%s", error)

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
