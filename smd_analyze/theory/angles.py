"""angular_updates(): the angle that one optimizer step turns, by every method that the checkpoints allow."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory import sgd
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import INVARIANT, Course, course_of, parameter_group_of, standing
from smd_analyze.theory.geometry import unit_angle
from smd_analyze.theory.laws import Law
from smd_analyze.theory.rounding import copied, floor_of_update, without_rounding

SCHEMA = {
    "group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "method": pl.String, "steps_covered": pl.Int64,
    "angular_update": pl.Float64, "angular_update_low": pl.Float64, "angular_update_high": pl.Float64,
    "independent": pl.Boolean, "note": pl.String,
}  # fmt: skip
ENOUGH = 8  # units from which their scatter makes an interval
SHORTEST, SETTLED = 5, 10  # in momentum times 1/(1−α): least spacing for `norms`, and the memory of a change
ROUNDED = 0.01  # share of θ² from which a correction for rounding is worth a note
BELOW = "below resolution"
UNSHARP, UNUSABLE = 0.05, 0.5  # width of a learning rate, over its value, that is worth a note, and that spoils a row
TRANSIENT = ("learning rate changed within", "begins within")  # how notes on what the momentum remembers begin
MARGIN = 2.0  # on the error that the momentum's memory makes, which is an estimate itself
NOTABLE = 0.05  # change of ln η per SETTLED momentum times that is worth a note


@dataclass(frozen=True)
class Row:
    """One row without its group: an angle with its interval [rad/step], NaN where unknown."""

    step_from: int
    step_to: int
    method: str
    steps_covered: int
    angle: float
    low: float
    high: float
    independent: bool
    note: str


def angular_updates(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    r"""The `angular_updates` table: root mean square angle per step [rad/step], one row per group, interval and method.

    `consecutive`: checkpoints one optimizer step apart, measured. `buffer`: the previous weights rebuilt from the saved
    momentum buffer or Adam direction d, $w_{t-1} \propto w_t + \eta d$ (exact; decoupled decay only scales it).
    `norms`: $\theta_1^2 = \zeta\,(2\bar x_e + \ln(n_2/n_1)/k)$, an identity of the norm's slope and ηλ (ζ per
    optimizer: theory/sgd.py, theory/nesterov.py), intervals merged until they cover 5/(1−α) steps. Only the first two
    are independent measurements. All are root mean squares over the group's units.
    Low and high: 95 % of the scatter over the units (at least 8), for `norms` with the interval of Σηλ and of what the
    momentum still remembers; null otherwise, and for `norms` where these are no identity (AdamW, weights that are not
    scale-invariant).
    Angles that the rounding of saved copies hides are null, "below resolution"; somewhat larger ones are corrected.
    `note`: assumptions and cautions in words, "" if there are none. Raises nothing: unknown schedules give no rows.
    """
    courses: dict[str, Course] = {}
    parts: list[pl.DataFrame] = []
    for group in stats.groups if len(stats.steps) > 1 else ():
        name = parameter_group_of(group, schedule)
        if name is None:
            continue
        course = courses.setdefault(name, course_of(schedule, name, stats.steps))
        series = stats.units(group.name)
        types = stats.dtypes.get(group.name, ())
        rows = _consecutive(series, course, types) + _buffer(series, course, types) + _norms(group, series, course)
        if rows:
            parts.append(_frame(group.name, rows))
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def _consecutive(series: UnitSeries, course: Course, types: tuple[str, ...]) -> list[Row]:
    """Rows of checkpoints that are one optimizer step apart."""
    rows, rounding = [], copied(types)
    for i in np.flatnonzero(course.lengths == 1) if course.direct else ():
        squares = unit_angle(series.vv[i], series.dd[i], series.dv[i]) ** 2
        angle, low, high = _root_mean(squares)
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
    for i, step in enumerate(course.steps):
        j = course.update_at(i)
        if i == 0 and (course.changes[j] or step == 0):
            continue
        rate, least, most = course.raw_last[j], course.raw_low[j], course.raw_high[j]
        if i == 0:
            rate = least = most = course.raw_first[j]
        if not course.buffered[j] or not rate > 0 or most - least > UNUSABLE * most:
            continue
        squares = past_angle(series.vv[i], series.uu[i], series.wu[i], float(rate)) ** 2
        angle, low, high = _root_mean(squares)
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


def _norms(group: Group, series: UnitSeries, course: Course) -> list[Row]:
    """Rows from the norms' slopes and the sums of ηλ, short intervals merged."""
    rows, before, ended = [], 0.0, -1
    for start, stop in _merged(series, course):
        law, a = course.laws[stop], float(course.momentum[stop])
        if isinstance(law, str):
            continue
        inside = slice(start + 1, stop + 1)
        k = _length(course, start, stop)
        first, last = series.vv[start], series.vv[stop]
        alive = (first > 0) & (last > 0)
        if not alive.any():
            continue
        growth = np.log(last[alive] / first[alive])
        gain, share = float(law.amplification(a)), float(law.angle_share(a))
        total = float(course.decay[inside].sum())
        squares = share * (2 * gain * total + growth) / k
        square = float(squares.mean())
        # the intervals of Σηλ may share one cause: they are added, not squared
        down, up = (
            2 * share * gain * float(v[inside].sum() - total) / k for v in (course.decay_low, course.decay_high)
        )
        scatter = _scatter(squares)
        angle, low, high = np.nan, np.nan, np.nan
        notes = _notes(group, law, course, start, stop)
        # while the norm moves, the identity holds to first order in the momentum number only
        memory = 2 * float(sgd.momentum_number(total / k, a)) * share * abs(float(growth.mean())) / k
        if any(note.startswith(TRANSIENT) for note in notes):
            memory += _memory_error(course, start, stop, square, before if ended == start else 0.0) / k
        before, ended = square, stop
        if not series.dd[inside].any():
            notes.append("the weights do not move")
        elif square >= 0:
            angle = sqrt(square)
            spread = [v for v in (scatter,) if np.isfinite(v)]
            exact = law.power != 2 and group.status in INVARIANT
            if exact and (np.isfinite(down + up) or spread):
                noise = scatter if spread else 0.0
                down, up = (0.0 if np.isnan(v) else v for v in (down, up))
                low, high = (
                    sqrt(max(square + v, 0.0))
                    for v in (-sqrt(down**2 + noise**2) - memory, sqrt(up**2 + noise**2) + memory)
                )
        else:
            notes.append("norms fall faster than this weight decay can explain")
        rows.append(
            Row(
                int(course.steps[start]),
                int(course.steps[stop]),
                "norms",
                int(k),
                angle,
                low,
                high,
                False,
                "; ".join(notes),
            )
        )
    return rows


def _memory_error(course: Course, start: int, stop: int, square: float, before: float) -> float:
    r"""What a change of the momentum's memory may add to the row's Σθ² (the identity takes it as unchanged).

    $$ \frac{2\alpha}{1+\alpha}\,\Big|y_K - y_0\frac{\eta}{\eta_0}\Big|,\qquad y = \frac{\alpha}{1-\alpha}\theta^2 $$

    y is the part of ⟨w, step⟩/‖w‖² that past updates hold; `square` and `before` are θ² of the row and of the row
    before it (0 at the start of a run), η₀ the learning rate before the row. MARGIN allows for θ² within the row.
    Source: sum over the row of b' = αb − xn + c', n' = n + 2(b' − c') + c' (theory/sgd.py, angle_share).
    """
    a = float(course.momentum[stop])
    ratio = course.rate_first[start + 1] / course.rate_last[start] if start and course.rate_last[start] > 0 else 1.0
    change = abs(square - before * (ratio if np.isfinite(ratio) else 1.0))
    return MARGIN * 2 * a / (1 + a) * a / (1 - a) * change


def _length(course: Course, start: int, stop: int) -> float:
    """Optimizer steps between two checkpoints; recorded steps where those are unknown."""
    total = float(course.lengths[start + 1 : stop + 1].sum())
    return total if np.isfinite(total) else float(course.steps[stop] - course.steps[start])


def _memory(course: Course, i: int) -> float:
    """Momentum time 1/(1−α) of interval i [optimizer steps]; 0 where those cannot be counted."""
    return 1 / (1 - float(course.momentum[i])) if np.isfinite(course.lengths[i]) else 0.0


def _merged(series: UnitSeries, course: Course) -> list[tuple[int, int]]:
    """Pairs of checkpoints (start, stop) for the norms' slope, SHORTEST momentum times apart or more.

    Broken where the law, the momentum or the sums are unknown or change; a short rest joins the pair before it.
    """
    pairs: list[tuple[int, int]] = []
    complete = [bool(np.isfinite(row).all()) for row in series.vv]
    start, first_of_run = 0, True
    for i in range(1, len(course.steps)):
        usable = _usable(course, complete, i)
        same = i > 1 and course.laws[i] == course.laws[i - 1] and course.momentum[i] == course.momentum[i - 1]
        if not usable:
            start, first_of_run = i, True
            continue
        if not same:
            start, first_of_run = i - 1, True
        least = SHORTEST * _memory(course, i)
        ends = i + 1 == len(course.steps) or not _usable(course, complete, i + 1)
        ends = ends or course.laws[i + 1] != course.laws[i] or course.momentum[i + 1] != course.momentum[i]
        long_enough = _length(course, start, i) >= least
        if long_enough or (ends and first_of_run):
            pairs.append((start, i))
            start, first_of_run = i, False
        elif ends:
            pairs[-1] = (pairs[-1][0], i)
    return pairs


def _usable(course: Course, complete: list[bool], i: int) -> bool:
    """Whether interval i has a law, a known Σηλ and both norms."""
    return not course.trouble(i) and bool(np.isfinite(course.decay[i])) and complete[i - 1] and complete[i]


def _notes(group: Group, law: Law, course: Course, start: int, stop: int) -> list[str]:
    """What to keep in mind about a row of `norms`."""
    notes = [standing(group)] if standing(group) else []
    if law.power == 2:
        notes.append("assumes zero-mean gradients: 5 to 20 % off in trained networks")
    elif law.nesterov:
        notes.append("assumes zero-mean gradients")
    if np.isnan(course.lengths[stop]):
        notes.append("per recorded step, whose length in optimizer steps is unknown")
        return notes
    memory = _memory(course, stop)
    reach = SETTLED * memory
    span = "10 steps" if memory == 1 else "10/(1−α) steps"
    if _length(course, start, stop) < SHORTEST * memory:
        notes.append("spacing under 5/(1−α) steps")
    if _changed(course, start, stop, reach):
        notes.append(f"{TRANSIENT[0]} {span}")
    if course.made[start] < reach:
        notes.append(f"{TRANSIENT[1]} {span} of the first update")
    return notes


def _changed(course: Course, start: int, stop: int, reach: float) -> bool:
    """Whether ln η moved by more than NOTABLE per `reach` steps in the row, or less than `reach` before it."""
    steps = course.made
    since = steps[start] - reach
    near = slice(1 + int(np.searchsorted(steps[1 : start + 1], since, side="right")), stop + 1)
    first, last = course.rate_first[near], course.rate_last[near]
    if course.uncertain[near].any():
        return True
    # inside an interval the place of a change is unknown: its end counts
    if (_log_ratio(first, last) * np.minimum(1.0, reach / course.lengths[near]) > NOTABLE).any():
        return True
    before = slice(near.start - 1, stop)
    jumps = _log_ratio(course.rate_last[before], first)
    return bool((jumps[steps[before] > since] > NOTABLE).any())


def _log_ratio(one: Floats, other: Floats) -> Floats:
    """|ln(one/other)| elementwise, 0 where either is unknown or both are equal, infinite where one of them is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(np.log(one / other))
    return np.where(np.isnan(ratio), 0.0, ratio)


def _scatter(squares: Floats) -> float:
    """1.96 standard errors of the mean of θ² over the units; NaN for fewer than ENOUGH."""
    return 1.96 * float(squares.std(ddof=1)) / sqrt(len(squares)) if len(squares) >= ENOUGH else np.nan


def _root_mean(squares: Floats) -> tuple[float, float, float]:
    """Root mean square over the units that have an angle, and its interval; NaN where there is none."""
    squares = squares[np.isfinite(squares)]
    if not len(squares):
        return np.nan, np.nan, np.nan
    square, error = float(squares.mean()), _scatter(squares)
    if np.isnan(error):
        return sqrt(square), np.nan, np.nan
    return sqrt(square), sqrt(max(square - error, 0.0)), sqrt(square + error)


def _frame(group: str, rows: list[Row]) -> pl.DataFrame:
    """Rows of one group as a table."""

    def numbers(values: list[float]) -> list[float | None]:
        return [v if np.isfinite(v) else None for v in values]

    return pl.DataFrame(
        {
            "group": [group] * len(rows),
            "step_from": [r.step_from for r in rows],
            "step_to": [r.step_to for r in rows],
            "method": [r.method for r in rows],
            "steps_covered": [r.steps_covered for r in rows],
            "angular_update": numbers([r.angle for r in rows]),
            "angular_update_low": numbers([r.low for r in rows]),
            "angular_update_high": numbers([r.high for r in rows]),
            "independent": [r.independent for r in rows],
            "note": [r.note for r in rows],
        },
        schema=SCHEMA,
    )
