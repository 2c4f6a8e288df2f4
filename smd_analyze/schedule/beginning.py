"""The first intervals of a run as they would be at a constant rate: what a filling momentum buffer is looked for in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from smd_analyze.schedule.clock_readings import Z95, Floats
from smd_analyze.schedule.stretches import stretches

FLOOR = 3e-6  # relative error of a total at best: fp32 sums of tens of rows
LATEST = 12  # intervals at the rate that has settled, or that show it settle
FEWEST = 4  # intervals that tell of a buffer which has not filled within them
FILLING = (1, 2, 3)  # intervals that a buffer may take to fill while the learning rate moves
ORDERS = range(2, 7)  # intervals from which the first one is extrapolated
TESTED = 3  # intervals further on that the same extrapolation must give: its error
ROOM = 2.0  # times that error
EARLY = 8.0  # updates after the start at which the decay is taken that a buffer withholds, where α is not known yet


@dataclass(frozen=True)
class Beginning:
    """`total` [n]: −ln(c'/c) from the start on over `updates` [n], with standard deviations `sd`, at one learning rate.

    `until`: intervals of the run by whose end the rate has settled. `moving`: the learning rate moved, and what a
    constant one would have given is extrapolated.
    """

    total: Floats
    sd: Floats
    updates: Floats
    until: int
    moving: bool = False


def beginnings(total: Floats, low: Floats, high: Floats, updates: Floats, begins: float) -> Iterator[Beginning]:
    """The beginning of a run, from its start on; none where it began elsewhere, or the rate changed as no buffer does.

    `total`, `low`, `high` [I]: −ln(c'/c) of a clock with its 95 % interval, `updates` [I], `begins` before the first.
    Where the learning rate moves there are several, for buffers that take ever longer to fill.
    """
    read = np.isfinite(total) & (total > 0) & (high > low) & (updates > 0)
    whole = int(np.argmin(np.r_[read, False]))
    if begins != 0 or whole < 3:
        return
    sd = np.hypot((high - low)[:whole] / (2 * Z95), FLOOR * total[:whole])
    t, k = total[:whole], updates[:whole]
    for a, b in stretches(t[1:] / k[1:], sd[1:] / k[1:])[:LATEST]:
        if b - a >= 2:
            end = min(b, a + LATEST) + 1
            yield Beginning(t[:end], sd[:end], k[:end], a + 1)
            return
    if whole >= FEWEST and bool((np.diff(t[:FEWEST] / k[:FEWEST]) > 0).all()):
        last = min(whole, LATEST)
        yield Beginning(t[:last], sd[:last], k[:last], last)
        return
    for until in FILLING:
        found = _extrapolated(t, sd, k, until)
        if found is not None:
            yield found


def _extrapolated(t: Floats, sd: Floats, k: Floats, until: int) -> Beginning | None:
    """The first `until` intervals against the polynomial through those after them; None where none goes on smoothly.

    How well the polynomial through p equal intervals gives those before it further on in the run is its error. What is
    missing at the start is set against the rate right there, where it is missing.
    """
    best: tuple[float, int, Floats, Floats] | None = None
    for p in ORDERS:
        used = until + p + TESTED
        if len(t) < used or np.ptp(k[:used]) > 0:
            continue
        weights = _weights(p, until)
        off = np.array([t[i : i + until] - weights @ t[i + until : i + until + p] for i in range(TESTED + 1)])
        noise = np.sqrt(np.square(weights * sd[until : until + p]).sum(1) + np.square(sd[:until]))
        error = np.hypot(noise, ROOM * np.abs(off[1 + (until > 1) :]).max(0))
        if best is None or error[0] < best[0]:
            best = (float(error[0]), p, off[0], error)
    if best is None:
        return None
    _, p, off, error = best
    each = k[0]
    ends = each * np.arange(until, until + p + 1)
    course = np.polynomial.Polynomial.fit(ends, np.r_[0.0, np.cumsum(t[until : until + p])], p).deriv()
    level = float(course(min(EARLY, each / 2))) * each
    if level <= 0:
        return None
    flat = np.full(2, level)
    return Beginning(np.r_[level + off, flat], np.r_[error, FLOOR * flat], np.full(until + 2, each), until, True)


def _weights(p: int, until: int) -> Floats:
    """Of p equal intervals, for the values that their polynomial gives the `until` ones before them [until, p]."""
    after = np.arange(p, dtype=np.float64)[None, :]
    parts = [[np.prod((j - after[after != i]) / (i - after[after != i])) for i in range(p)] for j in range(-until, 0)]
    return np.array(parts, np.float64)
