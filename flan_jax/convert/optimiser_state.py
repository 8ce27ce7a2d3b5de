"""T5X's optimiser state in our training state, and back.

T5X saves Adafactor's slots beside the parameters. With these two functions a
T5X run goes on under our trainer, and one of ours under T5X.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.convert import load, t5x, trees
from flan_jax.convert.source import open_source
from flan_jax.errors import UserError
from flan_jax.models import stack
from flan_jax.training import adafactor
from flan_jax.training.optimiser import Optimiser
from flan_jax.training.state import TrainState


def read_state(
  path: str | pathlib.Path, model: Any, optimiser: Optimiser
) -> TrainState:
  """Parameters, Adafactor's state and step of a T5X checkpoint.

      state = read_state("checkpoint_1100000", model, adafactor(1e-3))
      state.step                                    # 1100000

  Args:
    path: a T5X checkpoint, legacy or Orbax, with optimiser state.
    model: whose parameters it has; layers are stacked where it scans.
    optimiser: `optimiser.adafactor` with the factoring and momentum that T5X
      trained with.

  Raises:
    UserError: as `load.load_params`; the checkpoint is not T5X's or has no
      optimiser state; the optimiser is not Adafactor, or has other slots.
  """
  source = open_source(path)
  if not hasattr(source, "state"):
    raise UserError(
      f"{path} is a checkpoint of format {source.format!r}; optimiser state is"
      " read from T5X's (t5x, orbax). Use load_params for the parameters."
    )
  params = load.load_params(source, model)
  like = jax.eval_shape(optimiser.init, params)
  _check_adafactor(like)
  state = source.state()
  if not state.get("param_states"):
    raise UserError(
      f"{path} has no optimiser state, as T5X saves for inference. Use"
      " load_params for the parameters and begin with a fresh optimiser."
    )
  _check_same_parameters(path, state["param_states"], params, model)
  if model.config.scan_layers:
    state = {**state, "param_states": _stack(state["param_states"])}
  opt_state = adafactor.from_t5x_slots(state, like)
  return TrainState(
    step=jnp.asarray(state["step"], jnp.int32),
    params=params,
    opt_state=opt_state,
    skipped=jnp.zeros((), jnp.int32),
  )


def write_state(
  folder: str | pathlib.Path,
  state: TrainState,
  *,
  dtype: str | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Our training state as a T5X checkpoint with optimiser state.

  T5X has one count, of steps that is: a step that was skipped because its loss
  was not finite counts for our data, not for T5X, which continues from the
  number of updates.

  Args:
    folder: to be made; T5X wants it to be named `checkpoint_<step>`.
    state: with Adafactor's state.
    dtype: of the parameters, "float32" or "bfloat16"; None keeps float32.
    overwrite: whether a folder that is there is replaced.

  Raises:
    UserError: the optimiser is not Adafactor; the folder exists.
  """
  _check_adafactor(state.opt_state)
  slots = adafactor.to_t5x_slots(state.opt_state)["param_states"]
  params = state.params
  return t5x.write_t5x(
    folder,
    _unscanned(params),
    step=int(state.opt_state.count),
    dtype=dtype,
    param_states=_unscanned(slots),
    overwrite=overwrite,
  )


def _unscanned(tree) -> Iterable[tuple[str, np.ndarray]]:
  """Name and array of each layer, on the host one at a time."""
  for name, array in trees.flatten(tree).items():
    if not trees.is_stacked(name):
      yield name, np.asarray(array)
      continue
    layers = _layers(tree, name)
    for layer in range(layers):
      # An unused slot has no layers: each layer has the same one.
      part = array if array.shape == (1,) else array[layer]
      yield trees.unstacked(name, layer), np.asarray(part)


def _layers(tree, name) -> int:
  """How many layers a stacked parameter or slot has."""
  *scopes, _ = name.split("/")
  node = tree
  for scope in scopes:
    node = node[scope]
  shapes = [x.shape for x in node.values() if not isinstance(x, dict)]
  return max(shape[0] for shape in shapes)


def _stack(param_states):
  return jax.tree.map(np.asarray, stack.stack_layers(param_states))


def _check_adafactor(opt_state):
  if not isinstance(opt_state, adafactor.AdafactorState):
    raise UserError(
      f"the optimiser's state is {type(opt_state).__name__}; T5X's checkpoints"
      " hold Adafactor's (gin/optimisers/adafactor.gin)."
    )


def _check_same_parameters(path, param_states, params, model):
  if model.config.scan_layers:
    params = jax.eval_shape(stack.unstack_layers, params)
  has = {n.rpartition("/")[0] for n in trees.flatten(param_states)}
  needs = set(trees.flatten(params))
  lines = [(f"  missing: {n}", "") for n in sorted(needs - has)]
  lines += [(f"  extra: {n}", "") for n in sorted(has - needs)]
  if lines:
    raise UserError(
      f"the optimiser state in {path} is not of these parameters:\n"
      + "\n".join(trees.fold(lines))
    )
