"""The linear map of each interval under the recorded schedule: Y' = ΦY + M·B + ε, Var ε = V·C, for every optimizer.

SGD family: Y = S = ‖w‖⁴, one step is S' = q²S + η_e²L(1+q), q = (1−x_e)², η_e = η/(1−α) (Wan et al. 2021,
arXiv:2006.08419, the square of its recursion for tangent gradients); M is the gradient's scale L = E‖g̃‖² at unit norm.
A change of the learning rate from η to η' adds 4αη_e'(η_e − η_e')L/(1−α²) within 1/(1−α) steps: the buffer is older.
AdamW, Lion, Muon: Y = n = ‖w‖², n' = (1−x)²n + η²M; M is the squared length of a unit step, momentum's overlap
included: its step does not depend on the norm (Kosson et al. 2023, arXiv:2305.17212).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.fits.regime import COUPLED, Regime

HIGHEST = 10.0  # Y*/Y beyond which momentum's correction is not followed
PIECES = 32  # an interval whose learning rate changes is cut into this many pieces of constant learning rate


@dataclass(frozen=True)
class Maps:
    """Φ, B, C of intervals, arrays [m]; NaN where the schedule does not say. `power`: Y = ‖w‖^power.

    The rate of these is theory's far above equilibrium, 4x_e; `number` [m] is A = αηλ/(1−α)², by which momentum speeds
    it up: `corrected`.
    """

    phi: np.ndarray
    source: np.ndarray
    noise: np.ndarray
    number: np.ndarray
    power: int

    def corrected(self, height: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Φ and B with the rate times 1 + A(1 + 3·height), height = Y*/Y ([m], [m, units] or a number).

        Joins the known limits of the three-moment recursion: 4x_e(1 + 4A) at equilibrium, 4x_e(1 + A) far above it.
        """
        height = np.minimum(np.asarray(height, float), HIGHEST)
        extra = 1, *(1,) * (height.ndim - 1)
        number, phi, source = (x.reshape(-1, *extra[1:]) for x in (self.number, self.phi, self.source))
        with np.errstate(divide="ignore", invalid="ignore"):
            faster = phi ** (1 + number * (1 + 3 * height))
            rest = np.where(phi < 1, source / (1 - phi), 0.0)
        return faster, np.where(phi < 1, rest * (1 - faster), source)


def segment(
    eta: float | np.ndarray, decay: float | np.ndarray, steps: float | np.ndarray, power: int = 4
) -> tuple[np.ndarray, ...]:
    """(Φ, B, C) of `steps` updates with constant η_e and x_e = `decay`: Y' = Φ Y + M B + ε, Var ε = V·C.

    Arrays broadcast; x_e = 0 gives Φ = 1, B = 2η²k, C = 4η⁴k (power 4), B = C = η²k (power 2; there V carries ‖w‖²).
    """
    one = 1 - np.asarray(decay, float)
    square = np.asarray(eta, float) ** 2
    f = one**power
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_f = np.where(f < 1, (1 - f**steps) / (1 - f), steps)
        sum_ff = np.where(f < 1, (1 - f ** (2 * np.asarray(steps))) / (1 - f * f), steps)
    if power == 2:
        return f**steps, square * sum_f, f * square * sum_ff
    return f**steps, square * (1 + one * one) * sum_f, 4 * f * square**2 * sum_ff


def interval_maps(r: Regime, edges: np.ndarray | None = None) -> Maps:
    """The maps between the checkpoints `edges` (indices; all by default)."""
    single = [_interval(r, i) for i in range(len(r.decay))]
    with np.errstate(divide="ignore", invalid="ignore"):
        number = r.momentum / (1 - r.momentum) * r.decay / r.updates
    number = number if r.optimizer in COUPLED else np.zeros(len(single))
    if edges is not None:
        parts = list(zip(edges, edges[1:], strict=False))
        single = [_joined(single[a:b]) for a, b in parts]
        number = np.array([np.average(number[a:b], weights=r.updates[a:b]) for a, b in parts])
    phi, source, noise = np.array(single).reshape(-1, 3).T
    return Maps(phi, source, noise, number, r.power)


def _joined(maps: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    phi, source, noise = 1.0, 0.0, 0.0
    for f, b, c in maps:
        phi, source, noise = phi * f, source * f + b, noise * f * f + c
    return phi, source, noise


def _interval(r: Regime, i: int) -> tuple[float, float, float]:
    """Φ, B, C of interval i as a chain of pieces with constant learning rate."""
    k = r.updates[i]
    if not (np.isfinite(r.decay[i]) and k > 0):
        return np.nan, np.nan, np.nan
    rates, counts = pieces(r, i)
    mean = float((rates * counts).sum() / k)
    if not mean > 0:
        return 1.0, 0.0, 0.0
    decay = r.decay[i] / k * rates / mean
    alpha = float(np.nan_to_num(r.momentum[i]))
    gain = (1 - float(np.nan_to_num(r.dampening[i]))) / (1 - alpha) if r.power == 4 else 1.0
    eta = rates * gain
    phi, source, noise = segment(eta, np.minimum(decay, 1.0), counts, r.power)
    before = np.concatenate([[_held(r, i) * gain], eta[:-1]])
    jump = r.power * alpha * eta * (before - eta) / (1 - alpha**2)  # momentum still turns as the old rate made it
    parts = zip(np.atleast_1d(phi), np.atleast_1d(source + phi * jump), np.atleast_1d(noise), strict=True)
    return _joined([(float(f), float(b), float(c)) for f, b, c in parts])


def _held(r: Regime, i: int) -> float:
    """The learning rate in force before interval i begins."""
    before = r.rate_last[i - 1] if i else r.rate_first[0]
    return float(before if np.isfinite(before) else r.rate_first[i])


def pieces(r: Regime, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates of interval i and the number of updates that each lasts, with the recorded sum kept.

    A change between constant neighbours is a step at the place that the sum tells; any other is a curve from the first
    to the last learning rate, last + (first − last)(1 − u)^p, with p from the sum.
    """
    k, first, last, total = r.updates[i], r.rate_first[i], r.rate_last[i], r.rate_sum[i]
    mean = total / k if np.isfinite(total) else first
    flat = np.array([mean]), np.array([k])
    if not r.changes[i] or not np.isfinite(first + last) or first == last or k < 2:
        return flat
    share = (mean - last) / (first - last)
    if not 0.02 < share < 0.98:
        return flat
    around = [j for j in (i - 1, i + 1) if 0 <= j < len(r.decay)]
    if around and not any(r.changes[j] for j in around):
        return np.array([first, last]), k * np.array([share, 1 - share])
    count = int(min(k, PIECES))
    edges, p = np.linspace(0, 1, count + 1), 1 / share - 1
    rates = last + (first - last) * np.diff(-((1 - edges) ** (p + 1)) / (p + 1)) * count
    return rates, np.full(count, k / count)
