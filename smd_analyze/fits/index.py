"""Equilibrium index: is the norm stationary? From norms and decay alone, the gradient's scale stays free.

EI = ln(n_{t+k}/n_t) / (2 Σ x_e), n = ‖w‖²: 0 at equilibrium, −1 under pure decay, > 0 while the norm grows. Of an
interval it is the mean of S*/S − 1 (SGD family, S = ‖w‖⁴), of n*/n − 1 (AdamW, Lion, Muon). Consecutive
intervals telescope, which makes the t interval over five and more of them conservative, if each spans at least
10/(1 − α) steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smd_analyze.fits.regime import FOURTH_POWER, Regime

TOLERANCE = 0.1  # of EI: 10 % in ‖w‖⁴, 2.4 % in ‖w‖
SPREAD = 0.3  # of the units' own EI around 0, 10th to 90th percentile
FEWEST = 5  # intervals that an interval estimate needs
SPACING = 10  # optimizer steps × (1 − α) that an interval must span
LEVEL = 0.95
CORRELATED = 10  # blocks from which their correlation can be told
EQUIVALENCE = 0.90  # two one-sided tests at 5 % each


@dataclass(frozen=True)
class Blocks:
    """Equilibrium index of each unit over consecutive blocks of checkpoints: `index` [blocks, units].

    `edges` are indices of checkpoints, `weight` the blocks' decay over that of all. `height` [edges] is ln‖w‖^power
    relative to the last edge, median over the units: of the variable that relaxes linearly.
    """

    edges: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    height: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """Median over the units, per block; blocks without any finite unit are NaN."""
        return nan_median(self.index, axis=1)


@dataclass(frozen=True)
class Stationarity:
    """Layer summary: EI with its interval, its spread over the units, and since which checkpoint it is near 0.

    `since` is an index into the steps, or None; `first` the checkpoint at which the summary begins.
    """

    value: float
    low: float
    high: float
    p10: float
    p90: float
    blocks: int
    first: int
    since: int | None


def nan_median(values: np.ndarray, axis: int) -> np.ndarray:
    """Median over the finite entries, NaN (without a warning) where there are none."""
    finite = np.asarray(np.isfinite(values).any(axis=axis))
    filled = np.where(np.expand_dims(finite, axis), values, 0.0)
    return np.where(finite, np.nanmedian(filled, axis=axis), np.nan)


def blocks(vv: np.ndarray, regime: Regime, start: int) -> Blocks | None:
    """Cut the intervals from `start` on into blocks that span 10/(1 − α) steps each; None if there is not one.

    vv [T, units] are squared norms, NaN where a checkpoint lacks them. Blocks are cut from the end, so that the last
    checkpoint counts.
    """
    shortest = SPACING * regime.smear
    present = np.asarray(np.isfinite(vv).any(axis=1))
    if not present[start:].any():
        return None
    edges = [int(np.flatnonzero(present)[-1])]
    span = 0.0
    for i in range(edges[0] - 1, start - 1, -1):
        span += regime.updates[i]
        if span >= shortest and present[i]:
            edges.append(i)
            span = 0.0
    edges = np.array(edges[::-1])
    if len(edges) < 2:
        return None
    decay = np.array([regime.decay[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])
    if not np.all(np.isfinite(decay)) or np.any(decay <= 0):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(vv[edges])
        index = np.diff(logs, axis=0) / (2 * decay[:, None])
        height = (2.0 if regime.optimizer in (*FOURTH_POWER, "") else 1.0) * (logs - logs[-1])
    index[~np.isfinite(index)] = np.nan
    return Blocks(edges, index, decay / decay.sum(), nan_median(height, axis=1))


def mean_interval(values: np.ndarray, weight: np.ndarray, level: float) -> tuple[float, float, float]:
    """Weighted mean over blocks and its t interval; the ends are NaN for fewer than FEWEST blocks.

    Blocks that follow each other alike (lag-1 correlation above 0, from CORRELATED blocks on) count as fewer: the
    variance grows by (1 + c)/(1 − c), that of the mean of an AR(1) series.
    """
    from scipy.special import stdtrit  # heavy

    good = np.isfinite(values)
    if not good.any():
        return np.nan, np.nan, np.nan
    share = weight[good] / weight[good].sum()
    mean, m = float((share * values[good]).sum()), int(good.sum())
    if m < FEWEST:
        return mean, np.nan, np.nan
    error = np.sqrt((share**2 * (values[good] - mean) ** 2).sum() * m / (m - 1))
    if m >= CORRELATED:
        rest = values[good] - mean
        c = float(np.clip((rest[1:] * rest[:-1]).sum() / max((rest * rest).sum(), 1e-300), 0.0, 0.8))
        error *= np.sqrt((1 + c) / (1 - c))
    half = float(stdtrit(m - 1, 0.5 * (1 + level)) * error)
    return mean, mean - half, mean + half


def stationarity(found: Blocks, moving: bool = False) -> Stationarity:
    """Summarise the blocks, and find since when the norm is stationary within TOLERANCE.

    The earliest such block: from it on the equivalence test holds (90 % interval of the mean within ±TOLERANCE), it
    begins within TOLERANCE of the mean height (the mean index alone forgets how a long stretch began), no block's
    own median is further out than TOLERANCE and two standard deviations of the later half, and 80 % of the units
    lie within SPREAD: a median of 0 between units that grow and units that shrink is no equilibrium. Where the
    learning rate is `moving` the height may move with it. If it holds somewhere, the summary is that of the stationary
    blocks, else of the last FEWEST: where the norm stands now.
    """
    median = found.median
    begin = _earliest(found, median, moving)
    use = begin if begin is not None else max(len(median) - FEWEST, 0)
    value, low, high = mean_interval(median[use:], found.weight[use:], LEVEL)
    p10, p90 = _spread(found, use)
    first = int(found.edges[use])
    return Stationarity(value, low, high, p10, p90, len(median) - use, first, None if begin is None else first)


def _spread(found: Blocks, begin: int) -> tuple[float, float]:
    """10th and 90th percentile over the units of their mean index from block `begin` on."""
    share = found.weight[begin:] / found.weight[begin:].sum()
    units = (share[:, None] * found.index[begin:]).sum(axis=0)
    units = units[np.isfinite(units)]
    if not len(units):
        return np.nan, np.nan
    p10, p90 = np.percentile(units, [10, 90])
    return float(p10), float(p90)


def _earliest(found: Blocks, median: np.ndarray, moving: bool) -> int | None:
    if len(median) < FEWEST or not np.all(np.isfinite(median)):
        return None
    scatter = float(np.std(median[len(median) // 2 :], ddof=1)) if len(median) >= 4 else 0.0
    begin = len(median)
    while begin > 0 and abs(median[begin - 1]) <= TOLERANCE + 2 * scatter:
        begin -= 1
    for start in range(begin, len(median) - FEWEST + 1):
        _, low, high = mean_interval(median[start:], found.weight[start:], EQUIVALENCE)
        p10, p90 = _spread(found, start)
        if not moving and abs(found.height[start] - found.height[start:].mean()) > TOLERANCE:
            continue
        if low > -TOLERANCE and high < TOLERANCE and p10 > -SPREAD and p90 < SPREAD:
            return start
    return None
