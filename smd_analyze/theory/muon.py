r"""Muon: momentum, orthogonalised by five Newton–Schulz steps (Jordan et al. 2024; torch.optim.Muon).

B ← μB + (1−μ)g; Y = (1−μ)g + μB (Nesterov) or B; W ← (1−ηλ)W − η_adj NS5(Y) for a matrix W of rows × columns.
η_adj = η√max(1, rows/columns) ("original", torch's default) or 0.2η√max(rows, columns) ("match_rms_adamw", Liu et al.
2025, arXiv:2502.16982); the decay uses plain η.
NS5 does not reach orthogonality: ‖O‖² is about 0.8 min(rows, columns), and how much two updates share is not how much
their momenta share. Both follow from the spectrum of a random matrix and are simulated once per shape.
"""

from functools import lru_cache
from math import sqrt

import numpy as np

from smd_analyze.theory import decoupled
from smd_analyze.theory.autoregression import Floats

SOURCE = (
    "cos θ* of Muon: NS5 updates, their size and correlations simulated for white-noise gradients of this shape "
    "(derived; within 1 % of torch.optim.Muon)"
)
NORM = "norm: n* = η²dΓ/(ηλ(2 − ηλ)), Γ sums the NS5 updates' correlations, assumes zero-mean gradients"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of torch.optim.Muon, from Jordan et al. 2024
STEPS = 5
SIDE, WIDEST, SAMPLES = 64, 8.0, 24  # simulated: shorter side, longest over it, matrices
CORRELATIONS = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0])


def adjusted(rows: int, columns: int, rule: str = "") -> float:
    """η_adj/η of a matrix; `rule` is torch's `adjust_lr_fn` ("" or "original": its default)."""
    if rule == "match_rms_adamw":
        return 0.2 * sqrt(max(rows, columns))
    return sqrt(max(1.0, rows / columns))


def newton_schulz(matrices: Floats, shrink: float = 1.0) -> Floats:
    """NS5 of matrices [M, rows ≤ columns], each divided by its own norm (and by 1/`shrink`) before. Float32."""
    a, b, c = COEFFICIENTS
    x = np.asarray(matrices, np.float32)
    x = x * np.float32(shrink) / np.linalg.norm(x, axis=(-2, -1), keepdims=True)
    for _ in range(STEPS):
        gram = x @ x.swapaxes(-1, -2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


@lru_cache(maxsize=64)
def overlap(rows: int, columns: int) -> tuple[float, Floats]:
    r"""E‖O‖²/min(rows, columns), and f(ρ) = E⟨O(Y), O(Y′)⟩/E‖O‖² for momenta of correlation ρ, at CORRELATIONS.

    Monte Carlo with matrices of the same aspect (up to 8), at most 64 on the shorter side: the spectrum of a random
    matrix depends on the aspect alone, and the division by ‖Y‖ is done as for the true size. Accuracy 1 % of f's slope
    at 0, 0.3 % of ‖O‖²; seeded; 0.1 to 1 s, once per shape.
    """
    short, long = min(rows, columns), max(rows, columns)
    side = min(short, SIDE)
    wide = max(round(side * min(long / short, WIDEST)), side)
    shrink = sqrt(side / short)  # singular values over the norm go as 1/√(shorter side)
    rng = np.random.default_rng(0)
    y, z = rng.standard_normal((2, SAMPLES, side, wide), dtype=np.float32)
    o = newton_schulz(y, shrink)
    size = float((o * o).sum()) / SAMPLES
    shared = []
    for rho in CORRELATIONS:
        other = np.float32(sqrt(1 - rho * rho)) * z
        # z and −z together: exact at ρ = 0, and little noise near it
        near = newton_schulz(rho.astype(np.float32) * y + other, shrink)
        far = newton_schulz(rho.astype(np.float32) * y - other, shrink)
        shared.append(float((o * (near + far)).sum()) / (2 * SAMPLES * size))
    return size / side, np.array(shared)


@lru_cache(maxsize=64)
def autocovariance(momentum: float, nesterov: bool, rows: int, columns: int, rule: str = "") -> Floats:
    r"""γ_k of the update per element, in units of η² (the adjustment of the learning rate is in it), k = 0 … K−1.

    $$ \gamma_k = \frac{\eta_{adj}^2}{\eta^2}\,\frac{E\lVert O\rVert^2}{AB}\, f(\rho_k),\qquad
       \rho_k = \mu^k \text{ or, with Nesterov's } c_0 = 1-\mu^2,\ c_j = (1-\mu)\mu^{j+1}:\
       \sum_j c_jc_{j+k}\Big/\sum_j c_j^2 $$

    Assumes gradients of independent Gaussian elements, white in time. Against torch.optim.Muon (which orthogonalises in
    bfloat16) norms² came out within 1 % and angles within 1 %.
    """
    k = np.arange(0, int(decoupled.TAIL / (1 - momentum)) + 2)
    rho = momentum ** k.astype(float)
    if nesterov:
        later = (1 - momentum) ** 2 * momentum**4 / (1 - momentum**2)  # Σ_{j≥1} c_j²
        first = 1 - momentum**2
        covariance = first * (1 - momentum) * momentum * rho + later * rho
        covariance[0] = first**2 + later
        rho = covariance / covariance[0]
    size, shared = overlap(rows, columns)
    per_element = size * min(rows, columns) / (rows * columns)
    gamma = adjusted(rows, columns, rule) ** 2 * per_element * np.interp(rho, CORRELATIONS, shared)
    gamma.flags.writeable = False  # shared by all callers
    return gamma
