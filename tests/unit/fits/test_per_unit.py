"""Estimates of single units: right, independent of their order, and to be had from a saved report."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from elementwise_runs import norms
from fits_runs import SCALE, angles, chain, group, predictions, quantities, schedule, statistics

from smd_analyze.fits.bootstrap import bootstrap_interval
from smd_analyze.fits.fitting import contexts, fit
from smd_analyze.fits.gradient import gradient_picture
from smd_analyze.fits.ou import ou_ml, wait
from smd_analyze.fits.per_unit import unit_estimates

X, T = 5e-5, 3000
STEPS = np.arange(0, T + 1, 100)
RATES = np.full(T, X / SCALE)


def context(vv, steps=STEPS, rates=RATES, **more):
    own = {group(units=vv.shape[1]): vv}
    return next(contexts(statistics(steps, own), schedule(steps, rates, **more), angles(), predictions()))


def test_units_have_their_own_rates_levels_and_scales():
    vv = chain(STEPS, RATES, 40, start=5**0.5, seed=3)
    found = unit_estimates(context(vv))
    assert found["unit"].to_list() == list(range(40))
    assert found["weight_norm"].to_numpy() == pytest.approx(np.sqrt(vv[-1]))
    assert found["rate"].median() == pytest.approx(4 * X / 0.1, rel=0.03)
    assert found["gradient_scale"].median() == pytest.approx(1, rel=0.03)
    assert ((found["gradient_scale_low"] < 1) & (found["gradient_scale_high"] > 1)).mean() > 0.85
    level = (RATES[0] / (2 * SCALE * 0.1)) ** 0.25
    assert found["level"].median() == pytest.approx(level, rel=0.02)
    assert ((found["level_low"] < level) & (found["level_high"] > level)).mean() > 0.85
    assert (found["steps_left_low"] <= found["steps_left_high"]).all()


def test_units_do_not_depend_on_their_order():
    vv = chain(STEPS, RATES, 700, start=2.0, seed=2)  # more than are fitted at once
    order = np.random.default_rng(0).permutation(700)
    one, other = unit_estimates(context(vv)), unit_estimates(context(vv[:, order]))
    moved = one[order].drop("unit")
    assert moved.equals(other.drop("unit"), null_equal=True)


def test_units_under_adamw_have_no_gradient_scale():
    vv = norms("adamw", STEPS, np.full(T, 4e-3), 0.5, units=6, d=32, start=3.0)
    found = unit_estimates(context(vv, rates=np.full(T, 4e-3), decay=0.5, momentum=None, optimizer="adamw", beta1=0.9))
    assert found["gradient_scale"].null_count() == 6
    assert found["rate"].median() == pytest.approx(2 * 4e-3 * 0.5, rel=0.15)


def test_units_without_a_schedule_are_null():
    found = unit_estimates(context(chain(STEPS, RATES, 3), decay=None))
    assert found["rate"].null_count() == found["equilibrium_index"].null_count() == 3
    assert found["weight_norm"].null_count() == 0


def test_time_to_equilibrium_has_a_joint_interval():
    x, steps = 5e-4, np.arange(0, 1501, 100)
    s = chain(steps, np.full(1500, x / SCALE), 300, momentum=0.0, start=10**0.5, noise=0.7, seed=3) ** 2
    found = ou_ml(steps, s)
    truth = wait(s[-1], np.full(300, x / SCALE / (2 * SCALE)), np.full(300, 4 * x * (1 + 1.5 * x)), 0.1)
    held = (found.wait_low <= truth) & (truth <= found.wait_high)
    assert held.mean() > 0.9
    assert np.median(found.wait) == pytest.approx(np.median(truth), rel=0.1)


def test_a_stationary_series_is_bootstrapped():
    rng = np.random.default_rng(1)
    t, rate = np.arange(0, 1001, 50.0), 0.01
    phi = np.exp(-rate * 50)
    s = np.empty(len(t))
    s[0] = 20
    for i in range(len(t) - 1):
        s[i + 1] = 20 + phi * (s[i] - 20) + np.sqrt(1 - phi**2) * rng.standard_normal()
    low, high = bootstrap_interval(t, s)
    assert low < rate < high
    assert bootstrap_interval(t, s) == (low, high)
    assert ou_ml(t, s).unbiased(1000.0)[0] == pytest.approx(ou_ml(t, s).rate[0] - 4 / 1000)


def test_the_picture_of_the_gradient_scale():
    scale = np.linspace(1, 3, T)
    vv = chain(STEPS, RATES, 64, scale=scale, seed=4)
    found = gradient_picture(context(vv))
    assert found.columns == ["step_from", "step_to", "value", "p10", "p90"]
    middle = 0.5 * (found["step_from"] + found["step_to"]).to_numpy()
    truth = 1 + 2 * middle / T
    assert found["value"].to_numpy() == pytest.approx(truth, rel=0.1)
    assert (found["p10"] < found["value"]).all()
    assert gradient_picture(context(vv, decay=None)).height == 0


def turned(momentum=0.9, decay=SCALE, seed=0, start=1.0):
    """A layer with pairs of consecutive checkpoints, and its measured angles."""
    pairs = np.arange(0, T - 99, 100)
    steps = np.unique(np.concatenate([pairs, pairs + 1]))
    vv, inner = chain(steps, RATES, 32, momentum, decay, start=start**0.5, seed=seed, turns=True)
    rows = []
    for i in range(len(steps) - 1):
        if steps[i + 1] == steps[i] + 1 and i > 2:
            cosine = inner[i].sum() / np.sqrt(vv[i].sum() * vv[i + 1].sum())
            rows.append(
                ("conv1", int(steps[i]), int(steps[i + 1]), "consecutive", 1, np.arccos(cosine), None, None, True, "")
            )
    return steps, vv, rows


@pytest.mark.parametrize(("said", "outcome"), [(1.0, "as configured"), (0.5, "not as configured"), (None, "recovered")])
def test_decay_is_recovered_from_angles_and_norms(said, outcome):
    steps, vv, rows = turned(start=4.0)
    planned = schedule(steps, RATES, decay=None if said is None else SCALE * said)
    own = {group(units=32): vv}
    row = quantities(fit(statistics(steps, own), planned, angles(rows), predictions()))["decay_from_data"]
    assert row["low"] < X < row["high"]
    assert row["value"] == pytest.approx(X, rel=0.1)
    assert row["outcome"].startswith(outcome)


def test_decay_is_not_recovered_without_a_measured_angle_or_momentum():
    steps, vv, rows = turned()
    own = {group(units=32): vv}
    for planned, measured in ((schedule(steps, RATES), []), (schedule(steps, RATES, momentum=None), rows)):
        got = quantities(fit(statistics(steps, own), planned, angles(measured), predictions()))
        assert "decay_from_data" not in got


def test_an_epsilon_that_pulls_on_the_weights_leaves_no_verdict_on_decay():
    steps, vv, rows = turned(start=4.0)
    note = "ε = 1e-05 of the batch norm does not vanish beside the variance: θ² may be up to 19% smaller"
    rows.append(("conv1", int(steps[2]), int(steps[3]), "norms", 1, 0.01, None, None, False, note))
    own = {group(units=32): vv}
    row = quantities(fit(statistics(steps, own), schedule(steps, RATES), angles(rows), predictions()))
    assert row["decay_from_data"]["low"] is row["decay_from_data"]["level"] is None
    assert "ε" in row["decay_from_data"]["outcome"]


def adamw_run(drift, saved, every=100, total=2400, units=6, d=1024, seed=0):
    """A layer whose AdamW direction has, besides noise tangent to w, a part `drift` along it: far from zero-mean."""
    rng = np.random.default_rng(seed)
    eta, lam = 2e-3, 0.3
    w = rng.standard_normal((units, d)) / 16
    n, dd, wd, theta = [(w * w).sum(axis=1)], [np.full(units, np.nan)], [np.full(units, np.nan)], []
    for t in range(1, total + 1):
        u = rng.standard_normal((units, d), dtype=np.float32).astype(float)
        u += drift * w / np.linalg.norm(w, axis=1, keepdims=True) * np.sqrt(d)
        new = (1 - eta * lam) * w - eta * u
        if t % every == 0:
            n.append((new * new).sum(axis=1))
            dd.append((u * u).sum(axis=1))
            wd.append((u * new).sum(axis=1))
            theta.append(np.sqrt((eta**2 * (u * u).sum(axis=1) / n[-1]).mean()))
        w = new
    steps = np.arange(0, total + 1, every)
    rows = [("conv1", int(t) - 1, int(t), "buffer", 1, float(a), None, None, True, "")
            for t, a in zip(steps[1:], theta, strict=True)]  # fmt: skip
    stats = statistics(steps, {group(units=units): np.array(n)})
    series = stats.units("conv1")
    if saved:
        series = replace(series, uu=np.array(dd), wu=np.array(wd))
    planned = schedule(steps, np.full(total, eta), lam, None, "adamw", beta1=0.0, beta2=0.999)
    found = fit(replace(stats, units=lambda _: series), planned, angles(rows), predictions())
    return quantities(found)["decay_from_data"], eta * lam


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_decay_under_adamw_is_exact_from_saved_updates_alone(drift):
    row, truth = adamw_run(drift, saved=True)
    assert row["low"] < truth < row["high"]
    assert row["outcome"] in ("as configured", "consistent with the configured value, and with no decay")


def test_decay_under_adamw_from_angles_alone_has_no_verdict():
    row, _ = adamw_run(0.0, saved=False, total=1200, units=4, d=64)
    assert row["low"] is row["high"] is row["level"] is None
    assert "zero-mean" in row["outcome"]


def test_a_report_gives_the_same_context(tmp_path):
    from smd_analyze.fits.from_report import context_of
    from smd_analyze.records.report import Report

    vv = chain(STEPS, RATES, 5)
    stats, planned = statistics(STEPS, {group(units=5): vv}), schedule(STEPS, RATES)
    groups = pl.DataFrame(
        {"group": ["conv1"], "status": ["invariant"], "granularity": ["unit"], "units": [5], "numel": [45],
         "parameter_group": ["all"], "members": ["conv1.weight"], "evidence": ["proved"], "role": ["conv"],
         "reason": [""]}
    )  # fmt: skip
    parameters = pl.DataFrame({"parameter": ["conv1.weight"], "parameter_group": ["all"]})
    empty = pl.DataFrame()
    fields = dict.fromkeys(Report.__dataclass_fields__, empty)
    fields |= {"verdict": "", "groups": groups, "parameters": parameters, "schedule": planned.table,
               "predictions": predictions(), "angular_updates": angles(),
               "provenance": {"step_unit": "optimizer steps"}, "units": stats.units}  # fmt: skip
    found = context_of(Report(**fields), stats.units("conv1"))
    assert unit_estimates(found).equals(unit_estimates(context(vv)), null_equal=True)
