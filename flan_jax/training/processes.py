"""The processes of one run: joined at the start, one of which writes.

Every process runs the same program. The first one owns the run's folder; each
of the others keeps its log and record in a folder of its own below it, and all
write one checkpoint together.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flan_jax.data import remote
from flan_jax.errors import UserError

# As JAX names them. On TPU pods, SLURM and Kubernetes JAX finds them itself.
ADDRESS = "JAX_COORDINATOR_ADDRESS"
COUNT = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"
# Set to 1 where JAX is to find the other processes by itself.
FIND = "JAX_DISTRIBUTED"
# Seconds without a sign of life after which a process counts as dead, and all
# others end; that all of them have to come up; and that those who have come to
# one place wait there for the others.
DEAD_SECONDS = 60
START_SECONDS = 300
WAIT_SECONDS = 900
# How JAX names those who have not come: by numbers, or `/job:a/task:1`.
_ABSENT = re.compile(r"timed out task names: (.*?)(?: RPC:|$)")
_NUMBER = re.compile(r"(?:/task:|\s|^)(\d+)\b")


def join(environment: Mapping[str, str] | None = None) -> bool:
  r"""Joins the other processes of the run, if the environment names them.

      JAX_COORDINATOR_ADDRESS=10.0.0.2:8476 JAX_NUM_PROCESSES=4 \
          JAX_PROCESS_ID=1 python launch/run.py ...

  Call it before anything is computed. A process that dies ends all others
  after `DEAD_SECONDS`, by JAX's coordination service, which names it; of one
  that hangs see `watch.py`.

  Args:
    environment: default: of this process.

  Returns:
    Whether there are others to join.

  Raises:
    UserError: only some of the three variables are set, or they are no
      numbers, or the others do not come up.
  """
  env = os.environ if environment is None else environment
  given = {name: env.get(name) for name in (ADDRESS, COUNT, INDEX)}
  if env.get(FIND) == "1" and not any(given.values()):
    jax.distributed.initialize(heartbeat_timeout_seconds=DEAD_SECONDS)
    return True
  if not any(given.values()):
    return False
  missing = [name for name, value in given.items() if not value]
  if missing:
    raise UserError(
      f"{', '.join(missing)} is not set, but"
      f" {', '.join(n for n, v in given.items() if v)} is: a run of several"
      " processes needs all three."
    )
  count, index = _numbers(given)
  try:
    jax.distributed.initialize(
      given[ADDRESS],
      count,
      index,
      initialization_timeout=START_SECONDS,
      heartbeat_timeout_seconds=DEAD_SECONDS,
    )
  except RuntimeError as error:
    raise UserError(
      f"process {index} of {count} has not found the others at"
      f" {given[ADDRESS]} in {START_SECONDS} s: {str(error).splitlines()[0]}."
      " Start all of them, and let the port through."
    ) from error
  return True


def leave() -> None:
  """Waits until every process is done, and parts from the others.

  Without it the first process, which the others ask how it is, may be gone
  before they have ended; JAX then ends these as if something had failed.
  """
  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


def is_first() -> bool:
  """Whether this process writes what the run has once."""
  return jax.process_index() == 0


def own_folder(folder: remote.Path) -> remote.Path:
  """Where this process keeps its record and log: the run's folder, or below.

  >>> import pathlib
  >>> own_folder(pathlib.Path("runs/mine")).as_posix()
  'runs/mine'
  """
  if is_first():
    return folder
  return folder / "processes" / str(jax.process_index())


def wait_for_all(where: str, seconds: float = WAIT_SECONDS) -> None:
  """Returns when every process has come here; at once if there is one.

  Args:
    where: what they have done, the same words in all of them.
    seconds: that the first one waits at most.

  Raises:
    UserError: naming the processes that have not come.
  """
  if jax.process_count() == 1:
    return
  # JAX offers its client nowhere else.
  from jax._src import distributed

  try:
    distributed.global_state.client.wait_at_barrier(
      where, timeout_in_ms=round(1000 * seconds)
    )
  except RuntimeError as error:
    said = " ".join(str(error).split())
    absent = (
      _NUMBER.findall(named[1]) if (named := _ABSENT.search(said)) else ()
    )
    raise UserError(
      f"process {', '.join(absent) or '(which is not known)'} of"
      f" {jax.process_count()} has not {where} in {seconds:g} s, and the others"
      f" wait for it: {said[:300]}"
    ) from error


def from_first(value: Any) -> Any:
  """What the first process has, in all of them: a value that JSON can hold.

  >>> from_first([1, "a"])
  [1, 'a']
  """
  if jax.process_count() == 1:
    return value
  text = json.dumps(value).encode() if is_first() else b""
  size = multihost_utils.broadcast_one_to_all(np.int32(len(text)))
  held = np.zeros(int(size), np.uint8)
  if is_first():
    held[:] = np.frombuffer(text, np.uint8)
  return json.loads(bytes(multihost_utils.broadcast_one_to_all(held)))


def check_equal(fingerprint: str) -> None:
  """Refuses processes that run with different configurations or data.

  Args:
    fingerprint: hexadecimal digits, of the record.

  Raises:
    UserError: naming the processes that differ from the first.
  """
  if jax.process_count() == 1:
    return
  wait_for_all("read its configuration and found its data")
  mine = np.frombuffer(fingerprint.encode(), np.uint8)
  all_of_them = np.asarray(multihost_utils.process_allgather(mine))
  differing = [
    i for i, one in enumerate(all_of_them) if (one != all_of_them[0]).any()
  ]
  if differing:
    said = {i: bytes(all_of_them[i]).decode() for i in (0, *differing)}
    raise UserError(
      f"processes {', '.join(map(str, differing))} run with another"
      f" configuration or other data than process 0 (fingerprints {said})."
      " Start all with the same command, files and TFDS_DATA_DIR."
    )


def _numbers(given: Mapping[str, str]) -> tuple[int, int]:
  values = []
  for name in (COUNT, INDEX):
    if not given[name].isdigit():
      raise UserError(f"{name} is {given[name]!r}; give a number.")
    values.append(int(given[name]))
  count, index = values
  if index >= count:
    raise UserError(
      f"{INDEX} is {index}, but there are {count} processes: 0 to {count - 1}."
    )
  return count, index
