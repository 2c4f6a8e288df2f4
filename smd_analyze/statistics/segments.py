"""Which elements of a run of consecutive ones belong to which unit of a group's member.

A tensor is seen as (before, unit, after) around the units' axis. Consecutive elements begin…end of it fall into at most
nine rectangles (first, full and last rows, each with a cut unit, whole units and a cut unit), whatever the axis.
"""

from dataclasses import dataclass, replace
from math import prod

from smd_analyze.records.group import Member


@dataclass(frozen=True)
class View:
    """A member's elements in its tensor: `rows` × [`lead`, then `units` × `run` that belong to it, then others].

    `first` is the number of the first of these units in the group.
    """

    rows: int
    row: int
    lead: int
    units: int
    run: int
    first: int = 0

    @property
    def reach(self) -> tuple[int, int]:
        """First element that belongs to the member and the one after the last."""
        return self.lead, (self.rows - 1) * self.row + self.lead + self.units * self.run

    @property
    def grain(self) -> tuple[int, int]:
        """(origin, length): cutting at origin + k·length leaves units, or rows of them, whole."""
        return (self.lead, self.run) if self.rows == 1 else (0, self.row)


@dataclass(frozen=True)
class Rectangle:
    """`rows` rows `stride` apart from element `start` on, each `units` runs of `run`; the first is `unit`'s."""

    start: int
    rows: int
    stride: int
    units: int
    run: int
    unit: int


def views(shape: tuple[int, ...], member: Member, units: int) -> tuple[View, ...]:
    """See a tensor of this shape as the member asks: one view, or one for each time that its indices repeat.

    ValueError if the member does not fit the shape.
    """
    if not member.every:
        return (view(shape, member, units),)
    length = (member.shape or shape)[member.axis] if member.axis < len(member.shape or shape) else 0
    times, rest = divmod(length, member.every)
    told = f"{member.parameter}[{member.start}:{member.stop} of every {member.every}]"
    if not times or rest or member.stop > member.every:
        raise ValueError(f"{told} does not lie in axis {member.axis} of shape {shape}")
    each, shared = units // times or 1, times // units or 1
    if each * times != units * shared:
        raise ValueError(f"{told} cannot be cut into {units} equal units")
    return tuple(
        replace(
            view(shape, replace(member, start=member.start + k, stop=member.stop + k, every=0), each),
            first=k // member.every * each // shared,
        )
        for k in range(0, length, member.every)
    )


def view(shape: tuple[int, ...], member: Member, units: int) -> View:
    """The same for a member whose indices stand once. ValueError if the member does not fit the shape."""
    shape = shape or (1,)
    if member.shape:
        rest, left = divmod(prod(shape), prod(member.shape) or 1)  # complex numbers are pairs: one axis more
        if left or rest not in (1, 2):
            raise ValueError(f"{member.parameter} of shape {shape} cannot be seen as {member.shape}")
        shape = member.shape if rest == 1 else (*member.shape, 2)
    part = f"{member.parameter}[{member.start}:{member.stop}]"
    if not 0 <= member.axis < len(shape) or not 0 <= member.start < member.stop <= shape[member.axis]:
        raise ValueError(f"{part} does not lie in axis {member.axis} of shape {shape}")
    if (member.stop - member.start) % units:
        raise ValueError(f"{part} cannot be cut into {units} equal units")
    if units == 1 and member.stop - member.start == shape[member.axis]:
        return View(1, prod(shape), 0, 1, prod(shape))  # the whole tensor: its axes do not matter
    after = prod(shape[member.axis + 1 :])
    return View(
        rows=prod(shape[: member.axis]),
        row=shape[member.axis] * after,
        lead=member.start * after,
        units=units,
        run=(member.stop - member.start) // units * after,
    )


def rectangles(seen: View, begin: int, end: int) -> list[Rectangle]:
    """The member's part of the tensor's elements begin…end; `start` counts from `begin`."""
    first, last = begin // seen.row, (end - 1) // seen.row
    if first == last:
        return _in_rows(seen, begin, first, 1, begin - first * seen.row, end - first * seen.row)
    found: list[Rectangle] = []
    if begin % seen.row:
        found += _in_rows(seen, begin, first, 1, begin % seen.row, seen.row)
        first += 1
    full = end // seen.row
    if full > first:
        found += _in_rows(seen, begin, first, full - first, 0, seen.row)
    if end % seen.row:
        found += _in_rows(seen, begin, full, 1, 0, end % seen.row)
    return found


def _in_rows(seen: View, begin: int, first: int, rows: int, low: int, high: int) -> list[Rectangle]:
    """The member's part of columns low…high of some rows: a unit cut at its start, whole units, one cut at its end."""
    low, high = max(low - seen.lead, 0), min(high - seen.lead, seen.units * seen.run)
    if low >= high:
        return []
    run = seen.run
    origin = first * seen.row + seen.lead - begin
    unit, last = low // run, (high - 1) // run
    first = seen.first
    if unit == last:
        return [Rectangle(origin + low, rows, seen.row, 1, high - low, first + unit)]
    found: list[Rectangle] = []
    if low % run:
        found.append(Rectangle(origin + low, rows, seen.row, 1, run - low % run, first + unit))
        unit += 1
    whole = high // run - unit
    if whole > 0:
        found.append(Rectangle(origin + unit * run, rows, seen.row, whole, run, first + unit))
    if high % run:
        found.append(Rectangle(origin + high // run * run, rows, seen.row, 1, high % run, first + high // run))
    return found
