"""Second-order autoregression: what every optimizer with one momentum buffer does to the weights' correlations.

With gradients of zero mean the weights obey w_t = φ₁ w_{t−1} + φ₂ w_{t−2} − η (ϑ₀ g_t + ϑ₁ g_{t−1}); the optimizers
differ only in φ and ϑ. All functions take numbers or arrays that broadcast together.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def variance_and_correlation(
    phi1: npt.ArrayLike, phi2: npt.ArrayLike, theta0: npt.ArrayLike = 1.0, theta1: npt.ArrayLike = 0.0
) -> tuple[Floats, Floats]:
    r"""Stationary variance γ₀ (for η = 1, unit noise) and lag-1 correlation ρ₁ of the ARMA(2,1) process.

    $$ \gamma_1 = \frac{\phi_1\gamma_0 + \vartheta_0\vartheta_1}{1-\phi_2},\quad
       \gamma_0 = \phi_1\gamma_1 + \phi_2\gamma_2 + \vartheta_0^2 + \vartheta_1(\phi_1\vartheta_0+\vartheta_1),\quad
       \gamma_2 = \phi_1\gamma_1+\phi_2\gamma_0 $$

    Args: φ₁, φ₂ and ϑ₀, ϑ₁ as in the module's recursion, pure numbers.
    Returns: (γ₀, ρ₁), pure numbers.
    Assumes: a stationary process (roots of z² − φ₁z − φ₂ inside the unit circle).
    Source: Yule–Walker equations.
    """
    p1, p2, t0, t1 = (np.asarray(v, dtype=np.float64) for v in (phi1, phi2, theta0, theta1))
    own, crossed = t0 * t0 + t1 * (p1 * t0 + t1), t0 * t1
    gain = p1 * (1 + p2) / (1 - p2)
    gamma0 = (own + gain * crossed) / (1 - p2 * p2 - gain * p1)
    gamma1 = (p1 * gamma0 + crossed) / (1 - p2)
    return gamma0, gamma1 / gamma0


def correlation(phi1: npt.ArrayLike, phi2: npt.ArrayLike, first: npt.ArrayLike, lag: npt.ArrayLike) -> Floats:
    r"""Solution c_k of c_k = φ₁ c_{k−1} + φ₂ c_{k−2} with c₀ = 1 and c₁ = `first`.

    $$ c_k = A z_+^k + (1-A) z_-^k,\qquad A = \frac{c_1 - z_-}{z_+ - z_-} $$

    Complex roots z± (a norm that oscillates) and the double root are included.

    Args: φ₁, φ₂, c₁ pure numbers; `lag` k ≥ 0, a count of steps.
    Returns: c_k, the correlation (first = ρ₁) or the retention ⟨w_{t+k}, w_t⟩/‖w_t‖².
    Source: linear recursion of second order.
    """
    p1, p2, c1, k = (np.asarray(v, dtype=np.float64) for v in (phi1, phi2, first, lag))
    root = np.sqrt((p1 * p1 + 4 * p2).astype(np.complex128))
    plus, minus = (p1 + root) / 2, (p1 - root) / 2
    gap = plus - minus
    double = np.abs(gap) < 1e-7 * np.maximum(np.abs(plus), 1e-300)
    share = (c1 - minus) / np.where(double, 1.0, gap)
    apart = share * plus**k + (1 - share) * minus**k
    middle = np.where(p1 == 0, 1.0, p1 / 2)
    merged = (1 + (c1 / middle - 1) * k) * middle**k
    return np.real(np.where(double, merged, apart))
