r"""AdamW: w ← (1−x)w − η m̂/(√v̂ + ε), x = ηλ (decoupled decay).

Symbols: β₁, β₂ decays of the moments, d number of elements, n = ‖w‖² [weight²]. The linear variable is n, not n².
Assumed everywhere: gradients of zero mean, independent in time, ε → 0. In small real networks n was up to 60 %
above and the angle 8 % below these values: compare, do not assume.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory import sgdw as _sgdw
from smd_analyze.theory.autoregression import Floats

SOURCE = (
    "cos θ* = (1 − ηλ + β₁)/(1 + (1 − ηλ)β₁), AdamW with zero-mean gradients (Kosson et al. 2023, arXiv:2305.17212)"
)

NORM = "norm: n* = η²dΓ/(ηλ(2 − ηλ)), about ηd/(2λ), assumes zero-mean gradients"

autoregression = _sgdw.autoregression
"""φ₁ = 1−x+β₁, φ₂ = −(1−x)β₁: that of SGDW with α = β₁."""


def update_shape(beta1: npt.ArrayLike, beta2: npt.ArrayLike = np.nan) -> tuple[Floats, Floats]:
    r"""A and B of the update's autocovariance per element, γ_k = s β₁ᵏ (A + B β₂ᵏ), s = (1−β₁)/(1+β₁).

    $$ A = 1 - c_1 + \tfrac34c_2,\ B = \tfrac14c_2 - c_1,\quad
       c_1 = \frac{(1-\beta_2)(1-\beta_1^2)}{1-\beta_1^2\beta_2},\ c_2 = \frac{2(1-\beta_2)}{1+\beta_2} $$

    Args: β₁, β₂ (NaN: unknown, taken as β₂ → 1, where A = 1 and B = 0).
    First order in 1−β₂ for Gaussian gradients: E‖u‖²/(ds) = A + B is 0.9689 at (0.9, 0.95), simulated 0.9716.
    Source: expansion of m/√v around v = 1.
    """
    b1, b2 = np.broadcast_arrays(np.asarray(beta1, np.float64), np.asarray(beta2, np.float64))
    c1, c2 = (1 - b2) * (1 - b1 * b1) / (1 - b1 * b1 * b2), 2 * (1 - b2) / (1 + b2)
    known = np.isfinite(b2)
    return np.where(known, 1 - c1 + 0.75 * c2, 1.0), np.where(known, 0.25 * c2 - c1, 0.0)


def _past(decay: npt.ArrayLike, beta1: npt.ArrayLike, beta2: npt.ArrayLike) -> tuple[Floats, Floats]:
    """γ₀ and Σ_{k≥1} (1−x)^{k−1} γ_k per element."""
    b1, keep = np.asarray(beta1, np.float64), 1 - np.asarray(decay, np.float64)
    a, b = update_shape(b1, beta2)
    fast = b1 * np.where(np.isnan(beta2), 0.0, beta2)
    share = (1 - b1) / (1 + b1)
    return share * (a + b), share * (a * b1 / (1 - keep * b1) + b * fast / (1 - keep * fast))


def equilibrium_cosine(decay: npt.ArrayLike, beta1: npt.ArrayLike, beta2: npt.ArrayLike = np.nan) -> Floats:
    r"""Cosine of the angle that one step turns at equilibrium; for β₂ → 1 that of SGDW with α = β₁.

    $$ \cos\theta_1 = \frac{1-x+\beta_1}{1+(1-x)\beta_1} \approx 1 - x\,\frac{1-\beta_1}{1+\beta_1} $$

    Args: x = ηλ [1/step], β₁, β₂ (NaN: β₂ → 1, as in the formula). Independent of d and L; β₂ = 0.95 makes the angle
    0.5 % smaller, 0.999 not at all.
    Source: Kosson et al. 2023, arXiv:2305.17212 (leading order).
    """
    x = np.asarray(decay, np.float64)
    own, past = _past(x, beta1, beta2)
    return 1 - x + x * (2 - x) * past / (own + 2 * (1 - x) * past)


def cosine(decay: npt.ArrayLike, beta1: npt.ArrayLike, lag: npt.ArrayLike) -> Floats:
    """Cosine between weights k steps apart at equilibrium, zero-mean gradients, AR(2); x = ηλ [1/step], β₁, k."""
    return _sgdw.cosine(decay, beta1, lag)


def noise_gain(decay: npt.ArrayLike, beta1: npt.ArrayLike, beta2: npt.ArrayLike = np.nan) -> Floats:
    """Γ = γ₀ + 2Σ(1−x)ᵏγ_k: how far correlated updates add up per element; pure number, 1 as x → 0 and β₂ → 1."""
    own, past = _past(decay, beta1, beta2)
    return own + 2 * (1 - np.asarray(decay, np.float64)) * past


def angle_share(beta1: npt.ArrayLike, beta2: npt.ArrayLike = np.nan) -> Floats:
    """ζ = γ₀/Γ(0) in θ₁² = ζ(2x + d ln‖w‖²/dt), zero-mean gradients; (1−β₁)/(1+β₁) for β₂ → 1."""
    own, past = _past(0.0, beta1, beta2)
    return own / (own + 2 * past)


def equilibrium_squared_norm(
    learning_rate: npt.ArrayLike,
    decay: npt.ArrayLike,
    beta1: npt.ArrayLike,
    numel: npt.ArrayLike,
    beta2: npt.ArrayLike = np.nan,
) -> Floats:
    r"""Equilibrium ‖w‖² [weight²] of d elements.

    $$ n^* = \frac{\eta^2 d \Gamma}{x(2-x)} \approx \frac{\eta d}{2\lambda}
       \qquad\text{(root mean square weight } \sqrt{\eta/2\lambda}\text{)} $$

    Args: η, x = ηλ > 0 [1/step], β₁, d = `numel`, β₂ (NaN: β₂ → 1).
    Accuracy with zero-mean gradients: 0.1 % at β₂ = 0.999, 0.3 % at 0.95.
    Source: Kosson et al. 2023, arXiv:2305.17212 (leading order); Γ from the update rule (`update_shape`).
    """
    e, x = np.asarray(learning_rate, np.float64), np.asarray(decay, np.float64)
    return e * e * np.asarray(numel) * noise_gain(x, beta1, beta2) / (x * (2 - x))


def relaxation_rate(decay: npt.ArrayLike, beta2: npt.ArrayLike = np.nan) -> Floats:
    r"""Rate [1/step] at which ‖w‖² relaxes, deviations decaying as e^{−rt}.

    $$ r = \tfrac12\Big[(4x+h) - \sqrt{(4x+h)^2 - 8xh}\Big],\ h = 1-\beta_2; \qquad r \to 2x \text{ for } x \ll h $$

    Args: x = ηλ [1/step], β₂ (NaN: unknown, the limit 2x is returned).
    At x = 1e-4 and β₂ = 0.999 already 19 % slower than 2x: v̂ lags behind the norm. Never oscillates for h > 0.
    Source: slow eigenvalue of the two-state mean map of (n, v̂).
    """
    x, h = np.broadcast_arrays(np.asarray(decay, np.float64), 1 - np.asarray(beta2, np.float64))
    total = 4 * x + h
    # 4xh/(total + √…) is the small root without cancellation
    lagged = 4 * x * h / (total + np.sqrt(np.maximum(total * total - 8 * x * h, 0)))
    return np.where(np.isnan(h), 2 * x, lagged)
