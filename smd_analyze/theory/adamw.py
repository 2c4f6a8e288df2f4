r"""AdamW: w ← (1−x)w − η m̂/(√v̂ + ε), x = ηλ (decoupled decay).

Symbols: β₁, β₂ decays of the moments, d number of elements, n = ‖w‖² [weight²]. The linear variable is n, not n².
Assumed everywhere: gradients of zero mean, independent in time, β₂ → 1, ε → 0. In small real networks n was up to 60 %
above and the angle 8 % below these values: compare, do not assume.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory import sgdw as _sgdw
from smd_analyze.theory.autoregression import Floats

SOURCE = (
    "cos θ* = (1 − ηλ + β₁)/(1 + (1 − ηλ)β₁), AdamW with zero-mean gradients (Kosson et al. 2023, arXiv:2305.17212)"
)

autoregression = _sgdw.autoregression
"""φ₁ = 1−x+β₁, φ₂ = −(1−x)β₁: that of SGDW with α = β₁."""


def equilibrium_cosine(decay: npt.ArrayLike, beta1: npt.ArrayLike) -> Floats:
    r"""Cosine of the angle that one step turns at equilibrium; that of SGDW with α = β₁.

    $$ \cos\theta_1 = \frac{1-x+\beta_1}{1+(1-x)\beta_1} \approx 1 - x\,\frac{1-\beta_1}{1+\beta_1} $$

    Args: x = ηλ [1/step], β₁. Independent of d, L and β₂ (0.5 % high at β₂ = 0.95).
    Source: Kosson et al. 2023, arXiv:2305.17212 (leading order).
    """
    return _sgdw.equilibrium_cosine(decay, beta1)


def cosine(decay: npt.ArrayLike, beta1: npt.ArrayLike, lag: npt.ArrayLike) -> Floats:
    """Cosine between weights k steps apart at equilibrium, zero-mean gradients, AR(2); x = ηλ [1/step], β₁, k."""
    return _sgdw.cosine(decay, beta1, lag)


def noise_gain(decay: npt.ArrayLike, beta1: npt.ArrayLike) -> Floats:
    """K = s(1+q)/(1−q), s = (1−β₁)/(1+β₁), q = (1−x)β₁: how far correlated updates add up; pure number, 1 as x → 0."""
    b, keep = np.asarray(beta1, np.float64), 1 - np.asarray(decay, np.float64)
    return (1 - b) / (1 + b) * (1 + keep * b) / (1 - keep * b)


def equilibrium_squared_norm(
    learning_rate: npt.ArrayLike, decay: npt.ArrayLike, beta1: npt.ArrayLike, numel: npt.ArrayLike
) -> Floats:
    r"""Equilibrium ‖w‖² [weight²] of d elements.

    $$ n^* = \frac{\eta^2 d K}{x(2-x)} \approx \frac{\eta d}{2\lambda}
       \qquad\text{(root mean square weight } \sqrt{\eta/2\lambda}\text{)} $$

    Args: η, x = ηλ > 0 [1/step], β₁, d = `numel`.
    Accuracy with zero-mean gradients: 0.1 % at β₂ = 0.999, 2 % high at 0.95.
    Source: Kosson et al. 2023, arXiv:2305.17212 (leading order); K from the AR(2) of the update rule.
    """
    e, x = np.asarray(learning_rate, np.float64), np.asarray(decay, np.float64)
    return e * e * np.asarray(numel) * noise_gain(x, beta1) / (x * (2 - x))


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
