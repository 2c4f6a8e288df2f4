"""The learning rate of one parameter group over the run: caller, then scheduler state, then the saved values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smd_analyze.schedule import curves
from smd_analyze.schedule.found import Found, GroupFacts
from smd_analyze.schedule.logs import Logged
from smd_analyze.schedule.scheduler import from_scheduler, in_stairs
from smd_analyze.schedule.series import Series, constant, exact, piecewise, through
from smd_analyze.schedule.settings import ScheduleTable, Value
from smd_analyze.schedule.updates import Clock

PRINTED = 2e-3  # relative: logs have few digits
FEW = 0.01  # of the logged values may miss the curve: a resumed run writes odd ones
STILL = ("constant", "none", "", "constant_with_warmup")


@dataclass(frozen=True)
class Rate:
    """A learning rate, where it comes from, and what a person should know about it (codes of findings)."""

    series: Series | None
    source: str
    codes: tuple[str, ...] = ()


def learning_rate(
    values: Mapping[str, Value],
    own: bool,
    table: ScheduleTable | None,
    facts: GroupFacts,
    clock: Clock,
    logged: Logged | None = None,
) -> Rate:
    """The learning rate of a group. `own`: the caller gave this group (by glob) a learning rate of its own.

    Of the files: a saved scheduler whose curve gives every saved value and every logged one; what was logged; what was
    saved, joined between the checkpoints; what was configured, if nothing says that it changes.
    """
    given = values.get("learning_rate")
    if table is not None and not (own and table.kind == "steps"):
        return Rate(_from_table(table, float(given) if given is not None else 0.0, clock), "caller")
    if given is not None:
        return Rate(constant(float(given)), "caller")
    found = facts.numbers.get("learning_rate")
    if found is None or found.kind == "configured":
        if logged is not None:
            return Rate(logged.series, f"{logged.source} (logged)")
        return Rate(None, "") if found is None else _configured(found, facts)
    codes: tuple[str, ...] = ()
    if facts.scheduler and "schedule" in facts.words and found.varies:
        series = from_scheduler(facts, found, clock)
        if series is not None and (logged is None or _gives(series, logged)):
            return Rate(series, f"{found.source}; {facts.words['schedule'][0]}")
        if series is None and facts.words["schedule"][0] in curves.KNOWN:
            codes = ("schedule-state-disagrees",)
    if logged is not None:
        stairs = in_stairs(facts, found, clock, logged.updates, logged.values)
        return Rate(stairs or logged.series, f"{logged.source} (logged)", codes)
    stairs = in_stairs(facts, found, clock)
    joined = f"{found.source}, joined between the checkpoints" if found.varies else found.source
    peak = max((v for v, s in facts.configured.get("learning_rate", ()) if s.endswith("initial_lr")), default=0.0)
    return Rate(stairs or through(found.updates, found.values, found.meant, peak), joined, codes)


def _configured(found: Found, facts: GroupFacts) -> Rate:
    """The configured learning rate, if no schedule is named that would change it, or one that is a formula."""
    named = facts.words.get("schedule", ("", ""))[0]
    formula = curves.formula(named, facts.scheduler[-1][1]) if facts.scheduler else None
    if formula is not None:
        return Rate(exact(formula), f"{found.source}; {named}", ("configured-only",))
    word = facts.words.get("schedule", ("", ""))[0].lower()
    if word not in STILL:
        return Rate(None, "", ("schedule-unknown",))
    return Rate(constant(found.values[0]), found.source, ("configured-only",))


def _gives(curve: Series, logged: Logged) -> bool:
    """The curve runs through what was logged, as far as that is known."""
    u, v = logged.updates, logged.values
    slack = PRINTED * np.abs(v) + 1e-6 * np.abs(v).max()
    low, high = np.minimum(v, logged.series.low(u)), np.maximum(v, logged.series.high(u))
    missed = (curve.best(u) < low - slack) | (curve.best(u) > high + slack)
    return float(missed.mean()) <= FEW


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
