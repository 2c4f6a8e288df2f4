"""How many updates are in an epoch, or between two saves? Under decoupled decay the bits tell.

What a clock lost between two checkpoints is known to a millionth or so: for every number of updates k that leaves one
factor 1 − n·2⁻²⁴ per update, or none. Each such pair is replayed in fp32, and rounding lets only the right one through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Steps
from smd_analyze.clocks.replaying import ULP
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding

FEWEST, MOST = 10, 10_000  # updates in an interval: with fewer the bits tell too little
TRIED = 6  # intervals that are searched through
CHECKED = 40  # intervals in which what was found must hold or fail
ELEMENTS = 24  # of a vector that are replayed: more prove no more
ROWS = 4_000  # pairs of factor and number, at most: more, and the rate is too uncertain
PROOF = 2  # intervals at least that one number must reproduce
SURE = 4.0  # standard deviations around what was lost


@dataclass(frozen=True)
class _Interval:
    """One clock over one interval of `length` recorded steps: values [d] before and after, what it lost, and its sd."""

    clock: str
    length: int
    before: np.ndarray
    after: np.ndarray
    fall: float
    sd: float


def counted(clocks: Sequence[Claimed], steps: Steps) -> tuple[Steps, list[Finding]]:
    """The steps with the number of updates in each, if one number and no other reproduces two intervals or more."""
    if steps.known:
        return steps, []
    intervals = _intervals(clocks)
    for first in intervals[:TRIED]:
        for number in _numbers(first, np.arange(1, MOST + 1)):
            seen = [i for i in intervals[:CHECKED] if i is first or _numbers(i, np.array([number])).size]
            others = [i for i in intervals[:CHECKED] if all(i is not s for s in seen)]
            if len({i.clock for i in seen}) and len(seen) >= PROOF and len(seen) > len(others):
                return replace(steps, least=float(number), most=float(number)), [_told(seen, int(number), steps)]
    return steps, []


def _intervals(clocks: Sequence[Claimed]) -> list[_Interval]:
    """Slices and vectors of fp32, interval by interval, one clock of each tensor after the other."""
    out: list[_Interval] = []
    for c in clocks:
        m = c.measured
        if not c.moving or m.candidate.kind == "sum" or m.candidate.dtype not in ("float32", "float64") or m.alike:
            continue
        for i in np.flatnonzero(m.moves).tolist():
            before, after = (m.candidate.values[at_][:ELEMENTS] for at_ in (m.first[i], m.last[i]))
            changed = (before != after).sum() >= at.DIRECTIONS
            whole = m.length[i] == int(m.length[i]) and (np.float32(before) == before).all()
            if changed and whole:
                sd = float(m.error[i] * m.length[i])
                out.append(_Interval(c.name, int(m.length[i]), np.float32(before), np.float32(after), m.fall[i], sd))
    return sorted(out, key=lambda i: i.length)


def _numbers(i: _Interval, numbers: np.ndarray) -> np.ndarray:
    """Those of the numbers of updates in a recorded step that reproduce the interval in every bit."""
    updates = numbers * i.length
    updates = updates[(updates >= FEWEST) & (updates <= MOST)]
    own = at.FLOOR_SLICE * updates  # roundings that repeat; the floor that the sd holds is that of the most updates
    spread = SURE * (i.sd + own)
    ulps = np.rint(-np.expm1(-i.fall / updates) / ULP)
    fits = (ulps >= 1) & (np.abs(-np.log1p(-ulps * ULP) * updates - i.fall) <= spread)
    updates, ulps = updates[fits], ulps[fits]
    if not updates.size or updates.size > ROWS:
        return np.array([], int)
    w = np.repeat(i.before[None], updates.size, 0)
    factors = (1.0 - ulps * ULP).astype(np.float32)[:, None]
    done = np.zeros(updates.size, bool)
    left = 0  # rows before it are finished: numbers rise
    for step in range(1, int(updates[-1]) + 1):
        np.multiply(w[left:], factors[left:], out=w[left:])
        while left < updates.size and updates[left] == step:
            done[left] = np.array_equal(w[left], i.after)
            left += 1
    return updates[done] // i.length


def _told(seen: Sequence[_Interval], number: int, steps: Steps) -> Finding:
    names = list(dict.fromkeys(i.clock for i in seen))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    text = (
        f"{'an' if steps.word == 'epoch' else 'a'} {steps.word} is {number:,} optimizer steps: they reproduce "
        f"{names[0]}{more} in every bit, in {len(seen)} intervals, and no other number up to {MOST:,} does"
    )
    return Finding("steps-counted", "note", names[0], text)
