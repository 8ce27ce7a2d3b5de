"""Every family in the Hugging Face layout that we read and write, as data."""

import difflib
from collections.abc import Mapping
from typing import Any

from flan_jax.convert.tables import (
  gemma2,
  gemma3,
  llama,
  olmo,
  olmo2,
  qwen2,
  qwen3,
  t5,
)
from flan_jax.convert.tables.family import Family, Within, write_config
from flan_jax.errors import UserError

# By model_type. The first that has a model is written, so a Mistral without
# windows is a Llama unless its family is said.
FAMILIES: Mapping[str, Family] = {
  family.model_type: family
  for family in (
    llama.LLAMA,
    llama.MISTRAL,
    qwen2.QWEN2,
    qwen3.QWEN3,
    gemma2.GEMMA2,
    gemma3.GEMMA3,
    olmo.OLMO,
    olmo2.OLMO2,
    t5.T5,
    t5.MT5,
  )
}


def family_of(json: Mapping[str, Any], where: str) -> Family:
  """The family of a config.json.

  Raises:
    UserError: one we do not know (the known ones are listed), or a model of a
      known one without its head.
  """
  name = json.get("model_type")
  architectures = json.get("architectures") or []
  if name not in FAMILIES:
    near = difflib.get_close_matches(str(name), FAMILIES, 1)
    nearest = f" (the nearest is {near[0]!r})" if near else ""
    known = ", ".join(f"{f.model_type} ({f.architecture})" for f in _all())
    raise UserError(
      f"{where} is of the model_type {name!r}, architecture"
      f" {', '.join(architectures) or 'not said'}, which we do not know. Known"
      f" are {known}{nearest}."
    )
  family = FAMILIES[name]
  if architectures and architectures != [family.architecture]:
    raise UserError(
      f"{where} is of the architecture {', '.join(architectures)}; of"
      f" model_type {name!r} we know {family.architecture}. Load and save it"
      " as that."
    )
  return family


def language_part(
  json: Mapping[str, Any], where: str
) -> tuple[Mapping[str, Any], Within | None]:
  """The config.json of the family's model in a larger; others as they are.

  Raises:
    UserError: the two contradict each other.
  """
  family = next(
    (
      f
      for f in _all()
      if f.within and f.within.model_type == json.get("model_type")
    ),
    None,
  )
  if family is None:
    return json, None
  within = family.within
  part = dict(json.get(within.config) or {})
  kept = {
    name: value
    for name, value in json.items()
    if name not in within.fields | {within.config}
  }
  tied = {d.get("tie_word_embeddings", True) for d in (part, kept)}
  if len(tied) > 1:
    raise UserError(
      f"{where} says tie_word_embeddings once true and once false, in"
      f" {within.config}. Correct the one that is wrong."
    )
  architectures = kept.pop("architectures", None) or [within.architecture]
  if architectures != [within.architecture]:
    # As it is, so that `family_of` names it.
    return json, None
  part.pop("architectures", None)
  return kept | part | {"model_type": family.model_type}, within


def written_by(
  config: Any, model_type: str | None = None
) -> tuple[Family, dict[str, Any]]:
  """The family that has a model, and the model's config.json.

  Args:
    config: a T5Config or DecoderConfig.
    model_type: a family to prefer where several have the model.

  Raises:
    UserError: no family has it.
  """
  preferred = [f for f in _all() if f.model_type == model_type]
  for family in preferred + _all():
    json = write_config(family, config)
    if json is not None:
      return family, json
  raise UserError(
    f"No family of Hugging Face has the model {config}. Ours are"
    f" {', '.join(FAMILIES)}; write another format."
  )


def _all():
  return list(FAMILIES.values())
