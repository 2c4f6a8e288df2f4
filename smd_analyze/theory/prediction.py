"""predict(): what theory expects of every group at every checkpoint, and where each number comes from."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory import autoregression, sgd
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course, course_of, parameter_group_of, standing
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.theory.laws import Law
from smd_analyze.theory.levels import Gradients, gradients_from_buffers, gradients_from_norms, level_at
from smd_analyze.theory.relaxation import correction, interval_maps

SCHEMA = {
    "group": pl.String, "step": pl.Int64, "equilibrium_angular_update": pl.Float64, "equilibrium_norm": pl.Float64,
    "equilibrium_norm_low": pl.Float64, "equilibrium_norm_high": pl.Float64, "norm_basis": pl.String,
    "expected_norm": pl.Float64, "diffusion_angle": pl.Float64, "half_lives": pl.Float64, "source": pl.String,
}  # fmt: skip
NO_DECAY = "no decay: no equilibrium"


@dataclass(frozen=True)
class Outlook:
    """What holds for a whole parameter group: course, linear maps and their correction, angles and half-lives [T]."""

    course: Course
    maps: tuple[Floats, Floats, Floats]
    correction: tuple[Floats, Floats] | None
    angle: Floats
    half_lives: Floats
    words: tuple[str, ...]


def predict(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    """The `predictions` table: one row per group and checkpoint, missing numbers null, `source` in words.

    Columns: group, step; equilibrium_angular_update [rad/step] and equilibrium_norm, _low, _high [weight] of the update
    that made the checkpoint; norm_basis ("theory": no norm was fitted, "extrapolated": level fitted from the norms);
    expected_norm [weight] from the first checkpoint on under the recorded schedule; diffusion_angle [rad] from the
    previous checkpoint if gradients had zero mean (a reference); half_lives of the norm's relaxation since the first
    checkpoint; source: formulas and references, or the reason why a number is missing.
    Raises nothing: what is unknown becomes null with its reason.
    """
    outlooks: dict[str, Outlook] = {}
    parts: list[pl.DataFrame] = []
    for group in stats.groups:
        name = parameter_group_of(group, schedule)
        if name is None:
            parts.append(
                _empty(group, stats.steps, "its members differ in learning rate or weight decay: no common theory")
            )
            continue
        series = stats.units(group.name)
        moved = series.dd[np.isfinite(series.dd)]
        if len(moved) and not moved.any():
            parts.append(_empty(group, stats.steps, "the weights never move"))
            continue
        if name not in outlooks:
            outlooks[name] = _outlook(course_of(schedule, name, stats.steps))
        parts.append(_rows(group, series, outlooks[name], stats.steps))
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def _outlook(course: Course) -> Outlook:
    """Everything that needs the schedule alone."""
    count = len(course.steps)
    maps = interval_maps(course)
    angle, words = np.full(count, np.nan), []
    for i in range(count):
        value, word = _equilibrium_angle(course, i) if count > 1 else (np.nan, "one checkpoint: no schedule")
        angle[i] = value
        words.append(word)
    halves, passed = np.full(count, np.nan), 0.0
    for i in range(count if count > 1 else 0):
        passed += _half_lives(course, i) if i else 0.0
        halves[i] = passed
    return Outlook(course, maps, correction(course, maps[0], maps[1]), angle, halves, tuple(words))


def _equilibrium_angle(course: Course, i: int) -> tuple[float, str]:
    """θ* of the update that made checkpoint i and its formula, or NaN and the reason."""
    j = course.update_at(i)
    law, trouble, x = course.laws[j], course.trouble(j), course.decay_at(i)
    if trouble or isinstance(law, str):
        return np.nan, trouble
    if 0 in (course.decay[j], course.weight_decay[j]):
        return np.nan, NO_DECAY
    if not x > 0:
        unknown = (
            "weight decay unknown" if np.isnan(course.weight_decay[j] + course.decay[j]) else "learning rate unknown"
        )
        if course.uncertain[i]:
            unknown = "learning rate of this update unknown: it changed somewhere since the checkpoint before"
        return np.nan, "learning rate 0: no equilibrium" if x == 0 else unknown
    a = float(course.momentum[j])
    words = law.source
    number = float(sgd.momentum_number(x, a))
    if law.coupled and number > 1 / 16:
        words += f"; momentum number A = {number:.2g} > 1/16: the norm oscillates, no half-lives"
    return float(angle_of_cosine(law.equilibrium_cosine(x, a))), words


def _half_lives(course: Course, i: int) -> float:
    """Half-lives of the linear variable that pass in interval i; NaN where unknown."""
    law = course.laws[i]
    if isinstance(law, str) or course.trouble(i):
        return np.nan
    a, total = float(course.momentum[i]), float(course.decay[i])
    if np.isnan(course.lengths[i]):  # only the sum is known: leading order, 4 Σx_e or 2 Σx
        return law.power * total * float(law.amplification(a)) / log(2)
    if total == 0 or np.isnan(course.rate_mean[i]):
        return 0.0 if total == 0 else np.nan
    _, decays, counts = course.pieces(i)
    return float((law.relaxation_rate(decays, a, course.beta2[i]) * counts).sum()) / log(2)


def _rows(group: Group, series: UnitSeries, outlook: Outlook, steps: tuple[int, ...]) -> pl.DataFrame:
    """All checkpoints of one group."""
    course, count = outlook.course, len(steps)
    sums = np.isfinite(series.vv).all(axis=1)
    laws = [law for law in course.laws[1:] if isinstance(law, Law)]
    family = laws[0] if laws and len({law.power for law in laws}) == 1 else None
    gradients = None
    if family is not None and family.power == 4:
        gradients = gradients_from_buffers(series, course) or gradients_from_norms(series, *outlook.maps)
    norms, norm_words = _equilibrium_norms(group, course, gradients)
    expected, expected_words = _expected_norms(group, series, outlook, family, gradients)
    columns = {
        "equilibrium_angular_update": outlook.angle,
        "equilibrium_norm": norms[0],
        "equilibrium_norm_low": norms[1],
        "equilibrium_norm_high": norms[2],
        "expected_norm": expected,
        "diffusion_angle": _diffusion(series, course),
        "half_lives": outlook.half_lives,
    }
    basis = gradients.basis if gradients else "theory"
    prefix = standing(group)
    tails = [] if sums.all() else ["some weights are missing or not finite"]
    sources = [
        "; ".join(filter(None, [prefix, outlook.words[i], norm_words[i], expected_words, *tails])) for i in range(count)
    ]
    return pl.DataFrame(
        {
            "group": [group.name] * count,
            "step": list(steps),
            **{name: _nullable(values) for name, values in columns.items()},
            "norm_basis": [basis if np.isfinite(v) else None for v in norms[0]],
            "source": sources,
        },
        schema_overrides=SCHEMA,
    ).select(list(SCHEMA))


def _equilibrium_norms(group: Group, course: Course, gradients: Gradients | None) -> tuple[Floats, list[str]]:
    """Norm at equilibrium, low, high [3, T] and words per checkpoint."""
    count = len(course.steps)
    out, words = np.full((3, count), np.nan), [""] * count
    if count < 2:
        return out, words
    for i in range(count):
        j, x, rate = course.update_at(i), course.decay_at(i), course.rate_at(i)
        law, a = course.laws[j], float(course.momentum[j])
        if isinstance(law, str) or course.trouble(j) or not x > 0:
            continue
        if law.power == 2:
            if course.rate_known and rate > 0:
                out[0, i] = sqrt(float(law.level(rate, x, a)) * group.numel)
                words[i] = "norm: n* = η²dK/(ηλ(2 − ηλ)), about ηd/(2λ), assumes zero-mean gradients"
            else:
                words[i] = "norm: learning rate unknown"
        elif gradients is None:
            words[i] = "norm: size of the gradients unknown (no momentum buffer, no interval with a known schedule)"
        elif rate > 0:
            value, low, high = level_at(gradients, i, float(law.level(rate, x, a)))
            if value is None:
                words[i] = "norm: fell as fast as decay or faster, no level to extrapolate"
                continue
            out[:, i] = [v if v is not None else np.nan for v in (value, low, high)]
            words[i] = (
                "norm: from the saved momentum buffers, L = (1−α²)‖w‖²‖v⊥‖²"
                if gradients.basis == "theory"
                else "norm: extrapolated from how ‖w‖⁴ moved in the nearest intervals, whose scatter gives low and high"
            )
    return out, words


def _expected_norms(
    group: Group, series: UnitSeries, outlook: Outlook, law: Law | None, gradients: Gradients | None
) -> tuple[Floats, str]:
    """Expected norm [T] from the first checkpoint on, and how it was found."""
    phi, b, _ = outlook.maps
    count = len(phi)
    out = np.full(count, np.nan)
    if law is None or count < 2:
        return out, ""
    if law.power == 2 and not outlook.course.rate_known:
        return out, "expected norm: learning rate unknown"
    if law.power == 4 and gradients is None:
        return out, ""
    if law.power == 4 and gradients is not None:
        size = gradients.pooled(np.arange(len(gradients.place)))
    else:
        size = np.full(series.vv.shape[1], group.numel / series.vv.shape[1])
    present = np.flatnonzero(np.isfinite(series.vv).all(axis=1))
    if not len(present):
        return out, ""
    start, half = int(present[0]), law.power / 2
    first = series.vv[start]
    y = first**half
    out[start] = sqrt(float(first.sum()))
    ratio = outlook.correction if start == 0 else None
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.where(first > 0, np.log(first) - np.log(size) / half, -np.inf)
    for i in range(start + 1, count):
        y = phi[i] * y + size * b[i]
        scale = np.interp(place, np.log(ratio[0]), ratio[1][i]) if ratio else 1.0
        total = float(((y * scale) ** (1 / half)).sum())
        out[i] = sqrt(total) if total >= 0 else np.nan
    if law.power == 2:
        how = f"mean map of ‖w‖²{' and v̂' if ratio else ''}, assumes zero-mean gradients"
    elif gradients and gradients.basis == "theory":
        how = "‖w‖⁴ map with L from the buffers, constant over the run"
    else:
        how = "‖w‖⁴ map with one constant L fitted to all intervals (a fit, not a prediction)"
    return out, f"expected norm: {how}"


def _diffusion(series: UnitSeries, course: Course) -> Floats:
    r"""Angle between consecutive checkpoints if gradients had zero mean [T].

    Retention $a_k = \langle w_{t+k}, w_t\rangle/n_t$ follows the optimizer's AR(2) from $a_0 = 1$ and
    $a_1 = \rho_1 + \tfrac12(1-\zeta)\,d\ln n/dt$ (quasi-static buffer); the layer's cosine is
    $\sum_u a_{k,u} n_{t,u} / \sqrt{\sum n_t \sum n_{t+k}}$.
    """
    count = len(course.steps)
    out = np.full(count, np.nan)
    for i in range(1, count):
        law = course.laws[i]
        if isinstance(law, str) or course.trouble(i) or np.isnan(course.lengths[i] + course.decay[i]):
            continue
        k, a = float(course.lengths[i]), float(course.momentum[i])
        x = float(course.decay[i]) / k
        before, after = series.vv[i - 1], series.vv[i]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where((before > 0) & (after > 0), np.log(after / before) / k, 0.0)
        rho = law.equilibrium_cosine(x, a) if x > 1e-12 else 1.0
        kept = autoregression.correlation(*law.autoregression(x, a), rho + slope * (1 - law.angle_share(a)) / 2, k)
        norms = sqrt(float(before.sum()) * float(after.sum())) if np.isfinite(before + after).all() else np.nan
        cosine = float((kept * before).sum()) / norms if norms > 0 else np.nan
        if cosine < 1 + 1e-9:  # larger: the norm fell faster than zero-mean gradients allow
            out[i] = float(angle_of_cosine(np.asarray(cosine)))
    return out


def _nullable(values: Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _empty(group: Group, steps: tuple[int, ...], reason: str) -> pl.DataFrame:
    """Rows without numbers, with the reason."""
    count = len(steps)
    words = "; ".join(filter(None, [standing(group), reason]))
    columns = {name: [None] * count for name in SCHEMA}
    columns |= {"group": [group.name] * count, "step": list(steps), "source": [words] * count}
    return pl.DataFrame(columns, schema=SCHEMA)
