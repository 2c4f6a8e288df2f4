"""Pairs of checkpoints, near and far, that estimates of one group's motion rest on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import asin, sqrt

import numpy as np

from smd_analyze.fits.context import SPACING, Context, Row


@dataclass(frozen=True)
class Window:
    """One pair of checkpoints: the earlier's step and how many recorded steps later the other is, the same in optimizer
    steps, 1 − cos θ, that of zero-mean gradients, and ln of retention over theirs (NaN where unknown)."""

    start: int
    reach: int
    steps: float
    turned: float
    free: float
    excess: float

    @property
    def angle(self) -> float:
        """θ [rad]."""
        return 2 * asin(sqrt(min(self.turned / 2, 1.0)))

    @property
    def free_angle(self) -> float:
        """θ⁰ [rad] of zero-mean gradients."""
        return 2 * asin(sqrt(min(self.free / 2, 1.0)))


def windows(c: Context) -> tuple[list[Window], int]:
    """The pairs of checkpoints of the stretch that is judged, and how many of them rounding hides.

    What momentum still remembers of the stretch's start is left out where pairs remain without it.
    """
    steps, spacing = c.series.steps, 2 * SPACING * c.regime.smear
    begin = float(steps[c.start]) if c.start < len(steps) else np.inf
    inside = [row for row in c.lags if row["step_from"] >= begin]
    if c.start > 0 or (len(steps) and steps[0] == 0):
        per_step = _per_recorded_step(inside)
        later = [row for row in inside if (row["step_from"] - begin) * per_step >= spacing]
        inside = later if len({row["lag"] for row in later}) >= min(3, len({row["lag"] for row in inside})) else inside
    hidden = sum("below resolution" in row["note"] for row in inside)
    known = [row for row in inside if row["ratio"] is not None and row["diffusion_angle"] and row["steps"]]
    asked, answered = (Counter(_octave(row["step_to"] - row["step_from"]) for row in rows) for rows in (inside, known))
    found: list[Window] = []
    for row in known:
        reach = row["step_to"] - row["step_from"]
        if 2 * answered[_octave(reach)] < asked[_octave(reach)]:
            continue  # those that theory has no angle for are not like the others
        fall = 2 * np.sin(row["diffusion_angle"] / 2) ** 2
        excess = np.nan if row["excess_retention"] is None else row["excess_retention"]
        found.append(Window(row["step_from"], reach, row["steps"], row["ratio"] * fall, fall, excess))
    return found, hidden


def _octave(steps: float) -> int:
    """The nearest power of two, as its exponent."""
    return round(float(np.log2(steps)))


def _per_recorded_step(rows: list[Row]) -> float:
    """Optimizer steps per recorded step; 1 where unknown."""
    known = [row["steps"] / (row["step_to"] - row["step_from"]) for row in rows if row["steps"]]
    return float(np.median(known)) if known else 1.0


def octaves(found: list[Window]) -> list[list[Window]]:
    """Pairs of about the same distance together, ascending: within a factor √2 of a power of two steps."""
    by: dict[int, list[Window]] = {}
    for w in found:
        by.setdefault(_octave(w.steps), []).append(w)
    return [by[key] for key in sorted(by)]
