"""Quantities level and level_ratio: the norm at which a stationary stretch stands, and over the predicted one."""

from __future__ import annotations

import numpy as np

from smd_analyze.fits import agreement, checks
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.outcomes import Outcome


def level_rows(c: Context) -> list[Row]:
    """Mean weight norm of the stationary stretch with its batch-means interval, and its ratio to theory's norm."""
    since, r = c.since, c.regime
    if since is None:
        return [c.row("level", **Outcome.UNSETTLED.said())]
    if c.moving:
        return [c.row("level", **Outcome.LEVEL_MOVES.said())]
    kept = since + np.flatnonzero(np.isfinite(c.series.vv[since:]).any(axis=1))
    norm = np.sqrt(np.nansum(c.series.vv[kept], axis=1))
    decay = np.array([r.decay[a:b].sum() for a, b in zip(kept, kept[1:], strict=False)])
    value, low, high, batches = agreement.settled_level(norm, decay, r.power)
    said = Outcome.STATIONARY.said()
    if not np.isfinite(low):
        said["advice"] = "the stretch lasts less than six relaxation times: train on for an interval"
    method = f"mean weight norm from step {c.series.steps[since]:g} on, {batches} batch means"
    rows = [c.row("level", value, low, high, method=method, checks=checks.told(c, checks.steady), **said)]
    last = c.predicted[-1] if c.predicted else {}
    theory = last.get("equilibrium_norm")
    if theory and last.get("norm_basis") == "theory":
        method = "level over the norm that theory predicts"
        said = (Outcome.STATIONARY if c.invariant else Outcome.REFERENCE).said()
        if not c.invariant:
            low = high = np.nan  # of no theory that holds
        rows.append(c.row("level_ratio", value / theory, low / theory, high / theory, method=method, **said))
    return rows
