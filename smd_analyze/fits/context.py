"""What a fit of one group may read, and how it writes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.fits import index
from smd_analyze.fits.maps import interval_maps
from smd_analyze.fits.regime import Regime
from smd_analyze.fits.scale import FLOOR, Scale, gradient_scale
from smd_analyze.records.group import Group
from smd_analyze.records.statistics import UnitSeries

Row = dict[str, Any]
INVARIANT = ("invariant", "jointly invariant")
LEVEL = 0.95
SPACING = 5  # optimizer steps × (1 − α) that an interval must span
HELD = 1e-5  # spread of ln‖w‖² over a run that no training leaves to a free norm
COARSE = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3}
OSCILLATES = 1 / 16  # of A: beyond it the norm's relaxation oscillates (roots of the moment recursion)
MOST = 100  # intervals in all; denser checkpoints are thinned
SCHEMA: dict[str, Any] = {
    "group": pl.String, "unit": pl.Int64, "quantity": pl.String, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "level": pl.Float64, "p10": pl.Float64, "p90": pl.Float64, "method": pl.String,
    "outcome": pl.String, "advice": pl.String, "kind": pl.String, "checks": pl.String,
}  # fmt: skip
NUMBERS = ("value", "low", "high", "p10", "p90")


@dataclass(frozen=True, eq=False)
class Context:
    """One group with all that its estimates rest on.

    `series`: squared norms per unit. `regime`: its schedule, interval by interval. `angles`, `predicted`: its rows of
    the tables `angular_updates` and `predictions`. `dtypes`: types in which the files hold its weights (() if exact).
    `clipping`: how the recipe clips gradients ("" if it does not say). `lags`: its rows of the table of that name.
    """

    group: Group
    series: UnitSeries
    regime: Regime
    angles: Sequence[Row] = ()
    predicted: Sequence[Row] = ()
    dtypes: tuple[str, ...] = ()
    clipping: str = ""
    lags: Sequence[Row] = ()

    @property
    def invariant(self) -> bool:
        """Whether theory speaks of this group at all."""
        return self.group.status in INVARIANT

    @cached_property
    def present(self) -> int:
        """Number of checkpoints that hold the group."""
        return int(np.isfinite(self.series.vv).any(axis=1).sum())

    @cached_property
    def frozen(self) -> bool:
        """Whether every checkpoint holds the same weights."""
        known = self.series.dd[np.isfinite(self.series.dd)]
        return len(known) > 0 and not known.any()

    @cached_property
    def start(self) -> int:
        """Interval from which the norm's standing is judged: the last stretch of constant learning rate, else half."""
        start = self.regime.final_stretch()
        return start if start < len(self.regime.decay) else len(self.regime.decay) // 2

    @cached_property
    def stationarity(self) -> index.Stationarity | None:
        """Summary of the equilibrium index, or None where there is none."""
        r = self.regime
        if (r.gap and not r.decay_alone) or r.no_decay or len(self.series.vv) < 2 or self.frozen:
            return None
        found = index.blocks(self.series.vv, r, self.start)
        return None if found is None else index.stationarity(found, self.moving)

    @cached_property
    def held(self) -> bool:
        """Whether the training code holds the norms: they stay to rounding while the weights turn."""
        vv, dd = self.series.vv, self.series.dd
        good = np.isfinite(vv).all(axis=0) & (vv > 0).all(axis=0)
        if self.present < 3 or not good.any():
            return False
        spread = np.ptp(np.log(vv[:, good]), axis=0)
        moved = dd[1:, good] / vv[1:, good]
        turned = np.where(np.isfinite(moved), moved, 0.0).max(axis=0)
        coarse = 0.0 if not self.dtypes else max(COARSE.get(t, 0.0) for t in self.dtypes)
        still = max(HELD, 4 * coarse / np.sqrt(max(self.group.numel / max(self.group.units, 1), 1)))
        return bool(np.median(spread) <= still and np.median(turned) > 100 * still)

    @cached_property
    def edges(self) -> np.ndarray:
        """Checkpoints (indices) from `start` on that estimates use: see `thinned`."""
        return self.thinned(self.start)

    def thinned(self, start: int) -> np.ndarray:
        """Checkpoints (indices) from `start` on, at least SPACING/(1−α) updates apart, not more than MOST + 1.

        Those less than twice as far from `start` are left out where others remain: there momentum's buffer still fills,
        at the start of a run, or turns the old way, after a change of the learning rate.
        """
        r = self.regime
        here = np.flatnonzero(np.isfinite(self.series.vv).any(axis=1))
        here = here[here >= start]
        made = np.concatenate([[0.0], np.cumsum(r.updates)])
        if len(here) < 2:
            return here
        if r.smear > 1 and (start > 0 or self.series.steps[0] == 0):
            later = here[made[here] - made[start] >= 2 * SPACING * r.smear]
            here = later if len(later) > 3 else here
        shortest = max(SPACING * r.smear, (made[here[-1]] - made[here[0]]) / MOST * (1 - 1e-9))
        kept = [here[-1]]
        for i in here[-2::-1]:
            if made[kept[-1]] - made[i] >= shortest:
                kept.append(i)
        return np.array(kept[::-1])

    @cached_property
    def scale(self) -> Scale | None:
        """The gradient's scale of each unit over `edges`, the schedule trusted; None where it cannot be told."""
        r = self.regime
        if r.gap or r.no_decay or self.frozen or len(self.edges) < 4:
            return None
        maps = interval_maps(r, self.edges)
        units = np.flatnonzero((self.series.vv[self.edges] > 0).all(axis=0))
        if not len(units) or not np.isfinite(maps.phi).all() or not (maps.source > 0).all():
            return None
        y = self.series.vv[np.ix_(self.edges, units)] ** (r.power // 2)
        made = np.concatenate([[0.0], np.cumsum(r.updates)])[self.edges]
        when = 0.5 * (made[1:] + made[:-1])
        found = gradient_scale(y, *maps.corrected(), maps.noise, floor=FLOOR, when=when)
        for _ in range(2 if (maps.number > 0).any() else 0):
            rest = maps.source / (1 - maps.phi)
            height = np.maximum(found.value, 0) * rest[:, None] / np.sqrt(y[1:] * y[:-1])
            found = gradient_scale(y, *maps.corrected(height), maps.noise, floor=FLOOR, when=when)
        return found

    @property
    def moving(self) -> bool:
        """Whether the learning rate changes up to the end, so that the level moves."""
        return self.regime.final_stretch() >= len(self.regime.decay)

    @property
    def since(self) -> int | None:
        """Index of the checkpoint since which the norm stands at its equilibrium; None where it proves nothing."""
        if self.stationarity is None or self.held or self.regime.momentum_number > OSCILLATES:
            return None
        return self.stationarity.since

    def row(
        self, quantity: str, value: float | None = None, low: float | None = None, high: float | None = None,
        **more: Any,
    ) -> Row:  # fmt: skip
        """A row of `fits`: NaN becomes null, an interval claims 95 % unless `level` says otherwise (None: no claim)."""
        made: Row = dict.fromkeys(SCHEMA)
        made |= {"group": self.group.name, "quantity": quantity, "value": value, "low": low, "high": high}
        made |= dict.fromkeys(("method", "outcome", "advice", "kind", "checks"), "") | more
        for key in NUMBERS:
            if made[key] is not None:
                made[key] = float(made[key]) if np.isfinite(made[key]) else None
        if "level" not in more and (made["low"] is not None or made["high"] is not None):
            made["level"] = LEVEL
        return made
