"""The loop over sampled elements that numba compiles."""

import numpy as np

from smd_analyze.statistics.kernels import compiled


@compiled
def compare(values: np.ndarray, pairs: np.ndarray, sums: np.ndarray) -> None:
    """sums [P, 3] = Σ v², Σ (v−u)², Σ (v−u)·v in float64, u and v the rows pairs [P, 2] of values [K, M]."""
    for p in range(pairs.shape[0]):
        x, y = values[pairs[p, 0]], values[pairs[p, 1]]
        vv = 0.0
        dd = 0.0
        dv = 0.0
        for j in range(x.size):
            v = np.float64(y[j])
            d = v - np.float64(x[j])
            vv += v * v
            dd += d * d
            dv += d * v
        sums[p, 0] = vv
        sums[p, 1] = dd
        sums[p, 2] = dv
