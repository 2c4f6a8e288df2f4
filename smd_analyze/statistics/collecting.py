"""What workers hand back, added up: units to the store as soon as they are complete, groups to a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.statistics import UnitStore
from smd_analyze.statistics.ledger import Ledger
from smd_analyze.statistics.plan import SUMS, Item, Plan, Span
from smd_analyze.statistics.sums import ChunkSums

FADED = 1e-24  # squared norms below this may go on to zero by themselves
VV, DD, DV, FIRST_DD, FIRST_DV = range(5)


@dataclass
class Totals:
    """Sums of whole groups, and what is to be said about tensors.

    sums: [G, 5, T]: vv, dd, dv and dd, dv against the first checkpoint. nonfinite: [G, T] elements.
    first: [G] the checkpoint that `firsts` refer to. still: parameter → has never changed.
    spoilt: (parameter, checkpoint) → elements that are not finite. problems: (parameter, checkpoint) → message.
    emptied: [G, T] units that are exactly zero and were not at the checkpoint before; at the first one, units that are
    zero there and not later.
    """

    sums: np.ndarray
    nonfinite: np.ndarray
    first: np.ndarray
    emptied: np.ndarray
    still: dict[str, bool] = field(default_factory=dict)
    spoilt: dict[tuple[str, int], int] = field(default_factory=dict)
    problems: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass
class _Block:
    """Some units of a group, all checkpoints, until everything that belongs to them has come."""

    sums: np.ndarray
    awaited: int  # elements × checkpoints


@dataclass
class Collector:
    """Adds results in the order in which they are given: the same bits however many workers made them.

    size: units of a block. awaited: [G] elements that make up one unit of a group. ledger: takes what is kept for decay
    clocks.
    """

    groups: Sequence[Group]
    store: UnitStore
    totals: Totals
    size: int
    awaited: np.ndarray
    ledger: Ledger
    open: dict[tuple[int, int], _Block] = field(default_factory=dict)

    def add(self, result: ChunkSums) -> None:
        """Take over one item's sums."""
        item, steps = result.item, slice(result.item.begin, result.item.end)
        for number, span in enumerate(item.chunk.spans):
            if span.group < 0:
                continue
            self.totals.sums[span.group, FIRST_DD:, steps] += result.firsts[:, :, number].T
            self.totals.nonfinite[span.group, steps] += result.nonfinite[:, number]
            self._first(span.group, item.chunk.first)
            self._units(number, span, item, result.sums[:, :, span.slot : span.slot + span.units])
            for row in np.flatnonzero(result.nonfinite[:, number]):
                at = (span.parameter, item.begin + int(row))
                self.totals.spoilt[at] = self.totals.spoilt.get(at, 0) + int(result.nonfinite[row, number])
        for at, message in result.problems:
            self.totals.problems.setdefault((item.chunk.spans[0].parameter, at), message)
        self.ledger.add(result)

    def _first(self, group: int, first: int) -> None:
        if self.totals.first[group] < 0:
            self.totals.first[group] = first
        elif self.totals.first[group] != first:
            self.totals.sums[group, FIRST_DD:] = np.nan  # members that begin at different checkpoints

    def _units(self, place: int, span: Span, item: Item, sums: np.ndarray) -> None:
        """Add [t, 3, units] of a span to the blocks that it falls into; give away those that are complete."""
        moved = np.any(sums[:, DD] != 0, where=np.isfinite(sums[:, DD]))
        self.totals.still[span.parameter] = self.totals.still.get(span.parameter, True) and not moved
        group = self.groups[span.group]
        table = item.chunk.table[item.chunk.table[:, 6] == place]
        elements, begins = table[:, 1] * table[:, 4], table[:, 5] - span.slot + span.unit
        for number, low, high in _blocks(span, self.size):
            key = (span.group, number)
            begin = number * self.size
            block = self.open.get(key)
            if block is None:
                width = min(self.size, group.units - begin)
                checkpoints = self.totals.sums.shape[2]
                whole = int(self.awaited[span.group]) * width * checkpoints
                block = self.open[key] = _Block(np.zeros((3, checkpoints, width)), whole)
            part = sums[:, :, low - span.unit : high - span.unit].transpose(1, 0, 2)
            block.sums[:, item.begin : item.end, low - begin : high - begin] += part
            units = np.minimum(begins + table[:, 3], high) - np.maximum(begins, low)
            block.awaited -= int(elements @ np.maximum(units, 0)) * (item.end - item.begin)
            if block.awaited == 0:
                del self.open[key]
                self.totals.sums[span.group, :FIRST_DD] += block.sums.sum(axis=2)
                self.totals.emptied[span.group] += _emptied(block.sums[VV])
                self.store.put("weights", group.name, group.units, begin, block.sums)


def collector(plan: Plan, groups: Sequence[Group], checkpoints: int, store: UnitStore) -> Collector:
    """A collector that knows how many elements each unit is made of."""
    size = max(1, SUMS // (24 * checkpoints))
    awaited = np.zeros(len(groups), np.int64)
    for source in plan.found.sources:
        for use in source.uses:
            awaited[use.group] += use.seen.rows * use.seen.run * use.seen.units
    awaited //= np.array([group.units for group in groups], np.int64)
    shape = (len(groups), 5, checkpoints)
    totals = Totals(
        np.zeros(shape),
        np.zeros((len(groups), checkpoints), np.int64),
        np.full(len(groups), -1),
        np.zeros((len(groups), checkpoints), np.int64),
    )
    totals.sums[sorted(plan.found.unmeasured)] = np.nan
    return Collector(groups, store, totals, size, awaited, Ledger(checkpoints))


def _emptied(squares: np.ndarray) -> np.ndarray:
    """Units [T] that became exactly zero, from squared norms [T, units]. What fades away gets small before."""
    zero = squares == 0
    found = np.zeros(len(squares), np.int64)
    found[1:] = np.count_nonzero(zero[1:] & (squares[:-1] > FADED), axis=1)
    found[0] = np.count_nonzero(zero[0] & (squares > FADED).any(axis=0))
    return found


def _blocks(span: Span, size: int) -> list[tuple[int, int, int]]:
    """(block, first unit, unit after the last) of each block of `size` units that a span touches."""
    stop = span.unit + span.units
    numbers = range(span.unit // size, (stop - 1) // size + 1)
    return [(n, max(span.unit, n * size), min(stop, (n + 1) * size)) for n in numbers]
