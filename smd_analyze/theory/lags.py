"""lagged(): what zero-mean gradients would make of the angles between near and far checkpoints (table `lags`)."""

from dataclasses import dataclass, field
from math import exp, log, sin, sqrt
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory import adam_l2
from smd_analyze.theory.course import Course
from smd_analyze.theory.decoupled import TAIL
from smd_analyze.theory.diffusion import first_from_buffer, first_from_slope
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.theory.laws import Law, adamw_law
from smd_analyze.theory.of_group import courses, standing
from smd_analyze.theory.rounding import RESOLVED, copied, rounding_of, without_rounding

SCHEMA = {
    "group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "lag": pl.Int64, "steps": pl.Float64,
    "elements": pl.Int64, "angle": pl.Float64, "retention": pl.Float64, "diffusion_angle": pl.Float64,
    "diffusion_retention": pl.Float64, "excess_retention": pl.Float64, "ratio": pl.Float64, "note": pl.String,
}  # fmt: skip
FLOATS = ("steps", "angle", "retention", "diffusion_angle", "diffusion_retention", "excess_retention", "ratio")
BELOW = "below resolution: the saved weights' rounding hides so small an angle"
ALIKE = 0.05  # of the decay per step: intervals that differ by less share one recursion
MEMORY = 20  # memory times after which only the slow mode of the update is left
OWN_MEMORY = 5  # memory times that a recursion is followed before the slow mode takes over


def lagged(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    r"""The `lags` table: angles and retention between near and far checkpoints, beside those of zero-mean gradients.

    Columns: group; step_from, step_to; lag [checkpoints]; steps, the same in optimizer steps; elements that were
    compared (all of neighbours, else a sample); angle [rad] and retention ⟨w_to, w_from⟩/‖w_from‖² as saved;
    diffusion_retention, diffusion_angle [rad]: what gradients of zero mean, independent in time, would leave of the
    earlier weights under the recorded schedule and the measured norms; excess_retention, ln of retention over that
    (> 0 confinement, < 0 drift); ratio (1 − cos θ)/(1 − cos θ⁰); note.
    A reference, no verdict: confinement and drift may cancel. The sampling error of 1 − cos θ is √(2/elements) of it.
    Ratios are less what rounding of coarse copies adds; null, "below resolution" in `note`, where it hides the angle.
    """
    found = stats.lags
    if not found.height:
        return pl.DataFrame(schema=SCHEMA)
    course_of_group = courses(stats, schedule)
    number = {step: i for i, step in enumerate(stats.steps)}
    known: dict[int, _Propagated] = {}
    parts: list[pl.DataFrame] = []
    rows_of = {str(name): rows for (name,), rows in found.group_by("group", maintain_order=True)}
    for group in stats.groups:
        rows = rows_of.get(group.name)
        if rows is None:
            continue
        course = course_of_group(group)
        out: dict[str, Any] = {name: np.full(rows.height, np.nan) for name in FLOATS}
        out["angle"], out["retention"] = rows["angle"].to_numpy().copy(), rows["retention"].to_numpy().copy()
        notes = [standing(group)] * rows.height
        if course is None:
            notes = ["its members differ in learning rate or weight decay: no common theory"] * rows.height
        pairs = [(number[a], number[b]) for a, b in rows.select("step_from", "step_to").iter_rows()]
        if course is not None:
            propagated = known.setdefault(id(course), _Propagated(course))
            series = stats.units(group.name)
            starts: dict[int, tuple[float, float] | None] = {}
            for p, (i, j) in enumerate(pairs):
                out["steps"][p] = course.made[j] - course.made[i]
                if i not in starts:
                    starts[i] = _start(series, course, i)
                left = propagated.left(i, j, starts[i])
                if isinstance(left, str):
                    notes[p] = "; ".join(filter(None, [notes[p], left]))
                    continue
                _expect(out, p, left, float(series.vv[i].sum()), float(series.vv[j].sum()))
        _resolve(out, notes, stats.dtypes.get(group.name, ()))
        columns = {name: [float(v) if np.isfinite(v) else None for v in out[name]] for name in FLOATS}
        parts.append(
            rows.drop("angle", "retention").with_columns(
                *(pl.Series(name, values, pl.Float64) for name, values in columns.items()), pl.Series("note", notes)
            )
        )
    return pl.concat(parts).select(list(SCHEMA)) if parts else pl.DataFrame(schema=SCHEMA)


def _expect(out: dict[str, Any], p: int, left: float, before: float, after: float) -> None:
    """Fill in what is expected of row p: `left` = Σ⟨w_from, w_to⟩ of zero-mean gradients, between these ‖w‖²."""
    out["diffusion_retention"][p] = left / before
    cosine = left / sqrt(before * after)
    if cosine < 1 + 1e-9:  # larger: the norm fell faster than zero-mean gradients allow
        out["diffusion_angle"][p] = float(angle_of_cosine(np.asarray(cosine)))
    if left > 0 and out["retention"][p] > 0:
        out["excess_retention"][p] = log(out["retention"][p] * before / left)


def _resolve(out: dict[str, Any], notes: list[str], types: tuple[str, ...]) -> None:
    """Compare the angles, less what rounding adds to them, with the expected ones; blank what it hides."""
    rounding = copied(types)
    floor = RESOLVED * sqrt(2) * rounding_of(types)
    for p, angle in enumerate(out["angle"]):
        square = without_rounding(angle**2, rounding) if rounding else angle**2 if angle >= floor else None
        if square is None:
            out["excess_retention"][p] = np.nan
            notes[p] = "; ".join(filter(None, [notes[p], BELOW]))
            continue
        out["excess_retention"][p] += log(1 + rounding**2)  # rounding adds to ‖w_from‖², not to the product
        free = sin(out["diffusion_angle"][p] / 2)
        out["ratio"][p] = (sin(sqrt(square) / 2) / free) ** 2 if free else np.nan


def _start(series: UnitSeries, course: Course, i: int) -> tuple[float, float] | None:
    """Σ‖w‖² of checkpoint i and Σ⟨w_i, w_i+1⟩ one optimizer step later, over the units; None where unknown."""
    j = i + 1
    law, before, after = law_at(course, j), series.vv[i], series.vv[j]
    if isinstance(law, str) or not np.isfinite(course.lengths[j] + course.decay[j]):
        return None
    if not np.isfinite(before + after).all() or not before.any() or not after.any():
        return None
    first = first_from_buffer(series, course, j)
    if first is None:
        k = float(course.lengths[j])
        first = first_from_slope(before, after, k, float(course.decay[j]) / k, float(course.momentum[j]), law)
    return float(before.sum()), float((first * before).sum())


@dataclass
class _Propagated:
    """Retention over the intervals of one course; what many groups share is worked out once."""

    course: Course
    made: dict[tuple[int, float, float], tuple[float, float]] = field(default_factory=dict)
    slow: dict[int, float] = field(default_factory=dict)

    def left(self, i: int, j: int, start: tuple[float, float] | None) -> float | str:
        r"""Σ⟨w_j, w_i⟩ with zero-mean gradients, or why it is not known.

        The optimizer's recursion of ⟨w_t, w_i⟩ is linear, so sums over units obey it too. It is followed while the
        decay per step stays within ALIKE, and for OWN_MEMORY memory times at least; beyond, each interval multiplies by
        its slow mode, $z^k$ (z → 1 − x_e).
        """
        course = self.course
        for m in range(i + 1, j + 1):
            if isinstance(law := law_at(course, m), str):
                return law
            if not np.isfinite(course.lengths[m] + course.decay[m]):
                return "learning rate or weight decay unknown"
        law = law_at(course, i + 1)
        if start is None or isinstance(law, str) or any(law_at(course, m) != law for m in range(i + 2, j + 1)):
            return "norms unknown" if start is None else "the optimizer changes in between"
        per_step = course.decay[i + 1 : j + 1] / course.lengths[i + 1 : j + 1]
        gone = np.cumsum(course.lengths[i + 1 : j + 1])
        alike = np.abs(per_step - per_step[0]) <= ALIKE * per_step[0]
        alike |= np.append(0.0, gone[:-1]) < OWN_MEMORY * _memory(law, float(course.momentum[i + 1]))
        lead = int(np.argmin(alike)) if not alike.all() else len(alike)
        k = float(gone[lead - 1])
        constant, share = self._recursion(i + 1, law, float(course.decay[i + 1 : i + 1 + lead].sum()) / k, k)
        rest = 0.0
        for m in range(i + 1 + lead, j + 1):
            factor = self._slow(m, law)
            if not 0 < factor <= 1 + 1e-9:
                return "momentum too strong: the update has no slow mode"
            rest += log(factor)
        return (constant * start[0] + share * start[1]) * exp(rest)

    def _recursion(self, m: int, law: Law, x: float, k: float) -> tuple[float, float]:
        """(p, q) of interval m's law at decay x: a_k = p + q·a₁."""
        key = m, x, k
        if key not in self.made:
            a = float(self.course.momentum[m])
            zero, one = (float(np.asarray(law.retention(x, a, first, k))) for first in (0.0, 1.0))
            self.made[key] = zero, one - zero
        return self.made[key]

    def _slow(self, m: int, law: Law) -> float:
        """What interval m leaves of a correlation whose fast part has died out."""
        if m not in self.slow:
            a, k = float(self.course.momentum[m]), float(self.course.lengths[m])
            x, settled = float(self.course.decay[m]) / k, MEMORY * _memory(law, a)
            late, early = (np.asarray(law.retention(x, a, 1.0, lag)) for lag in (settled + k, settled))
            self.slow[m] = float(late / early) if early else np.nan
        return self.slow[m]


def law_at(course: Course, i: int) -> Law | str:
    """The law of interval i, or why there is none. Adam without decay is AdamW without decay."""
    if course.laws[i] == adam_l2.SOURCE and course.decay[i] == 0 and np.isfinite(course.momentum[i]):
        return adamw_law(float(course.beta2[i]) if np.isfinite(course.beta2[i]) else None)
    law = course.laws[i]
    return course.trouble(i) or law


def _memory(law: Law, momentum: float) -> float:
    """Optimizer steps over which past updates are felt: 1/(1−α), or what an autocovariance's length says."""
    if law.gamma is None:
        return 1 / (1 - momentum)
    return max(1.0, len(law.gamma(momentum)) / TAIL)
