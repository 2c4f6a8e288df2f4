r"""Lion: u = sign(β₁m + (1−β₁)g), w ← (1−x)w − ηu, m ← β₂m + (1−β₂)g (Chen et al. 2023, arXiv:2302.06675).

Symbols: x = ηλ, d number of elements, n = ‖w‖² [weight²]. The update is ±1 in every element, so ‖u‖² = d whatever the
gradients: given the measured norm the angle is an identity. The level needs the arcsine law of signs and gradients of
zero mean, independent in time.
"""

from functools import lru_cache

import numpy as np

from smd_analyze.theory import decoupled
from smd_analyze.theory.autoregression import Floats

SOURCE = (
    "cos θ* of Lion: updates ±1 correlated by the arcsine law, zero-mean gradients "
    "(derived; within 0.3 % of simulation; Kosson et al. 2023, arXiv:2305.17212, have the linear approximation)"
)
NORM = "norm: n* = η²dΓ/(ηλ(2 − ηλ)), Γ sums the updates' correlations, assumes zero-mean gradients"


@lru_cache(maxsize=64)
def autocovariance(beta1: float, beta2: float) -> Floats:
    r"""γ_k = (2/π) arcsin ρ_k of the update per element, k = 0 … K−1.

    $$ \rho_k = \frac1s\Big[(1-\beta_1)\beta_1(1-\beta_2)\beta_2^{k-1}
       + \beta_1^2\frac{1-\beta_2}{1+\beta_2}\beta_2^k\Big],\\
       s = (1-\beta_1)^2+\beta_1^2\frac{1-\beta_2}{1+\beta_2} $$

    Assumes: Gaussian gradients, white in time; K covers 30 memory times 1/(1−β₂).
    Accuracy of what follows: 0.3 %; with gradients exactly tangent n* is larger by 1/d.
    Source: arcsine law of the signs of a Gaussian process.
    """
    k = np.arange(1, int(decoupled.TAIL / (1 - beta2)) + 2)
    slow = beta1**2 * (1 - beta2) / (1 + beta2)
    total = (1 - beta1) ** 2 + slow
    rho = ((1 - beta1) * beta1 * (1 - beta2) * beta2 ** (k - 1.0) + slow * beta2**k) / total
    gamma = np.concatenate([[1.0], 2 / np.pi * np.arcsin(rho)])
    gamma.flags.writeable = False  # shared by all callers
    return gamma
