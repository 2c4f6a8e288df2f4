"""Which rates are printed, and that those are right."""

import numpy as np
import pytest
from elementwise_runs import norms
from fits_runs import SCALE, angles, chain, group, predictions, quantities, schedule, statistics

from smd_analyze.fits.fitting import fit
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.rates import robust_ratio
from smd_analyze.fits.regime import regime
from smd_analyze.fits.second_moment import lag
from smd_analyze.fits.window import find_window

T = 3000
X = 5e-5


def rows_of(vv, steps, rates, **more):
    own = {group(units=vv.shape[1]): vv}
    return quantities(fit(statistics(steps, own), schedule(steps, rates, **more), angles(), predictions()))


@pytest.mark.parametrize(
    ("optimizer", "high", "decay", "more", "knobs"),
    [
        ("adamw", 4e-3, 0.5, {"momentum": None, "beta1": 0.9, "beta2": 0.999}, {"beta1": 0.9, "beta2": 0.999}),
        ("lion", 2e-3, 0.3, {"momentum": None, "beta1": 0.9, "beta2": 0.95}, {"beta1": 0.9, "beta2": 0.95}),
        ("muon", 1e-2, 0.1, {"momentum": 0.9}, {"beta1": 0.9}),
    ],
)
def test_the_rate_of_the_squared_norm(optimizer, high, decay, more, knobs):
    rates = np.where(np.arange(T) < T // 2, high, high / 4)
    steps = np.arange(0, T + 1, 150)
    drift = 3 ** (np.arange(T) / T)
    vv = norms(optimizer, steps, rates, decay, units=12, d=48, scale=drift, seed=1, **knobs)
    rows = rows_of(vv, steps, rates, decay=decay, optimizer=optimizer, **more)
    ratio, rate = rows["relaxation_rate_ratio"], rows["relaxation_rate"]
    assert ratio["low"] < 1 < ratio["high"]
    assert ratio["value"] == pytest.approx(1, abs=0.06)
    assert ratio["high"] / ratio["low"] < 2.5
    assert rate["value"] / ratio["value"] == pytest.approx(2 * high / 4 * decay)
    assert "‖w‖²" in rate["method"]


def test_adams_second_moment_is_behind_the_norm():
    rates = np.where(np.arange(T) < T // 2, 4e-3, 1e-3)
    steps = np.arange(0, T + 1, 150)
    vv = norms("adamw", steps, rates, 0.5, units=12, d=48, beta2=0.999, seed=2)
    known = rows_of(vv, steps, rates, decay=0.5, optimizer="adamw", momentum=None, beta1=0.9, beta2=0.999)
    without = rows_of(vv, steps, rates, decay=0.5, optimizer="adamw", momentum=None, beta1=0.9, beta2=None)
    errors = [abs(np.log(r["relaxation_rate_ratio"]["value"])) for r in (known, without)]
    assert errors[0] < 0.02 < 0.04 < errors[1]


def test_the_lag_of_a_moving_norm():
    rate, beta2 = 1e-3, 0.999
    steps = np.arange(0, 20001, 500)
    n = np.exp(-rate * steps)[:, None]  # 1/n grows by e^rate each step: v lags by h/(h + rate)
    found = lag(n, np.diff(steps), beta2)
    h = -np.log(beta2)
    assert found[-1, 0] == pytest.approx((h + rate) / h, rel=2e-3)
    assert lag(np.ones((4, 2)), np.full(3, 100.0), beta2) == pytest.approx(np.ones((3, 2)))


@pytest.mark.parametrize("jump", [0.6, 1.6])
def test_a_jump_of_the_gradient_with_the_learning_rate_is_within_the_interval(jump):
    eta, steps = X / SCALE, np.arange(0, T + 1, 150)
    early = np.arange(T) < T // 2
    rates = np.where(early, eta, eta / 3)
    vv = chain(steps, rates, 40, scale=np.where(early, 1.0, jump), seed=3)
    found = find_window(regime(group(units=40), steps, schedule(steps, rates)))
    assert found is not None
    best, low, high = robust_ratio(vv[found.edges] ** 2, found)
    assert np.mean((low <= 0) & (high >= 0)) > 0.8
    assert abs(np.median(best)) > 0.1  # which the interval is wide for


def run_at_a_constant_rate(drift, units=32, start=5.0, seed=0):
    long = 6000
    rates, steps = np.full(long, X / SCALE), np.arange(0, long + 1, 200)
    scale = 1 + (drift - 1) * np.arange(long) / long
    return rows_of(chain(steps, rates, units, scale=scale, start=start**0.5, seed=seed), steps, rates)


def test_a_steady_scale_lets_theorys_rate_be_printed():
    rows = run_at_a_constant_rate(1.0)
    ratio = rows["relaxation_rate_ratio"]
    assert ratio["low"] < 1 < ratio["high"]
    assert ratio["outcome"].startswith("consistent with theory's rate; a disagreement could not be told")
    assert ratio["level"] is None  # chosen because it holds theory's rate
    assert "at a constant learning rate" in ratio["method"]
    scale = rows["gradient_scale"]
    assert scale["level"] == 0.95
    assert scale["low"] < 1 < scale["high"]


@pytest.mark.parametrize("drift", [1.5, 3.0, 0.3])
def test_a_drifting_scale_lets_none_be_printed(drift):
    rows = run_at_a_constant_rate(drift)
    assert rows["relaxation_rate"]["value"] is None
    assert rows["relaxation_rate"]["kind"] == Kind.DRIFT
    assert rows["relaxation_rate"]["outcome"] == Outcome.DRIFT.words
    assert "gradient scale" in rows["relaxation_rate"]["checks"]
    assert "(!)" in rows["relaxation_rate"]["checks"]
    scale = rows["gradient_scale"]
    assert scale["level"] is None
    assert scale["outcome"].startswith("drifts: ×")
    assert "claims no coverage" in scale["method"]


def test_one_series_alone_prints_no_rate_at_a_constant_learning_rate():
    assert run_at_a_constant_rate(1.0, units=1)["relaxation_rate"]["value"] is None
