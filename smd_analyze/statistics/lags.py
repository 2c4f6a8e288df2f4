"""The measured part of the table `lags`: angles and retention between checkpoints, near and far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.statistics.collecting import DD, DV, VV, Totals
from smd_analyze.statistics.samples import Samples, windows
from smd_analyze.statistics.trajectories import Array, angle, earlier

if TYPE_CHECKING:
    import polars as pl


def lags_table(
    steps: Sequence[int], groups: Sequence[Group], totals: Totals, found: Samples, spoilt: Mapping[int, np.ndarray]
) -> pl.DataFrame:
    """What is measured of the table `lags`: one row per group and pair of checkpoints that both hold it.

    Columns: group, step_from, step_to, lag [checkpoints], elements (that were compared: all of neighbours, else a
    sample), angle [rad], retention ⟨w_to, w_from⟩/‖w_from‖². Norms are exact; the sampling error of 1 − cos θ is
    √(2/elements) of it where all elements move alike. `spoilt`: group → checkpoints [T] whose file changed meanwhile.
    """
    import polars as pl  # a fifth of a second, which reading need not wait for

    pairs = windows(len(steps))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("step_from", "step_to", "lag", "elements", *_FLOATS)}
    names: list[str] = []
    near = pairs[:, 2] == 1
    times = np.array(steps, np.int64)
    for number, group in enumerate(groups if len(pairs) else ()):
        vv = totals.sums[number, VV].copy()
        if number in spoilt:
            vv[spoilt[number]] = np.nan
        sums = np.full((len(pairs), 3), np.nan)
        sums[near] = totals.sums[number, VV : DV + 1].T[pairs[near, 1]]
        whole = found.lacking.get(number) == 0
        if whole:
            sums[~near] = found.sums[number]
        before, after = vv[pairs[:, 0]], vv[pairs[:, 1]]
        turned = turn(sums[:, VV], sums[:, DD], sums[:, DV], before, after)
        with np.errstate(invalid="ignore", divide="ignore"):
            retention = np.cos(turned) * np.sqrt(after / before)
        good = np.flatnonzero(np.isfinite(retention) & np.isfinite(turned))
        names += [group.name] * len(good)
        elements = np.where(near, group.numel, found.elements.get(number, 0))
        values = times[pairs[:, 0]], times[pairs[:, 1]], pairs[:, 2], elements, turned, retention
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value[good])
    whole_columns = {name: np.concatenate(v) if v else np.empty(0) for name, v in columns.items()}
    schema = {"group": pl.String, **dict.fromkeys(_INTEGERS, pl.Int64), **dict.fromkeys(_FLOATS, pl.Float64)}
    return pl.DataFrame({"group": names, **whole_columns}, schema=schema)


def turn(vv: Array, dd: Array, dv: Array, before: Array, after: Array) -> Array:
    r"""Angle [rad] between two checkpoints from a sample's sums and the exact squared norms of all elements.

    $$ 1 - \cos\theta = (1 - \cos\theta_s)\sqrt{\frac{n_s n_s'}{n\,n'}} $$

    θ_s and n_s are the sample's: what it moved across its weights is kept, what it knows worse of the norms is not.
    Shapes alike, squared norms in weight². NaN where a norm is zero or unknown.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(vv * earlier(vv, dd, dv) / (before * after))
        sine = np.sin(angle(vv, dd, dv) / 2) ** 2 * scale
        return 2 * np.arcsin(np.sqrt(np.minimum(sine, 1.0)))


_INTEGERS = ("step_from", "step_to", "lag", "elements")
_FLOATS = ("angle", "retention")
