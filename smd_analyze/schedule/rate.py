"""The learning rate of one parameter group over the run: caller, then scheduler state, then the saved values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smd_analyze.schedule import curves
from smd_analyze.schedule.found import Found, GroupFacts
from smd_analyze.schedule.series import Series, constant, exact, piecewise, through
from smd_analyze.schedule.settings import ScheduleTable, Value
from smd_analyze.schedule.updates import Clock

REPRODUCES = 1e-5  # relative: a scheduler's curve must give every saved learning rate to this
STILL = ("constant", "none", "", "constant_with_warmup")


@dataclass(frozen=True)
class Rate:
    """A learning rate, where it comes from, and what a person should know about it (codes of findings)."""

    series: Series | None
    source: str
    codes: tuple[str, ...] = ()


def learning_rate(
    values: Mapping[str, Value], own: bool, table: ScheduleTable | None, facts: GroupFacts, clock: Clock
) -> Rate:
    """The learning rate of a group. `own`: the caller gave this group (by glob) a learning rate of its own."""
    given = values.get("learning_rate")
    if table is not None and not (own and table.kind == "steps"):
        return Rate(_from_table(table, float(given) if given is not None else 0.0, clock), "caller")
    if given is not None:
        return Rate(constant(float(given)), "caller")
    found = facts.numbers.get("learning_rate")
    if found is None:
        return Rate(None, "")
    if found.kind == "configured":
        word = facts.words.get("schedule", ("", ""))[0].lower()
        if word not in STILL:
            return Rate(None, "", ("schedule-unknown",))
        return Rate(constant(found.values[0]), found.source, ("configured-only",))
    codes: tuple[str, ...] = ()
    if facts.scheduler and "schedule" in facts.words and found.varies:
        series = _from_scheduler(facts, found, clock)
        if series is not None:
            return Rate(series, f"{found.source}; {facts.words['schedule'][0]}")
        if facts.words["schedule"][0] in curves.KNOWN:
            codes = ("schedule-state-disagrees",)
    return Rate(through(found.updates, found.values, found.meant), found.source, codes)


def _from_table(table: ScheduleTable, base: float, clock: Clock) -> Series:
    """The caller's schedule table as a series over updates."""
    if table.kind == "constant":
        return constant(base)
    if table.kind == "steps":
        return piecewise([clock.made(s) if s >= 0 else -1 for s in table.steps], table.learning_rate)
    total, warm = table.total_steps * clock.per_unit, table.warmup_steps * clock.per_unit
    low = table.min_learning_rate

    def value(u: np.ndarray) -> np.ndarray:
        count = u - 1  # schedulers count from 0
        part = np.clip((count - warm) / (total - warm), 0, 1)
        fall = 0.5 * (1 + np.cos(np.pi * part)) if table.kind == "cosine" else 1 - part
        return np.where(count < warm, base * count / max(warm, 1.0), low + (base - low) * fall)

    return exact(value)


def _from_scheduler(facts: GroupFacts, found: Found, clock: Clock) -> Series | None:
    """The curve of the saved scheduler, if it gives every saved learning rate; None otherwise."""
    state = facts.scheduler[-1][1]
    shape = curves.shape(facts.words["schedule"][0], state)
    pairs = [(clock.made(step), s["last_epoch"]) for step, s in facts.scheduler if "last_epoch" in s]
    if shape is None or not pairs:
        return None
    candidates = curves.counts([t for t, _ in pairs], [float(c) for _, c in pairs])
    fitted = [_scaled(shape, count, found) for count in candidates]
    kept = [f for f in fitted if f is not None]
    if not kept or fitted[0] is None:
        return None

    def bound(pick: np.ufunc) -> curves.Function:
        return lambda u: pick.reduce([f(u) for f in kept])

    return Series(kept[0], bound(np.minimum), bound(np.maximum))


def _scaled(shape: curves.Shape, count: curves.Function, found: Found) -> curves.Function | None:
    """η(u) with the base that one saved learning rate fixes, or None where another one is missed."""
    updates, values = np.array(found.updates), np.array(found.values)
    factors = shape.factor(count(updates))
    top = int(np.argmax(np.abs(factors)))
    if not np.all(np.isfinite(factors)) or factors[top] == 0:
        return None
    reach = (values[top] - shape.floor) / factors[top]

    def value(u: np.ndarray) -> np.ndarray:
        return shape.floor + reach * shape.factor(count(u))

    missed = np.abs(value(updates) - values) > REPRODUCES * np.abs(values) + 1e-9 * np.abs(values).max()
    return None if missed.any() else value
