"""Under a smooth schedule: what the intervals around a place say of the rates at it.

A polynomial through the rates of up to three intervals before and after, and how well it fits them, in one number. It
asks for little: that what is odd stands out twentyfold against what the schedule itself does around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured

AROUND, LEAST = 3, 2  # intervals on each side
DEGREE, FREE = 3, 2  # of the polynomial, at most, and how many numbers more there must be
STANDS_OUT = 20.0  # against the misfit of the intervals around
TOGETHER = 0.2  # over both intervals at a misplaced checkpoint the clock runs evenly: to this part of the deviation
MUCH, BEYOND = 0.25, 0.1  # relative: how far an interval is from what is expected, and beyond both its neighbours
FINE = 1001


@dataclass(frozen=True)
class Expected:
    """Rates of the intervals in question by those around, their standard deviation, and the polynomial in time."""

    rates: np.ndarray
    sd: float
    edges: np.ndarray
    powers: np.ndarray

    def place(self, share: float) -> float:
        """Time since the first edge at which a share of all decay between the first and the last edge has passed."""
        t = np.linspace(self.edges[0], self.edges[-1], FINE)
        rate = np.maximum(np.polynomial.polynomial.polyval(t, self.powers), 0.0)
        passed = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
        return float(np.interp(share * passed[-1], passed, t) - t[0])


def expected(m: Measured, first: int, last: int) -> Expected | None:
    """What the intervals around say of the intervals `first` to `last` (included), if there are enough that hold."""
    n = len(m.fall)
    before = list(range(max(0, first - AROUND), first))
    after = list(range(last + 1, min(n, last + 1 + AROUND)))
    around = [*before, *after]
    degree = min(DEGREE, len(around) - FREE - 1)
    if min(len(before), len(after)) < LEAST or degree < 1 or not m.moves[around].all():
        return None
    ends = np.concatenate([[0.0], np.cumsum(m.length)])
    middle, scale = ends[first], m.length[around].mean()
    a, b = (ends[:-1] - middle) / scale, (ends[1:] - middle) / scale
    power = np.arange(degree + 1)
    means = (b[:, None] ** (power + 1) - a[:, None] ** (power + 1)) / ((power + 1) * (b - a)[:, None])
    powers, *_ = np.linalg.lstsq(means[around], m.rate[around], rcond=None)
    misfit = m.rate[around] - means[around] @ powers
    sd = float(np.sqrt((misfit**2).sum() / (len(around) - degree - 1) + np.mean(m.error[around] ** 2)))
    edges = ends[first : last + 2] - middle
    return Expected(means[first : last + 1] @ powers, sd, edges, powers / scale**power)


def stands(m: Measured, i: int) -> tuple[float, float] | None:
    """Where the checkpoint between intervals i and i+1 stands, in steps after the one before it, and its sd.

    Only if one interval has more and the other less than both their neighbours, and both together what is expected: no
    change of the learning rate does that.
    """
    pair = [i, i + 1]
    there = expected(m, i, i + 1)
    if there is None or not (m.holds[pair] | m.same[pair]).all() or not (there.rates > 0).all():
        return None
    least, most = sorted((m.rate[i - 1], m.rate[i + 2]))
    low, high = sorted(m.rate[pair])
    fall, length = m.fall[pair], m.length[pair]
    off = fall - there.rates * length
    apart, noise = abs(off[0] - off[1]) / 2, there.sd * length.sum() / 2
    odd = apart > max(
        STANDS_OUT * noise, BEYOND * (there.rates * length).min(), at.APART * (m.error * m.length)[pair].max()
    )
    if not (low < least and high > most and odd and abs(off.sum()) < max(TOGETHER * apart, noise) and fall.sum() > 0):
        return None
    rate = float(there.rates.mean())
    return there.place(float(fall[0] / fall.sum())), float(np.hypot(noise, abs(off.sum())) / rate)


def uneven(m: Measured, i: int) -> float | None:
    """What interval i should have been, as a rate, if it is far from that and beyond both its neighbours."""
    there = expected(m, i, i)
    if there is None or not m.holds[i] or not there.rates[0] > 0:
        return None
    rate, should = float(m.rate[i]), float(there.rates[0])
    least, most = sorted((m.rate[i - 1], m.rate[i + 1]))
    beyond = rate < (1 - BEYOND) * least or rate > (1 + BEYOND) * most
    far = abs(rate - should) > max(STANDS_OUT * there.sd, MUCH * should, at.APART * float(m.error[i]))
    return should if beyond and far else None
