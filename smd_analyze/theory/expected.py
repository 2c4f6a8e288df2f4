"""The norm that theory expects under the recorded schedule, from the first checkpoint on."""

from dataclasses import dataclass

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.laws import Law
from smd_analyze.theory.levels import Gradients
from smd_analyze.theory.sgd import momentum_number

FEWEST = 5  # intervals from which the scatter of L tells how much a norm fluctuates
Maps = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Expected:
    """Weight norm [T] with the ends of its fluctuation, NaN where unknown, and how it was found."""

    norm: Floats
    low: Floats
    high: Floats
    words: str


def expected_norms(
    group: Group, series: UnitSeries, course: Course, maps: Maps, ratio: tuple[Floats, Floats] | None, law: Law | None,
    gradients: Gradients | None,
) -> Expected:  # fmt: skip
    """Expected norm of the group.

    Low and high: 95 % of how a norm scatters around this course when L fluctuates as much from interval to interval as
    the norms show (SGD family, five intervals or more); units are taken to fluctuate together, which is wider than if
    they did not. A drift of L is in it only as scatter.
    """
    count = len(series.vv)
    none = np.full(count, np.nan)
    if law is None or count < 2:
        return Expected(none, none, none, "")
    if law.power == 2 and not course.rate_known:
        return Expected(none, none, none, "expected norm: learning rate unknown")
    present = np.flatnonzero(np.isfinite(series.vv).all(axis=1))
    if (law.power == 4 and gradients is None) or not len(present):
        return Expected(none, none, none, "")
    if law.coupled and gradients is not None and gradients.basis == "extrapolated":
        number = momentum_number(course.decay[1:] / course.lengths[1:], course.momentum[1:])
        if np.nanmax(np.append(number, 0)) > 1 / 16:
            return Expected(none, none, none, "expected norm: none, the norm oscillates and L would be misread from it")
    if gradients is not None and law.power == 4:
        size = gradients.pooled(np.arange(len(gradients.place)))
    else:
        size = np.full(series.vv.shape[1], group.numel / series.vv.shape[1])
    start = int(present[0])
    if start:
        ratio = None
    squared, deviation = _followed(series.vv[start], start, maps, ratio, size, law, _variance(gradients, size, maps))
    norm = _root(squared)
    factor = _student(len(gradients.place) - 1) if gradients is not None else np.nan
    low, high = _root(np.maximum(squared - factor * deviation, 0)), _root(squared + factor * deviation)
    low[start] = high[start] = np.nan
    return Expected(norm, low, high, f"expected norm: {_how(law, gradients, ratio, course)}")


def _followed(
    first: Floats, start: int, maps: Maps, ratio: tuple[Floats, Floats] | None, size: Floats, law: Law,
    variance: Floats | None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Squared norm of the group [T] from checkpoint `start` on, and its standard deviation (NaN where unknown)."""
    phi, b, c = maps
    half, count = law.power / 2, len(phi)
    y, spread, response = first**half, np.zeros_like(first), 0.0
    squared, deviation = np.full(count, np.nan), np.full(count, np.nan)
    squared[start] = float(first.sum())
    fitted = float(np.nansum(np.divide(b**2, c, out=np.zeros_like(b), where=c > 0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.where(first > 0, np.log(first) - np.log(size) / half, -np.inf)
        for i in range(start + 1, count):
            y = phi[i] * y + size * b[i]
            scale = np.interp(place, np.log(ratio[0]), ratio[1][i]) if ratio else 1.0
            squared[i] = float(((y * scale) ** (1 / half)).sum())
            if variance is not None:
                spread, response = phi[i] ** 2 * spread + variance * c[i], phi[i] * response + b[i]
                total = spread + response**2 * variance / fitted  # its own scatter, and that of the fitted L
                deviation[i] = float((np.sqrt(total) / (2 * np.sqrt(y))).sum())
    return squared, deviation


def _variance(gradients: Gradients | None, size: Floats, maps: Maps) -> Floats | None:
    """Var‖g̃‖² of every unit from the scatter of L over intervals, (L_i − L)² B²/C; None for few of them."""
    if gradients is None or gradients.basis != "extrapolated" or len(gradients.place) < FEWEST:
        return None
    _, b, c = maps
    each = gradients.top / gradients.weight[:, None]
    share = np.divide(b**2, c, out=np.zeros_like(b), where=c > 0)[gradients.place]
    if not (share > 0).all():
        return None
    return ((each - size) ** 2 * share[:, None]).sum(axis=0) / (len(share) - 1)


def _student(freedom: int) -> float:
    """97.5 % quantile of Student's t, Cornish–Fisher expansion; 2 % low at 4 degrees of freedom."""
    if freedom < 1:
        return np.nan
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _root(squared: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.where(squared >= 0, squared, np.nan))


def _how(law: Law, gradients: Gradients | None, ratio: tuple[Floats, Floats] | None, course: Course) -> str:
    """The map that was followed, in words."""
    if law.power == 2:
        return f"mean map of ‖w‖²{' and v̂' if ratio and law.lagging else ''}, assumes zero-mean gradients"
    held = " with the learning rate inside the velocity" if ratio and course.in_velocity[1:].all() else ""
    if gradients is not None and gradients.basis == "theory":
        return f"‖w‖⁴ map{held} with L from the buffers, constant over the run"
    return f"‖w‖⁴ map{held} with one constant L fitted to all intervals (a fit, not a prediction)"
