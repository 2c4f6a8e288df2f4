"""Index sets that repeat along an axis: heads that hold their query, key and value rows side by side.

GPT-NeoX, BLOOM and Megatron interleave the three parts of a fused projection head by head, or group by group: what is
free is then no run of consecutive rows, but the same rows of each head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stretch:
    """Columns `start` to `stop` of a pattern of `every` indices that stands `times` times; free in `units` blocks."""

    start: int
    stop: int
    free: bool
    units: int
    every: int
    times: int


def stretches(classes: np.ndarray, free: np.ndarray) -> list[Stretch]:
    """The shortest description of the axis as a repeated pattern; [] if it is none, or is one run of each kind.

    classes: [n] indices of one class are scaled together. free: [n] whether the index's class may be scaled alone. A
    free class must lie at the same place in each repetition: its own one each time, or one and the same.
    """
    length = len(classes)
    best: list[Stretch] = []
    for every in range(2, length // 2 + 1):
        if length % every == 0:
            found = list(_described(classes.reshape(-1, every), free.reshape(-1, every)))
            if found and (not best or len(found) < len(best)):
                best = found
    return best if len(best) > 1 else []


def _described(classes: np.ndarray, free: np.ndarray) -> Iterator[Stretch]:
    """Stretches of one pattern [times, every]; nothing if some free class does not fit it."""
    times, every = classes.shape
    if (free != free[0]).any():
        return
    shared = (classes == classes[0]).all(0)
    kind = np.where(free[0], 1 + shared, 0)
    borders = (np.diff(kind) != 0) | ((kind[1:] == 2) & (np.diff(classes[0]) != 0))
    cuts = [0, *(np.flatnonzero(borders) + 1).tolist(), every]
    found: list[Stretch] = []
    seen: set[int] = set()
    for start, stop in zip(cuts, cuts[1:], strict=False):
        part = classes[:, start:stop]
        if not free[0, start]:
            found.append(Stretch(start, stop, False, 1, every, times))
            continue
        units = _blocks(part[:1] if shared[start] else part)
        members = set(np.unique(part).tolist())
        if not units or members & seen:
            return
        seen |= members
        found.append(Stretch(start, stop, True, units, every, times))
    yield from found


def _blocks(part: np.ndarray) -> int:
    """Number of equal runs, each of a class of its own, that the rows are made of; 0 if they are not."""
    row = part.ravel()
    number = len(np.unique(row))
    if len(row) % number:
        return 0
    blocks = row.reshape(number, -1)
    return number if (blocks == blocks[:, :1]).all() else 0
