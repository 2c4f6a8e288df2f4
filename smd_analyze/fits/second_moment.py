"""How far Adam's second moment lags behind the norm: by which factor a step differs from that of a steady norm.

g² ∝ 1/‖w‖², and v is its moving average with β₂, so that a step's squared length is η²M·(1/n)/v in units of the
current gradient. n is interpolated between checkpoints (its logarithm, linearly): no rate enters. Source: the two-state
mean map V' = β₂V + (1−β₂)/n, n' = (1−x)²n + η²M/(nV), derived from AdamW's update for tangent zero-mean gradients.
"""

from __future__ import annotations

import numpy as np

CUTS = 16  # parts of an interval in which 1/n is taken as linear


def lag(n: np.ndarray, updates: np.ndarray, beta2: float) -> np.ndarray:
    """Mean of (1/n)/v over each interval [T − 1, units]; 1 where the norm is steady, below 1 while it grows.

    n [T, units] squared norms, `updates` [T − 1] steps between them. v is taken as caught up at the first checkpoint.
    """
    out = np.ones((len(n) - 1, n.shape[1]))
    if not 0 < beta2 < 1:
        return out
    fall = -np.log(beta2)
    v = 1 / n[0]
    for i, k in enumerate(updates):
        steps = max(k, 1e-9) / CUTS
        left, used = np.exp(-fall * steps), 1 / (fall * steps)
        total = np.zeros(n.shape[1])
        for j in range(CUTS):
            a = n[i] ** (j / CUTS - 1) * n[i + 1] ** (-j / CUTS)
            b = n[i] ** ((j + 1) / CUTS - 1) * n[i + 1] ** (-(j + 1) / CUTS)
            before, v = a / v, b - (b - a) * used + (v - a + (b - a) * used) * left
            total += 0.5 * (before + b / v)
        out[i] = total / CUTS
    return out
