import numpy as np
import pytest
from fits_runs import SCALE, chain, group, quantities, schedule, statistics
from fits_runs import angles as no_angles
from fits_runs import predictions as no_predictions

from smd_analyze.fits.drop import fit_ratio
from smd_analyze.fits.fitting import fit
from smd_analyze.fits.outcomes import Outcome
from smd_analyze.fits.rates import textbook_rate
from smd_analyze.fits.regime import regime
from smd_analyze.fits.window import find_window

T = 3000


def run_across(momentum, x, drift=1.0, truth=1.0, units=60, start=1.0, at=T // 2, count=21, seed=0, factor=10):
    """(ln ρ, low, high) of units across a drop by `factor`, the decay said to be 1/truth of what acts."""
    eta = x / SCALE
    rates = np.where(np.arange(T) < at, eta, eta / factor)
    steps = np.round(np.linspace(0, T, count)).astype(int)
    scale = np.linspace(1, drift, T)
    vv = chain(steps, rates, units, momentum, scale=scale, start=start**0.5, decay=SCALE * truth, seed=seed)
    found = find_window(regime(group(units=units), steps, schedule(steps, rates, momentum=momentum)))
    assert found is not None
    return fit_ratio(vv[found.edges] ** 2, found)


@pytest.mark.parametrize(
    ("momentum", "x", "drift", "start", "at"),
    [
        (0.0, 5e-4, 1.0, 1.0, 1500), (0.0, 5e-4, 3.0, 5.0, 1500), (0.9, 5e-5, 1.0, 1.0, 1500),
        (0.9, 5e-5, 1.5, 5.0, 1500), (0.9, 5e-5, 0.3, 1.0, 1500), (0.9, 2e-4, 1.0, 1.0, 1500),
        (0.9, 5e-5, 1.0, 1.0, 1570),
    ],
)  # fmt: skip
def test_the_interval_covers_theory_under_drift(momentum, x, drift, start, at):
    best, low, high = run_across(momentum, x, drift, start=start, at=at, seed=int(1e6 * x * drift))
    assert np.mean((low <= 0) & (high >= 0)) >= 0.9
    assert abs(np.median(best)) < 0.015
    assert np.median(high - low) / 2 < 0.12  # and it says something


def test_the_momentum_correction_of_the_rate_is_needed():
    best, low, high = run_across(0.9, 2e-4, factor=2, units=120, seed=4)  # A = 0.009 after the change: 4A = 3.6 %
    assert abs(np.median(best)) < 0.012
    assert np.mean((low <= 0) & (high >= 0)) >= 0.9


def test_the_textbook_rate_and_the_momentum_number():
    steps, rates = np.arange(0, 3001, 100), np.where(np.arange(3000) < 1500, 0.1, 0.05)
    found = find_window(regime(group(), steps, schedule(steps, rates, decay=5e-4)))
    assert found is not None
    assert found.validity.max() == pytest.approx(0.0045)  # A = αηλ/(1−α)²
    assert found.change == 1500
    assert textbook_rate(5e-4, 0.0045) == pytest.approx(0.002039487627, rel=1.1e-3)  # of the three-moment map, exact


def test_a_wrong_decay_is_seen():
    best, low, _ = run_across(0.9, 5e-5, truth=1.3, seed=3)
    assert np.median(best) == pytest.approx(np.log(1.3), abs=0.03)
    assert np.mean(low > 0) > 0.95


def rows_for(rates, steps, units=8, **more):
    vv = chain(steps, rates, units, noise=0.5)
    one = group(units=units)
    return quantities(fit(statistics(steps, {one: vv}), schedule(steps, rates, **more), no_angles(), no_predictions()))


def test_rows_across_a_drop():
    eta = 5e-5 / SCALE
    rows = rows_for(np.where(np.arange(T) < T // 2, eta, eta / 10), np.arange(0, T + 1, 150))
    ratio, rate = rows["relaxation_rate_ratio"], rows["relaxation_rate"]
    assert ratio["low"] < 1 < ratio["high"]
    assert ratio["outcome"].startswith("theory's rate, if")
    assert rate["value"] == pytest.approx(4 * 5e-5, rel=0.03)  # x_e = 5e-4 / 10 after the drop
    assert "step 1500" in rate["method"]


@pytest.mark.parametrize("kind", ["constant", "cosine", "too late", "too few"])
def test_no_rate_without_a_change_between_constant_stretches(kind):
    eta, steps = 5e-5 / SCALE, np.arange(0, T + 1, 150)
    t = np.arange(T)
    rates = {
        "constant": np.full(T, eta),
        "cosine": eta * 0.5 * (1.001 + np.cos(np.pi * t / T)),
        "too late": np.where(t < T - 150, eta, eta / 10),
        "too few": np.where(t < T // 2, eta, eta / 10),
    }[kind]
    if kind == "too few":
        steps = np.array([0, 1500, 3000])
    row = rows_for(rates, steps)["relaxation_rate"]
    assert row["value"] is None
    assert row["outcome"] == Outcome.DRIFT.words
    assert "across a learning-rate change" in row["advice"]
