"""The gradient's scale L from norms with a trusted schedule, in closed form, and what its residuals say.

Y_{i+1} = Φ_i Y_i + L B_i + ε_i, Var ε_i = V C_i (`maps`): weighted least squares of one L, exact under the model. A
relative floor joins the variance, (FLOOR·Y)²: late, almost noise-free intervals of a cosine would else claim what no
map of momentum holds. For AdamW, Lion and Muon the same estimates M, the squared length of a unit step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOOR = 0.0005  # relative error of Y that no map is better than


@dataclass(frozen=True)
class Scale:
    """L of each unit with its standard error and t interval, and the tests of its model. Arrays [units].

    `drift`: t statistic of a linear drift of L over the intervals, `drift_size`: by which factor L changes over them
    according to it; `lag`: lag-1 autocorrelation of the residuals. `picture` [m, units]: L of each interval by itself,
    `error` [m, units] its standard error. `cv`: scatter of one step's ‖g̃‖² over its mean.
    """

    value: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    drift: np.ndarray
    drift_size: np.ndarray
    lag: np.ndarray
    picture: np.ndarray
    picture_error: np.ndarray
    cv: np.ndarray

    @property
    def intervals(self) -> int:
        """Number of intervals m."""
        return len(self.picture)


def gradient_scale(
    y: np.ndarray, phi: np.ndarray, b: np.ndarray, c: np.ndarray, level: float = 0.95, floor: float = 0.0,
    when: np.ndarray | None = None,
) -> Scale:  # fmt: skip
    """Weighted least squares of L, per unit, the decay trusted.

    y [m + 1, units] is ‖w‖⁴ (or ‖w‖²); phi, b, c [m] or [m, units] as `maps.segment` returns them; `when` [m] the
    intervals' middles (default: their number), for the drift.
    """
    from scipy.special import stdtrit  # heavy

    y = np.asarray(y, float).reshape(len(phi) + 1, -1)
    phi, b, c = (np.asarray(a, float).reshape(len(phi), -1) for a in (phi, b, c))
    m = len(phi)
    gain = y[1:] - phi * y[:-1]
    value, spread = _solve(gain, b, c)
    scatter = spread
    if floor:  # variance V·C + (floor·Y)², V from the fit without it, widened where the fit with it is worse
        c = np.maximum(scatter, 1e-300) * c + (floor * y[1:]) ** 2
        value, spread = _solve(gain, b, c)
        spread = np.maximum(spread, 1.0)
    error = np.sqrt(spread / (b * b / c).sum(axis=0))
    half = float(stdtrit(m - 1, 0.5 * (1 + level))) * error
    t, size = _drift(gain, b, c, np.arange(m) if when is None else np.asarray(when, float))
    rest = (gain - b * value) / np.sqrt(c)
    lag = (rest[1:] * rest[:-1]).sum(axis=0) / np.maximum((rest * rest).sum(axis=0), 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        picture, picture_error = gain / b, np.sqrt(spread * c) / b
        cv = np.sqrt(scatter) / np.abs(value)
    return Scale(value, error, value - half, value + half, t, size, lag, picture, picture_error, cv)


def _solve(gain: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L and V."""
    value = (gain * b / c).sum(axis=0) / (b * b / c).sum(axis=0)
    return value, ((gain - b * value) ** 2 / c).sum(axis=0) / max(len(gain) - 1, 1)


def _drift(gain: np.ndarray, b: np.ndarray, c: np.ndarray, when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t statistic of the slope in L = L0 + L1·time, and L at the end over L at the beginning; NaN for m < 4."""
    m, units = len(gain), gain.shape[1]
    if m < 4 or not np.ptp(when) > 0:
        return np.full(units, np.nan), np.full(units, np.nan)
    u = ((when - when[0]) / np.ptp(when))[:, None]
    one, two = b / np.sqrt(c), b * u / np.sqrt(c)
    z = gain / np.sqrt(c)
    aa, ab, bb = ((p * q).sum(axis=0) for p, q in ((one, one), (one, two), (two, two)))
    za, zb = (z * one).sum(axis=0), (z * two).sum(axis=0)
    room = np.maximum(aa * bb - ab * ab, 1e-300)
    start, slope = (bb * za - ab * zb) / room, (aa * zb - ab * za) / room
    variance = ((z - start * one - slope * two) ** 2).sum(axis=0) / (m - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return slope / np.sqrt(variance * aa / room), (start + slope) / start
