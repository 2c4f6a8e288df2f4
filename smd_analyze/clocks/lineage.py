"""Lineage: is every checkpoint of the same run?

A clock's direction is a fingerprint of its run (1 − cos below 1e-6 within a run, about 1 between two runs). What all
clocks say together is said here; what one slice says alone may be a row that woke up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured, Steps, turning
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding

MOST = 10  # findings of one kind


def strangers(clocks: Sequence[Claimed], checkpoints: int) -> list[int]:
    """Checkpoints whose clocks all point elsewhere while those before and after point the same way: other runs' files.

    Gives their indices. The clocks must have been measured over all `checkpoints`.
    """
    if not clocks or checkpoints < 3:
        return []
    with np.errstate(invalid="ignore"):
        apart = np.stack([c.measured.turn > at.FRESH for c in clocks])
    present = np.stack([c.measured.present for c in clocks])
    asked = present[:, 1:] & present[:, :-1]
    odd = asked & apart[:, 1:] & apart[:, :-1]
    places = np.flatnonzero(asked.any(0) & (odd == asked).all(0)) + 1
    return [
        t for t in places.tolist() if all(_bridged(c, t) for c in clocks if c.measured.present[t - 1 : t + 1].all())
    ]


def _bridged(clock: Claimed, t: int) -> bool:
    """Whether the checkpoints before and after t have the clock in one direction."""
    values = clock.measured.candidate.values
    return turning(values[t - 1], values[t + 1]) < at.COPY_TURNING


def about(clocks: Sequence[Claimed], steps: Steps, foreign: Sequence[int]) -> list[Finding]:
    """All findings on lineage. `clocks` are measured without the `foreign` checkpoints."""
    return [*_foreign(foreign, steps), *_breaks(clocks, steps)]


def _foreign(foreign: Sequence[int], steps: Steps) -> list[Finding]:
    return [
        Finding(
            "foreign-checkpoint",
            "warning",
            f"{steps.word} {steps.numbers[t]:.0f}",
            "all decay clocks point in another direction here, and in one and the same before and after: this "
            "checkpoint is of another run; clocks are read without it",
            "leave it out (--steps, or move the file): norms and angles next to it are wrong, too",
        )
        for t in foreign[:MOST]
    ]


def _breaks(clocks: Sequence[Claimed], steps: Steps) -> list[Finding]:
    """Intervals in which every clock that is long enough turned to another direction for good."""
    if not clocks:
        return []
    m = clocks[0].measured
    turn = np.stack([c.measured.turn for c in clocks])
    asked = np.stack([c.measured.present & c.measured.firm for c in clocks])
    with np.errstate(invalid="ignore"):
        broken = asked & (turn > at.FRESH) & np.stack([_beside(c.measured) for c in clocks])
    out = []
    for i in np.flatnonzero(asked.any(0) & (broken == asked).all(0)).tolist():
        of = [c for c, told in zip(clocks, asked[:, i], strict=True) if told]
        names = of[0].name + (f" and {len(of) - 1} more" if len(of) > 1 else "")
        woke = ", or what was never used began to be" if all(c.measured.candidate.kind != "sum" for c in of) else ""
        a, b = steps.numbers[m.first[i]], steps.numbers[m.last[i]]
        text = (
            f"decay clocks keep their direction beside it, but not between {steps.word}s {a:.0f} and {b:.0f} "
            f"(1 − cos = {turn[asked[:, i], i].min():.2g} or more): the checkpoints are not of one run, or the layer "
            f"was initialised anew there{woke}"
        )
        out.append(Finding("lineage-broken", "warning", names, text, "analyse the parts alone with --steps A:B"))
    return out[:MOST]


def _beside(m: Measured) -> np.ndarray:
    """Whether the clock holds in the interval before or after each."""
    held = np.concatenate([[False], m.holds, [False]])
    return held[:-2] | held[2:]
