"""The worker's part in the search for decay clocks: what it keeps of one item, checkpoint by checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from smd_analyze.statistics.looks import fold_table, samples
from smd_analyze.statistics.plan import Item


@dataclass(frozen=True)
class Looked:
    """What a worker hands back. T counts the item's checkpoints.

    folds: [T, columns] float64, the sums over and within units and the vectors; NaN where the chunk is missing.
    turns: [pairs, 3, slots], Σ v², Σ (v−u)², Σ (v−u)·v of each slice's sample between neighbouring anchors; the first
    pair is number `first_pair` of the subject's. NaN if one of the two is missing.
    """

    folds: np.ndarray
    turns: np.ndarray
    first_pair: int = 0


@dataclass
class Looking:
    """Keeps what a Looked needs while checkpoints pass by. Feed it `before` first, if it has one."""

    item: Item
    folds: np.ndarray = field(init=False)
    turns: np.ndarray = field(init=False)
    kept: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        chunk = self.item.chunk
        self.folds = np.empty((self.item.end - self.item.begin, chunk.columns))
        self.turns = np.full((len(self.due), 3, chunk.turn_slots), np.nan)
        self.kept = np.full(self.index[0].size, np.nan)

    @cached_property
    def anchors(self) -> tuple[int, ...]:
        """Of all pieces: they lie in the same checkpoints."""
        return self.item.chunk.looks[0].subject.anchors if self.item.chunk.looks else ()

    @cached_property
    def due(self) -> list[int]:
        """The anchors at which the item compares with the one before."""
        return [t for t in self.anchors[1:] if self.item.begin <= t < self.item.end]

    @cached_property
    def before(self) -> int | None:
        """The anchor before the item's first, if it lies before the item."""
        number = self.anchors.index(self.due[0]) - 1 if self.due else 0
        return self.anchors[number] if self.due and self.anchors[number] < self.item.begin else None

    @cached_property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Which elements of the chunk are compared at anchors, and the slot of each."""
        return samples(self.item.chunk.looks) if self.due else (np.empty(0, np.int64), np.empty(0, np.int64))

    @cached_property
    def table(self) -> np.ndarray:
        """What clock_kernels.fold is told."""
        return fold_table(self.item.chunk.looks)

    def is_anchor(self, t: int) -> bool:
        """Will checkpoint t be compared with another?"""
        return bool(self.due) and t in self.anchors

    def see(self, t: int, now: np.ndarray | None) -> None:
        """Take in the chunk of checkpoint t; None if it could not be read."""
        from smd_analyze.statistics import clock_kernels  # numba: half a second, for those who measure only

        if t >= self.item.begin:
            row = self.folds[t - self.item.begin]
            if now is None:
                row[:] = np.nan
            else:
                clock_kernels.fold(self.table, now, row)
        if self.is_anchor(t):
            self.compare(t, now, self.index[0])

    def compare(self, t: int, now: np.ndarray | None, index: np.ndarray) -> None:
        """Compare the samples of anchor t with those of the anchor before; `index` says where in `now` they stand."""
        from smd_analyze.statistics import clock_kernels

        if now is None:
            self.kept[:] = np.nan
            return
        sums = self.turns[self.due.index(t)] if t in self.due else np.empty((3, self.turns.shape[2]))
        clock_kernels.turn(index, self.index[1], now, self.kept, sums)

    def looked(self) -> Looked:
        """All of it."""
        first = self.anchors.index(self.due[0]) - 1 if self.due else 0
        return Looked(self.folds, self.turns, first)
