r"""Skipping the transient of a learning-rate change: put scale-invariant weights at their new level at once.

The network's function does not change, because the weights are scale-invariant; gradients grow as 1/‖w‖, so what the
optimizer has saved of them is scaled the other way. Only for weights whose scale invariance is proved.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rescaling:
    """Factors for the weights, the momentum buffers (first moments), and the second moments (v of Adam)."""

    weights: float
    buffers: float
    second_moments: float


def rescaling(level_ratio: float, power: int, velocity_rate_ratio: float = 1.0) -> Rescaling:
    r"""Factors that move a norm in equilibrium to the new equilibrium when the learning rate or the decay changes.

    $$ c = q^{-1/p},\qquad \text{buffers} \times 1/c,\qquad \text{second moments} \times 1/c^2 $$

    Args: `level_ratio` q = (η/λ)/(η'/λ'), k for η → η/k; `power` p of the linear variable ‖w‖^p: 4 for the SGD family,
    2 for AdamW, Lion and Muon. `velocity_rate_ratio` η'/η where the buffer holds the learning rate (Keras, TensorFlow,
    Caffe): the buffer is multiplied by it, too; 1 for PyTorch.
    Source: Wan et al. 2021, arXiv:2006.08419 (the weights); gradients of a scale-invariant function are homogeneous of
    degree −1 (the rest). Without the buffers' factor the first 1/(1−α) steps turn up to c² of the new angle.
    """
    weights = level_ratio ** (-1 / power)
    return Rescaling(weights, velocity_rate_ratio / weights, weights**-2)
