"""Rates of a settled clock: constant x = ηλ, and long enough (about 1/(1−α) updates) after its last change.

With u = 1 − c'/c the characteristic equations read u² − bu + x = 0; this form keeps every digit at small x. Derivation
for heavy ball: q' = αq + (1−τ)λc, c' = c − ηq', and both shrink by z = 1 − u. Where the roots are complex the component
swings around zero instead of shrinking: there is no rate, and the functions return NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smd_analyze.decay_formulas.rounding import fp32_factor

Floats = npt.NDArray[np.float64]


def coupled_rate(
    decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0, nesterov: bool = False, dampening: npt.ArrayLike = 0.0
) -> Floats:
    """−ln(c'/c) per update where λw is part of the gradient: SGD, heavy ball, Nesterov, in whatever parametrisation.

    `decay` x = ηλ. SGD: −ln(1−x). Heavy ball: −ln z, z the larger root of z² − (1+α−x)z + α = 0, about
    x_e(1 + αx/(1−α)²) with x_e = x/(1−α). Nesterov: z² − (1+α)(1−x)z + α(1−x) = 0. Dampening τ acts as x(1−τ) (heavy
    ball only). Learning rate inside or outside the velocity makes no difference at constant η. Broadcasts; NaN where
    `oscillates`. Source: derived in the module's docstring; checked on trained nets to six digits.
    """
    a, x = np.asarray(momentum, np.float64), _damped(decay, momentum, dampening)
    b = _middle(x, a, nesterov)
    with np.errstate(invalid="ignore", divide="ignore"):
        u = 2 * x / (b + np.sqrt(b * b - 4 * x))
        return -np.log1p(-np.where(a == 0, x, u))


def decoupled_rate(decay: npt.ArrayLike, *, exact: bool = False) -> Floats:
    """−ln(c'/c) per update where the decay multiplies the weight: SGDW, AdamW, Lion, Muon.

    `decay` x = ηλ. PyTorch on CPU multiplies fp32 weights by 1 − ηλ rounded to fp32, so that x = 2e-6 acts as
    2.02656e-6 and x < 2⁻²⁵ as 0: −ln(fl32(1−x)), the default. `exact` leaves the rounding out, as CUDA's fused kernels
    (w − ηλ·w) do on average. Elements' own rounding comes on top: `rounded_rate`.
    """
    x = np.asarray(decay, np.float64)
    return -np.log1p(-x) if exact else -np.log(fp32_factor(x))


def decay_of(
    rate: npt.ArrayLike,
    momentum: npt.ArrayLike = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
    dampening: npt.ArrayLike = 0.0,
) -> Floats:
    """x = ηλ of one update from a settled clock's rate: the inverse of `coupled_rate` and of 1 − e^−rate.

    Heavy ball x = u(1−α−u)/(1−u), Nesterov x = u(1−α−u)/(1−(1+α)u), with u = 1 − e^−rate; over (1−τ) if dampened.
    Decoupled: x = u, whatever the momentum. Rates of zero and below pass through (they are ends of intervals). NaN for
    a rate that no x gives: shrinking faster than the fastest settled clock, beyond which it oscillates.
    """
    u, a = -np.expm1(-np.asarray(rate, np.float64)), np.asarray(momentum, np.float64)
    if decoupled:
        return u + np.zeros(a.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = u * (1 - a - u) / (1 - ((1 + a) * u if nesterov else u))
        fastest = (1 - a) / (1 + a) if nesterov else 1 - np.sqrt(a)  # the double root
        x = np.where(u <= fastest * (1 + 1e-12), x, np.nan)
        return np.where(a == 0, u, x / (1 - np.asarray(dampening, np.float64)))


def oscillation_limit(momentum: npt.ArrayLike, nesterov: bool = False, dampening: npt.ArrayLike = 0.0) -> Floats:
    """The x = ηλ beyond which the component swings around zero: (1−√α)²/(1−τ); Nesterov ((1−α)/(1+α))².

    At α = 0.9: 2.63e-3 and 2.77e-3; at α = 0.99: 2.5e-5.
    """
    a = np.asarray(momentum, np.float64)
    return np.square((1 - a) / (1 + a) if nesterov else 1 - np.sqrt(a)) / (1 - np.asarray(dampening, np.float64))


def oscillates(
    decay: npt.ArrayLike, momentum: npt.ArrayLike, nesterov: bool = False, dampening: npt.ArrayLike = 0.0
) -> npt.NDArray[np.bool_]:
    """Whether weight decay and momentum together overshoot: complex roots, no settled rate, sign changes."""
    x, a = _damped(decay, momentum, dampening), np.asarray(momentum, np.float64)
    return (np.square(_middle(x, a, nesterov)) < 4 * x) & (a > 0)


def adam_l2_slope(
    weight: npt.ArrayLike, learning_rate: npt.ArrayLike, weight_decay: npt.ArrayLike = 1.0, eps: float = 0.0
) -> Floats:
    """|w| − |w'| per update of an element without gradient under Adam with L2: about η, whatever λ.

    Adam divides λw by its own size: η·λ|w|/(λ|w| + ε), linear in time instead of exponential; it measures η. Holds
    while |w| ≫ η/(1−β₂) (1,000 updates' worth by default: v̂ remembers a larger w) and until the element reaches zero.
    """
    pull = np.abs(np.asarray(weight, np.float64)) * np.asarray(weight_decay, np.float64)
    return np.asarray(learning_rate, np.float64) * pull / (pull + eps)


def _damped(decay: npt.ArrayLike, momentum: npt.ArrayLike, dampening: npt.ArrayLike) -> Floats:
    """x as it acts: PyTorch applies dampening only where there is momentum."""
    return np.asarray(decay, np.float64) * np.where(np.asarray(momentum) == 0, 1.0, 1 - np.asarray(dampening))


def _middle(x: Floats, a: Floats, nesterov: bool) -> Floats:
    """b of u² − bu + x = 0."""
    return 1 - a + ((1 + a) * x if nesterov else x)
