"""A clock under any schedule: the recursion of (c, q), component and momentum buffer, without any noise.

Buffer form (PyTorch, optax, Paddle, TF1's MomentumOptimizer): q' = αq + (1−τ)λc, c' = c − ηq'.
Velocity form (Keras, Caffe, MXNet, Chainer): q' = αq + ηλc, c' = c − q'; a changed η reaches c only as old terms leave
the velocity. Nesterov: c' = c − η(λc + αq'), and c' = c − (ηλc + αq'). Where only x = ηλ is known, pass it as the
learning rate with λ = 1; q is then in units of c (buffer over λ).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smd_analyze.decay_formulas.settled import coupled_rate

Floats = npt.NDArray[np.float64]


def step_matrices(
    learning_rate: npt.ArrayLike,
    weight_decay: npt.ArrayLike = 1.0,
    momentum: npt.ArrayLike = 0.0,
    *,
    nesterov: bool = False,
    dampening: npt.ArrayLike = 0.0,
    rate_in_velocity: bool = False,
) -> Floats:
    """(c, q) → (c', q') of each update as a matrix, [T, 2, 2], for settings [T] or constant (coupled decay)."""
    eta, lam, a, damp = np.broadcast_arrays(
        *(np.asarray(part, np.float64) for part in (learning_rate, weight_decay, momentum, dampening))
    )
    damp = np.where(a == 0, 0.0, damp)
    fed, applied = (eta * lam, np.ones(eta.shape)) if rate_in_velocity else ((1 - damp) * lam, eta)
    now, old = (applied * fed + applied * a * fed, applied * a * a) if nesterov else (applied * fed, applied * a)
    return np.stack([np.stack([1 - now, -old], -1), np.stack([fed, a], -1)], -2)


def log_ratios(matrices: Floats, edges: npt.ArrayLike, buffer: float = 0.0) -> tuple[Floats, Floats]:
    """−ln(c_b/c_a) between neighbouring `edges` (counts of updates, rising, up to T), and q/c at each edge.

    Returns ([E−1], [E]). `buffer` is q/c at the first edge: `fresh_buffer`, `settled_buffer`, or a saved one over c.
    NaN from the interval on in which c has reached zero or changed sign: overshooting, no clock. One million updates
    take a second.
    """
    cuts = np.asarray(edges, np.int64)
    ratios, buffers = np.full(len(cuts) - 1, np.nan), np.full(len(cuts), np.nan)
    buffers[0] = buffer
    for i, (first, last) in enumerate(zip(cuts, cuts[1:], strict=False)):
        c, q = _product(matrices[first:last]) @ np.array([1.0, buffers[i]])
        if not c > 0 or _crosses_zero(matrices[first:last], buffers[i]):
            break
        ratios[i], buffers[i + 1] = -np.log(c), q / c
    return ratios, buffers


def fresh_buffer(weight_decay: float = 1.0, momentum: float = 0.0, dampening: float = 0.0) -> float:
    """q/c before the first update. Zero, but PyTorch's first q is undamped: τλ/α stands for that exactly."""
    return dampening * weight_decay / momentum if momentum else 0.0


def settled_buffer(
    learning_rate: float,
    weight_decay: float = 1.0,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    dampening: float = 0.0,
    rate_in_velocity: bool = False,
) -> float:
    """q/c after many updates with these settings: fed·c/(z−α), z = e^−rate. NaN where the clock oscillates."""
    z = np.exp(-coupled_rate(learning_rate * weight_decay, momentum, nesterov, dampening))
    fed = learning_rate * weight_decay if rate_in_velocity else (1 - dampening) * weight_decay
    return float(fed / (z - momentum))


def drop_position(rate: npt.ArrayLike, before: npt.ArrayLike, after: npt.ArrayLike) -> Floats:
    """Share of an interval that lay before the change from one rate to the other: f = (r − r₂)/(r₁ − r₂).

    Outside 0…1: the interval holds no such change. In velocity form subtract `velocity_lag` from f·k updates. In buffer
    form the buffer's own resettling moves it by less than x/(1−α)² updates.
    """
    r, first, second = (np.asarray(part, np.float64) for part in (rate, before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (r - second) / (first - second)


def velocity_lag(momentum: npt.ArrayLike, nesterov: bool = False) -> Floats:
    """Updates by which a change of η seems late in velocity form: Σ αʲ = α/(1−α); Nesterov α²/(1−α)."""
    a = np.asarray(momentum, np.float64)
    return (a * a if nesterov else a) / (1 - a)


def _crosses_zero(matrices: Floats, buffer: float) -> bool:
    """Whether the component changes sign on the way. It can only where eigenvalues are complex."""
    trace, det = np.trace(matrices, axis1=-2, axis2=-1), np.linalg.det(matrices)
    if not (trace * trace < 4 * det).any():
        return False
    c, q = 1.0, buffer
    for (stay, pull), (fed, kept) in matrices.tolist():
        c, q = stay * c + pull * q, fed * c + kept * q
        if c <= 0:
            return True
    return False


def _product(matrices: Floats) -> Floats:
    """The ordered product of [k, 2, 2], later updates on the left, by halves."""
    out = matrices
    while len(out) > 1:
        odd = out[-1:] if len(out) % 2 else out[:0]
        out = np.concatenate([out[1::2] @ out[: len(out) - len(odd) : 2], odd])
    return out[0] if len(out) else np.eye(2)
