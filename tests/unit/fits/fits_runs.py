"""Simulated runs of known truth: squared norms of scale-invariant units under SGD with momentum, and their records."""

import numpy as np
import polars as pl

from smd_analyze.records.group import Group, Groups, Member
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries

NORMS = {"group": pl.String, "step": pl.Int64, "weight_norm": pl.Float64, "angle_from_first": pl.Float64}
SCALE = 0.05  # weight decay of the simulations


def chain(
    steps,
    rates,
    units,
    momentum=0.9,
    decay=SCALE,
    scale=None,
    start=1.0,
    noise=0.5,
    seed=0,
    dimension=4096,
    decoupled=False,
    turns=False,
):
    """n = ‖w‖² [len(steps), units] of the exact chain (n, <w,v>, ‖v‖²) for tangent gradients with E‖g̃‖² = scale[t].

    rates[t] is the learning rate of update t + 1; the first norm is start × the equilibrium of rates[0]. scale may be
    [T, units]. With `turns` also <w,w'> [len(steps), units] of the update that follows each step.
    """
    rng = np.random.default_rng(seed)
    rates = np.asarray(rates, float)
    scale = np.ones(len(rates)) if scale is None else np.asarray(scale, float)
    rest = rates[0] / (2 * max(decay, 1e-12) * (1 - momentum)) * scale[0]
    if decoupled:
        rest /= 1 - momentum
    n = np.full(units, start * np.sqrt(rest if decay else 1.0))
    p, s = np.zeros(units), np.zeros(units)
    k = 1 / noise**2
    kept = {int(t): i for i, t in enumerate(steps)}
    out, inner = np.empty((len(steps), units)), np.full((len(steps), units), np.nan)
    lam = 0.0 if decoupled else decay
    for t in range(int(steps[-1]) + 1):
        if t in kept:
            out[kept[t]] = n
        if t == steps[-1]:
            break
        eta = rates[t]
        g2 = scale[t] * rng.gamma(k, 1 / k, units) / n
        gv = np.sqrt(g2 * np.maximum(s - p * p / n, 0) / (dimension - 1)) * rng.standard_normal(units)
        wv = momentum * p + lam * n
        s_new = momentum**2 * s + g2 + lam**2 * n + 2 * momentum * lam * p + 2 * momentum * gv
        shrink = 1 - eta * decay if decoupled else 1.0
        if t in kept:
            inner[kept[t]] = shrink * n - eta * wv
        n_new = shrink**2 * n - 2 * eta * shrink * wv + eta**2 * s_new
        p = shrink * wv - eta * s_new
        n, s = n_new, s_new
    return (out, inner) if turns else out


def group(name="conv1", units=8, status="invariant", granularity="unit", evidence="proved", parameter_group="all"):
    member = Member(f"{name}.weight", 0, 0, units)
    return Group(name, (member,), status, granularity, units, units * 9, parameter_group, evidence, "conv", "test")


def statistics(steps, found):
    """Statistics of {Group: vv [T, units]}."""
    steps = tuple(int(s) for s in steps)
    series = {}
    rows = []
    for g, vv in found.items():
        nan = np.full_like(vv, np.nan)
        series[g.name] = UnitSeries(g.name, np.array(steps), vv, nan, nan)
        rows += [(g.name, t, float(np.sqrt(v.sum())), 0.1) for t, v in zip(steps, vv, strict=True)]
    table = pl.DataFrame(rows, schema=NORMS, orient="row")
    return Statistics(steps, tuple(found), table, series.__getitem__)


def schedule(
    steps, rates, decay=SCALE, momentum=0.9, optimizer="sgd", names=("all",), parameters=("conv1.weight",), **more
):
    """The schedule table of known learning rates, one row per interval and parameter group."""
    rows = []
    for name in names:
        for a, b in zip(steps, steps[1:], strict=False):
            part = np.asarray(rates, float)[int(a) : int(b)]
            total = float(part.sum())
            x = None if decay is None else total * decay
            row = {
                "parameter_group": name, "step_from": int(a), "step_to": int(b), "optimizer": optimizer,
                "sum_learning_rate": total, "sum_learning_rate_low": total, "sum_learning_rate_high": total,
                "sum_decay": x, "sum_decay_low": x, "sum_decay_high": x,
                "learning_rate_first": float(part[0]), "learning_rate_last": float(part[-1]),
                "learning_rate_changes": bool(np.ptp(part) > 0), "weight_decay": decay, "momentum": momentum,
                "dampening": 0.0, "nesterov": False, "beta1": None, "beta2": None, "eps": None,
                "decoupled": optimizer != "sgd", "source": "test",
            } | more  # fmt: skip
            rows.append(row)
    kinds = {
        "beta1": pl.Float64,
        "beta2": pl.Float64,
        "eps": pl.Float64,
        "sum_decay": pl.Float64,
        "momentum": pl.Float64,
    }
    table = pl.DataFrame(rows, schema_overrides=kinds | {"weight_decay": pl.Float64, "optimizer": pl.String})
    return Schedule(table, dict.fromkeys(parameters, names[0]), "optimizer steps")


ANGLES = {
    "group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "method": pl.String, "steps_covered": pl.Int64,
    "angular_update": pl.Float64, "angular_update_low": pl.Float64, "angular_update_high": pl.Float64,
    "independent": pl.Boolean, "note": pl.String,
}  # fmt: skip
PREDICTIONS = {
    "group": pl.String, "step": pl.Int64, "equilibrium_angular_update": pl.Float64, "equilibrium_norm": pl.Float64,
    "norm_basis": pl.String, "half_lives": pl.Float64,
}  # fmt: skip


def angles(rows=()):
    return pl.DataFrame(list(rows), schema=ANGLES, orient="row")


def predictions(rows=()):
    return pl.DataFrame(list(rows), schema=PREDICTIONS, orient="row")


def groups_of(*found):
    return Groups((), tuple(found), "test")


def quantities(fits, name="conv1"):
    rows = fits.filter(pl.col("group") == name).iter_rows(named=True)
    return {row["quantity"]: row for row in rows}
