r"""What the ε of a batch normalization does to the balance: weights are scale-invariant only up to it.

For y = γx̂ + β, x̂ = (z − μ)/√(s + ε), scaling the weights moves the output by ε/(s + ε) of it, so that
$\langle w, g\rangle = \frac{\varepsilon}{s+\varepsilon}\,\gamma\,\partial L/\partial\gamma$ per unit: exact for one
batch. The gain's own course tells γ ∂L/∂γ: where decay pulls γ in, the gradient pushes it, and the weights, outwards.
With γ ≈ 1, ‖w‖² ≈ 0.1 and ε at 2 % of the variance this balances a fifth of the weights' decay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Normalizer, Statistics, UnitSeries
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course, course_of
from smd_analyze.theory.laws import Law

HEAT = 0.5  # of the gain's own decay: how much of it the gradient's noise may balance; 0.3 in small networks
NAMED = 0.02  # of θ² from which it is worth a note


@dataclass(frozen=True)
class Softening:
    """Per interval, mean over the units [T]: least and most of Σρ, ρ = ⟨w, g⟩η_e/‖w‖² (added to x_e); and its name."""

    least: Floats
    most: Floats
    words: str


def softenings(stats: Statistics, schedule: Schedule) -> Callable[[Group, UnitSeries, Course], Softening | None]:
    """A function that gives a group's softening; None where no batch normalization with saved numbers follows it."""
    courses: dict[str, Course] = {}

    def softening(group: Group, series: UnitSeries, course: Course) -> Softening | None:
        found = stats.normalizers.get(group.name)
        if found is None or len(stats.steps) < 2:
            return None
        name = schedule.parameter_group.get(found.gain_name, "")
        if name not in courses:
            courses[name] = course_of(schedule, name, stats.steps)
        return _softening(found, series, course, courses[name])

    return softening


def _softening(norm: Normalizer, series: UnitSeries, course: Course, gains: Course) -> Softening:
    r"""Σρ of every interval between least and most.

    $$ \sum\rho = \frac{\varepsilon}{(s+\varepsilon)n}\Big(-\tfrac12\Delta\gamma^2 - \gamma^2\sum x_e^\gamma + h\Big),
       \quad 0 \le h \le \tfrac12\gamma^2\sum x_e $$

    h: what noise adds to γ², which nothing saved tells. A gain's decay that is not known is taken as the weights'.
    Source: sum of γ'² − γ² over γ's updates, as for ‖w‖² in theory/sgd.py.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = norm.epsilon / ((norm.variance + norm.epsilon) * series.vv)
    square = norm.gain**2
    own, gain_own = (_effective(c) for c in (course, gains))
    gain_own = np.where(np.isfinite(gain_own), gain_own, own)[1:, None]
    between, middle = (share[1:] + share[:-1]) / 2, (square[1:] + square[:-1]) / 2
    with np.errstate(invalid="ignore"):  # a unit of zeros: infinite × 0, not counted
        least = between * (-np.diff(square, axis=0) / 2 - gain_own * middle)
        most = least + HEAT * between * middle * own[1:, None]
    alive = (series.vv[1:] > 0) & (series.vv[:-1] > 0)
    sums = [np.where(alive, np.nan_to_num(v, posinf=0.0, neginf=0.0), 0.0).sum(axis=1) for v in (least, most)]
    least, most = (np.append(0.0, v / np.maximum(alive.sum(axis=1), 1)) for v in sums)
    assumed = " assumed" if norm.assumed else ""
    return Softening(np.minimum(least, 0), np.maximum(most, 0), f"ε = {norm.epsilon:g}{assumed} of the batch norm")


def _effective(course: Course) -> Floats:
    """Σx_e of every interval [T]; NaN where no law of the SGD family acts."""
    gains = [
        float(law.amplification(a)) if isinstance(law, Law) and law.power == 4 and not np.isnan(a) else np.nan
        for law, a in zip(course.laws, course.momentum, strict=True)
    ]
    return course.decay * np.array(gains)
