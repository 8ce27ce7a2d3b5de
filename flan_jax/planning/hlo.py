"""The text of a compiled program (HLO): its computations and instructions.

    module = parse(compiled.as_text())
    module.entry.instructions[0].opcode

Only what costs need is read: types, operands, what calls what, and how often a
loop runs. https://openxla.org/xla/operation_semantics
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BITS = {
  "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16,
  "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64, "f16": 16,
  "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "token": 0,
  "opaque": 0,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|branch_computations"
  r"|called_computations|true_computation|false_computation)="
  r"(\{[^{}]*\}|%[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class ArrayType:
  """One array of an instruction's type.

  Attributes:
    dtype, shape: of the part that one device has.
    near: whether it is in the chip's own memory (VMEM), not in HBM.
  """

  dtype: str
  shape: tuple[int, ...]
  near: bool = False

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> float:
    bits = _BITS.get(self.dtype)
    if bits is None:  # f8e4m3fn and its like.
      bits = int(re.search(r"\d+", self.dtype)[0])
    return self.size * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name, opcode: of it.
    type: the arrays it makes, one or more.
    operands: names of instructions of the same computation.
    attributes: the text behind the operands.
    root: whether it is what the computation returns.
  """

  name: str
  opcode: str
  type: tuple[ArrayType, ...]
  operands: tuple[str, ...]
  arguments: str
  attributes: str
  root: bool

  @functools.cached_property
  def called(self) -> Mapping[str, tuple[str, ...]]:
    """`calls`, `body`, ... -> names of computations."""
    return {
      kind: tuple(_NAME.findall(names))
      for kind, names in _CALLED.findall(self.attributes)
    }

  @property
  def trip_count(self) -> int | None:
    """How often a loop runs, where the compiler knows."""
    found = re.search(
      r'known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)', self.attributes
    )
    return int(found[1]) if found else None

  @property
  def group_size(self) -> int | None:
    """Devices that take part in a collective together; None: not said."""
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", self.attributes)
    if iota:
      return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", self.attributes)
    if listed:
      return len(listed[1].split(","))
    # replica_groups=mesh['a'=4,'b'=2] {'a'}; a part of an axis is 'a':(2)2.
    named = re.search(
      r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^{}]*)\}", self.attributes
    )
    if not named:
      return None
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
    parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
    return math.prod(int(part or sizes[axis]) for axis, part in parts)

  @property
  def channel(self) -> str | None:
    """What the parts of one collective have in common."""
    found = re.search(r"channel_id=(\d+)", self.attributes)
    return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in order."""

  name: str
  instructions: tuple[Instruction, ...]

  @functools.cached_property
  def by_name(self) -> Mapping[str, Instruction]:
    return {one.name: one for one in self.instructions}

  @property
  def root(self) -> Instruction:
    roots = [one for one in self.instructions if one.root]
    return roots[0] if roots else self.instructions[-1]

  def operand_types(self, one: Instruction) -> list[tuple[ArrayType, ...]]:
    """The types of an instruction's operands."""
    known = self.by_name
    return [known[name].type for name in one.operands if name in known]


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: its computations, and which of them it begins with."""

  computations: Mapping[str, Computation]
  entry: Computation

  def trips(self, loop: Instruction) -> int:
    """How often a loop runs: as the compiler says, or as its condition does.

    A loop whose number is not known counts once.
    """
    if loop.trip_count is not None:
      return loop.trip_count
    for name in loop.called.get("condition", ()):
      condition = self.computations[name]
      limits = [
        int(one.arguments)
        for one in condition.instructions
        if one.opcode == "constant" and one.arguments.isdigit()
      ]
      counters = [
        _index(one)
        for one in condition.instructions
        if one.opcode == "get-tuple-element"
      ]
      if len(limits) == 1 and len(counters) == 1:
        (body,) = (self.computations[x] for x in loop.called["body"])
        return math.ceil(limits[0] / _step(body, counters[0]))
    return 1


def _step(body: Computation, counter: int) -> int:
  """What a loop's body adds to its counter: 2 where it is unrolled once."""
  known, step = body.by_name, 0
  one = known.get(body.root.operands[counter])
  while one is not None and one.opcode in ("add", "copy", "bitcast"):
    parts = [known[name] for name in one.operands if name in known]
    constants = [x for x in parts if x.opcode == "constant"]
    step += sum(int(x.arguments) for x in constants)
    rest = [x for x in parts if x.opcode != "constant"]
    one = rest[0] if len(rest) == 1 else None
  return max(1, step)


def _index(one: Instruction) -> int:
  """Which part of a tuple an instruction takes."""
  return int(re.search(r"index=(\d+)", one.attributes)[1])


def parse(text: str) -> Module:
  """The module that `text` writes down.

  >>> module = parse('''HloModule m
  ...
  ... ENTRY %main (p: f32[4,8]) -> f32[8,4] {
  ...   %p = f32[4,8]{1,0} parameter(0)
  ...   ROOT %t = f32[8,4]{0,1} transpose(%p), dimensions={1,0}
  ... }
  ... ''')
  >>> module.entry.root.opcode, module.entry.root.type[0].shape
  ('transpose', (8, 4))

  Raises:
    ValueError: there is no entry computation.
  """
  computations, entry, name, lines = {}, None, None, []
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      name, lines = head[2], []
      entry = name if head[1] else entry
    elif line.startswith("}") and name is not None:
      computations[name] = Computation(name, tuple(lines))
      name = None
    elif name is not None:
      one = _instruction(line)
      if one is not None:
        lines.append(one)
  if entry is None:
    raise ValueError("the program's text has no ENTRY computation")
  return Module(computations, computations[entry])


def array_types(text: str) -> tuple[ArrayType, ...]:
  """The arrays of a type, of which a tuple has several.

  >>> [x.shape for x in array_types("(f32[2,3]{1,0:T(8,128)S(1)}, u32[])")]
  [(2, 3), ()]
  """
  return tuple(
    ArrayType(
      dtype,
      tuple(int(n) for n in shape.split(",") if n),
      bool(re.search(r"S\([1-9]", layout)),
    )
    for dtype, shape, layout in _ARRAY.findall(text)
  )


def walk(module: Module) -> Iterator[tuple[Computation, Instruction, int]]:
  """Every instruction that runs, with how often it runs in one call.

  Instructions inside a fusion are not walked; loops are, times their trips.
  """

  def of(computation, times):
    for one in computation.instructions:
      yield computation, one, times
      for name, more in inner(module, one):
        yield from of(module.computations[name], times * more)

  yield from of(module.entry, 1)


def inner(module: Module, one: Instruction) -> list[tuple[str, int]]:
  """Computations that run when `one` does, and how often each."""
  called = one.called
  if one.opcode == "while":
    return [(name, module.trips(one)) for name in called.get("body", ())]
  if one.opcode == "call" or one.opcode.startswith("async-start"):
    names = [
      name
      for kind in ("to_apply", "calls", "called_computations")
      for name in called.get(kind, ())
    ]
    return [(name, 1) for name in dict.fromkeys(names)]
  if one.opcode == "conditional":
    # One branch runs; the last is counted, the others are not.
    for kind in ("branch_computations", "true_computation"):
      if called.get(kind):
        return [(called[kind][-1], 1)]
  return []


def _instruction(line: str) -> Instruction | None:
  head = _INSTRUCTION.match(line)
  if not head:
    return None
  rest = line[head.end() :]
  end = _balanced(rest) if rest.startswith("(") else rest.find(" ")
  kind, rest = rest[:end], rest[end:].lstrip()
  opcode, paren, _ = rest.partition("(")
  if not paren:
    return None
  rest = rest[len(opcode) :]
  end = _balanced(rest)
  return Instruction(
    name=head[1],
    opcode=opcode.strip(),
    type=array_types(kind),
    operands=tuple(_NAME.findall(rest[:end])),
    arguments=rest[1 : end - 1],
    attributes=rest[end:],
    root=line.lstrip().startswith("ROOT "),
  )


def _balanced(text: str) -> int:
  """Where the parenthesis that `text` begins with has closed."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return i + 1
  return len(text)
