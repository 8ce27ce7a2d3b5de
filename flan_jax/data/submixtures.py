"""Submixtures: a mixture of mixtures at given shares; some may be absent.

A sub-mixture is absent when no task of it is registered, or none of its
datasets is on this machine. The others then have its share, which is another
mixture than the one that was asked for: `Submixtures` does not give examples
before that has been allowed (MISSING_SUBMIXTURES).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import seqio

from flan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
  """One sub-mixture.

  Attributes:
    name: "cot".
    weight: its share of the examples, before others are absent.
    tasks: seqio's tasks.
    names: tasks or mixtures that others register; those in seqio's registry
      are parts of it too.
    rate: training examples of a task, as mixing counts them.
    why: what is known of why `names` are not registered, if they are not.
  """

  name: str
  weight: float
  tasks: tuple[seqio.Task, ...]
  names: tuple[str, ...]
  rate: Callable[[seqio.Task], float]
  why: str = ""

  def members(self) -> list[tuple[Any, Any]]:
    """Its tasks and mixtures with their rates, as seqio takes them."""
    found = [(task, self.rate) for task in self.tasks]
    for name in self.names:
      if name in seqio.TaskRegistry.names():
        found.append((seqio.TaskRegistry.get(name), self.rate))
      elif name in seqio.MixtureRegistry.names():
        mixture = seqio.MixtureRegistry.get(name)
        found += [(task, self.rate) for task in mixture.tasks]
    return found


@dataclasses.dataclass(frozen=True)
class Share:
  """What of a sub-mixture is here.

  Attributes:
    weight: its share of the examples as asked for.
    share: as it is, 0 where it is absent.
    tasks: names of its tasks that can be read, in seqio's registry.
    known: how many tasks it has.
    absent: why it is absent; "" where it is not.
  """

  weight: float
  share: float
  tasks: tuple[str, ...]
  known: int
  absent: str = ""


class Submixtures(seqio.Mixture):
  """A seqio mixture of `Part`s, each of its weight.

  Args:
    name: in seqio's registry.
    parts: the sub-mixtures; those without any task yet may have one later.
    balanced: False: weights do not count, and every task has the rate that it
      has within its part.
    missing: "error" or "skip", for parts that are absent (MISSING_SUBMIXTURES).
  """

  def __init__(
    self,
    name: str,
    parts: tuple[Part, ...],
    balanced: bool = True,
    missing: str = "error",
  ):
    self.parts, self.balanced, self.missing = parts, balanced, missing
    members = {part.name: part.members() for part in parts}
    self.members_of = {
      part: tuple(dict.fromkeys(task.name for task, _ in found))
      for part, found in members.items()
    }
    weights = {part.name: part.weight for part in parts}
    tasks = []
    for part, found in members.items():
      if balanced and found:
        tasks.append((seqio.Mixture(f"{name}_{part}", found), weights[part]))
      else:
        tasks += found
    super().__init__(name, tasks)

  def now(self) -> "Submixtures":
    """The same with what is registered by now."""
    return Submixtures(self.name, self.parts, self.balanced, self.missing)

  def get_dataset(self, *args, **kwargs):
    """As seqio's.

    Raises:
      UserError: a sub-mixture is absent and may not be.
    """
    self.check(self.absent({}))
    return super().get_dataset(*args, **kwargs)

  def absent(self, gone: Mapping[str, str]) -> dict[str, str]:
    """Sub-mixture -> why it is absent; those that are there are not in it.

    Args:
      gone: tasks that cannot be read, and why.
    """
    out = {}
    for part in self.parts:
      members = self.members_of[part.name]
      if not members:
        out[part.name] = (
          f"nothing is registered as {', '.join(part.names)}"
          + f": {part.why}" * bool(part.why)
        )
      elif all(name in gone for name in members):
        out[part.name] = (
          f"none of its {len(members)} tasks can be read;"
          f" {members[0]}: {gone[members[0]]}"
        )
    return out

  def check(self, absent: Mapping[str, str]) -> None:
    """Raises UserError where `absent` sub-mixtures are not allowed to be."""
    if not absent or (self.missing == "skip" and len(absent) < len(self.parts)):
      return
    weights = {part.name: part.weight for part in self.parts}
    said = "\n".join(
      f"  {name} ({100 * weights[name]:.0f} % of the examples):"
      f" {why.rstrip('.')}."
      for name, why in absent.items()
    )
    way_out = (
      "not one is left."
      if len(absent) == len(self.parts)
      else 'MISSING_SUBMIXTURES = "skip" goes on with the others, which then'
      " have its share."
    )
    raise UserError(
      f"{self.name}: {len(absent)} of {len(self.parts)} sub-mixtures are"
      f" absent; {way_out}\n{said}"
    )

  def shares(
    self, rates: Mapping[str, float], absent: Mapping[str, str]
  ) -> dict[str, Share]:
    """What of each sub-mixture is here, by name.

    Args:
      rates: share of the examples of each task that can be read.
      absent: of `absent`.
    """
    out = {}
    for part in self.parts:
      members = self.members_of[part.name]
      here = tuple(name for name in members if name in rates)
      out[part.name] = Share(
        part.weight,
        sum(rates[name] for name in here),
        here,
        len(members),
        absent.get(part.name, ""),
      )
    return out


def now(mixture: seqio.Mixture | seqio.Task) -> seqio.Mixture | seqio.Task:
  """The mixture with what is registered by now, if it has sub-mixtures."""
  return mixture.now() if isinstance(mixture, Submixtures) else mixture


def absent(mixture: Any, gone: Mapping[str, str]) -> dict[str, str]:
  """Its sub-mixtures that are absent, and why; {} for other mixtures.

  Args:
    mixture: any of seqio's.
    gone: tasks that cannot be read, and why.

  Raises:
    UserError: one is absent and may not be.
  """
  if not isinstance(mixture, Submixtures):
    return {}
  found = mixture.absent(gone)
  mixture.check(found)
  return found


def shares(
  mixture: Any, rates: Mapping[str, float], absent: Mapping[str, str]
) -> dict[str, Share]:
  """See `Submixtures.shares`; {} for other mixtures."""
  if not isinstance(mixture, Submixtures):
    return {}
  return mixture.shares(rates, absent)
