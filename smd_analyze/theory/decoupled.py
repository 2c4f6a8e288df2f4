r"""Decoupled decay with updates whose size does not depend on the weights' norm: w ← (1−x)w − ηu (AdamW, Lion, Muon).

One function tells all: the autocovariance γ_k = E⟨u_t, u_{t+k}⟩/d of the update per element, k = 0 … K−1, an array that
has died out at its end. x = ηλ decay per step, d number of elements, n = ‖w‖² [weight²]; the linear variable is n.
Assumed: gradients of zero mean, independent in time. Numbers and arrays of x alike.
"""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats

TAIL = 30.0  # memory times after which an autocovariance counts as gone (e⁻³⁰)


def noise_gain(decay: npt.ArrayLike, gamma: Floats) -> Floats:
    r"""Γ(x) = γ₀ + 2Σ(1−x)^k γ_k: what one step adds to ‖w‖², per element and η², once past updates are counted in.

    Args: x [1/step], any shape; γ [K]. Returns: pure number, shape of x. Source: variance of Σ(1−x)^j u_{t−j}.
    """
    x = np.asarray(decay, np.float64)
    lags = np.arange(1, len(gamma))
    distinct, place = np.unique(x, return_inverse=True)
    gains = np.array([gamma[0] + 2 * float(gamma[1:] @ np.exp(lags * np.log1p(-v))) for v in distinct])
    return gains[place].reshape(x.shape)


def equilibrium_squared_norm(
    learning_rate: npt.ArrayLike, decay: npt.ArrayLike, numel: npt.ArrayLike, gamma: Floats
) -> Floats:
    r"""n* = η²dΓ(x)/(x(2−x)) [weight²]: exact for the given γ. Args: η, x > 0 [1/step], d, γ [K]."""
    x = np.asarray(decay, np.float64)
    return np.asarray(learning_rate, np.float64) ** 2 * np.asarray(numel) * noise_gain(x, gamma) / (x * (2 - x))


def equilibrium_cosine(decay: npt.ArrayLike, gamma: Floats) -> Floats:
    r"""Cosine of the angle that one step turns at equilibrium, $\approx 1 - x\gamma_0/\Gamma$.

    $$ \cos\theta_1 = 1-x + \frac{x(2-x)}{\Gamma}\sum_{j\ge 0}(1-x)^j\gamma_{j+1} $$

    Args: x [1/step], γ [K]. Exact for the given γ. Source: Yule–Walker equation of w.
    """
    x = np.asarray(decay, np.float64)
    gain = noise_gain(x, gamma)
    return 1 - x + x * (2 - x) * (gain - gamma[0]) / (2 * (1 - x) * gain)


def angle_share(gamma: Floats) -> float:
    r"""ζ = γ₀/Γ(0) in θ₁² = ζ(2x + d ln‖w‖²/dt); zero-mean gradients, ‖w‖ changing slowly over the update's memory."""
    return float(gamma[0] / (gamma[0] + 2 * gamma[1:].sum()))


def retention(decay: npt.ArrayLike, first: npt.ArrayLike, lag: float, gamma: Floats) -> Floats:
    r"""⟨w_{t+k}, w_t⟩/‖w_t‖² from its value after one step.

    $$ a_k = (1-x)a_{k-1} + c\,G_{k-1},\quad G_j = \sum_{m\ge0}(1-x)^m\gamma_{j+1+m},\quad c = \frac{a_1-(1-x)}{G_0} $$

    Args: x [1/step] a number, a₁ any shape, k ≥ 1 [steps], γ [K].
    `first` holds what past updates still do: cos θ₁ at equilibrium, else see theory/diffusion.py.
    Source: forecast of u_{t+j} along w_t, which holds past updates with weights (1−x)^m.
    """
    x, a1 = float(np.asarray(decay)), np.asarray(first, np.float64)
    log = np.log1p(-x)
    lags = np.arange(1, len(gamma))
    ahead = np.cumsum((gamma[1:] * np.exp(lags * log))[::-1])[::-1]  # (1−x)^{j+1} G_j
    free = np.exp(lag * log)
    if not len(ahead) or ahead[0] == 0:
        return a1 / (1 - x) * free
    forecast = ahead * np.exp(-lags * log)
    within = lags[: max(int(lag), 1)]
    given = float((np.exp((lag - within) * log) * forecast[: len(within)]).sum())
    return free + (a1 - (1 - x)) / forecast[0] * given
