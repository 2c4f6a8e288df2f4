r"""How long the balance takes, and how long weights remember: half-lives, time scales, shares, learning-rate changes.

Symbols: y = ‖w‖^p, the variable that relaxes linearly: p = 4 for the SGD family, 2 for AdamW, Lion and Muon (Wan et
al. 2021, arXiv:2006.08419; Kosson et al. 2023, arXiv:2305.17212). x_e decay of the weights per optimizer step (ηλ, with
coupled momentum ηλ/(1−α)), r ≈ p·x_e its relaxation rate, h = Σr/ln 2 half-lives passed. Numbers and arrays alike.
"""

from math import log

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats

TOLERANCE = 0.1  # of ‖w‖: what counts as having arrived
FAR = 2.0  # a norm this many times its equilibrium value, or any smaller one, is what "long enough" must bring there


def covered(half_lives: npt.ArrayLike) -> Floats:
    """Share of the way from where y = ‖w‖^p began to its equilibrium that h half-lives cover: 1 − 2^−h. Exact for y."""
    return -np.expm1(-log(2) * np.asarray(half_lives, np.float64))


def arrived(power: int, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """Deviations (y* − y)/y* from below and (y − y*)/y* from above at which ‖w‖ is within `tolerance` of ‖w‖*."""
    return 1 - (1 - tolerance) ** power, (1 + tolerance) ** power - 1


def half_lives_needed(start: npt.ArrayLike, power: int, tolerance: float = TOLERANCE) -> Floats:
    r"""Half-lives until ‖w‖ is within `tolerance` of equilibrium, from `start` = ‖w‖/‖w‖*; 0 if it is there.

    $$ h = \log_2 \frac{|s^p - 1|}{\varepsilon},\qquad \varepsilon = (1+\tau)^p-1 \text{ from above},\
       1-(1-\tau)^p \text{ from below} $$
    """
    below, above = arrived(power, tolerance)
    away = np.asarray(start, np.float64) ** power - 1
    with np.errstate(divide="ignore"):
        return np.maximum(np.log2(np.abs(away) / np.where(away > 0, above, below)), 0.0)


def starting_norms(half_lives: float, power: int, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """Smallest and largest starting ‖w‖/‖w‖* from which h half-lives end within `tolerance` of equilibrium.

    The inverse of `half_lives_needed`; the smallest is 0 once h suffices from any norm below.
    """
    below, above = arrived(power, tolerance)
    grown = 2.0 ** min(half_lives, 200.0)
    return max(0.0, 1 - below * grown) ** (1 / power), (1 + above * grown) ** (1 / power)


def norm_fluctuation(effective_decay: npt.ArrayLike, variation: npt.ArrayLike = 1.0) -> Floats:
    r"""Relative standard deviation of one unit's ‖w‖ at equilibrium, SGD family.

    $$ \frac{\mathrm{sd}\,\lVert w\rVert}{\lVert w\rVert^*} = \tfrac12\,\mathrm{CV}\sqrt{x_e/2} $$

    Args: x_e [1/step] ≪ 1; `variation` = CV, standard deviation over mean of the unit gradient's square: √(2/(d−1)) for
    isotropic Gaussian gradients of d elements, 1.0–1.4 measured in neurons before batch normalization.
    Source: stationary variance of dS = (−4x_e S + 2η_e²L)dt + noise, S = ‖w‖⁴; in simulation within 2 %.
    """
    return 0.5 * np.asarray(variation) * np.sqrt(np.asarray(effective_decay, np.float64) / 2)


def kept(decay: npt.ArrayLike, updates: npt.ArrayLike) -> Floats:
    """ln Π(1 − x) over `updates` steps of decay x [1/step]: what is left of weights that were there before."""
    with np.errstate(divide="ignore"):
        return np.asarray(updates, np.float64) * np.log1p(-np.asarray(decay, np.float64))


def shares(rates: npt.ArrayLike, decays: npt.ArrayLike, updates: npt.ArrayLike) -> tuple[Floats, float]:
    r"""Share of what updates added to the final weights that each piece of training is owed, and ln Π(1 − x).

    $$ w_T = \Pi_0 w_0 - \sum_s \eta_s u_s \Pi_s,\quad \Pi_s = \prod_{t>s}(1-x_t),\qquad
       \text{share of a piece} = \frac{\sum_{s\in\text{piece}} \eta_s\Pi_s}{\sum_s \eta_s\Pi_s} $$

    Args, arrays over consecutive pieces: η (any unit), x [1/step], number of optimizer steps. Within a piece the sum is
    geometric: η(1 − (1−x)^k)/x.
    Returns: shares [pieces] that add to one (NaN if no learning rate is above 0), and the logarithm of the factor that
    is left of the initial weights.
    Exact for decoupled decay and updates u_s of one size; with momentum, x_e = x/(1−α) to first order in 1/(1−α) steps.
    With λ constant these are the weights of the exponential moving average of Wang & Aitchison 2024, arXiv:2405.13698.
    """
    rate, decay, count = (np.asarray(a, np.float64) for a in (rates, decays, updates))
    log_kept = kept(decay, count)
    after = np.append(np.cumsum(log_kept[::-1])[::-1][1:], 0.0)
    small = np.maximum(decay, 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        added = np.log(rate) + np.log(np.where(decay > 0, -np.expm1(log_kept) / small, count)) + after
        top = np.max(added, initial=-np.inf)
        parts = np.exp(added - top)
        return parts / parts.sum(), float(log_kept.sum())


def angle_after_change(time: npt.ArrayLike, level_ratio: npt.ArrayLike, rate: npt.ArrayLike) -> Floats:
    r"""Angular update over its new equilibrium value, t steps after the learning rate or decay changed at equilibrium.

    $$ \frac{\theta_1(t)}{\theta^*} = \frac{1}{\sqrt{1+(q-1)e^{-rt}}},\qquad q = \frac{y^*_\text{old}}{y^*_\text{new}}
       = \frac{\eta/\lambda}{\eta'/\lambda'} $$

    Args: t [steps], q (`level_ratio`: k for η → η/k; below 1 where the level rises), r [1/step] at the *new* values.
    1/√q right after the change: a dip for q > 1. SGD family and decoupled alike (p = 4 or 2).
    Assumes: equilibrium before; a momentum buffer that is not multiplied by η (PyTorch), t beyond 1/(1−α) steps; AdamW
    up to 12 % off because v̂ lags behind by 1/(1−β₂).
    Source: Wan et al. 2021, arXiv:2006.08419.
    """
    gone = np.exp(-np.asarray(rate, np.float64) * np.asarray(time, np.float64))
    return 1 / np.sqrt(1 + (np.asarray(level_ratio, np.float64) - 1) * gone)


def recovery_time(level_ratio: npt.ArrayLike, rate: npt.ArrayLike, tolerance: float = 0.05) -> Floats:
    r"""Steps after the change until the angular update is within `tolerance` of its new equilibrium value; 0 if it is.

    $$ t = \frac1r \ln\frac{|q-1|}{|(1\mp\tau)^{-2}-1|} $$

    the upper sign for q > 1 (a dip), the lower one for q < 1. Args as in `angle_after_change`.
    """
    q = np.asarray(level_ratio, np.float64)
    end = np.where(q > 1, (1 - tolerance) ** -2 - 1, 1 - (1 + tolerance) ** -2)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.abs(q - 1) / end), 0.0) / np.asarray(rate, np.float64)
