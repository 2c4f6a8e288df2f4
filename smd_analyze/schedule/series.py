"""A hyperparameter over the updates of a run, from values that checkpoints saved, and how far it can be off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
Numbers = Sequence[float] | np.ndarray
SAME = 1e-6  # relative: float32 copies of one number agree to this
OUTLIER = 4.0  # a change this many times its neighbours' is a jump, not a smooth curve
CHUNK = 1 << 20  # updates evaluated at once


@dataclass(frozen=True)
class Series:
    """Functions of the update number u (1 is the run's first update): best, and bounds at each update."""

    best: Function
    low: Function
    high: Function

    def total(self, first: int, last: int) -> tuple[float, float, float]:
        """Σ over updates first … last: (best, low, high)."""
        sums = np.zeros(3)
        for begin in range(first, last + 1, CHUNK):
            u = np.arange(begin, min(begin + CHUNK, last + 1), dtype=float)
            if self.low is self.best and self.high is self.best:
                sums += self.best(u).sum()
            else:
                sums += np.array([self.best(u), self.low(u), self.high(u)]).sum(axis=1)
        return float(sums[0]), float(min(sums[0], sums[1])), float(max(sums[0], sums[2]))

    def at(self, update: int) -> float:
        """Best value at one update."""
        return float(self.best(np.array([float(update)]))[0])

    def ends(self, update: int) -> tuple[float, float]:
        """Lowest and highest value at one update."""
        u = np.array([float(update)])
        best = float(self.best(u)[0])
        low, high = (best if f is self.best else float(f(u)[0]) for f in (self.low, self.high))
        return min(best, low), max(best, high)


def exact(function: Function) -> Series:
    """A series that is known at every update."""
    return Series(function, function, function)


def constant(value: float) -> Series:
    """One value throughout."""
    return exact(lambda u: np.full(u.shape, value))


def piecewise(steps: Sequence[float], values: Sequence[float]) -> Series:
    """values[i] for the updates after steps[i] until steps[i+1]; values[0] before that too."""
    edges, levels = np.asarray(steps, float), np.asarray(values, float)
    return exact(lambda u: levels[np.clip(np.searchsorted(edges, u, side="left") - 1, 0, len(levels) - 1)])


def through(updates: Numbers, values: Numbers, meant: Sequence[bool] | np.ndarray = (), peak: float = 0.0) -> Series:
    """The series through saved values, each known at one update; beyond the ends the last value holds.

    Between two equal values it is constant. A lone change between constant stretches (or one far larger than its
    neighbours) is a jump somewhere inside: the middle, bounded by both values. Where `meant` says that the earlier
    value was saved for an update still to come, the bounds hold from that update on: many scripts set the learning
    rate right before the step, and a resumed run may set another. Where neighbours change too, the curve is smooth: a
    monotone cubic, give or take its distance from the straight line, and as far as the earlier value held, or the
    later one where it is that of an update that was made (a scheduler that is called once an epoch). On both sides of
    the largest value it may have been up to `peak`: the saved values need not show the end of a warm-up.
    """
    u, first = np.unique(np.asarray(updates, float), return_index=True)
    v = np.asarray(values, float)[first]
    if len(u) == 1 or np.all(np.abs(v - v[0]) <= SAME * np.abs(v).max()):
        return constant(float(v[0]))
    early = np.asarray(meant, bool)[first] if len(meant) else np.zeros(len(u), bool)
    kinds = _kinds(v)
    cubic = _cubics(u, v, kinds)
    top = int(np.argmax(v))
    hidden = np.zeros(len(v), bool)  # segments that may hold the peak
    if peak > v[top] * (1 + SAME) and 0 < top < len(v) - 1:
        hidden[top - 1 : top + 1] = True

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        j = np.clip(np.searchsorted(u, x, side="right") - 1, 0, len(u) - 2)
        held, following = v[j], v[j + 1]
        part = np.clip((x - u[j]) / (u[j + 1] - u[j]), 0, 1)
        line = held + (following - held) * part
        best, low, high = held.copy(), held.copy(), held.copy()
        jump = (kinds[j] == "jump") & (part < 1) & ((part > 0) | early[j])
        inside = jump & (part > 0)
        best[inside] = 0.5 * (held + following)[inside]
        low[jump], high[jump] = np.minimum(held, following)[jump], np.maximum(held, following)[jump]
        smooth = kinds[j] == "smooth"
        best[smooth] = cubic(x[smooth])
        other = np.where(early[j + 1], held, following)  # the value of an update that was made may have held before it
        rules = np.array(
            [line, held, other, 2 * best - line]
        )  # the last: as far beyond the cubic as the line before it
        ends = np.minimum(held, following), np.maximum(held, following)
        low[smooth] = np.clip(rules.min(axis=0), *ends)[smooth]
        high[smooth] = np.clip(rules.max(axis=0), *ends)[smooth]
        high[hidden[j]] = peak
        for out in (best, low, high):
            out[part == 1] = following[part == 1]
            out[(part == 0) & ~jump] = held[(part == 0) & ~jump]
        return best, low, high

    return Series(lambda x: evaluate(x)[0], lambda x: evaluate(x)[1], lambda x: evaluate(x)[2])


def _kinds(v: np.ndarray) -> np.ndarray:
    """Of each segment between saved values: constant, jump or smooth."""
    change = np.abs(np.diff(v))
    still = change <= SAME * np.maximum(np.abs(v[1:]), np.abs(v[:-1]))
    quiet = np.r_[True, still[:-1]] & np.r_[still[1:], True]
    largest = np.maximum(np.r_[0.0, change[:-1]], np.r_[change[1:], 0.0])
    kinds = np.where(still, "constant", "smooth").astype(object)
    kinds[~still & (quiet | (change > OUTLIER * largest))] = "jump"
    return kinds


def _cubics(u: np.ndarray, v: np.ndarray, kinds: np.ndarray) -> Function:
    """Monotone cubics (Fritsch-Carlson slopes) through each unbroken stretch of smooth segments."""
    slope = np.zeros((2, len(kinds)))  # at the left and the right end of each segment
    width, secant = np.diff(u), np.diff(v) / np.diff(u)
    smooth = np.append(kinds == "smooth", False)  # the last: no segment, which is what -1 and len(kinds) mean below
    w, s = np.append(width, 1.0), np.append(secant, 0.0)
    j = np.flatnonzero(smooth)
    for side, near, far in ((0, j - 1, j + 1), (1, j + 1, j - 1)):
        both = smooth[near] & (s[j] * s[near] > 0)
        k, n = j[both], near[both]
        wide, narrow = 2 * w[n] + w[k], w[n] + 2 * w[k]
        slope[side, k] = (wide + narrow) / (wide / s[k] + narrow / s[n])
        ends = ~smooth[near] & smooth[far]  # an end of the stretch: the parabola through three values
        k, f = j[ends], far[ends]
        end = ((2 * w[k] + w[f]) * s[k] - w[k] * s[f]) / (w[k] + w[f])
        slope[side, k] = np.clip(end / s[k], 0, 3) * s[k]
        alone = j[~smooth[near] & ~smooth[far]]
        slope[side, alone] = s[alone]

    def value(x: np.ndarray) -> np.ndarray:
        j = np.clip(np.searchsorted(u, x, side="right") - 1, 0, len(u) - 2)
        h, s = width[j], (x - u[j]) / width[j]
        rise = v[j + 1] - v[j]
        bend = s * (1 - s) * ((1 - s) * (h * slope[0, j] - rise) - s * (h * slope[1, j] - rise))
        return v[j] + rise * s + bend

    return value
