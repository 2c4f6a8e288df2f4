"""Verdict: what was decided about a tensor or a slice of one, before it becomes rows of the two tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smd_analyze.records.group import Evidence, Granularity, Status, Translation


@dataclass(frozen=True)
class Verdict:
    """One decision.

    `axis` is the units' axis, `part` the indices (start, stop) of that axis that it is about (None: all of them),
    `every` repeats the part in each so many consecutive indices (0: it stands once),
    `units` is the number of equal blocks of these indices which may each be scaled alone. Verdicts that carry the same
    `joint` name are scaled together: one group. `partners`: exponents of a rescaling of several parameters, this one
    first, that leaves the output unchanged although this one's own scale matters. `translations`: sums over the
    parameter that feel no gradient (on its first verdict). `norm` is the path of the normalization that divides its
    scale out, `eps` the number that it adds to the variance (None: not known).
    """

    parameter: str
    role: str
    status: Status
    reason: str
    evidence: Evidence
    granularity: Granularity = ""
    axis: int = 0
    part: tuple[int, int] | None = None
    units: int = 1
    joint: str = ""
    every: int = 0
    partners: tuple[tuple[str, int], ...] = ()
    translations: tuple[Translation, ...] = ()
    norm: str = ""
    eps: float | None = None

    def extent(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The indices of `axis`, as (start, stop); a scalar counts as one index."""
        return self.part or (0, shape[self.axis] if shape else 1)

    def count(self, shape: tuple[int, ...]) -> int:
        """Number of indices of `axis` that it is about."""
        start, stop = self.extent(shape)
        return (stop - start) * (shape[self.axis] // self.every if self.every else 1)

    def numel(self, shape: tuple[int, ...]) -> int:
        """Number of elements that the verdict is about."""
        return math.prod(shape) // max(shape[self.axis] if shape else 1, 1) * self.count(shape)

    def slice(self, shape: tuple[int, ...]) -> str:
        """Its indices, as "0:64" or "0:64 of every 192"."""
        start, stop = self.extent(shape)
        return f"{start}:{stop}" + (f" of every {self.every}" if self.every else "")
