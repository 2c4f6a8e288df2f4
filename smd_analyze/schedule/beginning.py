"""The first intervals of a run as they would be at a constant rate: what a filling momentum buffer is looked for in."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from smd_analyze.schedule.clock_readings import Z95, Floats
from smd_analyze.schedule.stretches import stretches

FLOOR = 3e-6  # relative error of a total at best: fp32 sums of tens of rows
LATEST = 12  # intervals within which the rate must have settled
FEWEST = 4  # intervals that tell of a buffer which has not filled within them
ORDERS = range(2, 7)  # intervals from which the first one is extrapolated
TESTED = 3  # intervals further on that the same extrapolation must give: its error
ROOM = 2.0  # times that error
EARLY = 8.0  # updates after the start at which the decay is taken that a buffer withholds, where α is not known yet


@dataclass(frozen=True)
class Beginning:
    """`total` [n]: −ln(c'/c) from the start on over `updates` [n], with standard deviations `sd`; the rate is constant.

    `until`: intervals of the run by whose end it has settled. `moving`: the learning rate moved, and what a constant one
    would have given is extrapolated.
    """

    total: Floats
    sd: Floats
    updates: Floats
    until: int
    moving: bool = False


def beginning(total: Floats, low: Floats, high: Floats, updates: Floats, begins: float) -> Beginning | None:
    """The beginning of a run, from its start on; None where it began elsewhere, or the rate changed as no buffer does.

    `total`, `low`, `high` [I]: −ln(c'/c) of a clock with its 95 % interval, `updates` [I], `begins` before the first.
    """
    read = np.isfinite(total) & (total > 0) & (high > low) & (updates > 0)
    whole = int(np.argmin(np.r_[read, False]))
    if begins != 0 or whole < 3:
        return None
    sd = np.hypot((high - low)[:whole] / (2 * Z95), FLOOR * total[:whole])
    t, k = total[:whole], updates[:whole]
    for a, b in stretches(t[1:] / k[1:], sd[1:] / k[1:])[:LATEST]:
        if b - a >= 2:
            return Beginning(t[: b + 1], sd[: b + 1], k[: b + 1], a + 1)
    rises = bool((np.diff(t[:FEWEST] / k[:FEWEST]) > 0).all())
    if whole >= FEWEST and rises:
        last = min(whole, LATEST)
        return Beginning(t[:last], sd[:last], k[:last], last)
    return _extrapolated(t, sd, k)


def _extrapolated(t: Floats, sd: Floats, k: Floats) -> Beginning | None:
    """The first interval against the polynomial through those after it; None where none goes on smoothly.

    With equal intervals, p of them give the one before them as Σ (−1)^(j+1) C(p, j) T_j; how well they do so further on
    is the error. What is missing in the first interval is set against the rate right at the start, where it is missing.
    """
    best: tuple[float, int, float] | None = None
    for p in ORDERS:
        if len(t) < p + 1 + TESTED or np.ptp(k[: p + 1 + TESTED]) > 0:
            continue
        weights = np.array([(-1.0) ** (j + 1) * comb(p, j) for j in range(1, p + 1)])
        off = [t[i] - float(weights @ t[i + 1 : i + 1 + p]) for i in range(TESTED + 1)]
        noise = float(np.sqrt(np.square(weights * sd[1 : p + 1]).sum() + sd[0] ** 2))
        error = float(np.hypot(noise, ROOM * np.abs(off[1:]).max()))
        if best is None or error < best[0]:
            best = (error, p, off[0])
    if best is None:
        return None
    error, p, off = best
    each = k[0]
    ends = each * np.arange(1, p + 2)
    course = np.polynomial.Polynomial.fit(ends, np.r_[0.0, np.cumsum(t[1 : p + 1])], p).deriv()
    rate = float(course(min(EARLY, each / 2)))
    if rate <= 0:
        return None
    level = rate * each
    return Beginning(
        np.array([level + off, level, level]), np.array([error, FLOOR * level, FLOOR * level]), np.full(3, each), 1, True
    )  # fmt: skip
