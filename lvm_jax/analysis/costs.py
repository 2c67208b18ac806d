"""What one run of a compiled program costs a device: FLOPs, HBM bytes and collectives. Loops count every trip."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from lvm_jax.analysis import hlo
from lvm_jax.analysis.instruction_flops import convolution_flops, dot_flops, kernel_flops

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# Instructions that move no bytes themselves: bookkeeping, or calls whose bodies are counted instead.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "opt-barrier", "domain", "async-start", "async-update",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of `COLLECTIVES`.
      payload: bytes of the whole array on one device: after a gather, before a scatter.
      group: the devices of one group that exchange it, as positions in the mesh, row by row.
      times: executions per step.
      asynchronous: one instruction starts it and another awaits it, with others in between.
    """

    kind: str
    payload: float
    group: tuple[int, ...]
    times: float
    asynchronous: bool

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends in all executions, with ring algorithms."""
        n = len(self.group)
        # On a ring a device sends n - 1 pieces of payload / n. An all-reduce does it twice: it reduces, then gathers.
        rounds = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}
        return self.times * self.payload * rounds.get(self.kind, (n - 1) / n)


@dataclasses.dataclass
class Cost:
    """Sums over one run of the program, on one device.

    Attributes:
      flops: of matrix products, convolutions and known kernels; a multiply-add is 2.
      hbm_bytes: read and written by instructions after fusion; data that stays on the chip is free.
      collectives: all of them.
      uncounted_kernels: name -> calls, for Pallas kernels and calls into NVIDIA's libraries that state no cost and are
        not known by their names.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    uncounted_kernels: dict[str, float] = dataclasses.field(default_factory=dict)

    def count(self, kind: str) -> float:
        """Executions of all collectives of one kind."""
        return sum(c.times for c in self.collectives if c.kind == kind)

    def payload(self, kind: str) -> float:
        """Bytes of all collectives of one kind."""
        return sum(c.times * c.payload for c in self.collectives if c.kind == kind)


def program_cost(text: str, n_devices: int = 1) -> Cost:
    """Counts the cost of a compiled program.

    Args:
      text: from `compiled.as_text()`.
      n_devices: of the mesh; a collective without groups spans all of them.

    Raises:
      ValueError: the text does not give the trip count of a loop.
    """
    module = hlo.parse(text)
    cost = Cost()
    _Counter(module, n_devices, cost).visit(module.entry, 1.0, fused=None)
    return cost


@dataclasses.dataclass
class _Counter:
    module: hlo.Module
    n_devices: int
    cost: Cost

    def visit(
        self, computation: hlo.Computation, times: float, fused: hlo.Instruction | None
    ) -> None:
        for instruction in computation:
            opcode = instruction.opcode
            if opcode == "while":
                trips = times * self.module.trip_count(instruction)
                self.visit(self.module.called(instruction, "body"), trips, None)
            elif opcode == "conditional":
                self._dearest_branch(instruction, times)
            elif opcode in ("fusion", "call", "async-start"):
                key = "to_apply" if opcode == "call" else "calls"
                inner = instruction if opcode == "fusion" else fused
                self.visit(self.module.called(instruction, key), times, inner)
            elif opcode == "dot":
                self.cost.flops += times * dot_flops(computation, instruction)
            elif opcode == "convolution":
                self.cost.flops += times * convolution_flops(computation, instruction)
            elif opcode == "custom-call":
                self._kernel(computation, instruction, times)
            elif opcode.removesuffix("-start") in COLLECTIVES:
                self._collective(computation, instruction, times, fused)
            # Inside a fusion values stay on the chip; only the fusion itself reads and writes HBM.
            if fused is None:
                self.cost.hbm_bytes += times * _hbm_bytes(self.module, computation, instruction)

    def _dearest_branch(self, instruction: hlo.Instruction, times: float) -> None:
        listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
        if listed:
            names = [name.strip().lstrip("%") for name in listed.group(1).split(",")]
        else:
            names = [instruction.attribute(f"{answer}_computation") for answer in ("true", "false")]
        branches = []
        for name in names:
            branch = Cost()
            counter = _Counter(self.module, self.n_devices, branch)
            counter.visit(self.module.computations[str(name)], times, None)
            branches.append(branch)
        # Which branch runs is known only at run time, so this is an upper bound.
        dearest = max(branches, key=lambda branch: (branch.flops, branch.hbm_bytes))
        self.cost.flops += dearest.flops
        self.cost.hbm_bytes += dearest.hbm_bytes
        self.cost.collectives += dearest.collectives
        for branch in branches:  # what has no count may well be in one that seems cheap
            self._uncounted(branch.uncounted_kernels)

    def _kernel(
        self, computation: hlo.Computation, instruction: hlo.Instruction, times: float
    ) -> None:
        flops = kernel_flops(computation, instruction)
        if flops is None:
            self._uncounted({instruction.name: times})
        else:
            self.cost.flops += times * flops

    def _uncounted(self, calls: Mapping[str, float]) -> None:
        known = self.cost.uncounted_kernels
        for name, times in calls.items():
            known[name] = known.get(name, 0.0) + times

    def _collective(
        self,
        computation: hlo.Computation,
        instruction: hlo.Instruction,
        times: float,
        fused: hlo.Instruction | None,
    ) -> None:
        kind = instruction.opcode.removesuffix("-start")
        asynchronous = instruction.opcode.endswith("-start")
        if fused is not None and "chain_id=" in instruction.attributes:
            # A TPU repeats an asynchronous collective in every fusion that continues it: count only the first.
            asynchronous = True
            if not any('"AsyncCollectiveStart"' in i.attributes for i in computation):
                return
        group = _first_group(instruction.attributes, self.n_devices)
        payload = sum(operand.bytes for operand in computation.operands(instruction))
        if kind == "all-gather":  # its operand is one device's share, the payload is the whole
            payload *= len(group)
        if (
            kind == "all-reduce"
            and fused is not None
            and fused.bytes * len(group) <= payload * 1.01
        ):
            # A TPU writes it as a fusion of an all-reduce and a slice, whose result is one share of the payload.
            kind = "reduce-scatter"
        if len(group) > 1:
            self.cost.collectives.append(Collective(kind, payload, group, times, asynchronous))


def _first_group(attributes: str, n_devices: int) -> tuple[int, ...]:
    """The first group of `replica_groups`, or the first pair of a permutation; XLA has three notations for groups."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
    if pairs:
        return tuple(map(int, pairs.groups()))
    listed = re.search(r"replica_groups=\{\{([0-9,]+)\}", attributes)
    if listed:
        return tuple(map(int, listed.group(1).split(",")))
    iota = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", attributes
    )
    if iota:  # [groups,size]<=[shape]T(order): iota of that shape, transposed, cut into groups
        ids = np.arange(n_devices).reshape([int(d) for d in iota.group(3).split(",")])
        if iota.group(4):
            ids = ids.transpose([int(d) for d in iota.group(4).split(",")])
        return tuple(map(int, ids.reshape(int(iota.group(1)), int(iota.group(2)))[0]))
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([0-9,]+)\]T\(([0-9,]+)\)\))? \{([^}]*)\}",
        attributes,
    )
    if mesh:  # mesh['axis'=size, ...] {'axis', ...}: devices that differ only along the named axes form a group
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", mesh.group(1))}
        across = re.findall(r"'(\w+)'", mesh.group(4))
        ids = np.arange(math.prod(sizes.values()))
        if mesh.group(2):
            ids = ids.reshape([int(d) for d in mesh.group(2).split(",")])
            ids = ids.transpose([int(d) for d in mesh.group(3).split(",")])
        ids = ids.reshape(list(sizes.values()))
        first = tuple(slice(None) if axis in across else 0 for axis in sizes)
        return tuple(map(int, ids[first].ravel()))
    if "replica_groups" in attributes and "replica_groups={}" not in attributes:
        text = attributes[attributes.index("replica_groups") :][:80]
        raise ValueError(f"unknown notation of replica groups: {text}")
    return tuple(range(n_devices))


def _hbm_bytes(
    module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction
) -> float:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0.0
    # A slice reads and writes only the cut, not the whole array that is its operand.
    if opcode in _SLICES:
        return 2 * _in_hbm(instruction.shapes)
    if opcode == "dynamic-update-slice":
        return 2 * _in_hbm(computation.operands(instruction)[1].shapes)
    operands = computation.operands(instruction)
    if opcode == "slice-start":  # its result is (operand, slice, context); only the slice moves
        cut = instruction.shapes[1]
        return cut.bytes * float(operands[0].shapes[0].in_hbm + cut.in_hbm)
    if opcode.endswith("-start"):  # its result repeats its operand: (copy, operand, context)
        return _in_hbm(instruction.shapes[:1]) + sum(_in_hbm(o.shapes) for o in operands[:1])
    if opcode == "fusion":
        return _fusion_bytes(module.called(instruction, "calls"), instruction, operands)
    return _in_hbm(instruction.shapes) + sum(_in_hbm(operand.shapes) for operand in operands)


def _fusion_bytes(
    inner: hlo.Computation, fusion: hlo.Instruction, operands: list[hlo.Instruction]
) -> float:
    """Bytes of operands and results; for an array that is only sliced or updated in place, just the slice."""
    users: dict[str, list[hlo.Instruction]] = {}
    for instruction in inner:
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    total = 0.0
    written_in_place = 0.0
    for parameter in inner:
        if parameter.opcode == "parameter":
            operand = operands[int(parameter.attributes.split(")")[0].split(",")[0])]
            if not operand.shapes or not operand.shapes[0].in_hbm:
                continue
            touched, whole = _touched(inner, parameter, users)
            # Several slices may touch more than the array has; it is then read once as a whole.
            total += min(touched, operand.bytes)
            written_in_place += whole
    results = _in_hbm(fusion.shapes)
    return total + max(results - written_in_place, 0.0)


def _touched(
    inner: hlo.Computation, value: hlo.Instruction, users: Mapping[str, list[hlo.Instruction]]
) -> tuple[float, float]:
    """Bytes of an array that its users touch, and bytes of results that are the same array, updated in place."""
    touched, in_place = 0.0, 0.0  # any other user reads the whole array: see the `else`
    for user in users.get(value.name, []):
        if user.opcode in _SLICES and user.operands[0] == value.name:
            touched += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            touched += inner.operands(user)[1].bytes
            in_place += user.bytes
        elif user.opcode == "tuple":
            in_place += value.bytes
        elif user.opcode == "bitcast":
            more, whole = _touched(inner, user, users)
            touched, in_place = touched + more, in_place + whole
        else:
            return value.bytes, 0.0
    return touched, in_place


def _in_hbm(shapes: tuple[hlo.Shape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if shape.in_hbm)
