"""Where a learning-rate change can tell the relaxation rate: checkpoints around it, and what acted between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from smd_analyze.fits.regime import COUPLED, Regime

SPACING = 5  # optimizer steps × (1 − α) that an interval must span
CHANGE = 1.5  # factor of the learning rate that counts as a change
LAST = 3.0  # relaxation times used after the change; ‖w‖^power relaxes at rate power × x_e
EACH_SIDE = 2  # intervals at constant learning rate needed before and after it
FEWEST = 6  # intervals in all
MOST = 40  # intervals in all; denser checkpoints are thinned


@dataclass(frozen=True)
class Window:
    """Checkpoints (indices) around a learning-rate change, and the two phases of each interval: η_e, x_e, updates.

    `jump` [m, 2] is what Y gains, per L, when a phase begins with another learning rate. `change`: the step of the
    change, NaN for a stretch of constant learning rate. `power`: the linear variable is Y = ‖w‖^power.
    """

    edges: np.ndarray
    eta: np.ndarray
    decay: np.ndarray
    updates: np.ndarray
    jump: np.ndarray
    momentum: float
    validity: np.ndarray
    change: float
    power: int = 4


@lru_cache(maxsize=8)
def find_window(r: Regime) -> Window | None:
    """The largest change of the learning rate with constant stretches on both sides, as far as these reach."""
    usable = np.isfinite(r.decay) & np.isfinite(r.rate_first) & np.isfinite(r.rate_last) & (r.decay > 0) & r.located
    steady = usable & ~r.changes & (r.rate_first > 0)
    n, best, found = len(usable), np.log(CHANGE), None
    for i in range(n - 1):
        if not steady[i]:
            continue
        j = i + 1
        while j < n and not steady[j] and usable[j] and j - i <= 2:
            j += 1
        if j >= n or not steady[j]:
            continue
        factor = abs(np.log(r.rate_first[j] / r.rate_last[i]))
        begin, end = _reach(r, steady, i, -1), _reach(r, steady, j, +1)
        if factor > best and i - begin + 1 >= EACH_SIDE and end - j + 1 >= EACH_SIDE:
            best, found = factor, (begin, i, j, end)
    if found is None:
        return None
    begin, before, after, end = _near(r, *found)
    later = _thin(r, after, end + 1)
    if after > before + 1 and r.updates[before + 1 : after].sum() < SPACING * r.smear:
        later = later[1:]  # two checkpoints close together at the change
    return _window(r, sorted({*_thin(r, begin, before + 1), *later}), before, after)


@lru_cache(maxsize=8)
def stretch_window(r: Regime) -> Window | None:
    """The last stretch of constant learning rate as a window without a change; None if it is too short."""
    start = r.final_stretch()
    usable = np.isfinite(r.decay[start:]) & (r.decay[start:] > 0) & np.isfinite(r.rate_first[start:])
    if start >= len(r.decay) or not usable.all():
        return None
    return _window(r, _thin(r, start, len(r.decay)), start, start)


def _reach(r: Regime, steady: np.ndarray, i: int, way: int) -> int:
    """Last index of the constant stretch that begins at i, going `way`."""
    while 0 <= i + way < len(steady) and steady[i + way] and r.same(min(i, i + way), max(i, i + way)):
        i += way
    return i


def _near(r: Regime, begin: int, before: int, after: int, end: int) -> tuple[int, int, int, int]:
    """Keep what is near the change: there the drift of L is a straight line. power × decay counts relaxation times.

    After it up to LAST relaxation times, before it half as many updates; EACH_SIDE + 1 intervals if there are.
    """
    passed = r.power * np.cumsum(r.decay[after : end + 1])
    end = min(end, after + max(int(np.searchsorted(passed, LAST)), EACH_SIDE))
    updates = np.cumsum(r.updates[begin : before + 1][::-1])
    back = int(np.searchsorted(updates, 0.5 * r.updates[after : end + 1].sum()))
    return max(begin, before - max(back, EACH_SIDE)), before, after, end


def _window(r: Regime, edges: list[int], before: int, after: int) -> Window | None:
    """Cut the intervals between `edges`, whose learning rate is that of interval `before`, then that of `after`."""
    momentum = float(np.nan_to_num(r.momentum[after]))
    gain = (1 - float(np.nan_to_num(r.dampening[after]))) / (1 - momentum) if r.power == 4 else 1.0
    per_update = r.decay[before] / r.updates[before], r.decay[after] / r.updates[after]
    etas, updates = [], []
    for a, b in zip(edges, edges[1:], strict=False):
        first, last, k = r.rate_first[a], r.rate_last[b - 1], r.updates[a:b].sum()
        share = 1.0 if first == last else (r.rate_sum[a:b].sum() / k - last) / (first - last)
        split = np.clip(share, 0, 1) * k
        etas.append((first, last))
        updates.append((split, k - split))
    eta, updates = np.array(etas), np.array(updates)
    if len(updates) < FEWEST or (updates.sum(axis=1) < SPACING * r.smear).any():
        return None
    old = np.abs(eta - r.rate_last[before]) < np.abs(eta - r.rate_first[after])
    decay = np.where(old, *per_update)
    eta = eta * gain
    jump = np.zeros(eta.shape)
    held = np.concatenate([eta[:1, :1], eta[:-1, 1:]])  # in force when the interval begins
    for p, was in ((0, held[:, 0]), (1, np.where(updates[:, 0] > 0, eta[:, 0], held[:, 0]))):
        jump[:, p] = np.where(updates[:, p] > 0, r.power * momentum * eta[:, p] * (was - eta[:, p]), 0)
    jump /= 1 - momentum**2
    validity = momentum * decay.max(axis=1) / (1 - momentum) if r.optimizer in COUPLED else np.zeros(len(decay))
    change = float(r.steps[before + 1]) if after > before else np.nan
    return Window(np.array(edges), eta, decay, updates, jump, momentum, validity, change, r.power)


def _thin(r: Regime, begin: int, end: int) -> list[int]:
    """Checkpoints begin … end, at least the needed spacing apart, not more than half of MOST; both ends kept."""
    total = float(r.updates[begin:end].sum())
    shortest = max(SPACING * r.smear, total / (MOST // 2) * (1 - 1e-9))
    kept, span = [begin], 0.0
    for i in range(begin, end):
        span += r.updates[i]
        left = float(r.updates[i + 1 : end].sum())
        if span >= shortest and (left >= shortest or left == 0):
            kept.append(i + 1)
            span = 0.0
    return kept if kept[-1] == end else [*kept[:-1], end] if len(kept) > 1 else [begin, end]
