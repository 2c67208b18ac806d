"""Parses the text of a compiled XLA program (`compiled.as_text()`) into computations and instructions.

It keeps what counting needs: shapes, opcodes, operands, and attributes as text. XLA's own `cost_analysis()` will not
do: it counts the body of a loop once and a Pallas kernel as nothing.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

# Bytes per element; 2-bit and 4-bit types are packed.
_ITEM_BYTES = {
    "pred": 1, "s2": 0.25, "u2": 0.25, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16, "token": 0, "opaque": 0,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's element type and dimensions; `in_hbm` is False if XLA places it in on-chip memory."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool = True

    @property
    def bytes(self) -> float:
        """Bytes of its elements, without the padding of tiles."""
        # There are many 8-bit float types (f8e4m3fn, f8e5m2, ...), and all have one byte.
        size = 1 if self.dtype.startswith("f8") else _ITEM_BYTES[self.dtype]
        return size * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line, `%name = shapes opcode(operands), attributes`; `shapes` has all arrays of a tuple in order."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool = False

    def attribute(self, key: str) -> str | None:
        """The name that follows `key=`, such as the computation of `calls=%fused`."""
        found = re.search(rf"\b{key}=%?([\w.-]+)", self.attributes)
        return found.group(1) if found else None

    @property
    def bytes(self) -> float:
        """Bytes of its result."""
        return sum(shape.bytes for shape in self.shapes)


@dataclasses.dataclass(frozen=True)
class Computation:
    """Name -> instruction, in the order of the text."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction that gives the result."""
        return next(i for i in self.instructions.values() if i.is_root)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that an instruction reads."""
        return [self.instructions[name] for name in instruction.operands]


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program."""

    computations: dict[str, Computation]
    entry: Computation

    def called(self, instruction: Instruction, key: str) -> Computation:
        """The computation named by an attribute."""
        name = instruction.attribute(key)
        if name is None:
            raise ValueError(f"{instruction.opcode} {instruction.name} has no {key}=")
        return self.computations[name]

    def trip_count(self, loop: Instruction) -> int:
        """Trips of a `while`: the compiler's known_trip_count, or else the constant in its condition.

        Raises:
          ValueError: neither gives it, so the cost is unknown before the program runs.
        """
        known = _TRIPS.search(loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.called(loop, "condition")
        # Every scan counts from 0 while `counter < constant`; a TPU may wrap the comparison into a fusion.
        limits = [
            int(i.attributes) for i in condition if i.opcode == "constant" and not i.shapes[0].dims
        ]
        root = condition.root
        compares = root.opcode == "fusion" or "direction=LT" in root.attributes
        if not compares or len(limits) != 1:
            raise ValueError(
                f"the loop {loop.name} has no known number of trips: {condition.name} is no `i < N`"
            )
        return limits[0]


def parse(text: str) -> Module:
    """Parses the text of one module.

    Raises:
      ValueError: the text has no ENTRY computation.
    """
    computations: dict[str, Computation] = {}
    current: dict[str, Instruction] = {}
    entry = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = {}
            computation = Computation(header.group(2), current)
            computations[computation.name] = computation
            entry = computation if header.group(1) else entry
            continue
        found = _INSTRUCTION.match(line)
        if found:
            current[found.group(2)] = _instruction(*found.groups())
    if entry is None:
        raise ValueError("the text has no ENTRY computation: pass what compiled.as_text() returns")
    return Module(computations, entry)


def _instruction(root: str | None, name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shapes, rest = rest[:end], rest[end:].lstrip()
    opcode, opening = rest.split("(", 1)[0], rest.index("(")
    end = _closing(rest, opening)
    inside, attributes = rest[opening + 1 : end - 1], rest[end:].lstrip(", ")
    # Inside the parentheses of these two is no operand, but a value or a parameter's number.
    if opcode == "constant":
        inside, attributes = "", inside
    if opcode == "parameter":
        inside, attributes = "", inside
    operands = tuple(
        part.split()[-1].lstrip("%") for part in _split(re.sub(r"/\*.*?\*/", "", inside))
    )
    return Instruction(name, tuple(_shapes(shapes)), opcode, operands, attributes, bool(root))


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _ARRAY.findall(text):
        sizes = tuple(int(d) for d in dims.split(",") if d)
        yield Shape(dtype, sizes, in_hbm="S(" not in layout)


def _closing(text: str, opening: int) -> int:
    """The index after the parenthesis that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ValueError(f"unbalanced parentheses: {text[opening : opening + 80]}")


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets: an operand may come with its shape, which has commas too."""
    parts, depth, start = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]
