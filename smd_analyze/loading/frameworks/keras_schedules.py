"""The learning rate that a schedule gives at the count of updates that a checkpoint holds."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.tensors.places import Place, read_tensor
from smd_analyze.rate_formulas import rate_after


@dataclass(frozen=True)
class ScheduledRate:
    """Reads the schedule's count at a checkpoint and gives the rate of the update after (`ahead` 1) or before (0) it.

    `numbers` are the schedule's, as sorted pairs; one in `every` of its counts is an update.
    """

    iterations: Place
    kind: str
    numbers: tuple[tuple[str, Any], ...]
    ahead: int
    every: int

    def __call__(self, file: FileId, place: Place) -> Place:
        """The rate as a number in place; NaN if there is none: no update was made yet, or the formula has no value."""
        updates = int(read_tensor(self.iterations, (file,)).reshape(-1)[0]) // self.every + self.ahead
        value = rate_after(self.kind, dict(self.numbers), updates * self.every - 1) if updates > 0 else None
        return Place((), "float64", 0, inline=struct.pack("<d", nan if value is None else float(value)))


def scheduled(kind: str, numbers: Mapping[str, Any], iterations: Place, ahead: int = 1, every: int = 1) -> Place | None:
    """A Place whose value is the rate of the update after the file's count, or of the one before it.

    None for schedules that are not known.
    """
    if rate_after(kind, numbers, 0) is None:
        return None
    kept = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in numbers.items()))
    rate = ScheduledRate(iterations, kind, kept, ahead, every)
    return Place((), "float64", iterations.start, file=iterations.file, find=rate)
