"""Simulated scale-invariant vectors under AdamW, Lion and Muon's rule for one column, with tangent random gradients."""

import numpy as np


def norms(optimizer, steps, rates, decay, units=24, d=64, beta1=0.9, beta2=0.99, scale=None, start=1.0, seed=0):
    """n = ‖w‖² [len(steps), units]; rates[t] is the learning rate of update t + 1, scale[t] the size of its gradient².

    The first norm is start × d × η₀/(2λ), about start × AdamW's equilibrium; the moments start empty.
    """
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((units, d))
    n0 = start * d * rates[0] / (2 * decay) if decay else start
    w *= np.sqrt(n0) / np.linalg.norm(w, axis=1, keepdims=True)
    m, v = np.zeros_like(w), np.zeros_like(w)
    kept = {int(t): i for i, t in enumerate(steps)}
    out = np.empty((len(steps), units))
    for t in range(int(steps[-1]) + 1):
        n = (w * w).sum(axis=1, keepdims=True)
        if t in kept:
            out[kept[t]] = n[:, 0]
        if t == steps[-1]:
            break
        g = rng.standard_normal((units, d))
        g -= (g * w).sum(axis=1, keepdims=True) / n * w
        g /= np.sqrt(n / (1.0 if scale is None else scale[t]))
        eta = rates[t]
        w = w * (1 - eta * decay)
        if optimizer == "adamw":
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            w = w - eta * (m / (1 - beta1 ** (t + 1))) / np.sqrt(v / (1 - beta2 ** (t + 1)))
        elif optimizer == "lion":
            w = w - eta * np.sign(beta1 * m + (1 - beta1) * g)
            m = beta2 * m + (1 - beta2) * g
        else:  # a matrix with one column: the orthogonalised momentum is the unit vector along it
            m = beta1 * m + g
            w = w - eta * m / np.linalg.norm(m, axis=1, keepdims=True)
    return out
