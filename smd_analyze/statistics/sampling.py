"""A sample of every tensor's elements, kept from checkpoint to checkpoint, so that far ones can be compared as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from smd_analyze.statistics.sources import Source

MOST = 4096  # elements kept of a tensor for each group that uses it: 1 − cos θ is then known to √(2/4096) = 2.2 %
SHARED = 8  # groups that a fused tensor is sampled for in full
MOMENTS = 64  # intervals between checkpoints at which elements are kept
FEWEST = 4  # checkpoints from which more than neighbours can be compared


@dataclass(frozen=True)
class Piece:
    """Sampled elements number first … first+count of a tensor, in columns from `column` on of what a worker keeps."""

    parameter: str
    first: int
    count: int
    column: int


def kept(checkpoints: int) -> np.ndarray:
    """Which checkpoints' samples are kept: all, or every second, fourth, … so that not more than MOMENTS + 1 are.

    The last is among them; none where there are too few to compare more than neighbours.
    """
    if checkpoints < FEWEST:
        return np.empty(0, np.int64)
    spacing = 1 << max(0, ((checkpoints - 2) // MOMENTS).bit_length())
    return np.arange((checkpoints - 1) % spacing, checkpoints, spacing)


@lru_cache(maxsize=32)
def positions(numel: int, groups: int = 1) -> np.ndarray:
    """Sampled elements of a tensor, ascending: one at a random place of each of so many equal stretches.

    All elements where they are few. The same in every run of the program.
    """
    count = min(numel, MOST * min(max(groups, 1), SHARED))
    edges = np.arange(count + 1) * numel // max(count, 1)
    within = np.random.default_rng(numel).random(count) * np.diff(edges)
    found = edges[:-1] + within.astype(np.int64)
    found.flags.writeable = False  # shared by all callers
    return found


def positions_for(source: Source) -> np.ndarray:
    """Which elements of a tensor are sampled; none where checkpoints are too few to compare, or no group uses it."""
    if not source.uses or len(source.files) < FEWEST:
        return positions(0)
    return positions(source.numel, len({use.group for use in source.uses}))


def sampled(places: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """Numbers of the first sampled element within begin … end and of the one after the last."""
    low, high = np.searchsorted(places, (begin, end))
    return int(low), int(high)


@dataclass(frozen=True)
class Seen:
    """What a worker kept: of the kept checkpoints number `rows` [t], `values` [t, columns], NaN where missing."""

    rows: np.ndarray
    values: np.ndarray


@dataclass
class Sampler:
    """Keeps a chunk's sampled elements (`index`) while checkpoints begin … end of so many pass by."""

    index: np.ndarray
    begin: int
    end: int
    checkpoints: int

    def __post_init__(self) -> None:
        moments = kept(self.checkpoints)
        self.rows = np.flatnonzero((moments >= self.begin) & (moments < self.end))
        self.place = {int(moments[row]): number for number, row in enumerate(self.rows)}
        self.values: np.ndarray | None = None

    def see(self, t: int, now: np.ndarray | None) -> None:
        """Take in the chunk of checkpoint t; None if it could not be read."""
        number = self.place.get(t)
        if number is None or now is None:
            return
        if self.values is None:
            self.values = np.full((len(self.rows), len(self.index)), np.nan, now.dtype)
        np.take(now, self.index, out=self.values[number], mode="clip")  # "raise" would copy

    def seen(self) -> Seen:
        """All of it."""
        values = self.values
        if values is None:
            values = np.full((len(self.rows), len(self.index)), np.nan, np.float32)
        return Seen(self.rows, values)


def joined(indices: Sequence[np.ndarray]) -> np.ndarray:
    """The places in a chunk of all its pieces' elements."""
    return np.concatenate(indices) if indices else np.empty(0, np.int64)
