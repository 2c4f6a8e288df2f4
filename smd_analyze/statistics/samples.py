"""Samples put together as they come, and compared between checkpoints that are not neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from smd_analyze.statistics.plan import Plan
from smd_analyze.statistics.sampling import kept, positions_for, sampled
from smd_analyze.statistics.segments import rectangles
from smd_analyze.statistics.sources import Source
from smd_analyze.statistics.sums import ChunkSums

MOST_LAGS = 7
WINDOWS = 32  # pairs of checkpoints compared at one lag


def windows(checkpoints: int) -> np.ndarray:
    """[P, 3]: the pairs (from, to) of checkpoints that are compared, and their distance in checkpoints.

    Distances are powers of two, up to half of the checkpoints; pairs of one distance do not overlap and end at the last
    checkpoint. Where they are many, WINDOWS of them, evenly spread. Neighbours are among them.
    """
    moments = kept(checkpoints)
    if not moments.size:
        return np.empty((0, 3), np.int64)
    spacing = int(moments[1] - moments[0])
    lags = [lag for n in range(MOST_LAGS) if (lag := spacing << n) <= checkpoints // 2]
    found = []
    for lag in dict.fromkeys([1, *lags]):
        ends = np.arange(checkpoints - 1, lag - 1, -lag)[::-1]
        if len(ends) > WINDOWS:
            ends = ends[np.linspace(0, len(ends) - 1, WINDOWS).round().astype(int)]
        found += [(end - lag, end, lag) for end in ends.tolist()]
    return np.array(found, np.int64)


@dataclass
class _History:
    """What has come of one tensor's sample: values [K, M], and how many are awaited."""

    source: Source
    values: np.ndarray
    awaited: int


@dataclass
class Samples:
    """Puts samples together as they come, and compares each tensor's when it is complete.

    far: the pairs that the samples are for, without neighbours, whose sums are known exactly. sums: group → [P, 3],
    Σ v², Σ (v−u)², Σ (v−u)·v of all its elements, as its sample has them. elements, lacking: group → elements that were
    sampled, uses that are still to come.
    """

    checkpoints: int
    sources: Mapping[str, Source]
    far: np.ndarray
    moments: np.ndarray
    open: dict[str, _History] = field(default_factory=dict)
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    elements: dict[int, int] = field(default_factory=dict)
    lacking: dict[int, int] = field(default_factory=dict)

    def add(self, result: ChunkSums) -> None:
        """Take over one item's sample."""
        if result.seen is None:
            return
        rows, values = result.seen.rows, result.seen.values
        for piece in result.item.chunk.pieces:
            known = self.open.get(piece.parameter) or self._open(piece.parameter)
            part = slice(piece.first, piece.first + piece.count)
            known.values[rows, part] = values[:, piece.column : piece.column + piece.count]
            known.awaited -= piece.count * len(rows)
            if known.awaited == 0:
                del self.open[piece.parameter]
                self._compare(known)

    def _open(self, parameter: str) -> _History:
        source = self.sources[parameter]
        places = positions_for(source)
        low, high = sampled(places, *(source.reach if source.raw else (0, source.numel)))
        dtype = np.float64 if source.dtype in ("float64", "complex128") else np.float32
        values = np.full((len(self.moments), len(places)), np.nan, dtype)
        known = self.open[parameter] = _History(source, values, (high - low) * len(self.moments))
        return known

    def _compare(self, known: _History) -> None:
        """Add a tensor's sums to those of the groups that use it, weighted by how many elements one stands for."""
        from smd_analyze.statistics import lag_kernels  # numba: half a second, for those who measure only

        source, places = known.source, positions_for(known.source)
        pairs = np.searchsorted(self.moments, self.far[:, :2])
        for use in source.uses:
            inside = np.zeros(len(places), bool)
            for r in rectangles(use.seen, 0, source.numel):
                row, at = np.divmod(places - r.start, r.stride)
                inside |= (row >= 0) & (row < r.rows) & (at < r.units * r.run)
            count = int(inside.sum())
            part = np.zeros((len(pairs), 3))
            if count:
                chosen = known.values if inside.all() else np.ascontiguousarray(known.values[:, inside])
                lag_kernels.compare(chosen, pairs, part)
                part *= use.seen.rows * use.seen.units * use.seen.run / count
            self.sums[use.group] = self.sums.get(use.group, 0.0) + part
            self.elements[use.group] = self.elements.get(use.group, 0) + count
            self.lacking[use.group] -= 1


def samples(plan: Plan) -> Samples:
    """An empty one, for all that a plan reads."""
    pairs = windows(plan.checkpoints)
    sources = {source.parameter: source for source in plan.found.sources}
    moments = kept(plan.checkpoints)
    known = Samples(plan.checkpoints, sources, pairs[pairs[:, 2] > 1], moments)
    for source in plan.found.sources:
        for use in source.uses:
            known.lacking[use.group] = known.lacking.get(use.group, 0) + 1
    return known
