"""Quantity effective_learning_rate: η/‖w‖² of the units at the last checkpoint (van Laarhoven 2017)."""

from __future__ import annotations

import numpy as np

from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import FOURTH_POWER


def effective_rate_rows(c: Context) -> list[Row]:
    """The one row of quantity effective_learning_rate."""
    name, r, vv = "effective_learning_rate", c.regime, c.series.vv
    if c.frozen:
        return [c.row(name, **Outcome.FROZEN.said() | {"advice": ""})]
    if r.optimizer and r.optimizer not in FOURTH_POWER:
        words = f"η/‖w‖² is for SGD: {r.optimizer} steps whatever the gradient's size"
        return [c.row(name, outcome=words, kind=str(Kind.NOT_APPLICABLE))]
    missing = str(Kind.SETTINGS_MISSING)
    if len(r.rate_last) and r.uncertain[-1]:
        words = "learning rate of the last update unknown: it changed since the checkpoint before"
        return [c.row(name, outcome=words, kind=missing, advice="--settings run.toml with a [schedule] table")]
    rate = r.rate_last[-1] if len(r.rate_last) else np.nan
    norms = vv[-1] if len(vv) else np.array([])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not np.isfinite(rate) or not len(norms):
        return [c.row(name, outcome=r.gap or "no finite norm", kind=missing, advice="--lr" if not r.gap else "")]
    p10, median, p90 = np.percentile(rate / norms, [10, 50, 90])
    method = f"learning rate of the last update over squared norm at step {c.series.steps[-1]:g}, median over units"
    return [c.row(name, median, p10=p10, p90=p90, method=method, kind=str(Kind.ESTIMATED))]
