"""RoPE in a config.json: the newer `rope_parameters` and the older names."""

import dataclasses

from flan_jax.convert.tables.family import Part
from flan_jax.errors import UserError
from flan_jax.models.rope import KINDS, RopeScaling

NAMES = (
  "rope_parameters",
  "rope_theta",
  "rope_scaling",
  "partial_rotary_factor",
  "original_max_position_embeddings",
)
# RopeScaling's field -> theirs, where they differ.
_THEIRS = {"original_max_position": "original_max_position_embeddings"}
_OURS = {theirs: ours for ours, theirs in _THEIRS.items()}


def rope(theta: float = 10_000.0) -> Part:
  """One RoPE for all layers; `theta` where the file is silent."""

  def read(json, values):
    base, scaling = _read(json, _stated(json), theta)
    return {"rope_theta": base, "rope_scaling": scaling}

  def write(config):
    scaling = _write_scaling(config.rope_scaling)
    # Both spellings: older programs read only theta and scaling.
    return {
      "rope_theta": config.rope_theta,
      "rope_scaling": scaling,
      "rope_parameters": {
        "rope_theta": config.rope_theta,
        **(scaling or {"rope_type": "default"}),
      },
      **_context(config.rope_scaling),
    }

  return Part(NAMES, read, write)


def two_ropes(theta: float, theta_sliding: float) -> Part:
  """One RoPE for the full layers and one for the sliding (Gemma 3)."""

  def read(json, values):
    nested = json.get("rope_parameters") or {}
    stray = set(nested) - {"full_attention", "sliding_attention"}
    if stray:
      raise UserError(
        f"rope_parameters has {', '.join(sorted(stray))}; this family has"
        " full_attention and sliding_attention there."
      )
    full = dict(nested.get("full_attention") or {})
    _agree("rope_scaling", full, json.get("rope_scaling"))
    full |= json.get("rope_scaling") or {}
    base, scaling = _read(json, full, theta)
    sliding = dict(nested.get("sliding_attention") or {})
    local = json.get("rope_local_base_freq", theta_sliding)
    other, own = _read({**json, "rope_theta": None}, sliding, local)
    found = {"rope_theta": base, "rope_scaling": scaling}
    if (other, own) != (base, scaling):
      if own is not None:
        raise UserError(
          f"rope_parameters scales the sliding layers by {sliding}; our"
          " sliding layers are not scaled, or as the full ones."
        )
      found["rope_theta_sliding"] = other
    return found

  def write(config):
    scaling = _write_scaling(config.rope_scaling)
    local = config.rope_theta_sliding or config.rope_theta
    full = {"rope_theta": config.rope_theta}
    full |= scaling or {"rope_type": "default"}
    own = {"rope_theta": local, "rope_type": "default"}
    if config.rope_theta_sliding is None:
      own = dict(full)
    return {
      "rope_theta": config.rope_theta,
      "rope_local_base_freq": local,
      "rope_scaling": scaling,
      "rope_parameters": {"full_attention": full, "sliding_attention": own},
      **_context(config.rope_scaling),
    }

  names = (*NAMES, "rope_local_base_freq")
  return Part(names, read, write)


def _stated(json):
  stated = dict(json.get("rope_parameters") or {})
  older = json.get("rope_scaling")
  _agree("rope_scaling", stated, older)
  return stated | (older or {})


def _agree(name, stated, older):
  for key, value in (older or {}).items():
    if stated.get(key, value) != value:
      raise UserError(
        f"{name} says {key} = {value!r}, but rope_parameters says"
        f" {stated[key]!r}."
      )


def _read(json, stated, default_theta):
  stated = {key: value for key, value in stated.items() if value is not None}
  theta = json.get("rope_theta")
  base = stated.pop("rope_theta", theta if theta is not None else default_theta)
  if theta is not None and theta != base:
    raise UserError(f"rope_theta is {theta}, but rope_parameters says {base}.")
  for partial in (
    json.get("partial_rotary_factor"),
    stated.pop("partial_rotary_factor", None),
  ):
    if partial not in (None, 1.0):
      raise UserError(
        f"partial_rotary_factor is {partial}; our RoPE turns whole heads, so"
        " it must be 1."
      )
  older = stated.pop("type", None)
  kind = stated.pop("rope_type", older or "default")
  if older not in (None, kind):
    raise UserError(f"RoPE has type {older!r} and rope_type {kind!r}.")
  return float(base), _read_scaling(kind, stated, json)


def _read_scaling(kind, stated, json):
  if kind == "default":
    if stated:
      raise UserError(
        f"RoPE of the type 'default' has {_listed(stated)}, which it does not"
        " read."
      )
    return None
  if kind not in KINDS:
    raise UserError(
      f"rope_type is {kind!r}; our RoPE has default, {', '.join(KINDS)}."
    )
  context = json.get("max_position_embeddings")
  original = json.get("original_max_position_embeddings")
  fields = {_OURS.get(key, key): value for key, value in stated.items()}
  if kind == "linear":
    # It may be said, and changes nothing.
    fields.pop("original_max_position", None)
  elif kind == "dynamic":
    said = fields.setdefault("original_max_position", context)
    if said != context:
      raise UserError(
        f"original_max_position_embeddings is {said}, but a RoPE of the type"
        f" 'dynamic' grows from max_position_embeddings, which is {context}."
      )
  else:
    if original is not None:
      fields["original_max_position"] = original
    fields.setdefault("original_max_position", context)
  if kind in ("yarn", "longrope") and "factor" not in fields and context:
    fields["factor"] = context / fields["original_max_position"]
  if not (fields.get("mscale") and fields.get("mscale_all_dim")):
    # Read together or not at all.
    fields.pop("mscale", None)
    fields.pop("mscale_all_dim", None)
  known = {field.name for field in dataclasses.fields(RopeScaling)}
  stray = {key: fields[key] for key in set(fields) - known}
  if stray:
    raise UserError(
      f"RoPE of the type {kind!r} has {_listed(stray)}, which ours does not"
      " read."
    )
  return RopeScaling(kind, **fields)


def _listed(fields):
  return ", ".join(f"{key} = {value!r}" for key, value in fields.items())


def _write_scaling(scaling):
  if scaling is None:
    return None
  fields = {
    _THEIRS.get(key, key): list(value) if isinstance(value, tuple) else value
    for key, value in dataclasses.asdict(scaling).items()
    if value is not None
  }
  kind = fields.pop("kind")
  if kind == "dynamic":
    fields.pop("original_max_position_embeddings")
  return {"rope_type": kind, **fields}


def _context(scaling):
  if scaling is None or scaling.kind != "dynamic":
    return {}
  return {"max_position_embeddings": scaling.original_max_position}
