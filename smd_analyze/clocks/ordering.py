"""Time: does every checkpoint stand where its step says? A clock only shrinks, and its length tells the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smd_analyze.clocks import smoothness
from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured, Steps
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding

ODD = 0.1  # relative: how far an interval's rate must be from its neighbours' to be odd, besides their errors
EVEN = 3.0  # between rates of neighbouring intervals, as schedules have them
MOST = 10  # findings of one kind
REVERSED = "order-reversed"


@dataclass(frozen=True)
class Order:
    """What is to be said, and the checkpoints (indices) whose steps are not to be believed."""

    findings: tuple[Finding, ...] = ()
    doubtful: tuple[int, ...] = ()


def order(clocks: Sequence[Claimed], measured: Sequence[Measured], steps: Steps) -> Order:
    """Clocks that run backwards, checkpoints that stand elsewhere, intervals in which less or more happened."""
    moving = [c for c in clocks if c.moving]
    if not moving:
        return _reversed(measured, steps)
    back = _backwards(moving, steps)
    return back if back.findings else _misplaced(moving, steps)


def _reversed(measured: Sequence[Measured], steps: Steps) -> Order:
    """Vectors that keep their direction and grow, in two intervals in a row: time runs the other way."""
    for m in measured:
        if not m.alike and (m.grows[1:] & m.grows[:-1]).any():
            i = int(np.flatnonzero(m.grows[1:] & m.grows[:-1])[0])
            a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i + 1]]
            c = m.candidate
            text = (
                f"{c.parameter} ({c.functional}) keeps its direction as what feels no gradient does, but it grows from "
                f"{steps.word} {a:.0f} to {b:.0f}, and nothing shrinks so: the order looks reversed"
            )
            remedy = "check the order with `smd-analyze ls`; --order or --step-pattern change it"
            return Order((Finding(REVERSED, "warning", c.parameter, text, remedy),))
    return Order()


def _backwards(clocks: Sequence[Claimed], steps: Steps) -> Order:
    """Intervals over which clocks run backwards: all of them that hold there."""
    m = clocks[0].measured
    back = np.stack([_grew(c.measured) for c in clocks])
    holds = np.stack([c.where for c in clocks]) | back
    told: list[Finding] = []
    doubtful: set[int] = set()
    for i in np.flatnonzero(holds.any(0) & (back == holds).all(0)).tolist():
        a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
        clock = clocks[int(np.flatnonzero(back[:, i])[0])]
        guess, out = _explained(clock, i)
        doubtful |= out
        text = (
            f"{clock.name} is longer at {steps.word} {b:.0f} than at {a:.0f}, though it can only shrink "
            f"(ln(c/c') = {clock.measured.fall[i]:.4g}): {guess}"
        )
        remedy = "check the order with `smd-analyze ls`; --order or --step-pattern change it"
        told.append(Finding("clock-backwards", "warning", f"{steps.word}s {a:.0f} to {b:.0f}", text, remedy))
    return Order(tuple(told[:MOST]), tuple(sorted(doubtful)))


def _grew(m: Measured) -> np.ndarray:
    """Where a vector became longer in its direction, by however much."""
    with np.errstate(invalid="ignore"):
        along = m.present & m.firm & (m.turn < at.TURNING) & (m.fall < -at.MOST_DECAY)
    return along | (m.holds & (m.fall < -at.APART * m.error * m.length))


def _explained(clock: Claimed, i: int) -> tuple[str, set[int]]:
    """What makes the clock of interval i run forwards, and the checkpoints that must be left out for it."""
    m, n = clock.measured, len(clock.measured.fall)
    first, last = int(m.first[i]), int(m.last[i])
    before = float(m.fall[i - 1]) if i > 0 and clock.where[i - 1] else None
    after = float(m.fall[i + 1]) if i < n - 1 and clock.where[i + 1] else None
    fall = float(m.fall[i])
    if before is not None and after is not None:
        falls = np.array([before + fall, -fall, fall + after])
        rates = falls / m.length[i - 1 : i + 2]
        if (falls > 0).all() and rates.max() < EVEN * rates.min():
            return "the two files look exchanged", {first, last}
    late, early = "the first of the two is a later state", "the second of the two is an earlier state"
    if after is not None and fall + after > 0:
        return f"{early}, or an average of checkpoints", {last}
    if before is not None and before + fall > 0:
        return late, {first}
    if i == n - 1:
        return f"{early}, or an average of checkpoints", {last}
    if i == 0:
        return late, {first}
    return "training went on from an earlier state, or steps are mixed up", set()


def _misplaced(clocks: Sequence[Claimed], steps: Steps) -> Order:
    """Checkpoints that stand elsewhere than their step says, and intervals in which less or more happened."""
    best = min(clocks, key=lambda c: (-int(c.where.sum()), float(np.median(c.measured.error[c.where]))))
    m = best.measured
    told: list[Finding] = []
    doubtful: list[int] = []
    i = 1
    while i < len(m.fall) - 1:
        stands = _stands(best, i) or smoothness.stands(m, i)
        should = m.rate[i - 1] if _uneven(best, i) else smoothness.uneven(m, i)
        if (stands is None and should is None) or not all(_same_way(c, best, i) for c in clocks):
            i += 1
            continue
        if stands is not None:
            place, error = stands
            t = int(m.last[i])
            text = (
                f"by {best.name} this checkpoint stands at {steps.word} "
                f"{steps.numbers[m.first[i]] + place:.1f} ± {at.NORMAL_95 * error:.2g}: "
                "the clock runs evenly before and after, and so it does over both intervals at this checkpoint together"
            )
            where = f"{steps.word} {steps.numbers[t]:.0f}"
            told.append(Finding("step-misplaced", "warning", where, text, "check the step of this file"))
            doubtful.append(t)
            i += 1
        else:
            a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
            text = (
                f"{best.name} advanced {m.rate[i] / should:.3g} times as far as in equal time before and after: "
                "training was resumed from another state, the learning rate was another one here, or a step is wrong"
            )
            told.append(Finding("clock-jumps", "warning", f"{steps.word}s {a:.0f} to {b:.0f}", text, ""))
        i += 1
    return Order(tuple(told[:MOST]), tuple(doubtful))


def _close(clock: Claimed, i: int, j: int) -> bool:
    m = clock.measured
    return bool(abs(m.rate[i] - m.rate[j]) <= at.APART * np.hypot(m.error[i], m.error[j]))


def _is_odd(clock: Claimed, i: int, j: int) -> bool:
    """Whether interval i is odd against interval j."""
    m = clock.measured
    return not _close(clock, i, j) and bool(abs(m.rate[i] - m.rate[j]) > ODD * abs(m.rate[j]))


def _stands(clock: Claimed, i: int) -> tuple[float, float] | None:
    """Where the checkpoint between intervals i and i+1 stands, in steps after the one before it, and its sd.

    Only if the clock ran evenly: at one rate in two intervals before and two after, and over both intervals together.
    """
    m, n = clock.measured, len(clock.measured.fall)
    before, after = [j for j in (i - 2, i - 1) if j >= 0], [j for j in (i + 2, i + 3) if j < n]
    if len(before) + len(after) < 3 or not before or not after or not clock.where[[i, i + 1]].all():
        return None
    if not m.moves[[*before, *after]].all():
        return None
    rate, error = m.rate[before[-1]], m.error[before[-1]]
    if not all(_close(clock, before[-1], j) for j in (*before, *after)) or not _is_odd(clock, i, before[-1]):
        return None
    together = (m.fall[i] + m.fall[i + 1]) / (m.length[i] + m.length[i + 1])
    spread = np.hypot(m.error[i] * m.length[i], m.error[i + 1] * m.length[i + 1]) / (m.length[i] + m.length[i + 1])
    if abs(together - rate) > at.APART * np.hypot(spread, error):
        return None
    place = m.fall[i] / rate
    return float(place), float(np.hypot(m.error[i] * m.length[i] / rate, place * error / rate))


def _uneven(clock: Claimed, i: int) -> bool:
    """Whether one interval is odd between two that run evenly before it and two after it."""
    around = [i - 2, i - 1, i + 1, i + 2]
    if around[0] < 0 or around[-1] >= len(clock.measured.fall) or not clock.where[i]:
        return False
    even = clock.measured.moves[around].all() and all(_close(clock, i - 1, j) for j in around)
    return bool(even) and _is_odd(clock, i, i - 1)


def _same_way(clock: Claimed, best: Claimed, i: int) -> bool:
    """Whether another clock deviates in interval i as the best one does, or does not know."""
    known = all(c.where[i] and c.measured.moves[i - 1] for c in (clock, best))
    if clock is best or not known:
        return True
    of = [c.measured.fall[i] / c.measured.rate[i - 1] / c.measured.length[i] for c in (clock, best)]
    return bool(abs(of[0] - of[1]) < ODD)


def step_at(fall: float, sd: float, steps: npt.ArrayLike, decay: npt.ArrayLike) -> tuple[float, float, float]:
    """The step at which a checkpoint stands, with its 95 % interval, from how far its clock fell since the first step.

    `fall` = −ln(c/c₀) ± `sd`; `decay` [n]: what −ln(c/c₀) should be at `steps` [n], rising, by the known schedule. At
    its ends, or where no decay acts, the interval is as wide as the steps that fit.
    """
    at_step, total = np.asarray(steps, np.float64), np.maximum.accumulate(np.asarray(decay, np.float64))
    half = at.NORMAL_95 * sd
    first = int(np.searchsorted(total, fall - half, side="left"))
    last = int(np.searchsorted(total, fall + half, side="right"))
    low = at_step[0] if first == 0 else _between(fall - half, first, at_step, total)
    high = at_step[0] if last == 0 else _between(fall + half, last, at_step, total)
    rising = np.flatnonzero(np.diff(total, prepend=-np.inf) > 0)
    return float(np.interp(fall, total[rising], at_step[rising])), float(low), float(high)


def _between(value: float, i: int, steps: np.ndarray, total: np.ndarray) -> float:
    if i >= len(total):
        return float(steps[-1])
    part = (value - total[i - 1]) / (total[i] - total[i - 1])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))
