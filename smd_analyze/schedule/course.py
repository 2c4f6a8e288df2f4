"""A clock's rates over a run: put right where the momentum buffer fills, cut into stretches, named and dated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smd_analyze.decay_formulas import decay_of, fresh_buffer, log_ratios, step_matrices
from smd_analyze.schedule.drops import LIKELY, Form, Momentum, Reading, changes, velocity_form
from smd_analyze.schedule.shape_words import in_words
from smd_analyze.schedule.shapes import NONE, STEPS, Shape, recognise
from smd_analyze.schedule.stretches import pooled, stretches

Array = np.ndarray
Dated = tuple[float, float, float]
CLEAR = 0.05  # relative change of the rate from which on a change is dated although no simple form was recognised
FILLED = 50.0  # times 1/(1−α): updates after which a buffer that began empty is full
SETTLED = 0.01  # relative: a first interval that is put right must come so close to the second


@dataclass(frozen=True)
class Rule:
    """How decay reaches the weights. `alpha` is that of coupled decay, 0 else, None if not even assumed."""

    alpha: float | None = None
    sure: bool = False
    nesterov: bool = False
    decoupled: bool = False
    dampening: float = 0.0
    in_velocity: bool | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Rule:
        """What a row of the schedule table says."""
        if row["decoupled"]:
            return cls(0.0, True, decoupled=True, in_velocity=False)
        alpha = row["momentum"] if row["optimizer"] == "sgd" else None
        sure = alpha is not None and not row.get("momentum_assumed")
        damping = row["dampening"] or 0.0
        return cls(alpha, sure, bool(row["nesterov"]), False, damping, row.get("rate_in_velocity"))

    def meant(self, rate: Array) -> Array:
        """ηλ of settled rates; the rates themselves where the rule is not known or gives none."""
        if self.alpha is None:
            return rate
        x = decay_of(rate, self.alpha, self.nesterov, self.decoupled, self.dampening)
        return np.asarray(x) if np.all(np.isfinite(x)) else rate

    @property
    def momentum(self) -> Momentum:
        """For dating jumps: an assumed α counts as unknown."""
        return Momentum(self.alpha if self.sure else None, self.in_velocity)


@dataclass(frozen=True)
class Course:
    """`begins`: index of each stretch's first reading. `changes`: index of a reading → step of the jump, low, high.

    `form`: whether the learning rate is inside the velocity, or outside, and `seen` at which reading; "" if not told.
    """

    begins: tuple[int, ...]
    changes: Mapping[int, Dated]
    words: str
    form: Form = ""
    seen: int = 0


def follow(start: Array, stop: Array, rate: Array, sd: Array, rule: Rule, known: Sequence[int] = ()) -> Course:
    """Stretches, jumps and form of the rates [n] of a clock between steps `start` and `stop`, with their errors.

    `known`: readings at whose start the learning rate jumped, as files or caller say.
    """
    rate, sd, alone = without_filling(start, stop, rate, sd, rule)
    found = stretches(rate[alone:], sd[alone:])
    found = [(0, 1)] * alone + [(i + alone, j + alone) for i, j in found]
    shape = _shape(start, stop, rate, sd, rule)
    dated: dict[int, Dated] = {}
    form, seen = _form(stop - start, rate, sd, found, rule, known)
    if shape.kind in (STEPS, NONE, ""):
        steps = stop - start
        each = [Reading(*reading) for reading in zip(rate.tolist(), sd.tolist(), steps.tolist(), strict=True)]
        whole = [bool(gap) for gap in stop[:-1] == start[1:]]
        jumps = changes(each, whole, found, rule.momentum, 0.0 if shape.kind == STEPS else CLEAR)
        seen = next((i for i, jump in jumps.items() if jump.form), seen)
        form = jumps[seen].form or form if seen in jumps else form
        dated = {i: (start[i] + d.step, start[i] + d.low, start[i] + d.high) for i, d in jumps.items()}
    levels = []
    for i, j in found:
        mean, error = pooled(rate[i:j], sd[i:j], (stop - start)[i:j])
        x = float(rule.meant(np.array([mean]))[0])
        levels.append((x, error * x / mean if mean else error))
    words = in_words(shape, levels, [j - i for i, j in found], list(dated.values()))
    return Course(tuple(i for i, _ in found), dated, words, form, seen)


def _form(
    steps: Array, rate: Array, sd: Array, found: Sequence[tuple[int, int]], rule: Rule, known: Sequence[int]
) -> tuple[Form, int]:
    """The form of momentum that a reading right after a known jump tells, between settled stretches on both sides."""
    if not rule.sure or not rule.alpha:
        return "", 0
    for i in known:
        before = next(((a, b) for a, b in found if a < i <= b), None)
        after = next(((max(a, i + 1), b) for a, b in found if b - max(a, i + 1) >= 2), None)  # settled: two and more
        if before is None or after is None:
            continue
        sides = []
        for a, b in ((before[0], i), after):
            mean, error = pooled(rate[a:b], sd[a:b], steps[a:b])
            sides.append(Reading(mean, error, float(steps[a:b].sum())))
        told = velocity_form(Reading(float(rate[i]), float(sd[i]), float(steps[i])), 0.0, *sides, momentum=rule.alpha)
        if told:
            return told, i
    return "", 0


def _shape(start: Array, stop: Array, rate: Array, sd: Array, rule: Rule) -> Shape:
    """The form of ηλ; where momentum is only assumed and that gives no form, that of the rates, as without momentum."""
    x = rule.meant(rate)
    shape = recognise(start, stop, x, sd * x / rate)
    if shape.kind != NONE or rule.sure or rule.alpha is None:
        return shape
    return recognise(start, stop, rate, sd)


def without_filling(start: Array, stop: Array, rate: Array, sd: Array, rule: Rule) -> tuple[Array, Array, int]:
    """Rates as if the momentum buffer had been full when training began: it fills in about 1/(1−α) updates.

    At a constant learning rate the first interval lacks the decay that `decay_formulas.log_ratios` says. Where that
    brings it to the rate of the second one (SETTLED), it is put right. Else (a warm-up, another α) it keeps what was
    read, its standard deviation grows by what may be missing, and it stands alone: third result 1, else 0.
    """
    if len(rate) < 2 or start[0] != 0 or rule.alpha == 0 or rate[0] <= 0 or rate[1] <= 0:
        return rate, sd, 0
    rate, sd = rate.copy(), sd.copy()
    alpha, k = LIKELY if rule.alpha is None else rule.alpha, stop[0] - start[0]
    x = float(decay_of(rate[1], alpha, rule.nesterov, False, rule.dampening))
    updates = int(min(k, FILLED / (1 - alpha)))
    if np.isfinite(x):
        matrices = step_matrices(np.full(updates, x), 1.0, alpha, nesterov=rule.nesterov, dampening=rule.dampening)
        begun = float(log_ratios(matrices, [0, updates], fresh_buffer(1.0, alpha, rule.dampening))[0][0])
        share = 1 - (rate[1] * updates - begun) / (rate[1] * k)  # of what the settled rate would have done
        if abs(rate[0] / share - rate[1]) <= SETTLED * rate[1]:
            rate[0], sd[0] = rate[0] / share, sd[0] / share
            return rate, sd, 0
    if abs(rate[0] - rate[1]) <= 4 * np.hypot(sd[0], sd[1]):  # no buffer, or one that was full
        return rate, sd, 0
    sd[0] = np.hypot(sd[0], rate[0] * alpha * (1 - alpha**k) / ((1 - alpha) * k))
    return rate, sd, 1
