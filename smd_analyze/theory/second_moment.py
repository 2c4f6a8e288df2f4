"""Adam with L2 decay in the gradient, predicted from its saved second moments: level, angle, rate and norm."""

from dataclasses import dataclass
from math import log

import numpy as np

from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory import adam_l2
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.geometry import angle_of_cosine

LARGEST = 0.05  # decay per step beyond which a unit's balance is none: theory needs x_e ≪ 1


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
        sizes = adam_l2.gradient_from_state(series.vv, series.ss, numel / series.vv.shape[1]) / _lag(series, course)
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
        effective = np.where(effective < LARGEST, effective, np.nan)  # nearly dead units: decay is all they feel
        if not np.isfinite(effective).any():
            continue
        out["angle"][i] = np.sqrt(np.nanmean(angle_of_cosine(adam_l2.equilibrium_cosine(effective, b1)) ** 2))
        out["norm"][i] = np.sqrt(np.nansum(norm**2))
        out["rate"][i] = np.nanmedian(adam_l2.relaxation_rate(effective))
    expected, halves = _followed(series, course, size, each, out["rate"], count)
    return Foreseen(**out, expected=expected, half_lives=halves)


def _lag(series: UnitSeries, course: Course) -> Floats:
    r"""v̂ over its value if the norm had not moved [T, units], ln n taken as linear over the t steps made.

    $$ \frac{1-\beta_2}{1-\beta_2^t}\sum_{j<t}\beta_2^j \frac{n_t}{n_{t-j}} $$

    1 where the norm before is not known; kept within 1/3 and 3, beyond which the slope says little.
    """
    out = np.ones_like(series.vv)
    for i in range(1, len(series.vv)):
        b2, k = course.beta2[i], course.lengths[i]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.log(series.vv[i] / series.vv[i - 1]) / k
            factor, t = b2 * np.exp(slope), course.made[i]
            out[i] = (1 - b2) / (1 - b2**t) * np.expm1(t * np.log(factor)) / (factor - 1)
    return np.clip(np.where(np.isfinite(out), out, 1.0), 1 / 3, 3)


def _followed(
    series: UnitSeries, course: Course, size: Floats, each: float, rate: Floats, count: int
) -> tuple[Floats, Floats]:
    """Expected norm from the first checkpoint on, and half-lives passed, with L between two checkpoints their mean."""
    expected, halves = np.full(count, np.nan), np.full(count, np.nan)
    n = series.vv[0].copy()
    expected[0], halves[0] = np.sqrt(n.sum()), 0.0
    alive = np.isfinite(size).all(axis=0) & (n > 0)
    state, made = (n[alive], 1 / n[alive]), course.made[0]
    for i in range(1, count):
        k = course.lengths[i]
        if not np.isfinite(course.decay[i] + course.rate_mean[i] + k + course.beta2[i]):
            break
        gradient = (size[i - 1, alive] + size[i, alive]) / 2
        for eta, x, steps in zip(*course.pieces(i), strict=True):
            if eta > 0:
                state = adam_l2.squared_norm_after(
                    state, eta, x / eta, course.beta2[i], gradient, each, steps, made if course.made[0] == 0 else np.inf
                )
            made += steps
        n[alive] = state[0]
        expected[i] = np.sqrt(n.sum())
        halves[i] = halves[i - 1] + rate[i] * k / log(2)
    return expected, halves
