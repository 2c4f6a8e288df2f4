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
TRIED = 4  # intervals that are searched through
CHECKED = 40  # intervals in which what was found must hold or fail
ELEMENTS = 24  # of a vector that are replayed: more prove no more
FIRST = 8  # of them that are tried first
PROOF = 2  # intervals at least that one number must reproduce
SURE = 4.0  # standard deviations around what was lost


@dataclass(frozen=True)
class _Interval:
    """One clock over one interval of `length` recorded steps: values [d] before and after, what it lost, and its sd.

    `before` and `after` are ELEMENTS of all `elements`. The sd is that of turning alone: what roundings that repeat do
    depends on how many updates there are.
    """

    clock: str
    begin: int
    length: int
    before: np.ndarray
    after: np.ndarray
    elements: int
    fall: float
    sd: float


def counted(clocks: Sequence[Claimed], steps: Steps) -> tuple[Steps, list[Finding]]:
    """The steps with the number of updates in each, if one number and no other reproduces two intervals or more.

    `clocks` are measured as if a recorded step were as few updates as `steps` allow.
    """
    intervals = _intervals(clocks, steps.least)[:CHECKED]
    for first in intervals[:TRIED]:
        found: dict[int, list[_Interval]] = {}
        for number in _numbers(first, np.arange(1, MOST + 1)).tolist():
            seen = [i for i in intervals if _numbers(i, np.array([number])).size]
            if len({i.begin for i in seen}) >= PROOF:
                found[number] = seen
        if len(found) == 1:
            (number, seen), *_ = found.items()
            most = MOST // first.length
            return replace(steps, least=float(number), most=float(number)), [_told(seen, number, most, steps)]
    return steps, []


def _intervals(clocks: Sequence[Claimed], updates: float) -> list[_Interval]:
    """Slices and vectors of fp32 over every interval, the shortest first."""
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
                floor = at.FLOOR_SLICE if m.candidate.kind == "slice" else at.FLOOR_VECTOR
                sd = at.SD_FACTOR_SLICE * float(m.sd[i] - floor * updates * m.length[i])
                bits, d = (before.astype(np.float32), after.astype(np.float32)), m.candidate.values.shape[1]
                out.append(_Interval(c.name, i, int(m.length[i]), *bits, d, float(m.fall[i]), sd))
    return sorted(out, key=lambda i: i.length)


def _numbers(i: _Interval, numbers: np.ndarray) -> np.ndarray:
    """Those of the numbers of updates in a recorded step that reproduce the interval in every bit."""
    updates = numbers * i.length
    updates = updates[(updates >= FEWEST) & (updates <= MOST)]
    ulps = np.rint(-np.expm1(-i.fall / updates) / ULP)
    spread = SURE * (i.sd + _repeating(updates, ulps, i.elements))
    fits = (ulps >= 1) & (np.abs(-np.log1p(-ulps * ULP) * updates - i.fall) <= spread)
    updates, ulps = updates[fits], ulps[fits]
    for elements in (FIRST, ELEMENTS):  # most fail in the first few elements
        if updates.size:
            right = _reproduced(i.before[:elements], i.after[:elements], updates, ulps)
            updates, ulps = updates[right], ulps[right]
    return updates // i.length


def _reproduced(before: np.ndarray, after: np.ndarray, updates: np.ndarray, ulps: np.ndarray) -> np.ndarray:
    """Which pairs (number of updates, rising; factor 1 − ulps·2⁻²⁴) lead from one vector to the other, in fp32."""
    w = np.repeat(before[None], updates.size, 0)
    factors = (1.0 - ulps * ULP).astype(np.float32)[:, None]
    right = np.zeros(updates.size, bool)
    left = 0  # rows before it are finished
    for step in range(1, int(updates[-1]) + 1):
        np.multiply(w[left:], factors[left:], out=w[left:])
        while left < updates.size and updates[left] == step:
            right[left] = np.array_equal(w[left], after)
            left += 1
    return right


def _repeating(updates: np.ndarray, ulps: np.ndarray, elements: int) -> np.ndarray:
    """Standard deviation of what rounding adds to the fall: an element's error stays the same until its loss per update
    has changed by an ulp, which takes 2²⁵/n² updates, and each element has its own."""
    independent = np.maximum(updates * ulps**2 / 2.0**25, 1.0) * elements
    return updates * ULP / np.sqrt(12) / np.sqrt(independent)


def _told(seen: Sequence[_Interval], number: int, most: int, steps: Steps) -> Finding:
    names = list(dict.fromkeys(i.clock for i in seen))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    many, plural = len({i.begin for i in seen}), "s" * (number > 1)
    text = (
        f"{'an' if steps.word == 'epoch' else 'a'} {steps.word} is {number:,} optimizer step{plural}: they reproduce "
        f"{names[0]}{more} in every bit, in {many} intervals, and no other number up to {most:,} does"
    )
    return Finding("steps-counted", "note", names[0], text)
