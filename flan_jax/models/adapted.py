"""Models with parameters of their own on top of a base: what they have.

An adapted model is a base model and one more top-level key of parameters:

    model = adapter.on(base, vocabulary)        # `soft_prompt.PromptTuning`
    params = {**base_params, model.key: model.initial(rng, base_params)}
    model.hidden(params, batch)                 # and all else a model does

Whoever trains, ranks or decodes does not know the difference. The key's
parameters are what is trained and saved (`training/trainable.py`); the base is
read again from where it was.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

from flan_jax.errors import UserError, check_known


class Adapted(Protocol):
  """What an adapted model has beside the models' own interface.

  A frozen, hashable dataclass, since models are static arguments of compiled
  functions. `init` gives the base's tree with the key, in shape. Where the base
  is kept in other types than it is read in, `store(base_params)` changes it.

  Attributes:
    key: its top-level key in the tree of parameters, and its kind.
    trainable: regex of the parameters that are its own.
    packs: whether several examples may share a row.
    base: the model underneath.
  """

  key: ClassVar[str]
  trainable: ClassVar[str]
  packs: ClassVar[bool]
  base: Any

  def initial(self, rng: Any, base_params: Any, saved: Any = None) -> Any:
    """The tree under `key` before the first step.

    Args:
      rng: a key of jax.random.
      base_params: of the base model.
      saved: what `convert/prompts.py: read` read from `saved_at`, if set.
    """

  def described(self) -> dict[str, Any]:
    """JSON that says what it is, for a checkpoint; `kind` is its key."""

  @classmethod
  def recalled(cls, base: Any, described: Mapping[str, Any]) -> "Adapted":
    """The inverse of `described`."""


class OnBase:
  """What an adapted model takes from its base as it is."""

  base: Any

  @property
  def config(self) -> Any:
    return self.base.config

  @property
  def kind(self) -> str:
    return self.base.kind

  @property
  def module(self) -> Any:
    return self.base.module


class Options:
  """What a frozen dataclass of an adapter's options has besides.

  Attributes:
    key: of `Adapted`.
    label: of the kind of adapter, for messages.
  """

  key: ClassVar[str]
  label: ClassVar[str]

  def described(self) -> dict[str, Any]:
    """The options as JSON, for a checkpoint; `of` is the inverse."""
    return {"kind": self.key, **dataclasses.asdict(self)}

  @classmethod
  def of(cls, described: Mapping[str, Any]) -> Self:
    """The options that a checkpoint describes.

    >>> from flan_jax.models.lora import Lora
    >>> Lora.of(Lora(rank=4).described()) == Lora(rank=4)
    True

    Raises:
      UserError: an option of another version.
    """
    said = {name: x for name, x in described.items() if name != "kind"}
    known = [field.name for field in dataclasses.fields(cls)]
    for name in said:
      check_known(f"an option of {cls.label}", name, known)
    return cls(**said)


# Imported when asked for: each imports this module's users.


def _soft_prompt():
  from flan_jax.models.soft_prompt import SoftPrompt

  return SoftPrompt


def _lora():
  from flan_jax.models.lora import WithLora

  return WithLora


def _ia3():
  from flan_jax.models.ia3 import WithIa3

  return WithIa3


def _prefix():
  from flan_jax.models.prefix import WithPrefix

  return WithPrefix


KINDS: dict[str, Callable[[], type]] = {
  "ia3": _ia3,
  "lora": _lora,
  "prefix": _prefix,
  "soft_prompt": _soft_prompt,
}


def recalled(base: Any, described: Mapping[str, Any], where: Any) -> Any:
  """The adapted model that a checkpoint says it is of.

  Args:
    base: the model underneath.
    described: of `Adapted.described`.
    where: the checkpoint, for messages.

  Raises:
    UserError: a kind of another version; the nearest that is known is named.
  """
  kind = described.get("kind")
  if kind not in KINDS:
    near = difflib.get_close_matches(str(kind), KINDS, 1, 0.0)[0]
    raise UserError(
      f"{where} holds an adapter of kind {kind!r}, which this version does not"
      f" know; the nearest is {near!r}, all are {', '.join(KINDS)}."
    )
  return KINDS[kind]().recalled(base, described)


def base_of(model: Any) -> Any:
  """The model underneath, or the model itself where nothing is on top."""
  return getattr(model, "base", model)
