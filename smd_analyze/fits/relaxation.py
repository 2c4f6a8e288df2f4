"""How fast ‖w‖⁴ relaxes: the linear map of an interval, its weighted fit, and the Ornstein-Uhlenbeck fit.

S = ‖w‖⁴ of the SGD family obeys S' = q²S + η_e²L(1 + q) + noise, q = (1 − x_e)², η_e = η/(1 − α): the noise is
additive and independent of S, so sparse checkpoints are an AR(1) series. Source: the recursion of ‖w‖² for tangent
gradients (Wan et al. 2021, arXiv:2006.08419), for its square; profile likelihood, t-corrected threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GOLDEN = 0.6180339887498949
GRID = 80  # points of the logarithmic grid on which the rate is first looked for
Objective = Callable[[np.ndarray], np.ndarray]


def threshold(intervals: int, parameters: int = 2, level: float = 0.95) -> float:
    """Likelihood-ratio threshold for few data: m ln(1 + t²/(m − p)), t the quantile at m − p degrees of freedom."""
    from scipy.special import stdtrit  # heavy

    freedom = intervals - parameters
    t = float(stdtrit(freedom, 0.5 * (1 + level)))
    return float(intervals * np.log1p(t * t / freedom))


def segment(eta: float | np.ndarray, decay: float | np.ndarray, steps: float | np.ndarray) -> tuple[np.ndarray, ...]:
    """(Φ, B, C) of `steps` updates with constant η_e and x_e = `decay`: S' = Φ S + L B + ε, Var ε = V·C.

    Arrays broadcast; x_e = 0 gives Φ = 1, B = 2η²k, C = 4η⁴k.
    """
    q = (1 - np.asarray(decay, float)) ** 2
    f = q * q
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_f = np.where(f < 1, (1 - f**steps) / (1 - f), steps)
        sum_ff = np.where(f < 1, (1 - f ** (2 * np.asarray(steps))) / (1 - f * f), steps)
    return f**steps, np.asarray(eta) ** 2 * (1 + q) * sum_f, 4 * f * np.asarray(eta) ** 4 * sum_ff


@dataclass(frozen=True)
class Scale:
    """The gradient's scale L = E‖g̃‖² with its standard error and t interval."""

    value: float
    error: float
    low: float
    high: float


def gradient_scale(s: np.ndarray, phi: np.ndarray, b: np.ndarray, c: np.ndarray, level: float = 0.95) -> Scale:
    """Weighted least squares of L in S_{i+1} = Φ_i S_i + L B_i + ε_i, the decay trusted; exact under the model.

    s [m + 1] is ‖w‖⁴; phi, b, c [m] as `segment` returns them.
    """
    from scipy.special import stdtrit  # heavy

    y, m = s[1:] - phi * s[:-1], len(phi)
    weight = (b * b / c).sum()
    value = float((y * b / c).sum() / weight)
    error = float(np.sqrt(((y - b * value) ** 2 / c).sum() / (m - 1) / weight))
    half = float(stdtrit(m - 1, 0.5 * (1 + level))) * error
    return Scale(value, error, value - half, value + half)


@dataclass(frozen=True)
class Relaxation:
    """Rates of units, arrays [units]: r per step, S*, innovation variance, and the profile interval of r.

    `low` 0: not relaxed enough, S* has no finite upper bound. `high` infinite: stationary or sampled too sparsely.
    """

    rate: np.ndarray
    level: np.ndarray
    variance: np.ndarray
    low: np.ndarray
    high: np.ndarray


def ou_ml(t: np.ndarray, s: np.ndarray) -> Relaxation:
    """Maximum likelihood of dS = −r(S − S*)dt + noise per unit, from s [T, units] at steps t [T] of any spacing.

    The interval of r is the t-corrected profile one. It covers only while S* is constant: where the gradient's scale
    drifts during a stretch of constant learning rate it does not, so it serves no verdict. Stationary series bias r by
    +4/(t[-1] − t[0]).
    """
    s = np.asarray(s, float).reshape(len(t), -1)
    gaps = np.diff(np.asarray(t, float))[:, None]
    m, units = len(gaps), s.shape[1]

    def terms(log_rate: np.ndarray) -> tuple[np.ndarray, ...]:
        r = np.exp(log_rate)[None, :]
        phi, b, c = np.exp(-r * gaps), -np.expm1(-r * gaps), -np.expm1(-2 * r * gaps)
        y = s[1:] - phi * s[:-1]
        level = (y * b / c).sum(axis=0) / (b * b / c).sum(axis=0)
        q = ((y - b * level) ** 2 / c).sum(axis=0)
        return level, q, -0.5 * m * np.log(q) - 0.5 * np.log(c).sum(axis=0)

    low, high = np.log(0.01 / gaps.sum()), np.log(30 / gaps.min())
    grid = np.linspace(low, high, GRID)
    values = np.array([terms(np.full(units, g))[2] for g in grid])
    peak = values.argmax(axis=0)
    best = maximise(lambda x: terms(x)[2], grid[np.maximum(peak - 1, 0)], grid[np.minimum(peak + 1, GRID - 1)])
    level, q, top = terms(best)
    limit = top - 0.5 * threshold(m)
    ends = [crossing(lambda x: terms(x)[2] - limit, best, np.full(units, end)) for end in (low, high)]
    return Relaxation(
        np.exp(best), level, q / (m - 2), np.where(np.isnan(ends[0]), 0.0, np.exp(ends[0])),
        np.where(np.isnan(ends[1]), np.inf, np.exp(ends[1])),
    )  # fmt: skip


def maximise(f: Objective, a: np.ndarray, b: np.ndarray, rounds: int = 45) -> np.ndarray:
    """Golden-section maximum of f between a and b, elementwise."""
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fc, fd = f(c), f(d)
    for _ in range(rounds):
        left = fc > fd
        a, b = np.where(left, a, c), np.where(left, d, b)
        c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
        fc, fd = f(c), f(d)
    return 0.5 * (a + b)


def crossing(f: Objective, inside: np.ndarray, outside: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Where f, positive at `inside`, turns negative on the way to `outside`, by bisection; NaN where it does not."""
    never = f(outside) > 0
    for _ in range(rounds):
        middle = 0.5 * (inside + outside)
        positive = f(middle) > 0
        inside, outside = np.where(positive, middle, inside), np.where(positive, outside, middle)
    return np.where(never, np.nan, 0.5 * (inside + outside))
