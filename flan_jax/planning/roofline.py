"""How long a step takes at least, from what it computes, moves and sends.

Williams et al. 2009, "Roofline"; with the network as a third roof, as in Austin
et al. 2025, "How to Scale Your Model", chapter 1.
"""

import dataclasses

from flan_jax.planning.costs import Costs
from flan_jax.planning.topology import Topology

ASSUMPTIONS = (
  "compute at the chip's bfloat16 peak; HBM at its full bandwidth",
  "every instruction reads its operands from HBM and writes its result there,"
  " unless the compiler placed them in the chip's own memory",
  "a collective is a ring along one axis of the torus, both directions at"
  " once, alone on its links; no latency",
  "the step takes between the longest of the three (all overlap) and their"
  " sum (none does)",
)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds of one step.

  Attributes:
    compute, memory, network: what each would take alone.
  """

  compute: float
  memory: float
  network: float

  @property
  def least(self) -> float:
    """Where all three overlap.

    >>> Estimate(2.0, 1.0, 0.5).least, Estimate(2.0, 1.0, 0.5).most
    (2.0, 3.5)
    """
    return max(self.compute, self.memory, self.network)

  @property
  def most(self) -> float:
    """Where none does."""
    return self.compute + self.memory + self.network

  @property
  def bound(self) -> str:
    """The longest of the three."""
    seconds = dataclasses.asdict(self)
    return max(seconds, key=seconds.get)


def estimate(costs: Costs, topology: Topology) -> Estimate:
  """The three roofs for a program on a machine.

  Args:
    costs: of one chip in one step.
    topology: the machine.
  """
  network = 0.0
  for traffic in costs.traffic:
    # A permutation goes one way over one link.
    one_way = traffic.kind == "collective-permute"
    rate = topology.network.link if one_way else topology.ring
    network += traffic.sent / rate
  return Estimate(
    compute=costs.flops / topology.chip.flops,
    memory=costs.hbm_bytes / topology.chip.bandwidth,
    network=network,
  )
