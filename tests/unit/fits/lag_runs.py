"""Simulated weights that diffuse, drift or are confined, as records with the measured part of the table `lags`."""

import numpy as np
import polars as pl
from fits_runs import schedule

from smd_analyze.records.group import Group, Member
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.statistics.samples import windows

GROUP = Group("w", (Member("w", 0, 0, 1),), "invariant", "tensor", 1, 1, "all", "proved", "linear", "test")


def walk(
    count=81, every=100, decay=1e-6, momentum=0.9, drift=0.0, spring=0.0, elements=1000, seed=0, rate=0.1, start=1.0,
    uneven=False,
):  # fmt: skip
    """Weights [count, elements] under SGD with momentum, `decay` = ηλ, at equilibrium (× start): E‖g̃‖² = 1.

    drift: share of E‖g̃‖² that turns w along one great circle. spring: strength of a pull to the start direction.
    uneven: the i-th element's noise has variance ∝ 1/i.
    """
    rng = np.random.default_rng(seed)
    # ‖w*‖⁴ = ηL/(2λ(1−α)) where steps are small
    w = rng.standard_normal(elements)
    level = (rate * rate / (2 * decay * (1 - momentum))) ** 0.25
    w *= start * level / np.linalg.norm(w)
    spread = 1 / np.sqrt(np.arange(1, elements + 1)) if uneven else np.ones(elements)
    spread = rng.permutation(spread) * np.sqrt((1 - drift) / (spread**2).sum())
    home, v = w / np.linalg.norm(w), np.zeros(elements)
    kept = []
    for t in range((count - 1) * every + 1):
        if t % every == 0:
            kept.append(w.copy())
        size = np.linalg.norm(w)
        g = rng.standard_normal(elements) * spread
        if drift:
            g += np.sqrt(drift) / size * np.stack([-w[1::2], w[::2]], axis=1).ravel()
        if spring:
            g -= spring * home
        g -= (g @ w) / size**2 * w
        v = momentum * v + g / size + decay / rate * w
        w = w - rate * v
    return np.array(kept)


def records(weights, every=100, decay=1e-6, momentum=0.9, rate=0.1, dtype="float64", group=GROUP, start=0):
    """(Statistics, Schedule) of one tensor that is its own unit."""
    steps = start + np.arange(len(weights)) * every
    vv = (weights**2).sum(axis=1)
    moved = np.diff(weights, axis=0, prepend=np.nan)
    rows = []
    for i, j, lag in windows(len(weights)).tolist():
        u, v = (weights[k] / np.sqrt(vv[k]) for k in (i, j))
        angle = 2 * np.arcsin(min(np.linalg.norm(u - v) / 2, 1.0))
        kept = float(weights[i] @ weights[j] / vv[i])
        rows.append((group.name, int(steps[i]), int(steps[j]), lag, weights.shape[1], angle, kept))
    names = "group", "step_from", "step_to", "lag", "elements", "angle", "retention"
    kinds = pl.String, pl.Int64, pl.Int64, pl.Int64, pl.Int64, pl.Float64, pl.Float64
    table = pl.DataFrame(rows, schema=dict(zip(names, kinds, strict=True)), orient="row")
    series = UnitSeries(
        group.name, steps, vv[:, None], (moved**2).sum(axis=1)[:, None], (moved * weights).sum(axis=1)[:, None]
    )
    stats = Statistics(
        tuple(steps.tolist()), (group,), pl.DataFrame(), {group.name: series}.__getitem__,
        dtypes={group.name: (dtype,)}, lags=table,
    )  # fmt: skip
    told = schedule(
        steps - start, np.full(int(steps[-1] - start), rate), decay / rate, momentum, parameters=("w",)
    )  # fmt: skip
    if start:
        table = told.table.with_columns(pl.col("step_from") + start, pl.col("step_to") + start)
        told = type(told)(table, told.parameter_group, told.step_unit)
    return stats, told
