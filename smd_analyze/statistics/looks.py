"""A piece of a tensor in a chunk, and where what is kept of it lies among a worker's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smd_analyze.statistics.subjects import AxisView, Subject

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Kept:
    """A stretch of a sum (or a vector): kept elements first … first+count, in columns from `column` on."""

    column: int
    first: int
    count: int


@dataclass(frozen=True)
class Look:
    """Elements begin … end of a subject, which lie from `at` on in the chunk.

    spans: those whose sums are the whole piece's. over, within: where its sums go. turns: for every axis whose slices
    are compared, slots of the slices number `first` … of those looked at.
    """

    subject: Subject
    begin: int
    end: int
    at: int
    spans: tuple[int, ...]
    over: Kept
    within: Kept
    turns: tuple[Kept, ...]


def look(
    subject: Subject, begin: int, end: int, at: int, spans: tuple[int, ...], column: int, slot: int
) -> tuple[Look, int, int]:
    """The look at a piece, and the next free column and slot."""
    over = _kept(*_over(subject, begin, end), subject.over_step, column)
    column += over.count
    within = _kept(*_indices(subject.units, begin, end), subject.within_step, column) if subject.units else _NONE
    turns: list[Kept] = []
    for axis in subject.slices:
        low, high = np.searchsorted(axis.looked_at, _indices(axis, begin, end))
        turns.append(Kept(slot, int(low), int(high - low)))
        slot += turns[-1].count
    return Look(subject, begin, end, at, spans, over, within, tuple(turns)), column + within.count, slot


_NONE = Kept(0, 0, 0)


def _kept(low: int, high: int, step: int, column: int) -> Kept:
    """Those of the elements low … high that are kept: multiples of `step`."""
    first = -(-low // step)
    return Kept(column, first, max(0, -(-high // step) - first))


def _indices(axis: AxisView, begin: int, end: int) -> tuple[int, int]:
    """Indices low … high of an axis that elements begin … end may have."""
    low, high = begin // axis.after, (end - 1) // axis.after
    if low // axis.count != high // axis.count:
        return 0, axis.count
    return low % axis.count, high % axis.count + 1


def _over(subject: Subject, begin: int, end: int) -> tuple[int, int]:
    """Elements low … high of the sum over units (of a vector) that elements begin … end go to."""
    units = subject.units
    if units is None:
        return begin, end
    row = units.count * units.after
    if begin // units.after == (end - 1) // units.after:  # within one unit
        low = begin // row * units.after + begin % units.after
        return low, low + end - begin
    return begin // row * units.after, ((end - 1) // row + 1) * units.after


def fold_table(looks: Sequence[Look]) -> np.ndarray:
    """[looks, 11] int64 for clock_kernels.fold, see there."""
    rows = []
    for x in looks:
        count, after = (x.subject.units.count, x.subject.units.after) if x.subject.units else (0, 0)
        steps = x.subject.over_step, x.subject.within_step
        over, within = (x.over.column, x.over.first), (x.within.column, x.within.first)
        rows.append((x.at, x.begin, x.end, count, after, *over, steps[0], *within, steps[1]))
    return np.array(rows, np.int64).reshape(-1, 11)


def samples(looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray]:
    """Which elements of the chunk are compared [Q], and the slot of each one's slice [Q]."""
    from smd_analyze.statistics import clock_kernels  # numba: half a second, for those who measure only

    parts: list[tuple[Look, AxisView, Kept, np.ndarray, np.ndarray]] = []
    for x in looks:
        for axis, kept in zip(x.subject.slices, x.turns, strict=True):
            numbers = axis.looked_at[kept.first : kept.first + kept.count]
            low = np.searchsorted(numbers, -((axis.sample - x.begin) // axis.after))  # first that begins in the piece
            high = np.searchsorted(numbers, -((axis.sample - x.end) // axis.after))
            parts.append((x, axis, kept, low, high))
    room = sum(int((high - low).sum()) for *_, low, high in parts)
    index, slot = np.empty(room, np.int64), np.empty(room, np.int64)
    used = 0
    for x, axis, kept, low, high in parts:
        numbers = axis.looked_at[kept.first : kept.first + kept.count]
        place = (axis.after, x.at - x.begin, kept.column)
        used = clock_kernels.sample(axis.sample, numbers, low, high, *place, index, slot, used)
    return index, slot
