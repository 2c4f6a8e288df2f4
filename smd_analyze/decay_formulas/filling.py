"""A clock from the first update on: the momentum buffer begins empty, and until it has filled, decay is missing.

At constant x = ηλ the recursion of (c, q) has two eigenvalues z > y (`settled`), so that c_n = A zⁿ + B yⁿ exactly,
with A + B = 1 and, the buffer being empty, A z + B y = c₁ = 1 − x (Nesterov: 1 − (1+α)x).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smd_analyze.decay_formulas.settled import decay_of

Floats = npt.NDArray[np.float64]


def filling_loss(
    rate: npt.ArrayLike, momentum: npt.ArrayLike, updates: npt.ArrayLike, nesterov: bool = False
) -> Floats:
    """−ln(c_n/c₀) after n = `updates` with an empty buffer at first; `rate` −ln z is the settled one. Broadcasts.

    To leading order (n − α(1−αⁿ)/(1−α))·rate, Nesterov (n − α²(1−αⁿ)/(1−α))·rate: the decay of 9 updates is missing at
    α = 0.9, of 8.1 with Nesterov. NaN where no x gives the rate. Source: eigenvalues of the recursion, see the module's
    docstring; tested against `recursion.log_ratios`.
    """
    r, a, n = (np.asarray(part, np.float64) for part in (rate, momentum, updates))
    x = decay_of(r, a, nesterov)
    z, first = np.exp(-r), x * (1 + a) if nesterov else x
    y = (a * (1 - x) if nesterov else a) / z  # their product is the determinant
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lost = -np.expm1(-r) - first  # c₁ − z, without the digits that the difference would lose
        b = np.where(a == 0, 0.0, lost / (y - z))
        return n * r - np.log1p(b * ((y / z) ** n - 1))
