"""Maximum likelihood of an Ornstein-Uhlenbeck process: rate and level of a variable that relaxes linearly.

dY = −r(Y − Y*)dt + noise, sampled at steps of any spacing: Y_{i+1} = φY_i + (1−φ)Y* + ε, φ = e^{−rΔ}, Var ε ∝ 1 − φ².
‖w‖⁴ of the SGD family obeys it (Wan et al. 2021, arXiv:2006.08419), ‖w‖² of AdamW, Lion and Muon, while the gradient's
scale is constant: where it drifts the interval of r does not cover, so `drop` decides what is printed.
Small samples: the profile likelihood's threshold is m ln(1 + t²/(m−2)) instead of χ²; 93–97 % coverage at 5 to 100
points off equilibrium, less for stationary series (`bootstrap` covers there).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

GOLDEN = 0.6180339887498949
GRID = 80  # points of the logarithmic grid on which the rate is first looked for
PRECISION = 1e-13
CHUNK = 512  # units fitted at once: their arrays stay in the cache
ACROSS = 41  # rates within the interval at which the joint profile is read
Objective = Callable[[np.ndarray], np.ndarray]


def threshold(intervals: int, parameters: int = 2, level: float = 0.95) -> float:
    """Likelihood-ratio threshold for few data: m ln(1 + t²/(m − p)), t the quantile at m − p degrees of freedom."""
    from scipy.special import stdtrit  # heavy

    freedom = intervals - parameters
    t = float(stdtrit(freedom, 0.5 * (1 + level)))
    return float(intervals * np.log1p(t * t / freedom))


@dataclass(frozen=True)
class Relaxation:
    """Fits of units, arrays [units]: rate r per step with its interval, level Y* with its interval, Var Y at rest.

    `low` 0: not relaxed enough, Y* has no finite upper bound. `high` infinite: stationary, or sampled too sparsely.
    `wait`, `wait_low`, `wait_high`: steps after the last point until Y is within `eps` of Y* (relative).
    """

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: np.ndarray
    level_low: np.ndarray
    level_high: np.ndarray
    variance: np.ndarray
    wait: np.ndarray
    wait_low: np.ndarray
    wait_high: np.ndarray

    def unbiased(self, span: float) -> np.ndarray:
        """r − 4/span: what is left of the rate of a stationary series without its small-sample bias (at least 0)."""
        return np.maximum(self.rate - 4 / span, 0.0)


class Profile:
    """The likelihood of r, level and variance profiled out, for s [T, units] at steps t [T].

    Intervals of equal length enter by their sums alone: of d = ΔY and u = Y − Y_T. In them Q loses what is below
    PRECISION of Σd²/c, which no saved norm resolves.
    """

    def __init__(self, t: np.ndarray, s: np.ndarray) -> None:
        gaps = np.diff(np.asarray(t, float))
        self.shortest, self.span, self.m = float(gaps.min()), float(gaps.sum()), len(gaps)
        self.kinds, which = np.unique(gaps, return_inverse=True)
        self.last = s[-1]
        self.units = s.shape[1]
        d, u = np.diff(s, axis=0), s[:-1] - s[-1]
        chosen = np.asarray(which).reshape(-1) == np.arange(len(self.kinds))[:, None]  # [kinds, m]
        self.count = chosen.sum(axis=1)[:, None].astype(float)
        self.sums = tuple(chosen.astype(float) @ z for z in (d * d, d * u, u * u, d, u))

    def terms(self, log_rate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(Y*, Σb²/c, Q, log likelihood) [units] at log_rate [units]."""
        b = -np.expm1(-np.exp(log_rate)[None, :] * self.kinds[:, None])  # 1 − φ
        c = b * (2 - b)  # 1 − φ²
        dd, du, uu, d, u = self.sums
        weight = (self.count * b * b / c).sum(axis=0)
        above = ((d + b * u) * b / c).sum(axis=0) / weight  # Y* − Y_T
        size = (dd / c).sum(axis=0)
        q = size + ((2 * du + b * uu - 2 * above * (d + b * u)) * b / c).sum(axis=0) + weight * above**2
        q = np.maximum(q, PRECISION * size + 1e-300)
        logs = (self.count * np.log(c)).sum(axis=0)
        return self.last + above, weight, q, -0.5 * self.m * np.log(q) - 0.5 * logs

    def likelihood(self, log_rate: np.ndarray) -> np.ndarray:
        """Log likelihood [units]."""
        return self.terms(log_rate)[3]

    @property
    def ends(self) -> tuple[float, float]:
        """Range of ln r that the data could tell at all."""
        return float(np.log(0.01 / self.span)), float(np.log(30 / self.shortest))

    def best(self) -> np.ndarray:
        """ln r of the highest likelihood [units]: a grid, then golden section."""
        units = self.units
        grid = np.linspace(*self.ends, GRID)
        peak = np.array([self.likelihood(np.full(units, g)) for g in grid]).argmax(axis=0)
        return maximise(self.likelihood, grid[np.maximum(peak - 1, 0)], grid[np.minimum(peak + 1, GRID - 1)])


def ou_ml(t: np.ndarray, s: np.ndarray, eps: float = 0.1) -> Relaxation:
    """Fit every unit of s [T, units] at steps t [T]. Units are independent of each other and of their order."""
    s = np.asarray(s, float).reshape(len(t), -1)
    parts = [_chunk(t, s[:, i : i + CHUNK], eps) for i in range(0, s.shape[1], CHUNK)]
    return Relaxation(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Relaxation)))


def _chunk(t: np.ndarray, s: np.ndarray, eps: float) -> Relaxation:
    profile = Profile(t, s)
    m, units = profile.m, s.shape[1]
    best = profile.best()
    level, _, q, top = profile.terms(best)
    limit = top - 0.5 * threshold(m)
    low, high = (crossing(lambda x: profile.likelihood(x) - limit, best, np.full(units, end)) for end in profile.ends)
    ends = np.where(np.isnan(low), profile.ends[0], low), np.where(np.isnan(high), profile.ends[1], high)
    levels, waits = [], []
    for share in np.linspace(0, 1, ACROSS):
        x = (1 - share) * ends[0] + share * ends[1]
        middle, weight, here, value = profile.terms(x)
        room = here * np.expm1(np.maximum(2 / m * (value - limit), 0.0)) / weight
        for y in (middle - np.sqrt(room), middle, middle + np.sqrt(room)):
            levels.append(y)
            waits.append(wait(s[-1], y, np.exp(x), eps))
    bottom, ceiling = np.min(levels, axis=0), np.max(levels, axis=0)
    around = (bottom < s[-1]) & (s[-1] < ceiling)
    return Relaxation(
        np.exp(best), np.where(np.isnan(low), 0.0, np.exp(low)), np.where(np.isnan(high), np.inf, np.exp(high)),
        level, bottom, np.where(np.isnan(low), np.inf, ceiling), q / (m - 2), wait(s[-1], level, np.exp(best), eps),
        np.where(around, 0.0, np.min(waits, axis=0)), np.where(np.isnan(low), np.inf, np.max(waits, axis=0)),
    )  # fmt: skip


def wait(now: np.ndarray, level: np.ndarray, rate: np.ndarray, eps: float) -> np.ndarray:
    """Steps until |Y/Y* − 1| is down to eps: ln(|now/level − 1|/eps)/rate, 0 if it is; infinite without a level."""
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.log(np.abs(now / level - 1) / eps) / rate
    return np.where(level > 0, np.maximum(left, 0.0), np.inf)


def maximise(f: Objective, a: np.ndarray, b: np.ndarray, rounds: int = 35) -> np.ndarray:
    """Golden-section maximum of f between a and b, elementwise."""
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fc, fd = f(c), f(d)
    for _ in range(rounds):
        left = fc > fd
        a, b = np.where(left, a, c), np.where(left, d, b)
        point = np.where(left, b - GOLDEN * (b - a), a + GOLDEN * (b - a))
        value = f(point)
        c, d = np.where(left, point, d), np.where(left, c, point)
        fc, fd = np.where(left, value, fd), np.where(left, fc, value)
    return 0.5 * (a + b)


def crossing(f: Objective, inside: np.ndarray, outside: np.ndarray, rounds: int = 40) -> np.ndarray:
    """Where f, positive at `inside`, turns negative on the way to `outside`, by bisection; NaN where it does not."""
    never = f(outside) > 0
    for _ in range(rounds):
        middle = 0.5 * (inside + outside)
        positive = f(middle) > 0
        inside, outside = np.where(positive, middle, inside), np.where(positive, outside, middle)
    return np.where(never, np.nan, 0.5 * (inside + outside))
