"""Verdict: what was decided about a tensor or a slice of one, before it becomes rows of the two tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smd_analyze.records.group import Evidence, Granularity, Status


@dataclass(frozen=True)
class Verdict:
    """One decision.

    `axis` is the units' axis, `part` the indices (start, stop) of that axis that it is about (None: all of them),
    `units` the number of equal blocks of that part which may each be scaled alone. Verdicts that carry the same
    `joint` name are scaled together: one group.
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

    def extent(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The indices of `axis`, as (start, stop); a scalar counts as one index."""
        return self.part or (0, shape[self.axis] if shape else 1)

    def numel(self, shape: tuple[int, ...]) -> int:
        """Number of elements that the verdict is about."""
        start, stop = self.extent(shape)
        return math.prod(shape) // max(shape[self.axis] if shape else 1, 1) * (stop - start)
