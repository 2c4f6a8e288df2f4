"""Momentum read off the first intervals: made by the recursion, found again, or honestly not."""

import numpy as np
import pytest

from smd_analyze.decay_formulas import coupled_rate, filling_loss, log_ratios, settled_buffer, step_matrices
from smd_analyze.schedule.clock_momentum import read_momentum

EDGES = np.arange(0, 1300, 100)
UPDATES = np.diff(EDGES).astype(float)


def lost(x, momentum, nesterov=False, buffer=0.0):
    """−ln of the shrinking over each interval, of a run whose decay per update is `x` (constant or [1200])."""
    matrices = step_matrices(np.broadcast_to(x, EDGES[-1]), 1.0, momentum, nesterov=nesterov)
    return log_ratios(matrices, EDGES, buffer)[0]


def read(total, wide=1e-5, begins=0.0, nesterov=None):
    return read_momentum(total, total * (1 - wide), total * (1 + wide), UPDATES, begins, nesterov, 0.9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "x"), [(0.0, 1e-3), (0.5, 1e-3), (0.9, 2e-4), (0.9, 2e-7), (0.99, 5e-6)])
def test_the_loss_from_an_empty_buffer_on_is_that_of_the_recursion(momentum, x, nesterov):
    edges = np.array([0, 1, 2, 5, 20, 300])
    made = log_ratios(step_matrices(np.full(300, x), 1.0, momentum, nesterov=nesterov), edges)[0]
    rate = float(coupled_rate(x, momentum, nesterov))
    np.testing.assert_allclose(np.cumsum(made), filling_loss(rate, momentum, edges[1:], nesterov), rtol=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.8, 0.9, 0.95, 0.98])
def test_momentum_and_its_form_are_found(momentum, nesterov):
    found = read(lost(1e-5, momentum, nesterov))
    assert found.sure
    assert (found.alpha, found.nesterov) == (momentum, nesterov)
    assert found.low <= momentum <= found.high
    assert found.chance < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_the_reading_holds_the_truth_under_noise(seed):
    total = lost(2e-5, 0.9)
    noisy = total * (1 + 5e-6 * np.random.default_rng(seed).standard_normal(len(total)))
    found = read(noisy, wide=1e-5)
    assert found.sure
    assert abs(found.fitted - 0.9) < 1.6 * (found.high - found.fitted)


def test_plain_sgd_has_no_momentum():
    found = read(lost(1e-3, 0.0))
    assert (found.sure, found.alpha, found.nesterov) == (True, 0.0, False)
    assert found.missing == pytest.approx(0.0, abs=0.01)


def test_a_full_buffer_looks_like_none():
    x = 1e-4
    found = read(lost(x, 0.9, buffer=settled_buffer(x, 1.0, 0.9)))
    assert found.alpha == 0.0


def test_a_buffer_that_does_not_fill_within_an_interval_is_seen_filling():
    found = read(lost(1e-6, 0.995))
    assert (found.sure, found.alpha) == (True, 0.995)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.95, True)])
def test_a_learning_rate_that_moves_smoothly_does_not_hide_it(momentum, nesterov):
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(1200) / 4000))
    found = read(lost(1e-5 * cosine, momentum, nesterov), wide=1e-6)
    assert (found.sure, found.alpha, found.nesterov) == (True, momentum, nesterov)


@pytest.mark.parametrize("warm_up", [10, 40, 250, 500])
def test_a_warm_up_is_not_taken_for_a_momentum(warm_up):
    ramp = np.minimum(1.0, (np.arange(1200) + 1) / warm_up)
    found = read(lost(1e-5 * ramp, 0.9))
    assert found is None or not found.sure


def test_a_short_warm_up_leaves_the_usual_momentum_assumed():
    ramp = np.minimum(1.0, (np.arange(1200) + 1) / 10)
    found = read(lost(1e-7 * ramp, 0.9), wide=1e-4)
    assert found.alpha == 0.9
    assert not found.sure
    assert found.high > 0.9


def test_less_missing_than_the_usual_momentum_would_hold_back_rules_it_out():
    ramp = np.minimum(1.0, (np.arange(1200) + 1) / 11.6)  # plain SGD: 5.3 updates are missing, as with α = 0.841
    found = read(lost(1e-5 * ramp, 0.0))
    assert not found.sure
    assert found.alpha < 0.86


def test_nothing_is_read_where_the_run_began_elsewhere():
    assert read(lost(1e-5, 0.9), begins=500.0) is None


def test_nothing_is_read_of_rates_that_jump_about():
    total = lost(1e-5, 0.9) * np.resize([1.0, 1.3, 0.8], len(UPDATES))
    assert read(total) is None


def test_a_wide_reading_decides_nothing():
    found = read(lost(1e-5, 0.95), wide=0.03)
    assert found is None or not found.sure
