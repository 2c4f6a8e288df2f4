"""Quantity effective_learning_rate, in its published forms, of the units at the last checkpoint.

SGD: η/‖w‖² (van Laarhoven 2017, arXiv:1706.05350; Hoffer et al. 2018, arXiv:1803.01814; Zhang et al. 2019,
arXiv:1810.12281): a step over the norm is η‖g̃‖/‖w‖². Adam, AdamW, Lion and Muon step about η per element whatever the
gradient's size: η√d/‖w‖, d elements in the unit (Kosson et al. 2023, arXiv:2305.17212), the angle of one update that
momentum does not smooth. Muon's update has √min(rows, columns) instead of √d, times what adjusts its learning rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import FOURTH_POWER, MIXED

BY_NORM_SQUARED, BY_NORM = "η/‖w‖²", "η√d/‖w‖"
ELEMENTWISE = ("adam", "adamw", "nadam", "radam", "amsgrad", "adamax", "lion", "muon")


def form_of(optimizer: str) -> str:
    """Which form is published for an optimizer; "" for those that have none."""
    return BY_NORM_SQUARED if optimizer in FOURTH_POWER else BY_NORM if optimizer in ELEMENTWISE else ""


def effective_rate_rows(c: Context) -> list[Row]:
    """The one row of quantity effective_learning_rate: median over the units, p10 and p90."""
    name, r, vv = "effective_learning_rate", c.regime, c.series.vv
    if c.frozen:
        said: dict[str, Any] = Outcome.FROZEN.said() | {"advice": ""}
        return [c.row(name, **said)]
    missing, form = str(Kind.SETTINGS_MISSING), form_of(r.optimizer)
    if r.gap == MIXED or (r.optimizer and not form):
        words = r.gap or f"no effective learning rate is published for {r.optimizer}"
        return [c.row(name, outcome=words, kind=str(Kind.NOT_APPLICABLE))]
    if not form:
        return [c.row(name, outcome="optimizer unknown", kind=missing, advice="--optimizer")]
    if len(r.rate_last) and r.uncertain[-1]:
        words = "learning rate of the last update unknown: it changed since the checkpoint before"
        return [c.row(name, outcome=words, kind=missing, advice="--settings run.toml with a [schedule] table")]
    rate = r.rate_last[-1] if len(r.rate_last) and r.rate_known else np.nan
    norms = vv[-1] if len(vv) else np.array([])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not len(norms):
        return [c.row(name, outcome="no finite norm", kind=str(Kind.NOT_APPLICABLE))]
    if not np.isfinite(rate):
        return [c.row(name, outcome="learning rate unknown", kind=missing, advice="--lr")]
    values = rate / norms if form == BY_NORM_SQUARED else rate * np.sqrt(c.group.numel / c.group.units / norms)
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    method = f"{form}, learning rate of the last update, norms at step {c.series.steps[-1]:g}, median over units"
    return [c.row(name, median, p10=p10, p90=p90, method=method, kind=str(Kind.ESTIMATED))]
