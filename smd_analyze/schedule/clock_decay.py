"""Σηλ from what a clock lost: the update rule's momentum taken out, at the start of training and after changes too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.decay_formulas import decay_of, filling_loss, velocity_lag
from smd_analyze.schedule.clock_readings import Floats

FIRST = 1.1  # of the memory to first order: what higher ones may add
REACH = 5.0  # times 1/(1−α): updates after which the buffer has forgotten
DROP = 10.0  # factor by which the learning rate may have fallen right before the first of two files
FILLED = 1e-9  # of an interval's decay: less is not held back
ROUNDS = 8  # each leaves a share of about lag × rate of the error
NEAR = 2e-3  # relative: rates that differ by less are one, besides what their intervals allow


@dataclass(frozen=True)
class UpdateRule:
    """What takes a clock's rate back to ηλ, `momentum` α and `dampening` τ per interval [I].

    `in_velocity` None: not known. `momentum_sure` False: it was assumed.
    """

    momentum: Floats
    dampening: Floats
    nesterov: bool = False
    decoupled: bool = False
    in_velocity: bool | None = False
    momentum_sure: bool = True

    @property
    def lag(self) -> Floats:
        """Updates' worth of decay that the buffer holds back, α/(1−α), Nesterov α²/(1−α); 0 if decoupled [I]."""
        return np.zeros_like(self.momentum) if self.decoupled else velocity_lag(self.momentum, self.nesterov)

    @property
    def share(self) -> Floats:
        """ηλ over what it makes of the weights, to leading order: (1−α)/(1−τ), 1 if decoupled [I]."""
        return np.ones_like(self.momentum) if self.decoupled else (1 - self.momentum) / (1 - self.dampening)


def sums_of_decay(
    total: Floats, low: Floats, high: Floats, updates: Floats, begins: float, rule: UpdateRule
) -> tuple[Floats, Floats, Floats]:
    r"""Σηλ over each interval with its interval, from −ln(c'/c) [I] and its ends; NaN where no ηλ gives the rate.

    Settled, a clock's rate r gives ηλ by `decay_of`. Under momentum three more things count:

    - The first update finds an empty buffer: until it has filled, $lag \cdot r\,\alpha^{s}(1-\alpha^{k})$ of the decay
      is missing in the k updates after update s = `begins`, lag = α/(1−α), to first order in r; exactly by
      `filling_loss` where the rate stays.
    - After a change of the learning rate the buffer still holds the old one. With the learning rate inside the velocity
      (or where that is not known) the interval is widened by lag times the difference between neighbouring rates,
      outside by the second order only, lag · r times that. Inside, a jump that surely stands alone is allowed for.
    - ηλ(r) is not a straight line: where an interval holds a jump between two stretches, its mean lies on the chord
      between their rates, elsewhere between chord and curve.

    `updates` [I] are NaN where unknown: then to leading order in the rate, Σηλ = (1−α) × total/(1−τ).
    Source: the recursion q' = αq + λc, c' = c − ηq' (decay_formulas/recursion.py), tested against it.
    """
    if not np.isfinite(updates).any():
        return rule.share * total, rule.share * low, rule.share * high
    late, exact = _still_to_come(total, updates, begins, rule)
    count, width = updates - late, (high - low) / updates
    rate = total / count
    before, after = np.r_[np.nan, rate[:-1]], np.r_[rate[1:], np.nan]
    if len(rate) == 1 and begins > 0 and rule.in_velocity is not False:  # two files: often saved where η drops
        before = DROP * rate
    share, jump = _jumps(rate, before, after, width)
    # what the first order leaves out at the start, and some more; and that the first rates were not yet the mean
    settling = late * (np.where(exact, 0.0, 4 * rule.lag * rate**2) + 2 * np.nan_to_num(np.abs(rate - after)))
    # inside the velocity, where a jump is surely alone, the old rate was held before it and the new one is after
    held = jump & bool(rule.in_velocity) & _long(updates, rule)
    memory = _memory(rate, before, width, updates, held, rule) + np.nan_to_num(settling)
    total, low, high = (v - np.where(held, rule.lag * (before - after), 0.0) for v in (total, low, high))
    best, least, most = (
        updates * decay_of(value / count, rule.momentum, rule.nesterov, rule.decoupled, rule.dampening)
        for value in (total, low - memory, high + memory)
    )
    if not rule.decoupled:
        own = best / updates
        np.divide(total / count - before, after - before, out=share, where=jump)
        chord = np.r_[np.nan, own[:-1]] * (1 - share) + np.r_[own[1:], np.nan] * share
        off = np.nan_to_num(chord * updates - best)
        least, most = least + np.minimum(off, 0.0), most + np.maximum(off, 0.0)
        best = best + np.where(jump, off, 0.0)
    # an assumed momentum, or a learning rate that was not yet the mean's: then less may have been missing
    begun = late > NEAR * updates
    unlike = np.r_[~(np.abs(np.diff(best / updates)) < NEAR * (best / updates)[1:]), True]
    least = np.where(begun & (unlike | (not rule.momentum_sure)), least * count / updates, least)
    return best, np.fmin(least, best), np.fmax(most, best)


def _jumps(rate: Floats, before: Floats, after: Floats, width: Floats) -> tuple[Floats, np.ndarray]:
    """(how far an interval's rate lies from the one before to the one after, NaN if not between them; jumps).

    A jump stands alone between two rates that go on as they are, as far as the run reaches.
    """
    apart = np.abs(after - before) > width
    share = np.divide(rate - before, after - before, out=np.full(len(rate), np.nan), where=apart)
    share[~((share > 0) & (share < 1))] = np.nan
    moving = np.abs(rate - before) > width + NEAR * np.fmax(rate, before)
    calm = ~np.r_[False, moving[:-1]] & ~np.r_[moving[2:], False, False][: len(rate)]
    return share, np.isfinite(share) & calm


def _still_to_come(total: Floats, updates: Floats, begins: float, rule: UpdateRule) -> tuple[Floats, np.ndarray]:
    """(updates' worth of decay that the buffer holds back while it fills, whether it is exact), per interval.

    Exact for a constant rate, found by scaling it until the filling buffer gives the total; else to first order.
    """
    made = begins + np.concatenate([[0.0], np.cumsum(np.nan_to_num(updates))])
    a = rule.momentum
    # PyTorch's first dampened update is undamped, which about makes up for the empty buffer
    held = np.where(rule.dampening > 0, 0.0, rule.lag)
    late = np.minimum(held * (a ** made[:-1] - a ** made[1:]), 0.9 * updates)
    filling = late > FILLED * updates
    if not filling.any():
        return late, filling
    rate, lost = total / (updates - late), total
    for _ in range(ROUNDS):
        lost = filling_loss(rate, a, made[1:], rule.nesterov) - filling_loss(rate, a, made[:-1], rule.nesterov)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = rate * total / lost
    exact = filling & np.isfinite(rate) & (np.abs(lost - total) < FILLED * np.abs(total))
    return np.where(exact, updates - total / np.where(exact, rate, 1.0), late), exact


def _long(updates: Floats, rule: UpdateRule) -> np.ndarray:
    """Intervals that are, with two neighbours on either side, longer than the buffer's memory."""
    enough = np.r_[False, False, updates > REACH * (rule.lag + 1), False, False]
    return np.all([enough[k : k + len(updates)] for k in range(5)], axis=0)


def _memory(
    rate: Floats, before: Floats, width: Floats, updates: Floats, held: np.ndarray, rule: UpdateRule
) -> Floats:  # fmt: skip
    """What a changing rate may add to or take from each total: the buffer's memory, and that ηλ(r) bends.

    The memory is of rates up to REACH/(1−α) updates before the interval, to first order unless `held` (allowed for).
    """
    ends = np.cumsum(np.nan_to_num(updates))
    begin = np.searchsorted(ends, ends - updates - REACH * (rule.lag + 1), side="right")
    near = [np.r_[before[i], rate[min(begin[i], max(i - 1, 0)) : i + 2]] for i in range(len(rate))]
    least, most = (np.array([f.reduce(v) for v in near]) for f in (np.fmin, np.fmax))
    change = np.nan_to_num(np.fmax(most - least - width, 0.0))
    second = np.clip(2 * rule.lag * np.nan_to_num(rate), 0.0, 1.0)
    order = second if rule.in_velocity is False else np.where(held, second, FIRST)
    bend = updates * change**2 / 12  # ½ |d²x/dr²| var(r) of a straight course, as a share of lag
    return rule.lag * (change * order + bend)
