"""Quantity gradient_scale: L = E‖g̃‖², the squared gradient at unit norm that the norms imply with a trusted schedule.

SGD family only: under AdamW, Lion and Muon the step's length does not know it. L drifts in training; its interval is
claimed only where the units' tests find it steady. Per interval it is a picture of L(t): `gradient_picture`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from smd_analyze.fits import checks
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.maps import interval_maps
from smd_analyze.fits.outcomes import Kind
from smd_analyze.fits.rates import units_are_steady
from smd_analyze.fits.stationary import why_not

METHOD = (
    "weighted least squares of ‖w‖⁴ over {} intervals from step {:g} on, learning rate and decay trusted, "
    "median over units"
)
PICTURE = {"step_from": pl.Int64, "step_to": pl.Int64, "value": pl.Float64, "p10": pl.Float64, "p90": pl.Float64}


def gradient_scale_rows(c: Context) -> list[Row]:
    """The one row of gradient_scale; none for other optimizers than the SGD family, or weights that have no such L."""
    r, found = c.regime, c.scale
    if not c.invariant or r.power != 4 or not r.rate_known or c.held:
        return []
    if found is None:
        return [c.row("gradient_scale", **why_not(c))]
    value, low, high = (float(np.median(x)) for x in (found.value, found.low, found.high))
    p10, p90 = np.percentile(found.value, [10, 90])
    holds = units_are_steady(found)
    method = METHOD.format(found.intervals, c.series.steps[c.edges[0]])
    more = {"kind": str(Kind.ESTIMATED), "outcome": "steady"}
    if not holds:
        method += "; its interval claims no coverage"
        seen = float(np.nanmedian(found.drift_size)) if np.isfinite(found.drift_size).any() else np.nan
        check = checks.steady(c)
        moves = check is not None and check.holds is False
        words = f"drifts: ×{seen:.2g} over the stretch" if moves else "not shown to be steady"
        more = {"kind": str(Kind.DRIFT if moves else Kind.TOO_FEW), "outcome": words}
    return [
        c.row(
            "gradient_scale", value, low, high, p10=p10, p90=p90, level=0.95 if holds else None, method=method,
            checks=checks.told(c), **more,
        )
    ]  # fmt: skip


def gradient_picture(c: Context) -> pl.DataFrame:
    """L(t): one row per interval of the whole run with its median over the units, p10 and p90; a picture, no estimate.

    Intervals are at least 5/(1−α) updates long. Unit: squared gradient × squared norm. Empty where the optimizer has no
    L, or the schedule is not known. An interval in which weights shrink faster than decay allows has a negative value.
    """
    rows: Sequence[tuple] = []
    r, vv = c.regime, c.series.vv
    if r.power == 4 and not r.gap and r.rate_known and len(vv) > 1:
        edges = c.thinned(0)
        maps = interval_maps(r, edges)
        phi, source = maps.corrected()
        gain = vv[edges][1:] ** 2 - phi[:, None] * vv[edges][:-1] ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = gain / source[:, None]
        shown = np.isfinite(scale).any(axis=1) & (maps.source > 0)
        steps = c.series.steps[edges]
        rows = [
            (int(steps[i]), int(steps[i + 1]), *np.nanpercentile(scale[i], [50, 10, 90]).tolist())
            for i in np.flatnonzero(shown)
        ]
    return pl.DataFrame(rows, schema=PICTURE, orient="row")
