"""Adam with L2 decay in the gradient, predicted from its saved second moments: level, angle, rate and norm."""

from dataclasses import dataclass
from math import log

import numpy as np

from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory import adam_l2
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.geometry import angle_of_cosine


@dataclass(frozen=True)
class Foreseen:
    """Of one group, arrays [T], NaN where unknown: angle θ* [rad/step], norm and expected norm [weight], rate [1/step],
    half-lives since the first checkpoint."""

    angle: Floats
    norm: Floats
    expected: Floats
    rate: Floats
    half_lives: Floats


def foreseen(series: UnitSeries, numel: int, course: Course, count: int) -> Foreseen | None:
    """Numbers of every checkpoint from L of its own second moment, or of the nearest checkpoint that has one.

    θ* is the root mean square over the units, ‖w‖*² their sum. None where no second moment, learning rate or decay is
    known, or another optimizer acted somewhere.
    """
    if series.ss is None or set(course.laws[1:]) != {adam_l2.SOURCE} or not course.rate_known:
        return None
    with np.errstate(invalid="ignore"):
        sizes = adam_l2.gradient_from_state(series.vv, series.ss, numel / series.vv.shape[1])
    have = np.flatnonzero(np.isfinite(sizes).all(axis=1) & (sizes > 0).any(axis=1))
    if not len(have):
        return None
    each = numel / series.vv.shape[1]
    size = np.array([sizes[have[np.argmin(np.abs(have - i))]] for i in range(count)])
    size[:, ~(size > 0).all(axis=0)] = np.nan  # dead units
    out = {name: np.full(count, np.nan) for name in ("angle", "norm", "rate")}
    for i in range(count):
        j, eta, x = course.update_at(i), course.rate_at(i), course.decay_at(i)
        b1 = course.momentum[j]
        if not x > 0 or not eta > 0 or np.isnan(b1):
            continue
        norm = adam_l2.equilibrium_norm(eta, x / eta, size[i], each)
        effective = adam_l2.effective_decay(eta, x / eta, size[i], each, norm**2)
        out["angle"][i] = np.sqrt(np.nanmean(angle_of_cosine(adam_l2.equilibrium_cosine(effective, b1)) ** 2))
        out["norm"][i] = np.sqrt(np.nansum(norm**2))
        out["rate"][i] = np.nanmedian(adam_l2.relaxation_rate(effective))
    expected, halves = _followed(series, course, size, each, out["rate"], count)
    return Foreseen(**out, expected=expected, half_lives=halves)


def _followed(
    series: UnitSeries, course: Course, size: Floats, each: float, rate: Floats, count: int
) -> tuple[Floats, Floats]:
    """Expected norm from the first checkpoint on, and half-lives passed, with L between two checkpoints their mean."""
    expected, halves = np.full(count, np.nan), np.full(count, np.nan)
    n = series.vv[0].copy()
    expected[0], halves[0] = np.sqrt(n.sum()), 0.0
    alive = np.isfinite(size).all(axis=0)
    for i in range(1, count):
        k = course.lengths[i]
        if not np.isfinite(course.decay[i] + course.rate_mean[i] + k):
            break
        gradient = (size[i - 1, alive] + size[i, alive]) / 2
        for eta, x, steps in zip(*course.pieces(i), strict=True):
            if eta > 0:
                n[alive] = adam_l2.squared_norm_after(n[alive], eta, x / eta, gradient, each, steps)
        expected[i] = np.sqrt(n.sum())
        halves[i] = halves[i - 1] + rate[i] * k / log(2)
    return expected, halves
