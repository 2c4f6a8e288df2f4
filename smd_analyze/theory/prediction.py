"""predict(): what theory expects of every group at every checkpoint, and where each number comes from."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory import adam_l2, sgd
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import NO_ROW, Course
from smd_analyze.theory.diffusion import diffusion
from smd_analyze.theory.expected import expected_norms
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.theory.laws import Law
from smd_analyze.theory.levels import Gradients, gradients_from_buffers, gradients_from_norms, level_at
from smd_analyze.theory.norms import old_velocity
from smd_analyze.theory.of_group import courses, reference, standing
from smd_analyze.theory.relaxation import correction, interval_maps
from smd_analyze.theory.second_moment import foreseen

SCHEMA = {
    "group": pl.String, "step": pl.Int64, "equilibrium_angular_update": pl.Float64, "equilibrium_norm": pl.Float64,
    "equilibrium_norm_low": pl.Float64, "equilibrium_norm_high": pl.Float64, "norm_basis": pl.String,
    "expected_norm": pl.Float64, "expected_norm_low": pl.Float64, "expected_norm_high": pl.Float64,
    "diffusion_angle": pl.Float64, "excess_retention": pl.Float64, "relaxation_rate": pl.Float64,
    "half_lives": pl.Float64, "source": pl.String,
}  # fmt: skip
NO_DECAY = "no decay: no equilibrium"


@dataclass(frozen=True)
class Outlook:
    """What holds for a whole parameter group: course, linear maps and their correction, angles, rates, half-lives."""

    course: Course
    maps: tuple[Floats, Floats, Floats]
    correction: tuple[Floats, Floats] | None
    angle: Floats
    rate: Floats
    half_lives: Floats
    words: tuple[str, ...]
    left_out: np.ndarray


def predict(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    """The `predictions` table: one row per group and checkpoint, missing numbers null, `source` in words.

    Columns: group, step; equilibrium_angular_update [rad/step] and equilibrium_norm, _low, _high [weight] of the update
    that made the checkpoint; norm_basis ("theory": no norm was fitted, "extrapolated": level fitted from the norms);
    expected_norm, _low, _high [weight] from the first checkpoint on under the recorded schedule; diffusion_angle [rad]
    from the previous checkpoint if gradients had zero mean (a reference), and excess_retention, ln of how much of the
    previous checkpoint is still there over that reference (> 0 confinement, < 0 drift); relaxation_rate [1/step] of the
    norm's linear variable at the checkpoint's update; half_lives of it since the first checkpoint; source: formulas,
    what is assumed, or the reason why a number is missing.
    Raises nothing: what is unknown becomes null with its reason.
    """
    outlooks: dict[int, Outlook] = {}
    course_of_group = courses(stats, schedule)
    parts: list[pl.DataFrame] = []
    for group in stats.groups:
        course = course_of_group(group)
        if course is None:
            parts.append(
                _empty(group, stats.steps, "its members differ in learning rate or weight decay: no common theory")
            )
            continue
        series = stats.units(group.name)
        moved = series.dd[np.isfinite(series.dd)]
        if len(moved) and not moved.any() and len(stats.steps) > 1:
            parts.append(_empty(group, stats.steps, "the weights never move"))
            continue
        if id(course) not in outlooks:
            outlooks[id(course)] = _outlook(course, len(stats.steps))
        parts.append(_rows(group, series, outlooks[id(course)], stats.steps))
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def _outlook(course: Course, count: int) -> Outlook:
    """Everything that needs the schedule alone, for `count` checkpoints."""
    maps = interval_maps(course)
    angle, rate, halves = (np.full(count, np.nan) for _ in range(3))
    words, passed = [], 0.0
    for i in range(count):
        angle[i], rate[i], word = _equilibrium(course, i)
        if count == 1 and word == NO_ROW:
            word = "one checkpoint: no schedule"
        words.append(word)
        passed += _half_lives(course, i) if i else 0.0
        halves[i] = passed if count > 1 else np.nan
    left_out = np.array([False] + [old_velocity(course, i) for i in range(1, len(course.steps))])
    return Outlook(course, maps, correction(course, maps[0], maps[1]), angle, rate, halves, tuple(words), left_out)


def _equilibrium(course: Course, i: int) -> tuple[float, float, str]:
    """θ* and relaxation rate of the update that made checkpoint i and the formula, or NaN and the reason."""
    j = course.update_at(i)
    law, trouble, x = course.laws[j], course.trouble(j), course.decay_at(i)
    if trouble or isinstance(law, str):
        return np.nan, np.nan, trouble
    if 0 in (course.decay[j], course.weight_decay[j]):
        return np.nan, np.nan, NO_DECAY
    if not x > 0:
        unknown = (
            "weight decay unknown" if np.isnan(course.weight_decay[j] + course.decay[j]) else "learning rate unknown"
        )
        if course.uncertain[i]:
            unknown = "learning rate of this update unknown: it changed somewhere since the checkpoint before"
        return np.nan, np.nan, "learning rate 0: no equilibrium" if x == 0 else unknown
    a = float(course.momentum[j])
    words = law.source
    number = float(sgd.momentum_number(x, a))
    if law.coupled and number > 1 / 16:
        words += (
            f"; momentum number A = {number:.2g} > 1/16: the norm oscillates, no half-lives "
            f"(its swings die out at −ln(α)/2 = {-log(a) / 2:.2g} per step)"
        )
    rate = float(law.relaxation_rate(x, a, course.beta2[j]))
    return float(angle_of_cosine(law.equilibrium_cosine(x, a))), rate, words


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
        gradients = gradients_from_buffers(series, course)
        gradients = gradients or gradients_from_norms(series, *outlook.maps, outlook.left_out)
    norms, norm_words = _equilibrium_norms(group, course, gradients, count)
    expected = expected_norms(group, series, course, outlook.maps, outlook.correction, family, gradients)
    turned = diffusion(series, course)
    columns = {
        "equilibrium_angular_update": outlook.angle,
        "equilibrium_norm": norms[0],
        "equilibrium_norm_low": norms[1],
        "equilibrium_norm_high": norms[2],
        "expected_norm": expected.norm,
        "expected_norm_low": expected.low,
        "expected_norm_high": expected.high,
        "diffusion_angle": turned.angle,
        "excess_retention": turned.excess,
        "relaxation_rate": outlook.rate,
        "half_lives": outlook.half_lives,
    }
    words = list(outlook.words)
    saved = foreseen(series, group.numel, course, count)
    if saved is not None:
        columns |= {
            "equilibrium_angular_update": saved.angle, "equilibrium_norm": saved.norm, "expected_norm": saved.expected,
            "relaxation_rate": saved.rate, "half_lives": saved.half_lives,
        }  # fmt: skip
        words = [adam_l2.SOURCE_STATE if np.isfinite(v) else w for v, w in zip(saved.angle, words, strict=True)]
        expected_words = "expected norm: dn/dt = η²d − 2x_e n with L from the saved second moments"
    else:
        expected_words = expected.words
    basis = gradients.basis if gradients else "theory"
    prefix = "; ".join(filter(None, [standing(group), reference(group, family)]))
    tails = [] if sums.all() else ["some weights are missing or not finite"]
    sources = []
    for i in range(count):
        form = f"diffusion angle: {turned.words[i]}" if np.isfinite(turned.angle[i]) else ""
        assumed = course.assumed[course.update_at(i)]
        parts = [prefix, words[i], norm_words[i], expected_words, form, assumed, *tails]
        sources.append("; ".join(filter(None, parts)))
    return pl.DataFrame(
        {
            "group": [group.name] * count,
            "step": list(steps),
            **{name: _nullable(values) for name, values in columns.items()},
            "norm_basis": [basis if np.isfinite(v) else None for v in columns["equilibrium_norm"]],
            "source": sources,
        },
        schema_overrides=SCHEMA,
    ).select(list(SCHEMA))


def _equilibrium_norms(
    group: Group, course: Course, gradients: Gradients | None, count: int
) -> tuple[Floats, list[str]]:
    """Norm at equilibrium, low, high [3, T] and words per checkpoint."""
    out, words = np.full((3, count), np.nan), [""] * count
    for i in range(count):
        j, x, rate = course.update_at(i), course.decay_at(i), course.rate_at(i)
        law, a = course.laws[j], float(course.momentum[j])
        if isinstance(law, str) or course.trouble(j) or not x > 0:
            continue
        if law.power == 2:
            if course.rate_known and rate > 0:
                out[0, i] = sqrt(float(law.level(rate, x, a)) * group.numel)
                words[i] = law.norm_words
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


def _nullable(values: Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _empty(group: Group, steps: tuple[int, ...], reason: str) -> pl.DataFrame:
    """Rows without numbers, with the reason."""
    count = len(steps)
    words = "; ".join(filter(None, [standing(group), reason]))
    columns = {name: [None] * count for name in SCHEMA}
    columns |= {"group": [group.name] * count, "step": list(steps), "source": [words] * count}
    return pl.DataFrame(columns, schema=SCHEMA)
