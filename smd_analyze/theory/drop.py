"""The angle per step after a drop of the learning rate: it dips to 1/√k of its balance, and recovers."""

import numpy as np
import numpy.typing as npt

from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.theory.laws import Law


def angle_after_drop(
    time: npt.ArrayLike, factor: npt.ArrayLike, law: Law, decay: float, momentum: float, beta2: float = np.nan
) -> Floats:
    r"""Angle per step, t steps after the learning rate was divided by k at equilibrium, λ as before.

    $$ \theta(t) = \theta^*\Big/\sqrt{1 + (k-1)e^{-rt}} $$

    Both ‖w‖⁴ under SGD (θ² ∝ 1/‖w‖⁴) and ‖w‖² under AdamW, Lion and Muon (θ² ∝ 1/‖w‖²) exceed their new level k-fold.
    Args: t [steps], k = `factor`, x = η'λ with the new learning rate [1/step], α (β₁), β₂ (AdamW: v̂ lags behind).
    Returns: radians per step. Accuracy: 1 % for SGD with A ≪ 1; AdamW and Lion 3 % where x ≪ 1−β₂, 12 % at x =
    (1−β₂)/10, where the map in theory/relaxation.py is to be taken. Not for a velocity that holds its learning rate.
    Source: Wan et al. 2021, arXiv:2006.08419 (SGD).
    """
    gone = np.exp(-law.relaxation_rate(decay, momentum, beta2) * np.asarray(time, np.float64))
    rest = angle_of_cosine(law.equilibrium_cosine(decay, momentum))
    return rest / np.sqrt(1 + (np.asarray(factor) - 1) * gone)
