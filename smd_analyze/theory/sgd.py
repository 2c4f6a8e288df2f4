r"""SGD and heavy ball with L2 weight decay in the gradient: v ← αv + (1−τ)(g + λw), w ← w − ηv (torch.optim.SGD).

Symbols: η learning rate, λ weight decay, α momentum, τ dampening, x = ηλ(1−τ) decay per step, L = E‖g̃‖² second moment
of the unit gradient g̃ = ‖w‖g [loss²]. Dampening replaces η by η(1−τ) everywhere (after the first, undamped step):
callers pass the product. Everything here needs ⟨w, g⟩ = 0 (scale invariance). Numbers and arrays alike; steps are
optimizer steps.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats, correlation

SOURCE = "cos θ* = 1 − ηλ/(1+α), heavy ball (Wan et al. 2021, arXiv:2006.08419)"


def step(
    squared_norm: npt.ArrayLike, learning_rate: npt.ArrayLike, weight_decay: npt.ArrayLike, unit_gradient: npt.ArrayLike
) -> tuple[Floats, Floats]:
    r"""One step of plain SGD (α = 0): the next squared norm and the cosine of the angle turned.

    $$ n' = (1-\eta\lambda)^2 n + \eta^2 \lVert\tilde g\rVert^2/n, \qquad \cos\theta_1 = (1-\eta\lambda)\sqrt{n/n'} $$

    Args: n = ‖w‖² [weight²], η, λ, `unit_gradient` = ‖g̃‖² [loss²].
    Returns: (n' [weight²], cos θ₁). Exact identities.
    Source: Wan et al. 2021, arXiv:2006.08419.
    """
    n, decay = np.asarray(squared_norm, np.float64), 1 - np.asarray(learning_rate) * np.asarray(weight_decay)
    following = decay**2 * n + np.asarray(learning_rate) ** 2 * np.asarray(unit_gradient) / n
    return following, decay * np.sqrt(n / following)


def equilibrium_cosine(decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0) -> Floats:
    r"""Cosine of the angle that one step turns at equilibrium.

    $$ \cos\theta_1 = 1 - \frac{x}{1+\alpha} \qquad\text{(chord } \sqrt{2x/(1+\alpha)}\text{)} $$

    Args: x = ηλ [1/step], α.
    Exact for a stationary norm whatever the gradients' distribution: only ⟨w, g⟩ = 0 and constant η, λ are used.
    Source: Wan et al. 2021, arXiv:2006.08419.
    """
    return 1 - np.asarray(decay, np.float64) / (1 + np.asarray(momentum))


def autoregression(decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0) -> tuple[Floats, Floats]:
    """φ₁ = 1+α−x and φ₂ = −α of w_{t+1} = φ₁w_t + φ₂w_{t−1} − ηg_t, from x = ηλ [1/step] and α; exact."""
    a = np.asarray(momentum, np.float64)
    return 1 + a - np.asarray(decay, np.float64), -a


def cosine(decay: npt.ArrayLike, momentum: npt.ArrayLike, lag: npt.ArrayLike) -> Floats:
    r"""Cosine of the angle between weights k steps apart, at equilibrium and with zero-mean gradients.

    $$ \rho_k = (1+\alpha-x)\rho_{k-1} - \alpha\rho_{k-2},\quad \rho_0 = 1,\ \rho_1 = 1 - x/(1+\alpha) $$

    Args: x = ηλ [1/step], α, k [steps].
    Not universal: drift makes the true cosine smaller, confinement around a minimum larger; k = 1 always holds.
    Source: AR(2) of the update rule.
    """
    return correlation(*autoregression(decay, momentum), equilibrium_cosine(decay, momentum), lag)


def equilibrium_quartic_norm(
    learning_rate: npt.ArrayLike, decay: npt.ArrayLike, momentum: npt.ArrayLike, gradient: npt.ArrayLike
) -> Floats:
    r"""Equilibrium S* = ‖w‖⁴ of one scale-invariant unit.

    $$ S^* = \frac{\eta^2 L}{x(1-\alpha)\,(2 - x/(1+\alpha))} \approx \frac{\eta L}{2\lambda(1-\alpha)} $$

    Args: η, x = ηλ > 0 [1/step], α, `gradient` = L [loss²].
    Returns: weight⁴.
    Exact in expectation if gradients have zero mean given the past; with correlated gradients L is the effective
    L(1 + 2Σαᵏr_k), r_k the autocorrelation of g̃.
    Source: Wan et al. 2021, arXiv:2006.08419.
    """
    e, x, a = (np.asarray(v, np.float64) for v in (learning_rate, decay, momentum))
    return e * e * np.asarray(gradient) / (x * (1 - a) * (2 - x / (1 + a)))


def effective_decay(decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0) -> Floats:
    """x_e = x/(1−α) [1/step]: decay per step once momentum has amplified it; x = ηλ, α as above."""
    return np.asarray(decay, np.float64) / (1 - np.asarray(momentum))


def angle_share(momentum: npt.ArrayLike = 0.0) -> Floats:
    r"""ζ in θ₁² = ζ(2x_e + d ln‖w‖²/dt), the per-step angle at equilibrium or not.

    $$ \zeta = \frac{1-\alpha}{1+\alpha} $$

    Universal: orthogonality alone gives it, for any gradients and any L(t), while ‖w‖ changes slowly over 1/(1−α)
    steps.
    Source: b' = αb − xn + c', n' = n + 2(b'−c') + c' with b = ⟨w, δ⟩, c = ‖δ‖² of the step δ.
    """
    a = np.asarray(momentum, np.float64)
    return (1 - a) / (1 + a)


def momentum_number(decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0) -> Floats:
    """A = αx/(1−α)²: relative error of formulas that only rescale η by 1/(1−α); above 1/16 the norm oscillates."""
    a = np.asarray(momentum, np.float64)
    return a * np.asarray(decay, np.float64) / (1 - a) ** 2


def relaxation_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike = 0.0) -> Floats:
    r"""Rate [1/step] at which ‖w‖⁴ relaxes to its equilibrium, deviations decaying as e^{−rt}.

    $$ r = \frac{1-\alpha}{2\alpha}\Big(1-\sqrt{1-16A}\Big)\big(1+\tfrac32 x_e\big),\quad
       A = \frac{\alpha x}{(1-\alpha)^2};\qquad r \to 4x_e \text{ for } A\to 0 $$

    Args: x = ηλ [1/step], α.
    Returns: r, NaN where A > 1/16 (overshoot and oscillation: no single rate).
    Accuracy: 0.5 % at α = 0.95, x = 1e-4; 0.1 % at α = 0.9, x = 1e-4.
    Source: slow eigenvalue of the linearised three-moment map; leading order Wan et al. 2021, arXiv:2006.08419.
    """
    number, slow = momentum_number(decay, momentum), effective_decay(decay, momentum)
    with np.errstate(invalid="ignore"):
        # (1 − √(1−16A))/(8A) = 2/(1 + √(1−16A)) stays finite as α → 0
        return 4 * slow * 2 / (1 + np.sqrt(1 - 16 * number)) * (1 + 1.5 * slow)


def gradient_from_buffer(squared_norm: npt.ArrayLike, tangent: npt.ArrayLike, momentum: npt.ArrayLike) -> Floats:
    r"""Effective L of a unit from its saved momentum buffer: L = (1−α²) n ‖v_⊥‖².

    Args: n = ‖w‖² [weight²], `tangent` = ‖v_⊥‖² = Σv² − ⟨w,v⟩²/n [loss²/weight²], α.
    Returns: L [loss²]; noisy for one unit (relative sd about 0.2 at α = 0.9), mean over checkpoints or units.
    Assumes: ‖w‖ changes slowly over 1/(1−α) steps.
    Source: stationary variance of v ← αv + g; same for Nesterov and decoupled decay.
    """
    a = np.asarray(momentum, np.float64)
    return (1 - a * a) * np.asarray(squared_norm) * np.asarray(tangent)
