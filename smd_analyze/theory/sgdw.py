r"""SGD with decoupled weight decay (SGDW): v ← αv + (1−τ)g, w ← (1−x)w − ηv, x = ηλ.

With `nesterov`: w ← (1−x)w − η(g + αv). Symbols and units as in `sgd`. Dampening τ scales η in front of the
gradient only, never the decay x.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory import nesterov as _nesterov
from smd_analyze.theory import sgd as _sgd
from smd_analyze.theory.autoregression import Floats, correlation, variance_and_correlation

SOURCE = "cos θ* = (1 − ηλ + α)/(1 + (1 − ηλ)α), SGD with decoupled decay (AR(2) of the update rule)"
SOURCE_NESTEROV = "cos θ* of Nesterov momentum with decoupled decay, ARMA(2,1) of the update rule"


def autoregression(decay: npt.ArrayLike, momentum: npt.ArrayLike) -> tuple[Floats, Floats]:
    """φ₁ = 1−x+α and φ₂ = −(1−x)α of the weights' recursion, from x = ηλ [1/step] and α; exact, for both forms."""
    a, keep = np.asarray(momentum, np.float64), 1 - np.asarray(decay, np.float64)
    return keep + a, -keep * a


def _variance_and_correlation(decay: npt.ArrayLike, momentum: npt.ArrayLike, nesterov: bool) -> tuple[Floats, Floats]:
    a = np.asarray(momentum, np.float64)
    noise = (1 + a, -a) if nesterov else (1.0, 0.0)
    return variance_and_correlation(*autoregression(decay, momentum), *noise)


def equilibrium_cosine(decay: npt.ArrayLike, momentum: npt.ArrayLike, nesterov: bool = False) -> Floats:
    r"""Cosine of the angle that one step turns at equilibrium.

    $$ \cos\theta_1 = \frac{1-x+\alpha}{1+(1-x)\alpha} \qquad\text{leading chord } \sqrt{2x(1-\alpha)/(1+\alpha)} $$

    Args: x = ηλ [1/step], α; `nesterov`: ρ₁ of the ARMA(2,1) instead.
    Universal without Nesterov momentum (only ⟨w, g⟩ = 0 is used); with it gradients must have zero mean.
    Source: Kosson et al. 2023, arXiv:2305.17212 (leading order).
    """
    return _variance_and_correlation(decay, momentum, nesterov)[1]


def cosine(decay: npt.ArrayLike, momentum: npt.ArrayLike, lag: npt.ArrayLike, nesterov: bool = False) -> Floats:
    """Cosine between weights k steps apart at equilibrium, zero-mean gradients, AR(2); x = ηλ [1/step], α, k."""
    return correlation(*autoregression(decay, momentum), equilibrium_cosine(decay, momentum, nesterov), lag)


def equilibrium_quartic_norm(
    learning_rate: npt.ArrayLike,
    decay: npt.ArrayLike,
    momentum: npt.ArrayLike,
    gradient: npt.ArrayLike,
    nesterov: bool = False,
) -> Floats:
    r"""Equilibrium S* = ‖w‖⁴ [weight⁴] of one unit.

    $$ S^* = \frac{\eta^2 L K}{x(2-x)},\quad K = \frac{1+q}{(1-q)(1-\alpha^2)},\ q = (1-x)\alpha;
       \qquad \approx \frac{\eta L}{2\lambda(1-\alpha)^2} $$

    Args: η, x = ηλ > 0 [1/step], α, `gradient` = L [loss²]; `nesterov`: the ARMA(2,1) variance instead.
    Exact in expectation for zero-mean gradients. Source: AR(2) of the update rule.
    """
    gamma0 = _variance_and_correlation(decay, momentum, nesterov)[0]
    return np.asarray(learning_rate) ** 2 * np.asarray(gradient) * gamma0


def angle_share(momentum: npt.ArrayLike, nesterov: bool = False) -> Floats:
    """ζ in θ₁² = ζ(2x + d ln‖w‖²/dt): that of heavy ball, (1−α)/(1+α), or of Nesterov momentum; see there."""
    return _nesterov.angle_share(momentum) if nesterov else _sgd.angle_share(momentum)
