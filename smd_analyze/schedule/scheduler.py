"""The learning rate from a saved scheduler: its curve where class and numbers are known, else at least its steps."""

from __future__ import annotations

import numpy as np

from smd_analyze.schedule import curves
from smd_analyze.schedule.found import Found, GroupFacts
from smd_analyze.schedule.series import Series, exact, through
from smd_analyze.schedule.updates import Clock

REPRODUCES = 1e-5  # relative: a scheduler's curve must give every saved learning rate to this
CHANGES = 1e-3  # relative: logs are printed with few digits
NONE = np.zeros(0)


def from_scheduler(facts: GroupFacts, found: Found, clock: Clock) -> Series | None:
    """The curve of the saved scheduler, if it gives every saved learning rate; None otherwise."""
    state = facts.scheduler[-1][1]
    formula = curves.formula(facts.words["schedule"][0], state)
    if formula is not None:
        missed = np.abs(formula(np.array(found.updates)) - found.values) > REPRODUCES * np.abs(found.values)
        return None if missed.any() else exact(formula)
    shape = curves.shape(facts.words["schedule"][0], state)
    pairs = _pairs(facts, clock)
    if shape is None or not pairs:
        return None
    candidates = curves.counts(list(pairs), list(pairs.values()))
    fitted = [_scaled(shape, count, found, pairs) for count in candidates]
    kept = [f for f in fitted if f is not None]
    if not kept or fitted[0] is None:
        return None
    return _bounded([exact(f) for f in kept])


def in_stairs(
    facts: GroupFacts, found: Found, clock: Clock, updates: np.ndarray = NONE, values: np.ndarray = NONE
) -> Series | None:
    """Values joined on the scheduler's own count, if that advances once an epoch: the rate holds in between.

    `updates`, `values`: what was logged besides. None if the count runs with the updates, or if a value changes while
    the count does not (something else sets the rate as well).
    """
    pairs = _pairs(facts, clock)
    if not pairs or not found.varies or "others" in facts.scheduler[-1][1]:
        return None
    own = [(pairs[u - 1], v) for u, v in zip(found.updates, found.values, strict=True) if u - 1 in pairs]
    made: list[Series] = []
    for length in curves.epoch_lengths(list(pairs), list(pairs.values())):
        count = curves.by_epoch(length)
        c = np.concatenate([[c for c, _ in own], count(updates)])
        v = np.concatenate([[v for _, v in own], values])
        order = np.argsort(c, kind="stable")
        c, v = c[order], v[order]
        if np.any((np.diff(c) == 0) & (np.abs(np.diff(v)) > CHANGES * np.abs(v[1:]))):
            if not made:
                return None
            continue
        made.append(_counted(through(c, v), count))
    return _bounded(made) if made else None


def _counted(series: Series, count: curves.Function) -> Series:
    """A series over the scheduler's count as one over updates."""
    if series.low is series.best and series.high is series.best:
        return exact(lambda u: series.best(count(u)))
    return Series(lambda u: series.best(count(u)), lambda u: series.low(count(u)), lambda u: series.high(count(u)))


def _bounded(candidates: list[Series]) -> Series:
    """The first one, bounded by all of them."""
    if len(candidates) == 1:
        return candidates[0]
    return Series(
        candidates[0].best,
        lambda u: np.min([s.low(u) for s in candidates], axis=0),
        lambda u: np.max([s.high(u) for s in candidates], axis=0),
    )


def _pairs(facts: GroupFacts, clock: Clock) -> dict[float, float]:
    """Updates made → the scheduler's count, at every checkpoint that has both."""
    return {clock.made(step): float(s["last_epoch"]) for step, s in facts.scheduler if "last_epoch" in s}


def _scaled(
    shape: curves.Shape, count: curves.Function, found: Found, pairs: dict[float, float]
) -> curves.Function | None:
    """η(u) with the base that one saved learning rate fixes, or None where another one is missed.

    A learning rate belongs to the count that was saved with it, whenever the scheduler was called.
    """
    values = np.array(found.values)
    counted = np.array(
        [pairs.get(u - 1, c) for u, c in zip(found.updates, count(np.array(found.updates)), strict=True)]
    )
    factors = shape.factor(counted)
    top, least = int(np.argmax(np.abs(factors))), int(np.argmin(np.abs(factors)))
    if not np.all(np.isfinite(factors)) or factors[top] == 0:
        return None
    if shape.floor is None:
        if len(values) < 3 or factors[top] == factors[least]:  # two numbers are fitted: a third value must confirm them
            return None
        slope = (values[top] - values[least]) / (factors[top] - factors[least])
        floor = values[top] - slope * factors[top]
        shape = curves.Shape(shape.factor, float(floor))
    floors = shape.floors(counted)
    base = floors[top] + (values[top] - floors[top]) / factors[top]

    def at(c: np.ndarray) -> np.ndarray:
        return shape.floors(c) + (base - shape.floors(c)) * shape.factor(c)

    missed = np.abs(at(counted) - values) > REPRODUCES * np.abs(values) + 1e-9 * np.abs(values).max()
    return None if missed.any() else lambda u: at(count(u))
