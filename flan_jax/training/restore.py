"""Reading a checkpoint back: bit for bit, into the structure that is asked.

Arrays are saved as nested dicts under the names of their tree paths, so that a
checkpoint can be read without the classes of the optimiser that wrote it:
`params/encoder/encoder_norm/scale`, `opt_state/count`, `step`.
"""

import logging
import pathlib
import re
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flan_jax.data import remote
from flan_jax.errors import UserError
from flan_jax.training import integrity

_log = logging.getLogger(__name__)
_NAME = re.compile(r"checkpoint_(\d+)")
# The folder in a checkpoint that Orbax writes.
STATE = "state"


def restore_params(path: str | pathlib.Path, template: Any = None) -> Any:
  """The parameters of a checkpoint of this trainer: INITIAL_CHECKPOINT_PATH.

  Nothing is written or renamed, and the optimiser's state is not read.

  Args:
    path: a `checkpoint_N` folder, or a MODEL_DIR, whose newest whole
      checkpoint is taken.
    template: as for `restore_latest`; None takes what is there.

  Raises:
    UserError: there is no checkpoint, or none that is whole, or the parameters
      do not fit the template: every missing, unexpected and differing one is
      named.
  """
  checkpoint, manifest = find(path)
  if template is None:
    template = _nested(
      {
        name.removeprefix("params/"): jax.ShapeDtypeStruct(
          tuple(array["shape"]), array["dtype"]
        )
        for name, array in manifest["arrays"].items()
        if name.startswith("params/")
      }
    )
  return read(checkpoint, manifest, {"params": template}, part=True)["params"]


def find(path: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
  """The newest whole checkpoint of this trainer at a path, and its manifest.

  Args:
    path: a checkpoint's folder, or a MODEL_DIR.

  Raises:
    UserError: there is none, or none that is whole; what is wrong with each.
  """
  path = pathlib.Path(path).absolute()
  if (path / "checkpoints").is_dir():
    path = path / "checkpoints"
  alone = _NAME.fullmatch(path.name) or (path / integrity.MANIFEST).is_file()
  candidates = {0: path} if alone else checkpoints_in(path)
  faults = []
  for _, checkpoint in sorted(candidates.items(), reverse=True):
    if not checkpoint.is_dir():
      continue
    try:
      manifest = integrity.check(checkpoint)
    except integrity.Torn as torn:
      faults.append(f"  {torn}")
      continue
    if faults:
      _log.warning(
        "Using %s instead of a torn checkpoint:\n%s",
        checkpoint,
        "\n".join(faults),
      )
    return checkpoint, manifest
  there = "\n".join(faults) or (
    "  there is no folder checkpoint_N"
    if path.is_dir()
    else "  the folder does not exist"
  )
  raise UserError(
    f"INITIAL_CHECKPOINT_PATH={path} holds no whole checkpoint of this"
    f" trainer:\n{there}"
  )


def read(path, manifest, template, *, part=False):
  """The arrays of `template`; with `part`, of more that was saved."""
  quieten_orbax()
  tree, arrays = named(template)
  saved = manifest["arrays"]
  if part:
    tops = tuple(f"{name}/" for name in tree)
    saved = {name: x for name, x in saved.items() if name.startswith(tops)}
  _check_fit(path, saved, arrays)
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here
    ),
    tree,
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    restored = reader.restore(
      path / STATE,
      args=ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=part,
      ),
    )
  _, values = named(restored)
  return jax.tree.structure(template).unflatten(values[n] for n in arrays)


def _check_fit(path, saved, wanted):
  faults = [f"  missing: {name}" for name in wanted if name not in saved]
  faults += [f"  unexpected: {name}" for name in saved if name not in wanted]
  for name in wanted.keys() & saved.keys():
    has = tuple(saved[name]["shape"]), saved[name]["dtype"]
    needs = tuple(wanted[name].shape), str(wanted[name].dtype)
    if has != needs:
      faults.append(
        f"  differing: {name} is {has[1]}{list(has[0])}, needed is"
        f" {needs[1]}{list(needs[0])}"
      )
  if faults:
    more = len(faults) - 20
    lines = sorted(faults)[:20] + ([f"  and {more} more"] if more > 0 else [])
    raise UserError(
      f"{path} does not fit the model and optimiser of this run:\n"
      + "\n".join(lines)
      + "\nUse the configuration it was trained with (run.json beside it)."
    )


def named(tree):
  """The tree as nested dicts, and as one dict `a/b/c` -> leaf in leaf order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  flat = {}
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # Python scalars and such; arrays and abstract arrays stay.
    flat[name] = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
  return _nested(flat), flat


def _nested(flat):
  tree = {}
  for name, leaf in flat.items():
    *scopes, last = name.split("/")
    node = tree
    for scope in scopes:
      node = node.setdefault(scope, {})
    node[last] = leaf
  return tree


def checkpoints_in(directory):
  """The path of every `checkpoint_N` folder by step, whole or not."""
  if not remote.is_dir(directory):
    return {}
  found = ((_NAME.fullmatch(p.name), p) for p in directory.iterdir())
  return {int(match[1]): path for match, path in found if match}


def quieten_orbax():
  """Drop what Orbax logs below errors; everyone else's records stay."""
  logger = logging.getLogger("absl")
  if _below_error_from_orbax not in logger.filters:
    logger.addFilter(_below_error_from_orbax)


def _below_error_from_orbax(record):
  return record.levelno >= logging.ERROR or "orbax" not in record.pathname
