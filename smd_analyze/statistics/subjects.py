"""What of a tensor may be a decay clock, and what the pass keeps of it: its axes, the sums, a sample of every slice.

A direction that feels no gradient keeps its direction while the rest of the tensor turns. Looked at are the sums over
the units' axis and within each unit, and the slices of every axis. The sum over one axis being a clock makes the sum
over that axis and others one, so that these two sums miss none that is a sum over whole axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from smd_analyze.records.group import Group, Member
from smd_analyze.records.run import LazyTensor, Run

TYPES = ("bfloat16", "float16", "float32", "float64")  # the coarsest first
ANCHORS = 5  # checkpoints between which slices are compared during the pass, of a large run
FEW = 8  # checkpoints that are all anchors
MANY = 32  # anchors of a run of at most CHEAP bytes: slices that learn for some of the time are found too
CHEAP = 256 << 20
SAMPLE = 16  # elements by which a slice is compared: a clock's all turn together, so any of them will do
FEWEST = 8  # elements without which a direction proves nothing
LONGEST = 65_536  # elements of a sum or a vector that are kept
OPEN = 8 << 20  # numbers that the sums of the tensors under way may take together
OPEN_SUMS = 12  # so many are under way at once in a large model; in a small one all
VECTOR = 1 << 20  # elements beyond which a tensor of one dimension is no bias or gain but a store of other tensors
EDGE = 256  # first and last slices of very many, all looked at: padding stands there
SLICES = 1 << 17
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class AxisView:
    """A tensor seen as (before, count, after) around an axis, or neighbouring axes seen as one.

    `word` names its indices: "unit", "input", or "index … of axis 2" by the axis's number.
    """

    axes: tuple[int, ...]
    before: int
    count: int
    after: int
    word: str

    @property
    def elements(self) -> int:
        """Of one slice."""
        return self.before * self.after

    def name(self, index: int) -> str:
        """A slice as the `clocks` table calls it."""
        return f"{self.word} {index}" if self.word else f"index {index} of axis {self.axes[0]}"

    @cached_property
    def looked_at(self) -> np.ndarray:
        """Indices of the slices that are compared: all, or of very many the first, the last and evenly spaced ones."""
        if self.count <= SLICES:
            return np.arange(self.count)
        even = np.arange(0, self.count, -(-self.count // SLICES))
        return np.unique(np.concatenate([np.arange(EDGE), even, np.arange(self.count - EDGE, self.count)]))

    def positions(self, most: int) -> np.ndarray:
        """At most so many elements of slice 0, evenly chosen, as elements of the tensor; slice j's are j·after on.

        One of each stretch, at places that keep no beat: every 288th of 512 × 9 would always be the same tap.
        """
        wanted = min(most, self.elements)
        edges = np.arange(wanted + 1, dtype=np.int64) * self.elements // max(wanted, 1)
        place = edges[:-1] + (np.arange(wanted) * GOLDEN % 1 * np.diff(edges)).astype(np.int64)
        return place // self.after * (self.count * self.after) + place % self.after

    @cached_property
    def sample(self) -> np.ndarray:
        """The elements of slice 0 by which slices are compared."""
        return self.positions(SAMPLE)


@dataclass(frozen=True)
class Subject:
    """One tensor that is looked at. `units` is None for a vector (one axis longer than 1), which is kept whole.

    `over_step`, `within_step`: of the sum over units and the sums within them every so many elements are kept (of a
    vector: `over_step`).
    """

    parameter: str
    shape: tuple[int, ...]
    dtype: str
    numel: int
    units: AxisView | None
    slices: tuple[AxisView, ...]
    anchors: tuple[int, ...]
    over_step: int = 1
    within_step: int = 1

    @property
    def over(self) -> int:
        """Elements of the sum over units, or of the vector."""
        return self.units.elements if self.units else self.numel

    @property
    def over_kept(self) -> int:
        """Those that are kept."""
        return -(-self.over // self.over_step)

    @property
    def within_kept(self) -> int:
        """Units whose inner sums are kept."""
        return -(-self.units.count // self.within_step) if self.units else 0


def subject(
    parameter: str,
    tensors: Sequence[LazyTensor | None],
    shape: tuple[int, ...],
    member: Member | None,
    longest: int = LONGEST,
    anchors: int = ANCHORS,
) -> Subject | None:
    """How a tensor is looked at; None if it cannot hold a clock that proves itself (too few elements, no float).

    longest: elements of a sum that are kept. anchors: how many checkpoints are anchors, if there are more than FEW.
    """
    there = [tensor for tensor in tensors if tensor is not None]
    numel = prod(shape)
    if numel < FEWEST or not there or any(tensor.dtype not in TYPES for tensor in there):
        return None
    dtype = coarsest({tensor.dtype for tensor in there})
    present = np.flatnonzero([tensor is not None for tensor in tensors])
    at = tuple(int(t) for t in (present if present.size <= FEW else evenly(present, anchors)))
    long = [axis for axis, length in enumerate(shape) if length > 1]
    if len(long) < 2:
        return None if numel > VECTOR else Subject(parameter, shape, dtype, numel, None, (), at, step(numel, longest))
    units = _units(shape, there[0].layout, member, long)
    rest = [axis for axis in long if axis not in units.axes]
    inner = _inputs(there[0].layout, units, rest)
    others = tuple(_axis(shape, (axis,), "input" if axis == inner else "") for axis in rest)
    slices = tuple(axis for axis in (units, *others) if axis.elements >= FEWEST)
    over, within = step(units.elements, longest), step(units.count, longest)
    return Subject(parameter, shape, dtype, numel, units, slices, at, over, within)


def coarsest(dtypes: set[str]) -> str:
    """The type with the largest relative rounding."""
    return min(dtypes, key=TYPES.index)


def evenly(of: np.ndarray, most: int) -> np.ndarray:
    """At most so many of an array, evenly chosen, the first and the last among them."""
    if of.size <= most:
        return of
    return of[np.round(np.linspace(0, of.size - 1, most)).astype(int)]


def step(length: int, longest: int) -> int:
    """Every how manieth element to keep of so many."""
    return max(1, -(-length // longest))


def longest(checkpoints: int, sums: int) -> int:
    """Elements that one sum may keep, if so many sums are under way at a time."""
    return max(FEWEST, min(LONGEST, OPEN // (checkpoints * max(1, sums))))


def _axis(shape: tuple[int, ...], axes: tuple[int, ...], word: str) -> AxisView:
    first, last = axes[0], axes[-1]
    return AxisView(axes, prod(shape[:first]), prod(shape[first : last + 1]), prod(shape[last + 1 :]), word)


def _units(shape: tuple[int, ...], layout: str | None, member: Member | None, long: list[int]) -> AxisView:
    """The units' axis as the group's member has it, else as the layout says, else the first."""
    axes = _member_axes(shape, member) if member else ()
    if not axes:
        known = layout is not None and len(layout) == len(shape) and layout.count("O") == 1
        axes = (layout.index("O") if known and layout else 0,)
    if prod(shape[axis] for axis in axes) == 1 or len([a for a in long if a not in axes]) == 0:
        return _axis(shape, (long[0],), "")
    return _axis(shape, axes, "unit")


def _member_axes(shape: tuple[int, ...], member: Member) -> tuple[int, ...]:
    """The saved axes that make up a member's axis; () if there are no such."""
    if not member.shape:
        return (member.axis,) if member.axis < len(shape) else ()
    before, count = prod(member.shape[: member.axis]), member.shape[member.axis]
    for first in range(len(shape)):
        for last in range(first, len(shape)):
            if prod(shape[:first]) == before and prod(shape[first : last + 1]) == count:
                return tuple(range(first, last + 1))
    return ()


def _inputs(layout: str | None, units: AxisView, rest: Sequence[int]) -> int | None:
    """The axis of the inputs (one of length 1 too): by the layout, else the one beside the units'."""
    if units.word != "unit":
        return None
    if layout and layout.count("I") == 1:
        return layout.index("I")
    first, last = units.axes[0], units.axes[-1]
    if first == 0:
        return last + 1
    return first - 1 if first > 1 or len(rest) == 1 else 0


def wanted(run: Run, groups: Sequence[Group]) -> Iterator[tuple[str, Member | None]]:
    """Parameters to look at: every tensor of a group, and the vectors (biases, gains) that go with them.

    Where the groups leave out a weight matrix somebody chose them: then only vectors of the modules that the groups'
    tensors belong to.
    """
    members: dict[str, tuple[int, Member]] = {}
    for group in groups:
        for member in group.members:
            known = members.get(member.parameter)
            if known is None or (known[0] == 1 and group.units > 1):
                members[member.parameter] = (group.units, member)
    holders = {name: checkpoint for checkpoint in run.checkpoints for name in checkpoint.parameters}
    latest = {name: holder.parameters[name] for name, holder in holders.items()}
    matrices = {n for n, t in latest.items() if t.dtype in TYPES and sum(length > 1 for length in t.shape) > 1}
    chosen = not matrices <= members.keys()
    modules = {_module(name) for name in members}
    for name in dict.fromkeys([*members, *latest]):
        if name in members:
            yield name, members[name][1]
        elif name not in matrices and (not chosen or _module(name) in modules):
            yield name, None


def _module(parameter: str) -> str:
    """All of a name but its last part."""
    cut = max(parameter.rfind("."), parameter.rfind("/"))
    return parameter[: max(cut, 0)]
