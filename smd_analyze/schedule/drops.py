"""Where inside an interval between checkpoints the learning rate jumped, read off a decay clock.

A clock's log ratio over k steps is the sum of what acted at each step, so an interval that holds a jump reads between
the rates before and after it, and tells at which step it was. Torch's momentum applies the learning rate outside the
velocity: the new rate acts at once. Keras, TensorFlow and Caffe keep it inside: the velocity of the old rate dies out
over 1/(1−α) steps, which reads as a later jump and may reach into the next interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from smd_analyze.decay_formulas import drop_position, velocity_lag
from smd_analyze.schedule.stretches import pooled

Form = Literal["outside", "inside", ""]
Z95 = 1.96
LIKELY = 0.9  # momentum where none is known: enough to say how far a date may be off
SURE = 9.0
"""Difference of χ² from which one form of momentum is told apart from the other (three standard deviations)."""


@dataclass(frozen=True)
class Reading:
    """A clock's rate over `steps` steps: −ln(c'/c)/steps, and its standard deviation. Both 1/step."""

    rate: float
    sd: float
    steps: float


@dataclass(frozen=True)
class Momentum:
    """`alpha` 0: none, or decay does not pass through it; None: unknown. `in_velocity`: is the learning rate inside?"""

    alpha: float | None = None
    in_velocity: bool | None = None


@dataclass(frozen=True)
class Drop:
    """A jump of the rate: `step` counts updates after the interval's start, with its 95 % interval.

    `form`: whether the learning rate is inside the velocity or outside, where the readings tell; else "".
    """

    step: float
    low: float
    high: float
    form: Form = ""


def lingering(steps: np.ndarray | float, momentum: float, in_velocity: bool) -> np.ndarray:
    """Steps' worth of the old rate that still act in the `steps` after a jump: α (1 − α^s)/(1−α), 0 if outside.

    From v' = α v − ηλ c with v settled at −ηλ c/(1−α): the surplus of step j after the jump is (r₁ − r₂) α^j.
    """
    s = np.asarray(steps, float)
    if not in_velocity or momentum == 0:
        return np.zeros_like(s)
    return momentum * (1 - momentum ** np.maximum(s, 0.0)) / (1 - momentum)


def _left_out(before: Reading, after: Reading, momentum: float, in_velocity: bool) -> float:
    """Steps by which the closed forms may be off: they leave out terms of relative size r α/(1−α), twice if inside."""
    fast = max(abs(before.rate), abs(after.rate)) * momentum / (1 - momentum)
    return fast / (1 - momentum) if in_velocity else fast


def jump_step(
    inside: Reading, before: Reading, after: Reading, momentum: float = 0.0, in_velocity: bool = False
) -> Drop | None:
    """The step of one jump inside an interval from the rates before it, in it and after it.

    Solves k r = n r₁ + (k−n) r₂ + (r₁−r₂) ℓ(k−n) for n, ℓ the lingering of the old rate; without it n/k is
    f = (r − r₂)/(r₁ − r₂). The interval follows from the three standard deviations, taken as independent. Its ends are
    cut at those of the interval between the checkpoints. None where the rates do not differ by four standard
    deviations, or where the jump would lie outside by more than its own interval.
    """
    k, gap = inside.steps, before.rate - after.rate
    if gap == 0 or abs(gap) < 4 * np.hypot(before.sd, after.sd):
        return None
    worth = k * float(drop_position(inside.rate, before.rate, after.rate))  # steps of the old rate that acted
    n = worth
    for _ in range(60):  # ℓ' < 1: a contraction
        n = worth - float(lingering(k - n, momentum, in_velocity))
    slope = 1 - (momentum ** max(k - n, 0.0) if in_velocity else 0.0)  # d worth/dn, but for a factor near 1
    sd = np.sqrt((k * inside.sd) ** 2 + ((k - worth) * after.sd) ** 2 + (worth * before.sd) ** 2) / abs(gap)
    wide = Z95 * sd / max(slope, 0.05) + _left_out(before, after, momentum, in_velocity)
    if n < -wide - 0.5 or n > k + wide + 0.5:
        return None
    return Drop(float(np.clip(n, 0, k)), float(np.clip(n - wide, 0, k)), float(np.clip(n + wide, 0, k)))


def jump_across(readings: tuple[Reading, Reading], before: Reading, after: Reading, momentum: float) -> Drop | None:
    """The jump where two intervals in a row read between the rates before and after: only an old velocity does that.

    The learning rate is then inside the velocity, and both readings must agree on the step; None where they do not, so
    that no single jump explains them.
    """
    first, second = readings
    drop = jump_step(first, before, after, momentum, in_velocity=True)
    if drop is None or momentum == 0:
        return None
    linger = float(lingering(second.steps, momentum, True))  # of a jump at the checkpoint between them
    gap = before.rate - after.rate
    spill = [momentum ** (first.steps - n) * linger * gap / second.steps for n in (drop.step, drop.low, drop.high)]
    off = abs(gap) * _left_out(before, after, momentum, True) / second.steps
    sd = np.hypot(np.hypot(second.sd, after.sd), (abs(spill[2] - spill[1]) / 2 + off) / Z95)
    if abs(second.rate - after.rate - spill[0]) > 3 * sd or abs(spill[0]) < 3 * sd:
        return None
    return Drop(drop.step, drop.low, drop.high, "inside")


def velocity_form(reading: Reading, step: float, before: Reading, after: Reading, momentum: float) -> Form:
    """Inside or outside the velocity, from an interval whose jump is known to lie `step` updates after its start.

    `step` 0 is a jump at the checkpoint itself: outside, the interval reads r₂; inside, the old velocity adds
    (r₁ − r₂) α/(1−α) in all. "" where the two predictions differ by less than three standard deviations, or neither
    holds.
    """
    gap, k = before.rate - after.rate, reading.steps
    base = step * before.rate + (k - step) * after.rate
    sd = np.sqrt((k * reading.sd) ** 2 + (step * before.sd) ** 2 + ((k - step) * after.sd) ** 2)
    sd = np.hypot(sd, abs(gap) * _left_out(before, after, momentum, True) / Z95)
    if sd == 0 or momentum == 0:
        return ""
    miss = [
        (k * reading.rate - base - gap * float(lingering(k - step, momentum, inside))) / sd for inside in (False, True)
    ]
    squares = [m * m for m in miss]
    if abs(squares[0] - squares[1]) < SURE or min(squares) > SURE:
        return ""
    return "outside" if squares[0] < squares[1] else "inside"


def changes(
    readings: Sequence[Reading],
    whole: Sequence[bool],
    found: Sequence[tuple[int, int]],
    momentum: Momentum,
    least: float = 0.0,
) -> dict[int, Drop]:
    """The jumps between stretches of constant rate: index of the reading that holds it → where.

    `found`: stretches as (first, after last) indices into `readings`; `whole[i]`: reading i + 1 begins where i ends.
    A single reading between two stretches of two and more holds the jump; where none lies between, it happened at the
    checkpoint, as far as both sides tell. `least`: relative change below which none is dated. Where it is not known
    whether the learning rate is inside the velocity, the interval reaches α/(1−α) steps further back.
    """
    out: dict[int, Drop] = {}
    long = [i for i, (a, b) in enumerate(found) if b - a >= 2]
    for i, j in zip(long, long[1:], strict=False):
        (first, a), (b, last) = found[i], found[j]
        if b - a > 2 or not all(whole[a - 1 : b]):
            continue
        before, after = _level(readings[first:a]), _level(readings[b:last])
        if abs(before.rate - after.rate) <= least * max(abs(before.rate), abs(after.rate)):
            continue
        drop = _dated(readings, a, b, before, after, momentum)
        if drop is not None:
            out[a if b > a else b] = drop
    return out


def _level(readings: Sequence[Reading]) -> Reading:
    rate, sd = pooled(*(np.array([getattr(r, key) for r in readings]) for key in ("rate", "sd", "steps")))
    return Reading(rate, sd, sum(r.steps for r in readings))


def _dated(
    readings: Sequence[Reading], a: int, b: int, before: Reading, after: Reading, momentum: Momentum
) -> Drop | None:
    """The jump in the readings a … b−1 between two levels, counted from the start of reading a (or b, if none)."""
    alpha = LIKELY if momentum.alpha is None else momentum.alpha
    if b - a == 2:
        pair = (readings[a], readings[a + 1])
        return None if momentum.in_velocity is False else jump_across(pair, before, after, alpha)
    inside = bool(momentum.in_velocity)
    if b == a:
        return _at_checkpoint(readings[a - 1], readings[a], before, after)
    drop = jump_step(readings[a], before, after, alpha, inside)
    if drop is None or momentum.in_velocity is not None or alpha == 0:
        return drop
    return replace(drop, low=max(drop.low - float(velocity_lag(alpha)), 0.0))


def _at_checkpoint(left: Reading, right: Reading, before: Reading, after: Reading) -> Drop:
    """A jump between two readings that both belong to their levels: within what either could hide."""
    gap = abs(before.rate - after.rate)
    ends = (Z95 * np.hypot(r.sd, level.sd) * r.steps / gap for r, level in ((left, before), (right, after)))
    low, high = (float(end) for end in ends)
    return Drop(0.0, -min(low, left.steps), min(high, right.steps))
