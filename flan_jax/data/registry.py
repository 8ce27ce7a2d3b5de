"""What one module wrote to seqio's registries, and how it is taken back.

seqio's registries belong to the whole process; another project may have tasks
there too. Every set of tasks of ours keeps a list of its own, so that it can be
registered again for another vocabulary.
"""

import seqio

from flan_jax.errors import UserError


class Written:
  """Tasks and mixtures of one owner in seqio's registries.

      _written = Written("P3")
      _written.add(task)
      _written.clear()

  Args:
    owner: as messages name it.
  """

  def __init__(self, owner: str):
    self.owner = owner
    self.names: list[str] = []

  def add(self, provider: seqio.Task | seqio.Mixture) -> None:
    """Registers it.

    Raises:
      UserError: there is a task or mixture of this name.
    """
    if taken(provider.name):
      raise UserError(
        f"seqio has a task or mixture {provider.name!r} already, registered by"
        f" another project; use {self.owner} in a process of its own."
      )
    is_mixture = isinstance(provider, seqio.Mixture)
    registry = seqio.MixtureRegistry if is_mixture else seqio.TaskRegistry
    registry.add_provider(provider.name, provider)
    self.names.append(provider.name)

  def clear(self) -> None:
    """Removes all that was added."""
    for name in self.names:
      seqio.TaskRegistry.remove(name)
      seqio.MixtureRegistry.remove(name)
    self.names.clear()

  def complete(self) -> bool:
    """Whether it wrote something, and all of it is still there."""
    return bool(self.names) and all(map(taken, self.names))


def taken(name: str) -> bool:
  """Whether seqio has a task or a mixture of this name."""
  registries = seqio.TaskRegistry, seqio.MixtureRegistry
  return any(name in registry.names() for registry in registries)
