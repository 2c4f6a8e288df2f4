"""Σηλ from what a clock lost: the update rule's momentum taken out, at the start of training and after changes too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.decay_formulas import decay_of, velocity_lag
from smd_analyze.schedule.clock_readings import Floats

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
      is missing in the k updates after update s = `begins`, lag = α/(1−α), to first order in r.
    - After a change of the learning rate the buffer still holds the old one. With the learning rate inside the velocity
      (or where that is not known) the interval is widened by lag times the difference between neighbouring rates,
      outside by the second order only, lag · r times that.
    - ηλ(r) is not a straight line: where an interval holds a jump between two stretches, its mean lies on the chord
      between their rates, elsewhere between chord and curve.

    `updates` [I] are NaN where unknown: then to leading order in the rate, Σηλ = (1−α) × total/(1−τ).
    Source: the recursion q' = αq + λc, c' = c − ηq' (decay_formulas/recursion.py), tested against it.
    """
    if not np.isfinite(updates).any():
        return rule.share * total, rule.share * low, rule.share * high
    late = _still_to_come(updates, begins, rule)
    count = updates - late
    memory = _memory(total, low, high, updates, late, rule)
    best, least, most = (
        updates * decay_of(value / count, rule.momentum, rule.nesterov, rule.decoupled, rule.dampening)
        for value in (total, low - memory, high + memory)
    )
    if not rule.decoupled:
        chord, jump = _chord(best / updates, total / count, (high - low) / updates)
        off = np.nan_to_num(chord * updates - best)
        least, most = least + np.minimum(off, 0.0), most + np.maximum(off, 0.0)
        best = best + np.where(jump, off, 0.0)
    # an assumed momentum, or a learning rate that was not yet the mean's: then less may have been missing
    begun = late > NEAR * updates
    unlike = np.r_[~(np.abs(np.diff(best / updates)) < NEAR * (best / updates)[1:]), True]
    least = np.where(begun & (unlike | (not rule.momentum_sure)), least * count / updates, least)
    return best, np.fmin(least, best), np.fmax(most, best)


def _chord(decay: Floats, rate: Floats, width: Floats) -> tuple[Floats, np.ndarray]:
    """(ηλ on the chord between the neighbours' rates, NaN where an interval's lies not between them; jumps).

    A jump: it stands alone between two rates that go on as they are, as far as the run reaches.
    """
    before, after = np.r_[np.nan, rate[:-1]], np.r_[rate[1:], np.nan]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (rate - before) / (after - before)
        inside = (share > 0) & (share < 1) & (np.abs(after - before) > width)
    chord = np.r_[np.nan, decay[:-1]] * (1 - share) + np.r_[decay[1:], np.nan] * share
    moving = np.abs(np.diff(rate, prepend=rate[:1])) > width + NEAR * rate  # from the interval before
    alone = inside & ~np.r_[False, moving[:-1]] & ~np.r_[moving[2:], False, False][: len(rate)]
    return np.where(inside, chord, np.nan), alone


def _still_to_come(updates: Floats, begins: float, rule: UpdateRule) -> Floats:
    """Updates' worth of decay that the buffer holds back while it fills, per interval."""
    made = begins + np.concatenate([[0.0], np.cumsum(np.nan_to_num(updates))])
    a = rule.momentum
    # PyTorch's first dampened update is undamped, which about makes up for the empty buffer
    held = np.where(rule.dampening > 0, 0.0, rule.lag)
    return np.minimum(held * (a ** made[:-1] - a ** made[1:]), 0.9 * updates)


def _memory(
    total: Floats, low: Floats, high: Floats, updates: Floats, late: Floats, rule: UpdateRule
) -> Floats:  # fmt: skip
    """What the buffer's memory of another learning rate may add to or take from each total, and of an empty one."""
    rate, width = np.nan_to_num(total / updates), (high - low) / updates
    least = np.fmin(np.fmin(np.r_[np.nan, rate[:-1]], np.r_[rate[1:], np.nan]), rate)
    most = np.fmax(np.fmax(np.r_[np.nan, rate[:-1]], np.r_[rate[1:], np.nan]), rate)
    change = np.fmax(most - least - width, 0.0)
    order = 1.0 if rule.in_velocity is not False else np.clip(2 * rule.lag * rate, 0.0, 1.0)
    start = 4 * late * rule.lag * rate**2  # what the first order leaves out, and some more
    return rule.lag * change * order + start
