"""Clocks that disagree: within a tensor or a parameter group that is a finding, and never an average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Steps
from smd_analyze.clocks.rule import Apart, Claimed
from smd_analyze.records.finding import Finding

MOST = 5


def differences(
    clocks: Sequence[Claimed], odd: Sequence[Apart], steps: Steps, parameter_group: Mapping[str, str]
) -> list[Finding]:
    """Slices that were left out because they disagree with the rest of their tensor, and tensors that disagree."""
    return [*_slices(odd, steps), *_tensors(clocks, steps, parameter_group)]


def _slices(odd: Sequence[Apart], steps: Steps) -> list[Finding]:
    out: list[Finding] = []
    for name in dict.fromkeys(a.parameter for a in odd):
        own = [a for a in odd if a.parameter == name]
        text = (
            f"{own[0].names[0]} shrinks by {own[0].rates[0]:.4g} per {steps.word}, {own[0].names[1]} and others by "
            f"{own[0].rates[1]:.4g}: it feels a small gradient, or another decay; {len(own)} such slices are left out"
        )
        out.append(Finding("clocks-disagree", "note", name, text))
    return out[:MOST]


def _tensors(clocks: Sequence[Claimed], steps: Steps, parameter_group: Mapping[str, str]) -> list[Finding]:
    """Pairs of tensors whose clocks differ in an interval, one finding for each pair of values."""
    out: list[Finding] = []
    first: dict[str, Claimed] = {}
    for c in clocks:  # one clock speaks for its tensor: the most precise
        name = c.measured.candidate.parameter
        if name not in first or _quality(c) < _quality(first[name]):
            first[name] = c
    leaders: list[Claimed] = []
    for c in first.values():
        apart = [(i, other) for other in leaders if (i := _apart(c, other, steps)) is not None]
        if len(apart) < len(leaders):
            continue  # it agrees with one that stands in the list
        leaders.append(c)
        for i, other in apart:
            out.append(_tell(c, other, i, steps, parameter_group))
    return out[:MOST]


def _quality(c: Claimed) -> float:
    return float(np.median(c.measured.error[c.where]))


def _apart(a: Claimed, b: Claimed, steps: Steps) -> int | None:
    """The first interval in which two clocks clearly differ."""
    x, y = a.measured, b.measured
    with np.errstate(invalid="ignore"):
        gap = np.abs(x.rate - y.rate)
        larger = np.maximum(np.abs(x.rate), np.abs(y.rate))
        differs = a.where & b.where & (gap > at.APART * np.hypot(x.error, y.error)) & (gap > at.SURE * larger)
        differs &= larger > at.RESOLUTION * steps.least
    return int(np.flatnonzero(differs)[0]) if differs.any() else None


def _tell(a: Claimed, b: Claimed, i: int, steps: Steps, parameter_group: Mapping[str, str]) -> Finding:
    m = a.measured
    groups = [parameter_group.get(c.measured.candidate.parameter, "") for c in (a, b)]
    between = f"{steps.word}s {steps.numbers[m.first[i]]:.0f} to {steps.numbers[m.last[i]]:.0f}"
    rates = [f"{c.measured.rate[i]:.4g}" for c in (a, b)]
    text = f"{between}: {a.name} shrinks by {rates[0]} per {steps.word}, {b.name} by {rates[1]}: "
    if groups[0] and groups[0] == groups[1]:
        text += f"the files put both into parameter group {groups[0]}, but not the same decay acted on them"
        remedy = "check which parameters the optimizer's groups hold, and whether each has its learning rate"
        return Finding("clocks-disagree", "warning", a.measured.candidate.parameter, text, remedy)
    text += "the run decays its tensors differently"
    return Finding("clocks-differ", "note", a.measured.candidate.parameter, text)
