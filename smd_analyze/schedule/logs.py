"""What the trainer logged, as a series for one parameter group: only where it agrees with what the checkpoints hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.records.run import Log
from smd_analyze.schedule.found import Found
from smd_analyze.schedule.series import SAME, Function, Series, through
from smd_analyze.schedule.updates import Clock

AGREES = 1e-3  # relative: logs are printed with few digits
CLOSE = 1e-6  # of the largest value: a rate near zero is printed as zero


@dataclass(frozen=True)
class Logged:
    """One hyperparameter of a parameter group as it was logged. `updates` and `values` are the log's own points."""

    series: Series
    source: str
    updates: np.ndarray
    values: np.ndarray


def logged_for(
    logs: Sequence[Log], name: str, groups: Sequence[str], found: Mapping[str, Found | None], clock: Clock
) -> tuple[dict[str, Logged], list[str]]:
    """Parameter group → what was logged of `name`, and sentences on logs that are not used.

    `found`: what the checkpoints say of each group. A file with one series speaks for every group that it agrees with,
    one with as many series as groups for each in turn; anything else must be told apart by the saved values.
    """
    out: dict[str, Logged] = {}
    refused: list[str] = []
    of_name = [log for log in logs if log.name == name]
    for source in dict.fromkeys(log.source for log in of_name):
        series = sorted((log for log in of_name if log.source == source), key=lambda log: natural(log.label))
        used = False
        for number, group in enumerate(groups):
            chosen = pick(series, number, group, len(groups), found.get(group), clock)
            if chosen is not None:
                used = True
                out.setdefault(group, made(chosen, found.get(group), clock))
        if not used:
            refused.append(why_not(series, source, found, clock))
    return out, refused


def natural(text: str) -> list[tuple[str, int]]:
    """pg2 before pg10."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", text)]


def pick(series: Sequence[Log], number: int, group: str, count: int, found: Found | None, clock: Clock) -> Log | None:
    """The series of a group; None if none agrees, or several that differ."""
    named = [s for s in series if s.label.rpartition("/")[2] == group or s.label.endswith(f"_{group}")]
    if len(series) == count and count > 1:
        candidates = named if len(named) == 1 and not group.isdigit() else [series[number]]
    elif len(series) == 1:
        candidates = list(series)
    else:
        candidates = named if len(named) == 1 and not group.isdigit() else list(series)
    agreeing = [s for s in candidates if agrees(s, found, clock)]
    if found is None or not in_force(found):
        agreeing = agreeing if count == 1 or len(series) in (1, count) else []
    if not agreeing or any(not same(agreeing[0], s) for s in agreeing[1:]):
        return None
    return agreeing[0]


def in_force(found: Found) -> bool:
    """Saved by the optimizer, not merely configured."""
    return found.kind in ("in force", "inferred")


def same(a: Log, b: Log) -> bool:
    """Two series that say the same."""
    return a.at == b.at and np.allclose(a.values, b.values, rtol=SAME, atol=0)


def agrees(log: Log, found: Found | None, clock: Clock) -> bool:
    """Every saved value lies among the logged ones around its update, where the log has some on both sides."""
    if found is None or not in_force(found):
        return True
    at = np.array([clock.made(a) for a in log.at], float)
    values = np.asarray(log.values, float)
    spare = AGREES * np.abs(values) + CLOSE * np.abs(values).max()
    step = log.width * clock.per_unit
    for update, value in zip(found.updates, found.values, strict=True):
        if not at[0] - step <= update <= at[-1] + (step > 0):
            continue
        j = int(np.searchsorted(at, update - 1))
        near, around = slice(max(j - 1, 0), j + 2 + (step == 0)), slice(max(j - 2, 0), j + 3 + (step == 0))
        bend = np.ptp(values[around])  # a peak may lie between two entries
        if not (values[near] - spare[near]).min() - bend <= value <= (values[near] + spare[near]).max() + bend:
            return False
    return True


def made(log: Log, found: Found | None, clock: Clock) -> Logged:
    """The series of a log; saved values fill what it leaves open."""
    label = "" if log.label in log.source or log.source.endswith(log.label) else f", {log.label}"
    at = np.array([clock.made(a) for a in log.at], float)
    values = np.asarray(log.values, float)
    if log.width:
        series = spans(at, log.width * clock.per_unit, values, log.mean, None if found is None else saved(found))
        return Logged(series, f"{log.source}{label}", at, values)
    shifts = shifts_of(log)
    series = [joined(at + shift, values, found) for shift in shifts]

    def bound(lowest: bool) -> Function:
        pick, side = (np.minimum, "low") if lowest else (np.maximum, "high")
        return lambda u: pick.reduce([getattr(s, side)(u) for s in series])

    return Logged(Series(series[0].best, bound(True), bound(False)), f"{log.source}{label}", at + shifts[0], values)


def shifts_of(log: Log) -> tuple[int, ...]:
    """at + shift is the update that a value belongs to, the likeliest first.

    Unknown: a script that logs at step 0 counts from zero, and logs before or after its scheduler moves on.
    """
    if log.applies is not None:
        return (1,) if log.applies == "next update" else (0,)
    return (1, 2) if log.at[0] == 0 else (1, 0)


def saved(found: Found) -> Series | None:
    """The saved values as a series, if they were in force."""
    return through(found.updates, found.values, found.meant) if in_force(found) else None


def joined(updates: np.ndarray, values: np.ndarray, found: Found | None) -> Series:
    """Through logged values and, at other updates, the saved ones; unknown (NaN) where neither reaches."""
    more = found if found is not None and in_force(found) else Found((), (), (), "", "")
    u = np.concatenate([updates, more.updates])
    v = np.concatenate([values, more.values])
    meant = np.concatenate([np.zeros(len(updates), bool), np.array(more.meant, bool)])
    gap = float(np.median(np.diff(updates))) if len(updates) > 1 else 1.0
    return limited(through(u, v, meant), u.min() - gap, u.max() + gap)


def limited(series: Series, first: float, last: float) -> Series:
    """The series between two updates, NaN elsewhere."""

    def cut(function: Function) -> Function:
        return lambda u: np.where((u >= first) & (u <= last), function(u), np.nan)

    return Series(cut(series.best), cut(series.low), cut(series.high))


def spans(ends: np.ndarray, width: float, values: np.ndarray, mean: bool, beyond: Series | None) -> Series:
    """One value per epoch, which ends at ends[i]: held, or at least between its neighbours' values.

    A mean over the epoch is exact for whole epochs: its sum is the epoch's. `beyond`: where no epoch was logged.
    """
    lower, upper = values.copy(), values.copy()
    if not mean:
        for side in (np.r_[values[:1], values[:-1]], np.r_[values[1:], values[-1:]]):
            lower, upper = np.minimum(lower, side), np.maximum(upper, side)

    def pick(level: np.ndarray, other: Function | None) -> Function:
        def value(u: np.ndarray) -> np.ndarray:
            j = np.searchsorted(ends, u - 1e-6)
            known = (j < len(ends)) & (u > ends[0] - width)
            here = level[np.clip(j, 0, len(ends) - 1)]
            return np.where(known, here, other(u) if other is not None else np.nan)

        return value

    best, low, high = (None, None, None) if beyond is None else (beyond.best, beyond.low, beyond.high)
    return Series(pick(values, best), pick(lower, low), pick(upper, high))


def why_not(series: Sequence[Log], source: str, found: Mapping[str, Found | None], clock: Clock) -> str:
    """The sentence for a file that is not used."""
    labels = ", ".join(log.label for log in series[:4])
    forces = [f for f in found.values() if f is not None and in_force(f)]
    if forces and not any(agrees(s, f, clock) for s in series for f in forces):
        values = [v for log in series for v in log.values]
        said = f"{min(values):g} to {max(values):g}"
        held = f"{min(min(f.values) for f in forces):g} to {max(max(f.values) for f in forces):g}"
        return f"{source} logs {said} ({labels}), the optimizer's state says {held} at these steps; the state is used"
    return (
        f"{source} logs {len(series)} series ({labels}) for {len(found)} parameter groups: which is whose is not said"
    )
