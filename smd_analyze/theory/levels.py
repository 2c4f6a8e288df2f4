"""How large the unit gradients are, unit by unit, and the norm at which decay balances them (SGD family).

L = E‖g̃‖² comes from saved momentum buffers ("theory") or from how the norms moved ("extrapolated").
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory import sgd
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course

WINDOW = 5  # checkpoints, or intervals, whose L is pooled for the level at one checkpoint
FLOOR = 0.002  # relative noise of ‖w‖⁴ below which an interval gains no more weight
T975 = (np.nan, 12.706, 4.303, 3.182, 2.776)  # Student's t, 97.5 %, by degrees of freedom up to WINDOW − 1


@dataclass(frozen=True)
class Gradients:
    """Estimates of L per unit. Row j: L_j = top[j]/weight[j], pooled by Σ top / Σ weight; NaN rows are left out.

    `top` [J, units], `weight` [J]; `place` [J]: the checkpoint that row j belongs to. `basis`: theory or extrapolated.
    """

    top: Floats
    weight: Floats
    place: np.ndarray
    basis: str

    def pooled(self, rows: np.ndarray) -> Floats:
        """L of every unit [units] from the given rows, never negative."""
        return np.maximum(self.top[rows].sum(axis=0) / self.weight[rows].sum(), 0.0)


def gradients_from_buffers(series: UnitSeries, course: Course) -> Gradients | None:
    """L = (1−α²) n ‖v_⊥‖² at every checkpoint with a saved momentum buffer; None if there is none (or no momentum)."""
    if series.uu is None or series.wu is None or not course.rate_known:
        return None
    at = [course.update_at(i) for i in range(len(course.steps))]
    momentum = course.momentum[at][:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        dampened = course.rate_first[at] / course.raw_first[at]
    dampened = np.where(course.raw_first[at] > 0, dampened, 1.0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        tangent = np.maximum(series.uu - series.wu**2 / series.vv, 0)
        top = sgd.gradient_from_buffer(series.vv, tangent, momentum) / dampened**2
    top = np.where(series.vv == 0, 0.0, top)  # dead units have no gradient to speak of
    usable = np.isfinite(top).all(axis=1) & (momentum[:, 0] > 0) & (top > 0).any(axis=1)
    place = np.flatnonzero(usable)
    return Gradients(top[place], np.ones(len(place)), place, "theory") if len(place) else None


def gradients_from_norms(
    series: UnitSeries, phi: Floats, b: Floats, c: Floats, left_out: np.ndarray | None = None
) -> Gradients | None:
    r"""L_i = (S_{i+1} − Φ_i S_i)/B_i of every interval, weighted by its precision B²/C.

    $$ \hat L = \frac{\sum y_i B_i/\tilde C_i}{\sum B_i^2/\tilde C_i},\quad y_i = S_{i+1} - \Phi_i S_i,\
       \tilde C_i = C_i + (0.002\,S_i)^2/V $$

    `left_out` [T]: intervals that do not follow the map, used only if there are no others. The floor in C̃ (V ≈ L²,
    median over the units) keeps nearly noise-free late intervals from outvoting all others.
    Source: weighted least squares of the discretely observed linear equation of ‖w‖⁴.
    """
    s = series.vv**2
    y = s[1:] - phi[1:, None] * s[:-1]
    usable = np.isfinite(y).all(axis=1) & (b[1:] > 0)
    if left_out is not None and (usable & ~left_out[1:]).any():
        usable &= ~left_out[1:]
    rows = np.flatnonzero(usable)
    if not len(rows):
        return None
    y, b, c, s = y[rows], b[1:][rows], c[1:][rows], s[:-1][rows]
    rough = np.abs(y).sum(axis=0) / b.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(rough > 0, s / rough, np.nan)
    alive = np.isfinite(relative).any(axis=0)
    floor = (FLOOR * np.median(relative[:, alive], axis=1)) ** 2 if alive.any() else np.zeros(len(rows))
    precision = b / (c + floor)
    precision /= precision.max()  # keeps tiny learning rates away from underflow
    return Gradients(y * precision[:, None], b * precision, rows + 1, "extrapolated")


def level_at(gradients: Gradients, i: int, per_gradient: float) -> tuple[float | None, float | None, float | None]:
    r"""Weight norm of the group at equilibrium, from the WINDOW rows nearest to checkpoint i, and its 95 % interval.

    $$ \lVert W\rVert^{*2} = \sum_u \sqrt{L_u\, s}, \qquad s = S^*/L $$

    Args: `per_gradient` = s, of the update at checkpoint i [weight⁴/loss²].
    Returns: norm, low, high [weight]; the interval is the jackknife over the rows (Student's t, on the logarithm):
    it holds noise and drift of L within the window; None for fewer than three rows or where L is not positive.
    """
    near = np.argsort(np.abs(gradients.place - i), kind="stable")[:WINDOW]
    scale = sqrt(per_gradient)

    def norm(rows: np.ndarray) -> float:
        return sqrt(scale * float(np.sqrt(gradients.pooled(rows)).sum()))

    value = norm(near)
    m = len(near)
    if not value > 0:
        return None, None, None
    if m < 3:
        return value, None, None
    without = np.array([norm(np.delete(near, j)) for j in range(m)])
    if not (without > 0).all():
        return value, None, None
    logs = np.log(without)
    error = sqrt((m - 1) / m * float(((logs - logs.mean()) ** 2).sum())) * T975[m - 1]
    return value, value * float(np.exp(-error)), value * float(np.exp(error))
