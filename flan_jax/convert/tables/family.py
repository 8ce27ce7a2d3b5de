"""What a family of checkpoints in the Hugging Face layout is, as data.

A family has a table of tensor names, a table of the fields of its config.json,
and parts for fields that belong together (a window and the layers that have
it). Everything in a config.json is read, known to change no number, or
refused by name; nothing is skipped.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from flan_jax.errors import UserError

REQUIRED = object()

# What a config.json says that changes no number a forward pass gives.
# fmt: off
INERT = frozenset((
  "_attn_implementation", "_from_model_config", "_name_or_path",
  "_sliding_window_pattern", "architectures", "attn_implementation",
  "auto_map", "bos_token_id", "cache_implementation",
  "chunk_size_feed_forward", "decoder_start_token_id", "dtype",
  "eos_token_id", "id2label", "initializer_range", "is_llama_config",
  "label2id", "max_position_embeddings", "model_type", "output_attentions",
  "output_hidden_states", "pad_token_id", "pretraining_tp", "problem_type",
  "return_dict", "task_specific_params", "tokenizer_class", "torch_dtype",
  "transformers.js_config", "transformers_version", "unsloth_fixed",
  "unsloth_version", "use_cache",
))
# fmt: on

# Options of our configs that no checkpoint speaks of.
# fmt: off
OURS_ALONE = frozenset((
  "prefix_lm", "dropout_rate", "residual_dropout", "dtype", "scan_layers",
  "remat_policy",
))
# fmt: on


@dataclasses.dataclass(frozen=True)
class Row:
  """One tensor, or one of each layer where the names have `{i}`.

  Attributes:
    ours, theirs: names.
    transform: a name in `transforms.TRANSFORMS`, from theirs to ours.
    copies: further names under which some programs store the same tensor.
      They are compared, and left out when writing.
  """

  ours: str
  theirs: str
  transform: str = "same"
  copies: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Field:
  """One field of config.json that is one field of our config.

  Attributes:
    theirs, ours: names.
    kind: int, float, bool or str, what JSON must hold.
    default: what the family means where the file is silent; REQUIRED: the
      file must say it.
    nullable: whether the file may say null, which is our None.
    values: pairs (theirs, ours) where values have other names.
  """

  theirs: str
  ours: str
  kind: type
  default: Any = REQUIRED
  nullable: bool = False
  values: tuple[tuple[Any, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
  """Fields that belong together.

  Attributes:
    theirs: names that `read` looks at.
    read: config.json and what was read so far -> fields of our config.
    write: our config -> fields of config.json.
  """

  theirs: tuple[str, ...]
  read: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
  write: Callable[[Any], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Within:
  """A larger model that has a family's model in it, with images say.

  Attributes:
    model_type, architecture: of the larger.
    config: its field with the family's config.json.
    fields: its own fields, which speak of the rest.
    prefixes: pairs (theirs in the larger, the family's) of names.
    rest: prefixes of tensors that are not the family's.
  """

  model_type: str
  architecture: str
  config: str
  fields: frozenset[str]
  prefixes: tuple[tuple[str, str], ...]
  rest: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
  """One `model_type` of Hugging Face.

  Attributes:
    model_type, architecture: as in config.json.
    config_type: T5Config or DecoderConfig.
    rows: names of all tensors that models of the family may have.
    fields, parts: what config.json says; parts are read after fields.
    fixed: fields of our config that every model of the family has.
    must: pairs (field, values it may have): others compute something else. The
      first is written.
    inert: fields that change no number, beside INERT.
    buffers: names in old files that the config decides.
    outside: tokens that the family's tokenizers have beyond the embedding.
    within: a larger model to read the family's out of.
  """

  model_type: str
  architecture: str
  config_type: type
  rows: tuple[Row, ...]
  fields: tuple[Field, ...]
  parts: tuple[Part, ...] = ()
  fixed: tuple[tuple[str, Any], ...] = ()
  must: tuple[tuple[str, tuple[Any, ...]], ...] = ()
  inert: frozenset[str] = frozenset()
  buffers: tuple[str, ...] = ()
  outside: tuple[str, ...] = ()
  within: Within | None = None

  @property
  def causal(self) -> bool:
    """Whether its models are decoder-only."""
    return self.architecture.endswith("ForCausalLM")


def read_config(family: Family, json: Mapping[str, Any], where: str) -> Any:
  """Our config of a config.json.

  Args:
    family: of the file.
    json: its content.
    where: named in errors.

  Raises:
    UserError: a field is missing, of the wrong kind, contradicts another, or
      asks for what our model does not compute (all such are listed).
  """
  values = dict(family.fixed)
  for field in family.fields:
    values[field.ours] = _read_field(field, json, where)
  unknown = []
  for name, allowed in family.must:
    if name in json and json[name] not in allowed:
      unknown.append(name)
  known = INERT | family.inert | {f.theirs for f in family.fields}
  known |= {name for name, _ in family.must}
  known |= {name for part in family.parts for name in part.theirs}
  # null and false leave an option out.
  unknown += [
    name
    for name, value in json.items()
    if name not in known and value is not None and value is not False
  ]
  if unknown:
    lines = "\n".join(f"  {name} = {json[name]!r}" for name in sorted(unknown))
    raise UserError(
      f"{where} asks for what our {family.model_type} does not compute:\n"
      f"{lines}\nWhere a field is known to change no number, take it out of"
      " the file."
    )
  try:
    for part in family.parts:
      values |= part.read(json, values)
    return normal(family.config_type(**values))
  except UserError as error:
    raise UserError(f"{where}: {error}") from error


def _read_field(field, json, where):
  value = json.get(field.theirs, field.default)
  if value is REQUIRED:
    raise UserError(f"{where} does not say {field.theirs}; add it.")
  if value is None and field.nullable:
    return None
  kinds = (int, float) if field.kind is float else (field.kind,)
  if not isinstance(value, kinds) or (
    isinstance(value, bool) and field.kind is not bool
  ):
    raise UserError(
      f"{where}: {field.theirs} is {value!r}; it must be of the type"
      f" {field.kind.__name__}."
    )
  if not field.values:
    return value
  names = dict(field.values)
  if value not in names:
    raise UserError(
      f"{where}: {field.theirs} is {value!r}; our models compute"
      f" {', '.join(map(repr, names))}."
    )
  return names[value]


def write_config(family: Family, config: Any) -> dict[str, Any] | None:
  """The config.json of a config, or None where the family has no such model.

  The file is read again and must give the same config.
  """
  if not isinstance(config, family.config_type):
    return None
  json = {
    "architectures": [family.architecture],
    "model_type": family.model_type,
  }
  for field in family.fields:
    value = getattr(config, field.ours)
    if field.values:
      value = next((t for t, o in field.values if o == value), None)
    json[field.theirs] = value
  json |= {name: allowed[0] for name, allowed in family.must}
  for part in family.parts:
    json |= part.write(config)
  try:
    again = read_config(family, json, "config.json")
  except UserError:
    return None
  return None if differences(again, config) else json


def differences(a: Any, b: Any) -> list[str]:
  """Fields in which two configs are different models, one line each.

  Options that no checkpoint speaks of (dropout, scan, ...) do not count, and
  two ways to say one thing are one.
  """
  if type(a) is not type(b):
    return [f"{type(a).__name__} is not {type(b).__name__}"]
  a, b = normal(a), normal(b)
  lines = []
  for field in dataclasses.fields(a):
    one, other = getattr(a, field.name), getattr(b, field.name)
    if field.name not in OURS_ALONE and not _same(one, other):
      lines.append(f"{field.name}: {one!r} is not {other!r}")
  return lines


def normal(config: Any) -> Any:
  """The one form of a config that says the same in several ways."""
  if not hasattr(config, "layer_pattern"):
    return config
  changes = {"layer_pattern": shortest_pattern(config.kinds)}
  if "sliding" not in changes["layer_pattern"]:
    changes |= {"sliding_window": None, "rope_theta_sliding": None}
  if _same(config.query_scale, config.head_dim**-0.5):
    changes["query_scale"] = None
  return dataclasses.replace(config, **changes)


def shortest_pattern(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """What is repeated over the layers.

  >>> shortest_pattern(("sliding", "full", "sliding", "full"))
  ('sliding', 'full')
  """
  for count in range(1, len(kinds)):
    if all(kind == kinds[i % count] for i, kind in enumerate(kinds)):
      return kinds[:count]
  return kinds


def _same(a, b):
  if isinstance(a, float) and isinstance(b, (int, float)):
    return math.isclose(a, b, rel_tol=1e-6)
  return a == b


def match(pattern: str, name: str) -> str | None:
  """The layer number of `name`, "" where the pattern has none, None: no match.

  >>> match("model.layers.{i}.mlp", "model.layers.12.mlp")
  '12'
  """
  found = re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"(\d+)"), name)
  if found is None:
    return None
  return found[1] if found.re.groups else ""
