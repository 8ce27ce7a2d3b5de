"""What one call of a compiled program costs each chip, read from its text.

XLA's own cost analysis counts a loop's body once; here it counts as often as it
runs, which for scanned layers is what there is to know.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping

from flan_jax.planning import hlo

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Nothing is read or written: names of what is there, or the other half of an
# instruction that has been counted.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "while",
  "call",
  "conditional",
  "after-all",
  "partition-id",
  "replica-id",
  "iota",
  "opt-barrier",
  "domain",
}


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind over groups of one size.

  Attributes:
    kind: one of COLLECTIVES.
    group: devices that take part together.
    count: how often in a step.
    bytes: of the arrays, whole: what all devices of a group hold together of
      a gathered or scattered one.
  """

  kind: str
  group: int
  count: int
  bytes: float

  @property
  def sent(self) -> float:
    """Bytes that each chip sends, by the usual ring algorithms.

    >>> Traffic("all-reduce", 4, 1, 100.0).sent
    150.0
    >>> Traffic("all-gather", 4, 1, 100.0).sent
    75.0
    """
    share = (self.group - 1) / self.group
    if self.kind == "all-reduce":
      return 2.0 * share * self.bytes
    if self.kind == "collective-permute":
      return self.bytes
    if self.kind == "all-to-all":
      # A quarter on a ring in both directions: an element travels a quarter
      # of it on average (and never as a whole array).
      return share * self.bytes / 4.0
    return share * self.bytes


@dataclasses.dataclass(frozen=True)
class Costs:
  """Of one call, each chip's.

  Attributes:
    flops: operations of products (dot and convolution), recomputed ones too.
    hbm_bytes: that instructions read from and write to HBM.
    traffic: collectives, the largest first.
  """

  flops: float
  hbm_bytes: float
  traffic: tuple[Traffic, ...]


def of(module: hlo.Module) -> Costs:
  """The costs of a program.

  >>> text = '''HloModule m
  ...
  ... ENTRY %main (p: bf16[4,8]) -> bf16[4,16] {
  ...   %p = bf16[4,8]{1,0} parameter(0)
  ...   ROOT %g = bf16[4,16]{1,0} all-gather(%p), replica_groups=[2,2]<=[4]
  ... }
  ... '''
  >>> of(hlo.parse(text)).traffic
  (Traffic(kind='all-gather', group=2, count=1, bytes=128.0),)

  Args:
    module: of `hlo.parse`.
  """
  flops, moved = 0.0, 0.0
  sums: dict[tuple[str, int], list[float]] = collections.defaultdict(
    lambda: [0, 0.0]
  )
  started = _started(module)
  for computation, one, times in hlo.walk(module):
    moved += times * _moved(module, computation, one)
    for inside, part in _with_fused(module, computation, one):
      flops += times * _flops(inside, part)
      found = _collective(inside, part)
      elsewhere = started.get(part.channel, inside.name) != inside.name
      if found is not None and not elsewhere:
        kind, group, size = found
        sums[kind, group][0] += times
        sums[kind, group][1] += times * size
  traffic = [
    Traffic(kind, group, int(count), size)
    for (kind, group), (count, size) in sums.items()
  ]
  traffic.sort(key=lambda one: -one.sent)
  return Costs(flops, moved, tuple(traffic))


def _started(module) -> dict[str | None, str]:
  """Channel of a collective -> the computation that begins it.

  The compiler for TPUs writes a collective that goes on beside products into
  the fusions of these too, also into those of an inner loop.
  """
  found = {}
  for computation in module.computations.values():
    begins = any(
      'custom_call_target="AsyncCollectiveStart"' in one.attributes
      for one in computation.instructions
    )
    for one in computation.instructions if begins else ():
      if one.channel is not None and _collective(computation, one):
        found[one.channel] = computation.name
  return found


def _with_fused(module, computation, one):
  """The instruction, and those of a fusion that it is."""
  yield computation, one
  if one.opcode == "fusion" or one.opcode == "custom-call":
    for kind in ("calls", "called_computations"):
      for name in one.called.get(kind, ()):
        inside = module.computations[name]
        for part in inside.instructions:
          yield from _with_fused(module, inside, part)


def _collective(computation, one):
  kind = one.opcode.removesuffix("-start")
  kind = kind.removeprefix("ragged-")
  if kind not in COLLECTIVES or one.opcode.endswith("-done"):
    return None
  size = sum(
    array.bytes
    for operand in computation.operand_types(one)
    for array in operand
  )
  if kind == "collective-permute":
    return kind, 2, size
  group = one.group_size or 1
  if kind == "all-gather":
    size *= group
  if computation.name.startswith("all-reduce-scatter"):
    # How the compiler for TPUs writes one: a sum of which a part is kept.
    kind = "reduce-scatter"
  return (kind, group, size) if group > 1 else None


def _flops(computation, one) -> float:
  if one.opcode not in ("dot", "convolution"):
    return 0.0
  operands = computation.operand_types(one)
  if len(operands) < 2:
    return 0.0
  left, right = operands[0][0], operands[1][0]
  out = one.type[0].size
  if one.opcode == "dot":
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
    axes = [int(i) for i in found[1].split(",") if i] if found else []
    return 2.0 * out * math.prod(left.shape[i] for i in axes)
  return 2.0 * _products(one.attributes, left, right, one.type[0])


def _products(attributes, left, right, out) -> float:
  """Pairs of numbers that a convolution multiplies.

  The compiler for TPUs writes products of matrices as convolutions, batches of
  them as windows; places of a window beside the array, or between the numbers
  of a dilated one, are not computed.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
  if not labels:
    return float(out.size)
  lefts, rights, outs = labels.groups()
  window = {
    name: value.split("x")
    for name, value in re.findall(r"(\w+)=([\w\-]+)", _window(attributes))
  }
  total = 1.0
  for label, size in zip(rights, right.shape, strict=True):
    if label in "io":
      total *= size
      continue
    i = int(label)
    total *= _pairs(
      left.shape[lefts.index(label)],
      size,
      out.shape[outs.index(label)],
      {name: values[i] for name, values in window.items()},
    )
  return total * left.shape[lefts.index("b")]


def _pairs(left: int, window: int, out: int, options) -> int:
  """Places of a window that meet a number, over all results of one axis.

  >>> _pairs(1, 2, 2, {"pad": "1_1"}), _pairs(8, 8, 8, {"stride": "7",
  ...        "lhs_dilate": "8", "pad": "0_0"})
  (2, 8)
  """
  stride, dilate, spread = (
    int(options.get(name, "1"))
    for name in ("stride", "lhs_dilate", "rhs_dilate")
  )
  low = int(options.get("pad", "0_0").split("_")[0])
  end = (left - 1) * dilate
  count = 0
  for place in range(window):
    first = place * spread - low
    if stride == dilate == 1:
      count += max(0, min(out, end + 1 - first) - max(0, -first))
      continue
    for i in range(out):
      at = i * stride + first
      count += 0 <= at <= end and at % dilate == 0
  return count


def _window(attributes) -> str:
  found = re.search(r"window=\{([^{}]*)\}", attributes)
  return found[1] if found else ""


def _hbm(arrays) -> float:
  return sum(array.bytes for array in arrays if not array.near)


def _moved(module, computation, one) -> float:
  """Bytes that an instruction reads from and writes to HBM."""
  if one.opcode in _FREE or one.opcode.endswith("-done"):
    return 0.0
  if one.opcode.startswith("async-start"):
    return 0.0  # What it starts is walked.
  operands = computation.operand_types(one)
  if one.opcode == "fusion":
    (name,) = one.called["calls"]
    return _fusion_moved(module.computations[name], one, operands)
  if one.opcode in ("dynamic-slice", "slice", "gather"):
    return 2.0 * _hbm(one.type)
  if one.opcode == "dynamic-update-slice" and len(operands) > 1:
    return 2.0 * _hbm(operands[1])
  # The type of a start has its operands and handles too.
  if one.opcode in ("slice-start", "dynamic-slice-start"):
    part = one.type[1]
    return part.bytes + _hbm([part])
  if one.opcode == "copy-start":
    return sum(map(_hbm, operands)) + _hbm(one.type[:1])
  if one.opcode.removesuffix("-start") in COLLECTIVES:
    return sum(map(_hbm, operands)) + _hbm(one.type[-1:])
  return _hbm(one.type) + sum(map(_hbm, operands))


def _fusion_moved(fused, one, operands) -> float:
  """Of a slice that a fusion takes, or writes in place, the slice alone."""
  users: Mapping[str, list[hlo.Instruction]] = collections.defaultdict(list)
  for inside in fused.instructions:
    for operand in inside.operands:
      users[operand].append(inside)
  parameters = {
    int(x.arguments): x for x in fused.instructions if x.opcode == "parameter"
  }
  total = 0.0
  for i, arrays in enumerate(operands):
    if not _hbm(arrays):
      continue
    reads = users[parameters[i].name] if i in parameters else []
    total += _read(arrays, parameters.get(i), reads, users)
  return total + _written(fused, one)


def _read(arrays, parameter, reads, users) -> float:
  whole = _hbm(arrays)
  if parameter is None or not reads:
    return whole
  part = 0.0
  for user in reads:
    if user.opcode == "bitcast":
      part += _read(arrays, user, users[user.name], users)
    elif user.opcode in ("dynamic-slice", "slice"):
      part += sum(x.bytes for x in user.type)
    elif (
      user.opcode == "dynamic-update-slice"
      and user.operands[0] == parameter.name
    ):
      continue
    else:
      return whole
  return min(whole, part)


def _written(fused, one) -> float:
  roots = [fused.root]
  if fused.root.opcode == "tuple":
    known = fused.by_name
    roots = [known[name] for name in fused.root.operands if name in known]
  if len(roots) != len(one.type):
    return _hbm(one.type)
  total = 0.0
  for root, array in zip(roots, one.type, strict=True):
    while root.opcode == "bitcast" and root.operands:
      root = fused.by_name[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
      update = fused.by_name[root.operands[1]].type
      total += 0.0 if array.near else sum(x.bytes for x in update)
    else:
      total += 0.0 if array.near else array.bytes
  return total
