"""Logged series on the run's own time: a log counts steps or epochs, from zero or one, the run in its own way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from smd_analyze.loading.frameworks.base import EPOCHS, STEPS
from smd_analyze.loading.sidecars.base import Noted
from smd_analyze.loading.sidecars.gathering import Series
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Log, Setting

MONITOR = re.compile(r"lr-([A-Z]\w*?)(-momentum|-weight_decay|-\d+)*(/|$)")
COVERS = 0.3  # a log that counts steps reaches at least this part of the run


@dataclass(frozen=True)
class Timeline:
    """The run's step unit, its last step, and how many optimizer steps an epoch has, where that is known.

    `supposed`: only because the numbers in the files' names may count epochs; a log must end with them then.
    `epochs_from_one`: the run's names count epochs from one where its framework logs them from zero (Keras).
    """

    unit: str
    last: float
    per_epoch: float | None = None
    supposed: bool = False
    epochs_from_one: bool = False


def steps_in_epoch(steps: Sequence[float], epochs: Sequence[float] | None) -> float | None:
    """n if every checkpoint's step is n times its epoch, counted from zero or from one; None otherwise."""
    if epochs is None or len(steps) < 2 or len(steps) != len(epochs):
        return None
    change = Fraction(epochs[-1]) - Fraction(epochs[0])
    per = (Fraction(steps[-1]) - Fraction(steps[0])) / change if change else Fraction(0)
    first = Fraction(steps[0]) - per * Fraction(epochs[0])
    even = all(Fraction(s) - per * Fraction(e) == first for s, e in zip(steps, epochs, strict=True))
    return float(per) if even and per >= 1 and first in (0, per) else None


def on_time(found: Sequence[Series], time: Timeline, where: str) -> tuple[tuple[Log, ...], list[Finding]]:
    """The series that can be placed, and a note on those that cannot."""
    out: list[Log] = []
    lost: list[str] = []
    for noted, source in found:
        log = placed(noted, source, time)
        if log is None:
            lost.append(f"{noted.key} in {source} ({len(noted.at)} values at {noted.at[0]:g} to {noted.at[-1]:g})")
        else:
            out.append(log)
    if not lost:
        return tuple(out), []
    more = f" and {len(lost) - 2} more" if len(lost) > 2 else ""
    words = f"{'; '.join(lost[:2])}{more}: what it counts does not fit the run, whose {time.unit} end at {time.last:g}"
    remedy = "--steps-per-epoch N ties epochs to steps."
    return tuple(out), [Finding("log-unplaced", "note", where, words, remedy)]


def placed(noted: Noted, source: str, time: Timeline) -> Log | None:
    """One series in the run's unit."""
    unit = noted.unit or unit_of(noted, time)
    if unit == STEPS and time.unit == STEPS:
        if noted.applies == "next update" and at_epochs(noted.at, time.per_epoch):  # once, before each epoch begins
            width = time.per_epoch or 1.0
            at = tuple(a + width for a in noted.at)
            return Log(noted.name, noted.key, at, noted.values, source, noted.applies, width)
        return Log(noted.name, noted.key, noted.at, noted.values, source, noted.applies)
    if unit != EPOCHS:
        return None
    if time.unit == EPOCHS:
        shift = 1 if time.epochs_from_one and noted.at[0] == 0 else 0
        at = tuple(a + shift for a in noted.at)
        return Log(noted.name, noted.key, at, noted.values, source, noted.applies, 1.0, noted.mean)
    if time.unit == STEPS and time.per_epoch:
        shift = 0 if noted.at[0] == 1 else 1
        if time.supposed and abs(noted.at[-1] + shift - time.last / time.per_epoch) > 1:
            return None
        at = tuple((a + shift) * time.per_epoch for a in noted.at)
        return Log(noted.name, noted.key, at, noted.values, source, noted.applies, time.per_epoch, noted.mean)
    return None


def at_epochs(at: Sequence[float], per_epoch: float | None) -> bool:
    """One entry for every epoch, at its first update."""
    if per_epoch is None or per_epoch <= 1 or len(at) < 2:
        return False
    return all(a % per_epoch == 0 and b - a == per_epoch for a, b in pairwise(at))


def unit_of(noted: Noted, time: Timeline) -> str:
    """Steps or epochs, by how far the series goes; "" if it may be either, or neither."""
    end = noted.at[-1]
    if time.unit == EPOCHS:
        return EPOCHS if end <= time.last + 2 else ""
    if time.unit != STEPS:
        return ""
    if time.per_epoch and time.per_epoch > 1 and end <= time.last / time.per_epoch + 2 < COVERS * time.last:
        return EPOCHS
    return STEPS if end >= COVERS * time.last else ""


def optimizer_in(logs: Sequence[Log]) -> list[Setting]:
    """Lightning's monitor writes the optimizer's class into its labels: `lr-SGD/pg1`."""
    found = {m[1]: log for log in reversed(logs) if (m := MONITOR.match(log.label))}
    if len(found) != 1:
        return []
    kind, log = next(iter(found.items()))
    return [Setting("optimizer", None, kind, "", "inferred", f"the label {log.label} in {log.source}")]


def log_settings(logs: Sequence[Log], step: float) -> tuple[Setting, ...]:
    """The last value of each series at a checkpoint, as a row of the settings. Of several files the first speaks."""
    out: list[Setting] = []
    for name in dict.fromkeys(log.name for log in logs):
        of_name = [log for log in logs if log.name == name]
        first = [log for log in of_name if log.source == of_name[0].source]
        for log in first:
            value = next((v for a, v in zip(reversed(log.at), reversed(log.values), strict=True) if a <= step), None)
            if value is None:
                continue
            title = f"logged_{name}" if len(first) == 1 else f"logged_{name} {log.label}"
            words = log.source if log.label in log.source else f"{log.source}, {log.label}"
            out.append(Setting(title, value, None, "", "logged", words, log.applies or "whole run"))
    return tuple(out)
