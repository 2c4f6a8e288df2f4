"""Time and lineage: does every checkpoint stand where its step says, and is it of the same run?

A clock's direction is a fingerprint of its run (1 − cos below 1e-6 within a run, about 1 between two runs), and its
length tells the time. What all clocks say together is said here; what one slice says alone may be a row that woke up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Steps, turning
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding

ODD = 0.1  # relative: how far an interval's rate must be from its neighbours' to be odd, besides their errors
MOST = 10  # findings of one kind


def strangers(clocks: Sequence[Claimed], checkpoints: int) -> list[int]:
    """Checkpoints whose clocks all point elsewhere while those before and after point the same way: other runs' files.

    Gives their indices. The clocks must have been measured over all `checkpoints`.
    """
    alone = []
    for t in range(1, checkpoints - 1):
        told = [_is_stranger(c, t) for c in clocks if np.isfinite(c.measured.candidate.values[t - 1 : t + 2]).all()]
        if told and all(told):
            alone.append(t)
    return alone


def _is_stranger(clock: Claimed, t: int) -> bool:
    before, here, after = clock.measured.candidate.values[t - 1 : t + 2]
    apart = turning(before, here) > at.FRESH and turning(here, after) > at.FRESH
    return apart and turning(before, after) < at.TURNING


def about(clocks: Sequence[Claimed], steps: Steps, foreign: Sequence[int]) -> list[Finding]:
    """All findings on time and lineage. `clocks` are measured without the `foreign` checkpoints."""
    moving = [c for c in clocks if c.moving]
    order = _order(moving, steps)
    return [
        *_foreign(foreign, steps),
        *_breaks(clocks, steps),
        *order,
        *([] if order else _misplaced(moving, steps)),
    ]


def _foreign(foreign: Sequence[int], steps: Steps) -> list[Finding]:
    return [
        Finding(
            "foreign-checkpoint",
            "warning",
            f"step {steps.numbers[t]:.0f}",
            "all decay clocks point in another direction here, and in the same one before and after: this checkpoint is "
            "of another run; clocks are read without it",
            "leave it out (--steps, or move the file): norms and angles next to it are wrong, too",
        )
        for t in foreign[:MOST]
    ]


def _breaks(clocks: Sequence[Claimed], steps: Steps) -> list[Finding]:
    """Intervals in which every clock turned to another direction for good."""
    if not clocks:
        return []
    m = clocks[0].measured
    turn = np.stack([c.measured.turn for c in clocks])
    present = np.stack([c.measured.present for c in clocks])
    with np.errstate(invalid="ignore"):
        broken = (present & ~(turn > at.FRESH)).sum(0) == 0
    out = []
    for i in np.flatnonzero(broken & present.any(0)):
        names = ", ".join(dict.fromkeys(c.name for c in clocks if c.measured.present[i]))
        woke = " (or what was never used began to be)" if all(c.measured.candidate.kind != "sum" for c in clocks) else ""
        a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
        text = (
            f"decay clocks keep their direction on either side, but not between steps {a:.0f} and {b:.0f} "
            f"(1 − cos = {np.nanmin(turn[:, i]):.2g} or more): the checkpoints are not of one run, or the layer was "
            f"initialised anew there{woke}"
        )
        out.append(Finding("lineage-broken", "warning", names[:200], text, "analyse the parts alone with --steps A:B"))
    return out[:MOST]


def _order(clocks: Sequence[Claimed], steps: Steps) -> list[Finding]:
    """Intervals over which clocks run backwards: all of them that hold there."""
    if not clocks:
        return []
    m = clocks[0].measured
    holds = np.stack([c.where for c in clocks])
    back = holds & np.stack([c.measured.fall < -at.APART * c.measured.error * c.measured.length for c in clocks])
    out = []
    for i in np.flatnonzero(holds.any(0) & (back == holds).all(0)):
        a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
        clock = clocks[int(np.flatnonzero(back[:, i])[0])]
        swapped = _exchanged(clock, int(i))
        guess = "the two files look exchanged" if swapped else "steps are mixed up, or training went on from an earlier "
        guess += "" if swapped else "state; an average of checkpoints looks like this, too"
        text = (
            f"{clock.name} is longer at step {b:.0f} than at step {a:.0f}, though it can only shrink "
            f"(ln(c/c') = {clock.measured.fall[i]:.4g}): {guess}"
        )
        remedy = "check the order with `smd-analyze ls`; --order or --step-pattern change it"
        out.append(Finding("clock-backwards", "warning", f"steps {a:.0f} to {b:.0f}", text, remedy))
    return out[:MOST]


def _exchanged(clock: Claimed, i: int) -> bool:
    """Whether exchanging the two checkpoints of interval i makes the clock run forwards, at its neighbours' rates."""
    m = clock.measured
    if not 0 < i < len(m.fall) - 1 or not clock.where[i - 1 : i + 2].all():
        return False
    k = m.length[i - 1 : i + 2]
    falls = np.array([m.fall[i - 1] + m.fall[i], -m.fall[i], m.fall[i] + m.fall[i + 1]])
    rates = falls / k
    return bool((falls > 0).all() and rates.max() < 2 * rates.min())


def _misplaced(clocks: Sequence[Claimed], steps: Steps) -> list[Finding]:
    """Checkpoints that stand elsewhere than their step says, and intervals in which less or more happened."""
    best = _most_precise(clocks)
    if best is None:
        return []
    m = best.measured
    out: list[Finding] = []
    i = 1
    while i < len(m.fall) - 1:
        stands = _stands(best, i)
        if stands is not None and all(_same_way(c, best, i) for c in clocks):
            place, error = stands
            t = m.last[i]
            text = (
                f"by {best.name} this checkpoint stands at step {steps.numbers[m.first[i]] + place:.1f} ± {error:.1g}: "
                "the clock runs evenly before and after, and the two intervals at this checkpoint share its time otherwise"
            )
            where = f"step {steps.numbers[t]:.0f}"
            out.append(Finding("step-misplaced", "warning", where, text, "check the step of this file"))
            i += 2
            continue
        if _uneven(best, i) and all(_same_way(c, best, i) for c in clocks):
            a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
            share = m.rate[i] / m.rate[i - 1]
            text = (
                f"{best.name} advanced by {share:.3g} of what it does in equal time before and after: training was resumed "
                "from another state, the learning rate was another one here, or a step is wrong"
            )
            out.append(Finding("clock-jumps", "warning", f"steps {a:.0f} to {b:.0f}", text, ""))
        i += 1
    return out[:MOST]


def _most_precise(clocks: Sequence[Claimed]) -> Claimed | None:
    """The clock that holds in most intervals, and of these the one with the smallest error."""
    return min(clocks, key=lambda c: (-int(c.where.sum()), float(np.median(c.measured.error[c.where]))), default=None)


def _close(clock: Claimed, i: int, j: int) -> bool:
    m = clock.measured
    return bool(abs(m.rate[i] - m.rate[j]) <= at.APART * np.hypot(m.error[i], m.error[j]))


def _is_odd(clock: Claimed, i: int, j: int) -> bool:
    """Whether interval i is odd against interval j."""
    m = clock.measured
    return not _close(clock, i, j) and abs(m.rate[i] - m.rate[j]) > ODD * abs(m.rate[j])


def _stands(clock: Claimed, i: int) -> tuple[float, float] | None:
    """Where the checkpoint between intervals i and i+1 stands, in steps after the one before it, and its sd.

    Only if the clock ran evenly: at one rate in two intervals before and two after, and over both intervals together.
    """
    m, n = clock.measured, len(clock.measured.fall)
    before, after = [j for j in (i - 2, i - 1) if j >= 0], [j for j in (i + 2, i + 3) if j < n]
    if len(before) + len(after) < 3 or not before or not after or not clock.where[[*before, i, i + 1, *after]].all():
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
    if around[0] < 0 or around[-1] >= len(clock.measured.fall) or not clock.where[[*around, i]].all():
        return False
    return all(_close(clock, i - 1, j) for j in around) and _is_odd(clock, i, i - 1)


def _same_way(clock: Claimed, best: Claimed, i: int) -> bool:
    """Whether another clock deviates in interval i as the best one does, or does not know."""
    if clock is best or not clock.where[i - 1 : i + 1].all():
        return True
    of = [c.measured.fall[i] / c.measured.rate[i - 1] / c.measured.length[i] for c in (clock, best)]
    return bool(abs(of[0] - of[1]) < ODD)


def step_at(fall: float, sd: float, steps: Sequence[float], decay: Sequence[float]) -> tuple[float, float, float]:
    """The step at which a checkpoint stands, with its 95 % interval, from how far its clock fell since the first step.

    `fall` = −ln(c/c₀) ± `sd`; `decay` [n]: what −ln(c/c₀) should be at `steps` [n], rising, by the known schedule. At
    its ends, or where no decay acts, the interval is as wide as the steps that fit.
    """
    at_step, total = np.asarray(steps, np.float64), np.maximum.accumulate(np.asarray(decay, np.float64))
    half = at.NORMAL_95 * sd
    rising = np.flatnonzero(np.diff(total, prepend=-np.inf) > 0)
    value = float(np.interp(fall, total[rising], at_step[rising]))
    below, above = fall - half, fall + half
    first = int(np.searchsorted(total, below, side="left"))
    low = at_step[0] if first == 0 else _between(below, first, at_step, total)
    last = int(np.searchsorted(total, above, side="right"))
    high = at_step[-1] if last == len(total) else _between(above, last, at_step, total)
    return value, float(low), float(high)


def _between(value: float, i: int, steps: np.ndarray, total: np.ndarray) -> float:
    if i >= len(total):
        return float(steps[-1])
    part = (value - total[i - 1]) / (total[i] - total[i - 1])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))
