"""Rate over theory's rate, ρ, with a drifting gradient scale: the profile likelihood over a window of checkpoints.

Over a stretch of constant learning rate a drifting scale L(t) and a wrong rate look alike. Across a change they do
not: ρ multiplies the decay, L(t) = L0 exp(b(t − t0)/T) drifts, and the profile likelihood of ρ over (L0, b) covers.
Momentum: the map of SGD with x_e = ηλ/(1−α), its rate times 1 + A(1 + 3S*/S), A = αηλ/(1−α)², which joins the known
limits of the three-moment recursion: 4x_e(1 + 4A) at equilibrium and 4x_e(1 + A) far above it. At the change from η to
η' the buffer still turns the old way: S jumps by 4αη_e'(η_e − η_e')L/(1 − α²) within 1/(1−α) steps. A jump of L with
the learning rate is not modelled: a factor 2 (1/2) there moves ρ by −12 % (+6 %) in simulation. AdamW, Lion and Muon:
‖w‖² instead of ‖w‖⁴, no correction of the rate, Adam's second moment behind the norm (`second_moment`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.fits.maps import segment
from smd_analyze.fits.window import Window

FLOOR = 0.002  # relative error that no model of S is better than
RHO = np.linspace(np.log(0.25), np.log(4.0), 29)
DRIFT = np.linspace(-4.0, 4.0, 9)
VALID = 0.05  # largest momentum number A at which the corrected map is used


def fit_ratio(s: np.ndarray, w: Window, lag: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln ρ of every unit with the ends of its 95 % profile interval (infinite where the grid ends first).

    s [m + 1, units] is ‖w‖^power at the window's checkpoints, `lag` [m, units] what multiplies the source (1 if None).
    The variance of ε comes from the fit without FLOOR, widened where the fit with it is worse.
    """
    from scipy.special import stdtrit  # heavy

    m, units = len(w.updates), s.shape[1]
    coarse = np.broadcast_to(RHO[:, None], (len(RHO), units))
    lag = np.ones((m, units)) if lag is None else lag
    q, penalty = _profile(coarse, s, w, lag, np.ones(units), 0.0)
    at = (-0.5 * m * np.log(q) - 0.5 * penalty).argmax(axis=0)
    noise = np.take_along_axis(q, at[None], axis=0)[0] / (m - 3)  # V of ε = V·C; FLOOR is added to it
    width = RHO[1] - RHO[0]
    grids, losses = [coarse], [np.add(*_profile(coarse, s, w, lag, noise, FLOOR))]
    for reach in (1.5 * width, 0.2 * width):
        middle = np.take_along_axis(grids[-1], losses[-1].argmin(axis=0)[None], axis=0)[0]
        grids.append(middle + np.linspace(-reach, reach, 21)[:, None])
        losses.append(np.add(*_profile(grids[-1], s, w, lag, noise, FLOOR)))
    grid, loss = np.concatenate(grids), np.concatenate(losses)
    order = grid.argsort(axis=0, kind="stable")
    grid, loss = np.take_along_axis(grid, order, axis=0), np.take_along_axis(loss, order, axis=0)
    best = np.take_along_axis(grid, loss.argmin(axis=0)[None], axis=0)[0]
    excess = np.maximum(_profile(best[None], s, w, lag, noise, FLOOR)[0][0] / (m - 3), 1.0)
    limit = excess * float(stdtrit(m - 3, 0.975)) ** 2
    ends = np.array([_ends(grid[:, u], loss[:, u] - loss[:, u].min(), limit[u]) for u in range(units)])
    return best, ends[:, 0], ends[:, 1]


def _ends(x: np.ndarray, loss: np.ndarray, limit: float) -> tuple[float, float]:
    """Outermost points within `limit` of the best, interpolated; infinite at the grid's ends."""
    inside = np.flatnonzero(loss <= limit)
    a, b = inside[0], inside[-1]

    def between(i: int, j: int) -> float:
        return float(x[i] + (x[j] - x[i]) * (limit - loss[i]) / (loss[j] - loss[i]))

    return between(a, a - 1) if a > 0 else -np.inf, between(b, b + 1) if b < len(x) - 1 else np.inf


def _profile(
    log_rho: np.ndarray, s: np.ndarray, w: Window, lag: np.ndarray, noise: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """(χ², Σ ln variance) [R, units] at log_rho [R, units], profiled over L0 and the drift b.

    The variance of ε is noise [units] × C, and (floor × S)² besides.
    """
    pieces, penalty = _maps(np.exp(log_rho), s, w, noise, floor)
    drift = np.broadcast_to(DRIFT[:, None, None], (len(DRIFT), *log_rho.shape))
    q = _residuals(drift, pieces, s, w, lag)
    for step in (0.5, 0.125):
        middle = np.take_along_axis(drift, q.argmin(axis=0)[None], axis=0)
        drift = middle + step * np.linspace(-2, 2, 5)[:, None, None]
        q = _residuals(drift, pieces, s, w, lag)
    return np.exp(_bottom(np.log(q))), penalty


def _bottom(y: np.ndarray) -> np.ndarray:
    """Smallest value along axis 0, by a parabola through the lowest point and its neighbours."""
    i = np.clip(y.argmin(axis=0), 1, len(y) - 2)[None]
    a, b, c = (np.take_along_axis(y, i + k, axis=0)[0] for k in (-1, 0, 1))
    bend = a - 2 * b + c
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = b - (a - c) ** 2 / (8 * bend)
    return np.where((bend > 0) & (np.abs(a - c) <= 2 * bend), lowest, np.minimum(np.minimum(a, b), c))


@dataclass(frozen=True)
class Piece:
    """One phase of an interval, arrays [R, units]: ln Φ, S* per L, how much faster momentum makes it, and S* over S."""

    log: np.ndarray
    rest: np.ndarray
    strength: np.ndarray
    height: np.ndarray
    jump: float

    def map(self, scale: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Φ and B, with the rate's momentum correction where the gradient's scale L [D, R, units] is given."""
        log = self.log
        if scale is not None:
            log = log * (1 + self.strength * (1 + 3 * np.minimum(self.height * scale, 10)))
        phi = np.exp(log)
        return phi, self.rest * (1 - phi)


Maps = list[tuple[list[Piece], np.ndarray]]


def _maps(rho: np.ndarray, s: np.ndarray, w: Window, noise: np.ndarray, floor: float) -> tuple[Maps, np.ndarray]:
    """The phases of every interval with 1 over its variance [R, units], and Σ ln of the variances."""
    maps: Maps = []
    penalty = np.zeros(rho.shape)
    for i in range(len(w.updates)):
        found, c = [], np.zeros(rho.shape)
        between = np.sqrt(s[i] * s[i + 1])
        for p in (0, 1):
            if w.updates[i, p] == 0:
                continue
            decay = rho * w.decay[i, p]
            phi, b, noises = segment(w.eta[i, p], decay, w.updates[i, p], w.power)
            rest = b / (1 - phi)
            strength = w.momentum * decay / (1 - w.momentum) if w.validity[i] > 0 else np.zeros(rho.shape)
            found.append(Piece(np.log(phi), rest, strength, rest / between, float(w.jump[i, p])))
            c = c * phi**2 + (noises if w.power == 4 else noises * between)
        c = noise * c + (floor * s[i + 1]) ** 2
        penalty += np.log(c)
        maps.append((found, 1 / c))
    return maps, penalty


def _residuals(drift: np.ndarray, maps: Maps, s: np.ndarray, w: Window, lag: np.ndarray) -> np.ndarray:
    """Weighted residual sum Q [D, R, units] with L0 profiled, at drifts [D, R, units] of the gradient's scale."""
    ends = np.cumsum(w.updates.sum(axis=1))
    times = (ends - 0.5 * w.updates.sum(axis=1)) / ends[-1]
    growth = np.exp(drift * times[:, None, None, None]) * lag[:, None, None, :]
    top, bottom, squares = _sums(maps, s, growth, None)
    for _ in range(2 if w.validity.max() > 0 else 0):  # the correction needs S*, so L0
        top, bottom, squares = _sums(maps, s, growth, np.maximum(top / bottom, 0.0))
    return np.maximum(squares - top * top / bottom, 1e-300 + 1e-13 * squares)


def _sums(
    maps: Maps, s: np.ndarray, growth: np.ndarray, scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ yB/c, Σ B²/c, Σ y²/c over the intervals, y = S' − ΦS; `growth` [m, …] is L/L0, `scale` the last L0."""
    top, bottom, squares = (np.zeros(growth.shape[1:]) for _ in range(3))
    for i, (pieces, precision) in enumerate(maps):
        here = None if scale is None else scale * growth[i]
        phi, b = pieces[0].map(here)
        if pieces[0].jump:
            b = b + pieces[0].jump * phi
        for piece in pieces[1:]:
            one, source = piece.map(here)
            phi, b = phi * one, (b + piece.jump) * one + source
        y = s[i + 1] - phi * s[i]
        b = b * growth[i]
        weighted = b * precision
        top += y * weighted
        bottom += b * weighted
        squares += y * (y * precision)
    return top, bottom, squares
