r"""Adam with L2 decay in the gradient (torch.optim.Adam's `weight_decay`).

g' = g + λw enters m and v, then w ← w − η m̂/(√v̂ + ε). Here the equilibrium depends on the size of the gradients,
L = E‖g̃‖² [loss²], and on the number of elements d. Weights alone do not give L, so no prediction is made from
checkpoints; the closed forms serve who knows L.
Assumed: isotropic zero-mean gradients, β₂ → 1, ε → 0.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats, correlation

SOURCE = "Adam with L2 decay in the gradient: equilibrium depends on the gradients' size, which weights do not tell"


def equilibrium_norm(
    learning_rate: npt.ArrayLike, weight_decay: npt.ArrayLike, gradient: npt.ArrayLike, numel: npt.ArrayLike
) -> Floats:
    r"""Equilibrium ‖w‖ [weight]: ‖w‖* = (η√(dL)/(2λ))^{1/3}.

    Args: η, λ > 0, `gradient` = L [loss²], d = `numel`. Accuracy 0.1 % at β₂ = 0.999, 0.2 % at 0.99.
    Source: balance 2x_e n = η²d of the quasi-linear update (x_e: `effective_decay`).
    """
    size = np.sqrt(np.asarray(numel, np.float64) * np.asarray(gradient))
    return np.cbrt(np.asarray(learning_rate) * size / (2 * np.asarray(weight_decay)))


def effective_decay(
    learning_rate: npt.ArrayLike,
    weight_decay: npt.ArrayLike,
    gradient: npt.ArrayLike,
    numel: npt.ArrayLike,
    squared_norm: npt.ArrayLike,
) -> Floats:
    """x_e = ηλ√(nd/L) [1/step] at n = ‖w‖² [weight²]: the decay after division by the gradients' root mean square."""
    scale = np.sqrt(np.asarray(squared_norm, np.float64) * np.asarray(numel) / np.asarray(gradient))
    return np.asarray(learning_rate) * np.asarray(weight_decay) * scale


def equilibrium_cosine(effective: npt.ArrayLike, beta1: npt.ArrayLike) -> Floats:
    """cos θ₁ = 1 − x_e(1−β₁)/(1+β₁) at equilibrium, from x_e [1/step] and β₁. Accuracy 0.1 %. Source: AR(2)."""
    b = np.asarray(beta1, np.float64)
    return 1 - (1 - b) * np.asarray(effective) / (1 + b)


def cosine(effective: npt.ArrayLike, beta1: npt.ArrayLike, lag: npt.ArrayLike) -> Floats:
    """Cosine between weights k steps apart: AR(2) with φ₁ = 1+β₁−(1−β₁)x_e, φ₂ = −β₁; zero-mean gradients."""
    b = np.asarray(beta1, np.float64)
    return correlation(1 + b - (1 - b) * np.asarray(effective), -b, equilibrium_cosine(effective, b), lag)


def relaxation_rate(effective: npt.ArrayLike) -> Floats:
    """3x_e [1/step]: rate at which ‖w‖² returns to equilibrium from nearby (the equation is not linear far away)."""
    return 3 * np.asarray(effective, np.float64)
