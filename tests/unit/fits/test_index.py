import json
from pathlib import Path

import numpy as np
import pytest
from fits_runs import SCALE, chain, group, schedule

from smd_analyze.fits.index import Blocks, blocks, mean_interval, stationarity
from smd_analyze.fits.regime import regime

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fits.json").read_text())
X = 5e-5  # ηλ; x_e = 5e-4 with momentum 0.9


def course(steps, rates, **more):
    return regime(group(), np.asarray(steps), schedule(steps, rates, **more))


def test_the_index_is_golden():
    vv = np.array([[10.0], [10.4]])
    found = blocks(vv, course([0, 500], np.full(500, 0.1), decay=5e-4), 0)
    assert found is not None
    assert found.index[0, 0] == pytest.approx(GOLDEN["G17_norms_only"]["EI"], rel=1e-9)


def test_pure_decay_is_minus_one_and_dead_units_are_left_out():
    steps, rates = [0, 500, 1000], np.full(1000, 0.1)
    vv = np.exp(-2 * 5e-4 * np.array([0, 500, 1000]))[:, None] * np.array([1.0, 4.0, 0.0])
    found = blocks(vv, course(steps, rates, decay=5e-4), 0)
    assert found is not None
    assert found.index[:, :2] == pytest.approx(-1.0)
    assert np.isnan(found.index[:, 2]).all()
    assert found.median == pytest.approx(-1.0)


def test_dense_checkpoints_are_merged_to_ten_momentum_times():
    steps = np.arange(0, 1001, 30)
    vv = np.ones((len(steps), 1))
    found = blocks(vv, course(steps, np.full(1000, 0.1)), 0)
    assert found is not None
    assert (np.diff(steps[found.edges]) >= 100).all()
    assert found.edges[-1] == len(steps) - 1


def test_fewer_than_five_blocks_have_no_interval():
    assert np.isnan(mean_interval(np.zeros(4), np.ones(4), 0.95)[1])
    assert np.isfinite(mean_interval(np.zeros(5), np.ones(5), 0.95)[1])
    assert np.isnan(mean_interval(np.full(3, np.nan), np.ones(3), 0.95)).all()


def test_the_interval_covers_at_equilibrium():
    steps = np.arange(2000, 2601, 100)
    vv = chain(steps, np.full(2600, X / SCALE), 400, noise=1.2, seed=5)
    found = blocks(vv, course(steps, np.full(2600, X / SCALE)), 0)
    assert found is not None
    ends = [mean_interval(unit, found.weight, 0.95)[1:] for unit in found.index.T]  # each unit is a run of its own
    covered = [low <= 0 <= high for low, high in ends]
    assert np.mean(covered) >= 0.93  # telescoping makes it conservative


def test_stationary_from_the_start_and_only_after_relaxation():
    rates = np.full(6000, X / SCALE)
    steps = np.arange(0, 6001, 300)
    still = blocks(chain(steps, rates, 64, noise=1.0, seed=1), course(steps, rates), 0)
    moving = blocks(chain(steps, rates, 64, noise=1.0, start=1.6, seed=1), course(steps, rates), 0)
    assert still is not None
    assert moving is not None
    first, second = stationarity(still), stationarity(moving)
    assert first.since is not None
    assert steps[first.since] <= 300  # the buffer starts empty
    assert second.since is not None
    # EI(t) = S*/S − 1, S/S* − 1 = (1.6² − 1)e^(−2e-3 t): within 0.1 after t = 1300
    assert 900 <= steps[second.since] <= 2100
    assert second.low <= second.value <= second.high


def test_a_steady_climb_is_never_stationary():
    rates = np.full(3000, X / SCALE)
    steps = np.arange(0, 3001, 300)
    climb = blocks(np.exp(0.4 * 2 * 5e-4 * steps)[:, None] * np.ones((1, 9)), course(steps, rates), 0)
    assert climb is not None
    found = stationarity(climb)
    assert found.since is None
    assert found.value == pytest.approx(0.4, rel=1e-6)


def test_without_an_equilibrium_the_index_is_that_of_now():
    index = np.linspace(-0.9, -0.3, 20)[:, None]
    found = stationarity(Blocks(np.arange(21), index, np.full(20, 1 / 20), np.cumsum(np.r_[0, index[:, 0]])))
    assert found.since is None
    assert found.value == pytest.approx(index[-5:].mean())
    assert found.first == 15


def test_one_early_leap_is_not_averaged_away():
    index = np.zeros((40, 1))
    index[0] = 0.8
    found = stationarity(Blocks(np.arange(41), index, np.full(40, 1 / 40), np.cumsum(np.r_[0, index[:, 0]])))
    assert found.since == 1


def test_a_norm_that_began_elsewhere_is_not_stationary_from_the_start():
    """A long stretch dilutes the mean index: the norm itself must be near its level where the stretch begins."""
    steps = np.arange(0, 20_001, 500)
    rates = np.full(20_000, X / SCALE)
    excess = 0.5 * np.exp(-4 * X * steps)  # of ‖w‖⁴; below 0.1 after ln 5/(4X) steps
    found = blocks(np.sqrt(1 + excess)[:, None] * np.ones((1, 9)), course(steps, rates), 0)
    assert found is not None
    since = stationarity(found).since
    assert since is not None
    assert 0.05 <= excess[since] <= 0.16
