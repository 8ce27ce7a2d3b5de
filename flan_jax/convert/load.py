"""A checkpoint of any format into the parameters of a model.

What INITIAL_CHECKPOINT_PATH names is read here, tensor by tensor: a host holds
one of them, and of the model what its own devices hold.
"""

import collections
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.convert import fingerprint, part, prompts, trees
from flan_jax.convert.source import TensorSource, open_source
from flan_jax.convert.tables import family
from flan_jax.errors import UserError
from flan_jax.models import adapted, decoder, decoder_config, t5


def load_params(
  source: TensorSource | str | pathlib.Path,
  model: Any,
  shardings: Any = None,
  seed: int = 0,
) -> Any:
  """The parameters of a checkpoint, as `model.init` would give them.

      params = load_params("checkpoints/flan_t5_small", model)
      params = load_params(path, model, partition.params)

  Layers are stacked where the model scans, and every tensor is cast to the
  type of the model's parameters, float32. On top of a base checkpoint an
  adapted model (`models/adapted.py`) begins as it is set to.

  Args:
    source: a path of any format (`source.FORMATS`), or an open source.
    model: `EncoderDecoder` or `DecoderOnly`, adapted or not.
    shardings: one for all parameters, a tree of them, or a function from a
      tree of shapes to such a tree; None: the default device.
    seed: of what an adapter draws.

  Returns:
    the nested dict that `model.init` returns, on devices.

  Raises:
    UserError: there is no checkpoint there; it says of its model other than
      the model's config (the fields are named); parameters are missing, extra
      or of another shape (all are listed); it holds an adapter that the model
      has not, or was trained on top of another checkpoint than is there.
  """
  return _loaded(source, model, shardings, seed, marked=False)[0]


def load_marked(
  source: TensorSource | str | pathlib.Path,
  model: Any,
  shardings: Any = None,
  seed: int = 0,
) -> tuple[Any, str]:
  """`load_params`, and the fingerprint of the base's parameters."""
  return _loaded(source, model, shardings, seed, marked=True)


def _loaded(source, model, shardings, seed, marked):
  source = opened(source)
  base = adapted.base_of(model)
  check_config(source.config, base.config, str(source.path))
  whole = isinstance(source, part.PartSource)
  marked |= whole or bool(getattr(model, "saved_at", None))
  key = getattr(model, "key", None)
  has = getattr(source, "adapter", None) is not None
  if has and source.adapter["kind"] != key:
    raise UserError(
      f"{source.path} holds an adapter ({source.adapter['kind']}) and MODEL"
      f" has {key or 'none'}: give its base"
      f"{f' {source.base.path}' if whole else ''}, or the same ADAPTER."
    )
  if has and hasattr(model, "check_same"):
    model.check_same(source.adapter, source.path)
  shapes = jax.eval_shape((model if has else base).init, jax.random.key(0))
  wanted = trees.flatten(_as_read(shapes, base, key))
  check_fit(source, wanted)
  places = _places(shardings, trees.unflatten(wanted))
  params, marks = {}, []
  for name, want in wanted.items():
    params[name] = _placed(source, name, want, places[name])
    params[name].block_until_ready()
    of_base = name.split("/")[0] != key
    first = trees.unstacked(name, 0)
    if marked and of_base and whole and first in source.own:
      before = _placed(source.base, name, want, places[name])
      marks += fingerprint.of(name, before)
      del before
    elif marked and of_base:
      marks += fingerprint.of(name, params[name])
    if of_base and hasattr(model, "store"):
      # One at a time, so that the base is never whole in its first type.
      stored = trees.flatten(model.store(trees.unflatten({name: params[name]})))
      del params[name]
      params |= stored
  mark = fingerprint.combined(marks)
  if whole:
    source.check(mark)
  tree = trees.unflatten(params)
  if key is None:
    return tree, mark
  own = tree.pop(key, None)
  if own is None:
    own = _fresh(model, tree, mark, shardings, seed)
  return {**tree, key: own}, mark


def _as_read(shapes, base, key):
  """Shapes of what is read: the base's as it is before it is stored anew."""
  plain = jax.eval_shape(base.init, jax.random.key(0))
  return {**plain, **{k: x for k, x in shapes.items() if k == key}}


def _fresh(model, base_params, mark, shardings, seed):
  """An adapter before its first step."""
  saved = None
  if getattr(model, "saved_at", None):
    saved = prompts.read(model.saved_at, mark)
  own = model.initial(jax.random.key(seed), base_params, saved)
  where = _places(shardings, {model.key: own})
  flat = trees.flatten({model.key: own})
  # Copies: a step donates what it trains.
  placed = {
    name: jax.device_put(jnp.array(x, copy=True), where[name])
    for name, x in flat.items()
  }
  return trees.unflatten(placed)[model.key]


def _places(shardings, shapes):
  if callable(shardings):
    return trees.flatten(shardings(shapes))
  if shardings is None or isinstance(shardings, jax.sharding.Sharding):
    return collections.defaultdict(lambda: shardings)
  return trees.flatten(shardings)


def _placed(source, name, want, sharding) -> jax.Array:
  """One parameter, of which a process holds its own shards and no more.

  A tensor is read layer by layer, and what the shards have of it is copied.
  """
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  where = sharding.addressable_devices_indices_map(want.shape)
  # Replicas are one buffer on the host.
  shards = {}
  for index in where.values():
    key = _key(index, want.shape)
    shards[key] = np.empty([b - a for a, b in key], want.dtype)
  stacked = trees.is_stacked(name)
  for layer in range(want.shape[0]) if stacked else (None,):
    wanted = [k for k in shards if layer is None or k[0][0] <= layer < k[0][1]]
    if not wanted:
      continue
    full = source.read(name if layer is None else trees.unstacked(name, layer))
    for key in wanted:
      if layer is None:
        shards[key][...] = full[tuple(slice(*k) for k in key)]
      else:
        part = full[tuple(slice(*k) for k in key[1:])]
        shards[key][layer - key[0][0]] = part
  # Not the numpy buffers themselves: a training step donates its parameters.
  arrays = [
    jax.device_put(shards[_key(index, want.shape)], device, may_alias=False)
    for device, index in where.items()
  ]
  return jax.make_array_from_single_device_arrays(want.shape, sharding, arrays)


def _key(index, shape) -> tuple[tuple[int, int], ...]:
  """(begin, end) of each dimension of a shard."""
  return tuple(
    part.indices(size)[:2] for part, size in zip(index, shape, strict=True)
  )


def check_config(said: Any, config: Any, where: str) -> None:
  """Refuses a model other than what a checkpoint says of itself.

  Options that a run chooses (dropout, scanning, ...) may differ.

  Raises:
    UserError: with every field that differs, and both values.
  """
  if said is None:
    return
  if type(said) is not type(config):
    raise UserError(
      f"{where}: its model is {_kind(said)}, MODEL is {_kind(config)}."
    )
  differing = family.differences(said, config)
  if differing:
    raise UserError(
      f"{where} is of another model than MODEL (its fields, MODEL's):\n  "
      + "\n  ".join(differing)
      + "\nChoose the gin/models file of this checkpoint."
    )


def check_fit(
  source: TensorSource, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
  """Refuses a checkpoint whose tensors are not those of the model.

  Args:
    source: whose `shapes` are compared.
    wanted: flat names of the model, scanned or not, -> shapes.

  Raises:
    UserError: everything missing, extra and reshaped in one message; equal
      layers are one line.
  """
  needs = {}
  for name, want in wanted.items():
    if trees.is_stacked(name):
      for layer in range(want.shape[0]):
        needs[trees.unstacked(name, layer)] = tuple(want.shape[1:])
    else:
      needs[name] = tuple(want.shape)
  has = {name: tuple(x.shape) for name, x in source.shapes.items()}
  missing = sorted(needs.keys() - has.keys())
  extra = sorted(has.keys() - needs.keys())
  both = sorted(has.keys() & needs.keys())
  reshaped = [n for n in both if has[n] != needs[n]]
  lines = [(f"  missing: {n}", f"{list(needs[n])}") for n in missing]
  lines += [(f"  extra: {n}", f"{list(has[n])}") for n in extra]
  lines += [
    (f"  reshaped: {n}", f"{list(has[n])}, MODEL needs {list(needs[n])}")
    for n in reshaped
  ]
  faults = trees.fold(lines)
  if faults:
    raise UserError(
      f"{source.path} does not fit MODEL (parameters missing: {len(missing)},"
      f" extra: {len(extra)}, reshaped: {len(reshaped)}):\n"
      + "\n".join(faults)
      + "\nChoose the gin/models file of this checkpoint."
    )


def opened(source: TensorSource | str | pathlib.Path) -> TensorSource:
  """The source itself, or of INITIAL_CHECKPOINT_PATH.

  Raises:
    UserError: see `open_source`; the message begins with the path.
  """
  if not isinstance(source, str | pathlib.Path):
    return source
  try:
    return open_source(source)
  except UserError as error:
    raise UserError(f"INITIAL_CHECKPOINT_PATH={source}: {error}") from error


def model_of(source: TensorSource, model: Any = None) -> Any:
  """The model that a checkpoint says it is of, or `model` where one is given.

      model = model_of(open_source("checkpoints/smollm2_135m"))

  With the adapter that the checkpoint holds, if it holds one.

  Raises:
    UserError: none is given and the checkpoint does not say.
  """
  if model is None:
    model = _said(source)
  described = getattr(source, "adapter", None)
  if described is None or hasattr(model, "key"):
    return model
  return adapted.recalled(model, described, source.path)


def _said(source):
  if source.config is None:
    raise UserError(
      f"{source.path} ({source.format}) does not say what model it is. Add its"
      " MODEL: --gin_file=gin/models/t5_1_1_small.gin --gin.DROPOUT_RATE=0.0,"
      " say."
    )
  if isinstance(source.config, decoder_config.DecoderConfig):
    return decoder.DecoderOnly(source.config)
  return t5.EncoderDecoder(source.config)


def vocabulary_of(source: TensorSource, vocabulary: Any = None) -> Any:
  """The vocabulary that comes with a checkpoint, or `vocabulary` if given.

  It stands in the checkpoint's folder, where a conversion copied it, or in the
  folder of the run that made the checkpoint.

  Raises:
    UserError: none is given and none is there.
  """
  if vocabulary is not None:
    return vocabulary
  # Not with the module: parameters alone need no tokenizer's libraries.
  from flan_jax.data import vocabulary as vocabulary_lib

  if source.format in ("hf", "gguf"):
    return vocabulary_lib.load(source.path)
  if source.tokenizer_files:
    return vocabulary_lib.load(source.tokenizer_files[0].parent)
  raise UserError(
    f"{source.path} ({source.format}) comes without a tokenizer. Add the"
    " VOCABULARY it was trained with:"
    " --gin_file=gin/data/flan_jax_vocabulary.gin, say."
  )


def _kind(config):
  names = {"T5Config": "encoder-decoder", "DecoderConfig": "decoder-only"}
  return names.get(type(config).__name__, type(config).__name__)
