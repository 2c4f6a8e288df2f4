r"""Adam with L2 decay in the gradient (torch.optim.Adam's `weight_decay`).

g' = g + λw enters m and v, then w ← w − η m̂/(√v̂ + ε). Here the equilibrium depends on the size of the gradients,
L = E‖g̃‖² [loss²], and on the number of elements d. Weights alone do not give L; Adam's saved second moment does.
Assumed: isotropic zero-mean gradients, β₂ → 1, ε → 0.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats, correlation

SOURCE = "Adam with L2 decay in the gradient: equilibrium depends on the gradients' size, which weights do not tell"
SOURCE_STATE = (
    "θ*² = 2x_e(1−β₁)/(1+β₁) with x_e = ηλ√(nd/L) at ‖w‖* = (η√(dL)/(2λ))^⅓, Adam with L2 decay in the gradient, "
    "√(dL) = ‖w‖Σ√v̂ from the saved second moment (derived; zero-mean gradients)"
)


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


def gradient_from_state(squared_norm: npt.ArrayLike, root_sum: npt.ArrayLike, numel: npt.ArrayLike) -> Floats:
    r"""L [loss²] of a unit as these formulas need it, from Adam's second moment: L = n(Σ√v̂)²/d.

    Args: n = ‖w‖² [weight²], `root_sum` = Σ√v̂ over the unit's d elements [loss/weight], d = `numel`.
    For isotropic gradients this is n Σv̂. Where elements differ, each balances at w_i² = η√v̂_i/(2λ): Σ√v̂ is what their
    sum asks for. The decay that is in v̂ adds x_e/4 to it, which is neglected.
    """
    root = np.asarray(root_sum, np.float64)
    return np.asarray(squared_norm) * root * root / np.asarray(numel)


def squared_norm_after(
    state: tuple[Floats, Floats], learning_rate: float, weight_decay: float, beta2: float, gradient: npt.ArrayLike,
    numel: float, steps: float, made: float = np.inf,
) -> tuple[Floats, Floats]:  # fmt: skip
    r"""(‖w‖², V) after some steps of constant η and λ; V is the mean of 1/‖w‖² that v̂ remembers.

    $$ \frac{dn}{dt} = \frac{\eta^2d}{nV} - 2\eta\lambda\sqrt{\frac{d}{LV}}\,n,\qquad
       \frac{dV}{dt} = \frac{1-\beta_2}{1-\beta_2^t}\Big(\frac1n - V\Big) $$

    Args: `state` = (n [weight²], V [1/weight²]), β₂, `gradient` = L [loss²] of the same shape, d elements each, `made`:
    optimizer steps made before (∞: v̂ has settled).
    Accuracy: 1 % from the start of a run on.
    Source: quasi-linear update as in `effective_decay`, there at V = 1/n; fourth-order Runge–Kutta.
    """
    n, v = (np.asarray(part, np.float64) for part in state)
    pull = 2 * learning_rate * weight_decay * np.sqrt(numel / np.asarray(gradient, np.float64))
    source = learning_rate**2 * numel
    fastest = max(3 * float((pull * np.sqrt(n)).max()), 3 * float((source / n).max()), 1 - beta2)
    count = int(min(max(np.ceil(fastest * steps / 0.2), 1), 10_000))
    h = steps / count

    def slope(t: float, n: Floats, v: Floats) -> tuple[Floats, Floats]:
        forget = (1 - beta2) / (1 - beta2 ** max(made + t, 1.0))
        return source / (n * v) - pull / np.sqrt(v) * n, forget * (1 / n - v)

    for i in range(count):
        a = slope(i * h, n, v)
        b = slope((i + 0.5) * h, n + h / 2 * a[0], v + h / 2 * a[1])
        c = slope((i + 0.5) * h, n + h / 2 * b[0], v + h / 2 * b[1])
        d = slope((i + 1) * h, n + h * c[0], v + h * c[1])
        n, v = (y + h / 6 * (a[j] + 2 * b[j] + 2 * c[j] + d[j]) for j, y in enumerate((n, v)))
    return n, v
