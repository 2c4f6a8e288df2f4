"""What an estimate takes for granted, checked afterwards: small functions, each with a word for the table.

A check that fails does not hide a number: it says why the number may be off. What must hold for a number to be printed
at all is decided where the number is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smd_analyze.fits.context import COARSE, OSCILLATES, Context
from smd_analyze.fits.scale import Scale

SMALL = 0.02  # decay per step, and momentum number A, up to which the effective map holds within 2 %
SPACING = 5  # optimizer steps × (1 − α) between checkpoints
STEADY = 0.1  # by which the gradient's scale may change and count as steady
T_LIMIT = 2.0  # |t| of the drift, over the units' median, from which a drift counts as seen


@dataclass(frozen=True)
class Check:
    """One assumption: whether it holds (None: not known), in a few words."""

    holds: bool | None
    words: str

    def __str__(self) -> str:
        return self.words if self.holds else f"{self.words} (!)" if self.holds is False else f"{self.words} (?)"


def small_decay(c: Context) -> Check | None:
    """ηλ ≪ 1: decay per step."""
    r = c.regime
    with np.errstate(divide="ignore", invalid="ignore"):
        x = r.decay / r.updates
    x = x[np.isfinite(x)]
    return Check(bool(x.max() <= SMALL), f"decay per step {x.max():.2g}") if len(x) else None


def momentum_number(c: Context) -> Check | None:
    """A = αηλ/(1−α)² ≪ 1: the norm relaxes without momentum of its own."""
    number = c.regime.momentum_number
    if not np.isfinite(number) or number == 0:
        return None
    return Check(number <= SMALL, f"A = {number:.2g}" + (", oscillates" if number > OSCILLATES else ""))


def spacing(c: Context) -> Check | None:
    """Checkpoints at least 5/(1−α) steps apart: closer ones are thinned, so only their number suffers."""
    gaps = c.regime.updates[np.isfinite(c.regime.updates)]
    if not len(gaps) or c.regime.smear == 1:
        return None
    times = float(np.median(gaps)) / c.regime.smear
    return Check(times >= SPACING, f"checkpoints {times:.3g}/(1−α) apart")


def steady(c: Context) -> Check | None:
    """The gradient's scale is steady over the judged stretch: t test of a linear drift, median over the units."""
    found = c.scale
    if found is None or found.intervals < 4 or not np.isfinite(found.drift).any():
        return None
    size, t = float(np.nanmedian(found.drift_size)), float(np.nanmedian(found.drift))
    words = f"gradient scale ×{size:.2f} over the stretch, t = {t:.1f}"
    return Check(bool(abs(t) < T_LIMIT or abs(size - 1) <= STEADY), words)


def uncorrelated(c: Context) -> Check | None:
    """Residuals of consecutive intervals are independent: lag-1 Ljung-Box at 5 %, median over the units."""
    found = c.scale
    if found is None or found.intervals < 6:
        return None
    q, limit = ljung_box(found)
    return Check(q < limit, f"lag-1 correlation {float(np.nanmedian(found.lag)):.2f}")


def ljung_box(found: Scale) -> tuple[float, float]:
    """Ljung-Box statistic of lag 1, median over the units, and its 95 % quantile (χ² with one degree of freedom)."""
    m = found.intervals
    return float(m * (m + 2) / (m - 1) * np.nanmedian(found.lag**2)), 3.841


def resolution(c: Context) -> Check | None:
    """Norms saved in 16 bits or fewer: rounding of a unit's norm against its median change between checkpoints."""
    coarse = [COARSE[t] for t in c.dtypes if t in COARSE]
    if not coarse or c.present < 2:
        return None
    each = max(c.group.numel / max(c.group.units, 1), 1.0)
    floor = 2 * max(coarse) / np.sqrt(12 * each)  # of ln‖w‖²
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.diff(np.log(c.series.vv), axis=0))
    change = change[np.isfinite(change)]
    moved = float(np.median(change)) if len(change) else 0.0
    return Check(moved > 5 * floor, f"rounding {100 * floor / max(moved, 1e-300):.1g} % of the norms' changes")


def clipping(c: Context) -> Check | None:
    """No clipping: it breaks ‖g‖ ∝ 1/‖w‖, on which the equation of ‖w‖⁴ rests, wherever it acts."""
    return Check(False, f"gradients clipped: {c.clipping}") if c.clipping and c.regime.power == 4 else None


CHECKS: tuple[Callable[[Context], Check | None], ...] = (
    small_decay,
    momentum_number,
    spacing,
    steady,
    uncorrelated,
    resolution,
    clipping,
)


def told(c: Context, *which: Callable[[Context], Check | None]) -> str:
    """The checks in one line, "(!)" behind those that fail; all of them if none is named."""
    found = [check(c) for check in which or CHECKS]
    return "; ".join(str(f) for f in found if f is not None)
