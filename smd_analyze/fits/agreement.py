"""Measured angular update over the equilibrium one, and the level at which the norm settles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.1
MARGIN = 0.05  # what a norm that counts as stationary (EI within ±0.1) may turn off: θ² is 1 + EI times its equilibrium
LEVEL = 0.95
BATCHES = 3  # independent measurements from which their scatter makes an interval
AGREES = "agrees with theory"
DIFFERS = "differs from theory"
UNSURE = "not precise enough to tell"
FEW = "too few measurements to tell"


@dataclass(frozen=True)
class Ratio:
    """A ratio of rms values with its 95 % interval (NaN where there is none)."""

    value: float
    low: float
    high: float
    rows: int
    method: str

    @property
    def outcome(self) -> str:
        """What the interval may claim.

        Differs: it lies outside 1 ± MARGIN. Agrees: it lies within 1 ± TOLERANCE, or it meets 1 ± MARGIN, is no wider
        than ± TOLERANCE and its value is no further off. Else it is not precise enough.
        """
        if not np.isfinite(self.low + self.high):
            return FEW
        within = self.low >= 1 - TOLERANCE and self.high <= 1 + TOLERANCE
        meets = self.low <= 1 + MARGIN and self.high >= 1 - MARGIN
        if not meets and not within:
            return DIFFERS
        sharp = self.high - self.low <= 2 * TOLERANCE and abs(self.value - 1) <= TOLERANCE
        return AGREES if within or sharp else UNSURE


def rms_interval(values: np.ndarray, batch: np.ndarray) -> Ratio | None:
    """Root mean square of `values` [m]; t interval on the mean squares of three and more batches, else none.

    `batch` [m] numbers the batches: measurements within one memory of the momentum are one. The scatter over a layer's
    units is no substitute: they share their mini-batch, whose gradient alone moves one update's θ² by 15 % (α = 0.9) to
    40 % (α = 0) in small networks, two to four times what their scatter says.
    """
    from scipy.special import stdtrit  # heavy

    good = np.isfinite(values)
    m = int(good.sum())
    if m == 0:
        return None
    squares = np.array([np.mean(values[good & (batch == b)] ** 2) for b in np.unique(batch[good])])
    value, n = float(np.sqrt(squares.mean())), len(squares)
    rows = f"rms of {m} measurement{'s' * (m > 1)}"
    if n < BATCHES:
        return Ratio(value, np.nan, np.nan, m, rows)
    half = float(stdtrit(n - 1, 0.5 * (1 + LEVEL)) * squares.std(ddof=1) / np.sqrt(n))
    ends = np.sqrt(np.maximum([squares.mean() - half, squares.mean() + half], 0.0))
    close = "" if n == m else f" in {n} batches"
    return Ratio(value, float(ends[0]), float(ends[1]), m, f"{rows}{close}, t interval on their squares")


def settled_level(norm: np.ndarray, decay: np.ndarray, power: int) -> tuple[float, float, float, int]:
    """Mean weight norm of a stationary stretch and its batch-means t interval: (value, low, high, batches).

    norm [m] at m checkpoints, decay [m − 1] between them. `power` 4 or 2: ‖w‖^power relaxes at rate power × x_e.
    A batch lasts at least two relaxation times: with fewer than three batches the ends are NaN. What correlation is
    left between batches of b relaxation times widens the interval by 1/√(1 − (1 − e^−b)/b), that of an AR(1) series.
    """
    from scipy.special import stdtrit  # heavy

    value = float(np.mean(norm))
    times = np.concatenate([[0.0], np.cumsum(power * decay)])
    count = int(min(times[-1] // 2, len(norm) // 2, 10))
    if count < 3:
        return value, np.nan, np.nan, count
    which = np.minimum((times / times[-1] * count).astype(int), count - 1)
    filled = np.unique(which)
    if len(filled) < 3:
        return value, np.nan, np.nan, len(filled)
    means = np.array([norm[which == b].mean() for b in filled])
    length = times[-1] / count
    left = 1 - (1 - np.exp(-length)) / length
    half = float(stdtrit(len(filled) - 1, 0.5 * (1 + LEVEL)) * means.std(ddof=1) / np.sqrt(len(filled) * left))
    return value, value - half, value + half, len(filled)
