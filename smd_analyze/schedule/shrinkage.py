"""How fast scale-invariant tensors shrink: the least weight decay that they can have had, if SGD trained them."""

from __future__ import annotations

import numpy as np

from smd_analyze.records.statistics import Statistics
from smd_analyze.schedule.clock_readings import Floats

INVARIANT = ("invariant", "jointly invariant")
EXACT = ("float32", "float64")


def shrinkage_of(stats: Statistics) -> dict[str, Floats]:
    """Parameter → −½ Δ ln‖w‖² over each interval [I], median over the units; NaN where none is known.

    ‖w'‖² = (1−x)²‖w‖² + ‖step‖² for a gradient at right angles to w, so that under the SGD family the decay of the
    weights over an interval is at least this, per unit (Wan et al. 2021, arXiv:2006.08419). The median, because single
    units may shrink faster: where the normalization's ε is not small beside what they put out. Only tensors that are
    held to be scale-invariant, and saved without rounding of their own, are in it.
    """
    out: dict[str, Floats] = {}
    for group in stats.groups:
        if group.status not in INVARIANT or not set(stats.dtypes.get(group.name, ())) <= set(EXACT):
            continue
        vv = stats.units(group.name).vv
        if len(vv) < 2:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            shrunk = -0.5 * np.diff(np.log(vv), axis=0)
        known = np.isfinite(shrunk)
        middle = np.full(len(shrunk), np.nan)
        rows = known.any(axis=1)
        middle[rows] = np.nanmedian(np.where(known, shrunk, np.nan)[rows], axis=1)
        out |= dict.fromkeys((m.parameter for m in group.members), middle)
    return out
