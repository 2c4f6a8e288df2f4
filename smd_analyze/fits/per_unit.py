"""Estimates of every unit of a group, one row each: for a table on request, never in `fits`.

Units share their mini-batches, so their intervals are not independent: pooled over a layer they bound its width from
below. Rates and levels are those of the Ornstein-Uhlenbeck fit over the last stretch of constant learning rate, which
covers while the gradient's scale is steady (`drift_t` tells); off that they are a picture. A stationary norm's rate is
too high by 4/(length of the stretch) in the mean; its interval is a bootstrap where the group has few units, else the
profile likelihood's, which holds the truth in about 90 of 100 cases there.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from smd_analyze.fits.bootstrap import bootstrap_interval
from smd_analyze.fits.context import Context
from smd_analyze.fits.ou import ou_ml

BOOTSTRAPPED = 4  # units of a stationary group up to which their rates are bootstrapped, about a second each
FEWEST = 4  # intervals that a fit of rate and level needs
SCHEMA = {
    "unit": pl.Int64, "weight_norm": pl.Float64, "equilibrium_index": pl.Float64, "gradient_scale": pl.Float64,
    "gradient_scale_low": pl.Float64, "gradient_scale_high": pl.Float64, "drift_t": pl.Float64, "rate": pl.Float64,
    "rate_low": pl.Float64, "rate_high": pl.Float64, "level": pl.Float64, "level_low": pl.Float64,
    "level_high": pl.Float64, "steps_left": pl.Float64, "steps_left_low": pl.Float64, "steps_left_high": pl.Float64,
}  # fmt: skip


def unit_estimates(c: Context) -> pl.DataFrame:
    """One row per unit: last norm, equilibrium index, gradient scale, rate [1/step], level ‖w‖*, steps to 10 % of it.

    Intervals are 95 % of the unit's own model. Null where it cannot be told (no schedule, too few checkpoints, a
    learning rate that moves); a rate_low of 0 says "not relaxed enough", no rate_high "stationary, or under-sampled".
    """
    r, vv = c.regime, c.series.vv
    units = vv.shape[1]
    table: dict[str, np.ndarray] = {name: np.full(units, np.nan) for name in SCHEMA if name != "unit"}
    table["weight_norm"] = np.sqrt(vv[-1]) if len(vv) else table["weight_norm"]
    edges = c.edges
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(edges) > 1 and r.decay[edges[0] : edges[-1]].sum() > 0:
            decay = r.decay[edges[0] : edges[-1]].sum()
            table["equilibrium_index"] = np.log(vv[edges[-1]] / vv[edges[0]]) / (2 * decay)
    good = np.flatnonzero((vv[edges] > 0).all(axis=0)) if len(edges) else np.zeros(0, int)
    if c.scale is not None and r.power == 4 and r.rate_known:
        scale = c.scale
        for name, values in (
            ("gradient_scale", scale.value), ("gradient_scale_low", scale.low), ("gradient_scale_high", scale.high),
            ("drift_t", scale.drift),
        ):  # fmt: skip
            table[name][good] = values
    if len(edges) > FEWEST and len(good) and not (r.gap or c.moving or c.held or c.frozen):
        made = np.concatenate([[0.0], np.cumsum(r.updates)])[edges]
        fitted = ou_ml(made, vv[np.ix_(edges, good)] ** (r.power // 2))
        low, high = fitted.low, fitted.high
        if c.since is not None and len(good) <= BOOTSTRAPPED:
            ends = [bootstrap_interval(made, y) for y in (vv[np.ix_(edges, good)] ** (r.power // 2)).T]
            low, high = np.array(ends).T
        for name, values in (("rate", fitted.rate), ("rate_low", low), ("rate_high", high)):
            table[name][good] = values
        for name, values in (
            ("level", fitted.level),
            ("level_low", fitted.level_low),
            ("level_high", fitted.level_high),
        ):
            table[name][good] = np.maximum(values, 0.0) ** (1 / r.power)
        for end, values in (("", fitted.wait), ("_low", fitted.wait_low), ("_high", fitted.wait_high)):
            table[f"steps_left{end}"][good] = values
    columns = {name: np.where(np.isfinite(v), v, np.nan) for name, v in table.items()}
    return pl.DataFrame({"unit": np.arange(units), **columns}, schema=SCHEMA).fill_nan(None)
