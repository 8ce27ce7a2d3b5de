"""Parameters that a run begins with, and the base that it keeps frozen.

A run that trains a part of its parameters saves that part alone. Its base is
read from INITIAL_CHECKPOINT_PATH at every start.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flan_jax.convert import load, part
from flan_jax.errors import UserError
from flan_jax.training import sharding
from flan_jax.training import trainable as trainable_lib


class Begun(NamedTuple):
  """What a run begins with.

  Attributes:
    params: that are trained.
    frozen: the others; None: there are none.
    details: what the checkpoint says beside its model, `NativeSource.details`.
    extra: for the checkpoints of the run, `part.extra_of`.
  """

  params: Any
  frozen: Any
  details: Any
  extra: dict[str, Any]


def begin(
  path: str,
  model: Any,
  partition: sharding.Partition,
  lengths: Mapping[str, int],
  trainable: str | None = None,
  seed: int = 0,
) -> Begun:
  """The parameters of a checkpoint, where they lie on the devices.

  Args:
    path: INITIAL_CHECKPOINT_PATH.
    model: adapted or not.
    partition: where parameters lie.
    lengths: tokens of a row.
    trainable: regex of what is trained; None: all.
    seed: of what an adapter draws.

  Raises:
    UserError: see `load.load_params`; a soft prompt that leaves no room for
      the rows in the positions that the model has.
  """
  source = load.opened(path)
  details = getattr(source, "details", None)
  check_room(model, lengths, details)
  params, mark = load.load_marked(source, model, partition.params, seed)
  if trainable is None:
    return Begun(params, None, details, {})
  trained, frozen = trainable_lib.split(params, trainable)
  described = model.described() if hasattr(model, "key") else None
  where = source.path
  if isinstance(source, part.PartSource):
    where = source.base.path
  extra = part.extra_of(where, mark, trainable, described)
  return Begun(trained, frozen, details, extra)


def read_again(
  path: str,
  model: Any,
  partition: sharding.Partition,
  trainable: str,
  said: Mapping[str, str],
) -> Any:
  """The frozen parameters of a run that goes on.

  Args:
    path: INITIAL_CHECKPOINT_PATH.
    model: adapted or not.
    partition: where parameters lie.
    trainable: regex of what is trained.
    said: `base` of the run's checkpoint.

  Raises:
    UserError: the base is another one than the run began with.
  """
  params, mark = load.load_marked(path, model, partition.params)
  if mark != said["fingerprint"]:
    raise UserError(
      f"the run was begun on top of {said['path']} with the fingerprint"
      f" {said['fingerprint']}; INITIAL_CHECKPOINT_PATH={path} has {mark}, so"
      " that it is another checkpoint. Put back the one it began with, or give"
      " another MODEL_DIR."
    )
  return trainable_lib.split(params, trainable)[1]


def kept(saved: Mapping[str, Any]) -> dict[str, Any]:
  """What `part.extra_of` put into the `extra` of a checkpoint.

  >>> kept({"step": 3, "trainable": "a/.*"})
  {'trainable': 'a/.*'}
  """
  names = ("base", "trainable", "adapter")
  return {name: saved[name] for name in names if name in saved}


def check_room(
  model: Any, lengths: Mapping[str, int], details: Any = None
) -> None:
  """Refuses a soft prompt that does not fit in a model beside the rows.

  Args:
    model: adapted or not.
    lengths: tokens of a row.
    details: what a checkpoint says of its model; `max_position_embeddings`
      are the positions it was made with.

  Raises:
    UserError: the prompt and a row are longer; the room there is is named.
  """
  prompt = getattr(model, "length", 0)
  most = (details or {}).get("max_position_embeddings")
  if not prompt or not most or model.kind == "encoder_decoder":
    return
  room = most - prompt - lengths["targets"]
  if lengths["inputs"] > room:
    raise UserError(
      f"PROMPT_LENGTH = {prompt} and targets of {lengths['targets']} leave"
      f" {max(0, room)} of the model's {most} positions for inputs, and"
      f" TASK_FEATURE_LENGTHS has inputs of {lengths['inputs']}: give a shorter"
      " prompt or shorter inputs."
    )
