"""How far the weights would turn between checkpoints if gradients had zero mean: a reference, never a verdict.

Real networks turn less (weights rattle around a minimum: confinement) or more (drift); both may cancel.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.theory.laws import Law


@dataclass(frozen=True)
class Diffusion:
    """Angle [rad] from the previous checkpoint, excess retention E_k, and the form that gave them; [T], NaN unknown."""

    angle: Floats
    excess: Floats
    words: tuple[str, ...]


def diffusion(series: UnitSeries, course: Course) -> Diffusion:
    r"""Retention a_k = ⟨w_{t+k}, w_t⟩/‖w_t‖² of every unit with zero-mean gradients, at the real spacing.

    It follows the optimizer's own recursion from $a_0 = 1$ and $a_1$, which holds what past updates still do: from the
    saved momentum (`first_from_buffer`) or from the slope of the norm (`first_from_slope`). The layer's cosine is
    $\sum_u a_{k,u} n_{t,u} / \sqrt{\sum n_t \sum n_{t+k}}$, and
    $E_k = \ln \frac{\sum_u\langle w_{t+k}, w_t\rangle_u}{\sum_u a_{k,u}n_{t,u}}$: above 0 confinement, below 0 drift.
    """
    count = len(series.vv)
    angle, excess, words = np.full(count, np.nan), np.full(count, np.nan), [""] * count
    for i in range(1, count):
        law = course.laws[i]
        if isinstance(law, str) or course.trouble(i) or np.isnan(course.lengths[i] + course.decay[i]):
            continue
        k, a = float(course.lengths[i]), float(course.momentum[i])
        x = float(course.decay[i]) / k
        before, after = series.vv[i - 1], series.vv[i]
        if not np.isfinite(before + after).all() or not before.any() or not after.any():
            continue
        first, words[i] = first_from_buffer(series, course, i), "from the saved momentum"
        if first is None:
            first, words[i] = first_from_slope(before, after, k, x, a, law), "from the norm's slope"
        kept = float((law.retention(x, a, first, k) * before).sum())
        cosine = kept / sqrt(float(before.sum()) * float(after.sum()))
        if cosine < 1 + 1e-9:  # larger: the norm fell faster than zero-mean gradients allow
            angle[i] = float(angle_of_cosine(np.asarray(cosine)))
        held = float((after - series.dv[i]).sum())  # ⟨u, v⟩ = Σv² − Σ(v−u)v
        if kept > 0 and held > 0:
            excess[i] = log(held / kept)
    return Diffusion(angle, excess, tuple(words))


def first_from_slope(before: Floats, after: Floats, k: float, x: float, a: float, law: Law) -> Floats:
    r"""$a_1 = \cos\theta_1 + \tfrac12(1-\zeta)\,d\ln n/dt$ per unit: what past updates must be doing for n to move so.

    Quasi-static: the norm changes slowly over the momentum's memory.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where((before > 0) & (after > 0), np.log(after / before) / k, 0.0)
    cosine = law.equilibrium_cosine(x, a) if x > 1e-12 else 1.0
    return cosine + slope * (1 - law.angle_share(a)) / 2


def first_from_buffer(series: UnitSeries, course: Course, i: int) -> Floats | None:
    r"""$a_1 = 1 - x - \eta\alpha\langle w, v\rangle/n$ per unit, exact for zero-mean gradients; None without a buffer.

    Coupled or decoupled decay alike; for AdamW v is m̂/(√v̂+ε) and α is β₁. A velocity that holds its learning rate moves
    on with that of the update before.
    """
    j = course.update_at(i - 1)
    rate = course.raw_last[j] if course.in_velocity[i] else course.raw_first[i]
    if series.wu is None or not course.buffered[j] or not course.buffered[i]:
        return None
    along, n = series.wu[i - 1], series.vv[i - 1]
    if not np.isfinite(rate + course.decay_first[i]) or not np.isfinite(along).all():
        return None
    pulled = np.divide(along, n, out=np.zeros_like(n), where=n > 0)
    return 1 - float(course.decay_first[i]) - float(rate) * float(course.momentum[i]) * pulled
