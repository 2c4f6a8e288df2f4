"""angular_updates(): the angle that one optimizer step turns, by every method that the checkpoints allow."""

from math import sqrt

import numpy as np
import polars as pl

from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory.angle_rows import SCHEMA, Row, frame, root_mean
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.geometry import unit_angle
from smd_analyze.theory.norms import implied_rows
from smd_analyze.theory.of_group import courses
from smd_analyze.theory.rounding import BELOW, copied, floor_of_update, without_rounding
from smd_analyze.theory.softening import softenings

ROUNDED = 0.01  # share of θ² from which a correction for rounding is worth a note
UNSHARP, UNUSABLE = 0.05, 0.5  # width of a learning rate, over its value, that is worth a note, and that spoils a row


def angular_updates(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    r"""The `angular_updates` table: root mean square angle per step [rad/step], one row per group, interval and method.

    `consecutive`: checkpoints one optimizer step apart, measured. `buffer`: the previous weights rebuilt from the saved
    momentum buffer or Adam direction d, $w_{t-1} \propto w_t + \eta d$ (exact; decoupled decay only scales it).
    `norms`: $\theta_1^2 = \zeta\,(2\bar x_e + \ln(n_2/n_1)/k)$, an identity of the norm's slope and ηλ (ζ per
    optimizer: theory/sgd.py, theory/nesterov.py; more of it in theory/norms.py), of Lion and Muon
    $\eta^2\lVert u\rVert^2/n - (x + \tfrac12 d\ln n/dt)^2$; intervals merged until they cover 5/(1−α) steps. Only the
    first two are independent measurements. All are root mean squares over the group's units.
    Low and high: 95 % of the scatter over the units (at least 8); for `norms` with the interval of Σηλ, of what the
    momentum still remembers and of a batch normalization's ε (theory/softening.py); null otherwise, and for `norms`
    where these are no identity for all gradients (Nesterov, AdamW, Muon, weights that are not scale-invariant).
    Angles that the rounding of saved copies hides are null, "below resolution"; somewhat larger ones are corrected.
    `note`: assumptions and cautions in words, "" if there are none. Raises nothing: unknown schedules give no rows.
    """
    course_of_group, softening_of = courses(stats, schedule), softenings(stats, schedule)
    parts: list[pl.DataFrame] = []
    for group in stats.groups:
        course = course_of_group(group)
        if course is None:
            continue
        series = stats.units(group.name)
        types = stats.dtypes.get(group.name, ())
        rows = _buffer(series, course, types)
        if len(stats.steps) > 1:
            soft = softening_of(group, series, course)
            rows = _consecutive(series, course, types) + rows + implied_rows(group, series, course, soft, types)
        if rows:
            parts.append(frame(group.name, rows))
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def _consecutive(series: UnitSeries, course: Course, types: tuple[str, ...]) -> list[Row]:
    """Rows of checkpoints that are one optimizer step apart."""
    rows, rounding = [], copied(types)
    for i in np.flatnonzero(course.lengths == 1) if course.direct else ():
        squares = unit_angle(series.vv[i], series.dd[i], series.dv[i]) ** 2
        angle, low, high = root_mean(squares)
        if np.isfinite(angle):
            t, note = int(course.steps[i]), ""
            if rounding and angle > 0:
                angle, low, high, note = _unrounded(angle, low, high, rounding)
            rows.append(Row(t - 1, t, "consecutive", 1, angle, low, high, True, note))
    return rows


def _unrounded(angle: float, low: float, high: float, rounding: float) -> tuple[float, float, float, str]:
    """Angle between rounded copies, and its interval, less what the rounding adds; and a note."""
    square = without_rounding(angle**2, rounding)
    if square is None:
        return np.nan, np.nan, np.nan, f"{BELOW}: steps smaller than the saved weights' rounding"
    added = 2 * rounding**2
    low, high = (sqrt(max(end**2 - added, 0.0)) if np.isfinite(end) else np.nan for end in (low, high))
    note = "less the rounding of the saved copies" if added > ROUNDED * angle**2 else ""
    return sqrt(square), low, high, note


def _buffer(series: UnitSeries, course: Course, types: tuple[str, ...]) -> list[Row]:
    """Rows of checkpoints with a saved optimizer direction and a known learning rate of the past update."""
    if series.uu is None or series.wu is None or not course.direct:
        return []
    rows, floor = [], floor_of_update(types)
    for i, step in enumerate(course.steps[: len(series.vv)]):
        j = course.update_at(i)
        if i == 0 and (course.changes[j] or step == 0):
            continue
        rate, least, most = course.raw_last[j], course.raw_low[j], course.raw_high[j]
        if i == 0:
            rate = least = most = course.raw_first[j]
        if not course.buffered[j] or not rate > 0 or most - least > UNUSABLE * most:
            continue
        squares = past_angle(series.vv[i], series.uu[i], series.wu[i], float(rate)) ** 2
        angle, low, high = root_mean(squares)
        if np.isfinite(angle):
            note = ""
            low, high = low * least / rate, high * most / rate  # the angle is proportional to the learning rate
            if most - least > UNSHARP * most:
                note = f"learning rate of this update known only between {least:.3g} and {most:.3g}"
            if 0 < angle < floor:
                angle, low, high, note = np.nan, np.nan, np.nan, f"{BELOW}: the update is lost in the weights' rounding"
            rows.append(Row(int(step) - 1, int(step), "buffer", 1, angle, low, high, True, note))
    return rows


def past_angle(squared_norm: Floats, squared_direction: Floats, product: Floats, rate: float) -> Floats:
    """Angle between w_t and w_{t−1} ∝ w_t + ηd per unit, from Σw², Σd², Σwd and η of the past update; rad, exact."""
    # the step from w + ηd to w is −ηd
    return unit_angle(squared_norm, rate * rate * squared_direction, -rate * product)
