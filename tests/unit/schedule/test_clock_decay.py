"""Σηλ from what a clock lost, against the recursion that a clock obeys."""

import numpy as np
import pytest

from smd_analyze.decay_formulas import log_ratios, step_matrices
from smd_analyze.schedule.clock_decay import UpdateRule, sums_of_decay

EDGES = np.array([0, 100, 200, 300, 400, 500])
UPDATES = np.diff(EDGES).astype(float)


def rule(momentum, n=5, **more):
    return UpdateRule(np.full(n, momentum), np.zeros(n), **more)


def lost(x, momentum, **form):
    """−ln of the shrinking over each interval, of a run whose decay per update is `x` [500]."""
    return log_ratios(step_matrices(x, 1.0, momentum, **form), EDGES)[0]


def truth(x):
    return np.array([x[a:b].sum() for a, b in zip(EDGES, EDGES[1:], strict=False)])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_constant_decay_is_given_back_from_the_first_update_on(momentum, nesterov):
    x = np.full(500, 1e-4)
    total = lost(x, momentum, nesterov=nesterov)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(momentum, nesterov=nesterov))
    np.testing.assert_allclose(best[1:], truth(x)[1:], rtol=2e-6)
    assert best[0] == pytest.approx(truth(x)[0], rel=3e-3)  # the empty buffer, to first order
    assert (low <= truth(x) * (1 + 2e-6)).all()
    assert (high >= truth(x) * (1 - 2e-6)).all()


def test_an_empty_buffer_that_is_not_allowed_for_would_be_far_off():
    x = np.full(500, 1e-4)
    total = lost(x, 0.9)
    late = sums_of_decay(total, total, total, UPDATES, 10_000, rule(0.9))[0]
    assert late[0] < 0.95 * truth(x)[0]


@pytest.mark.parametrize("at", [200, 230, 295])
@pytest.mark.parametrize(("inside", "told"), [(False, False), (True, True), (True, None)])
def test_the_interval_holds_the_truth_around_a_drop(at, inside, told):
    x = np.where(np.arange(500) < at, 1e-4, 1e-5)
    total = lost(x, 0.9, rate_in_velocity=inside)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, in_velocity=told))
    assert (low <= truth(x) * (1 + 1e-5)).all()
    assert (high >= truth(x) * (1 - 1e-5)).all()
    if not inside:
        assert high[3] - low[3] < 0.02 * best[3]
        np.testing.assert_allclose(best, truth(x), rtol=5e-3)


def test_a_velocity_that_lingers_is_not_taken_for_a_precise_number():
    x = np.where(np.arange(500) < 300, 1e-4, 1e-5)
    total = lost(x, 0.9, rate_in_velocity=True)
    best, _, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, in_velocity=True))
    assert best[3] > 1.5 * truth(x)[3]  # nine updates' worth of the old rate acted here
    assert high[3] - best[3] > 0.5 * best[3]


def test_a_smooth_schedule_is_followed():
    x = 1e-4 * 0.5 * (1 + np.cos(np.pi * np.arange(500) / 600))
    total = lost(x, 0.9)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9))
    np.testing.assert_allclose(best, truth(x), rtol=3e-3)
    assert ((low <= truth(x)) & (truth(x) <= high)).all()


def test_decoupled_decay_needs_no_momentum():
    total = -np.log1p(-3e-4) * UPDATES
    best, low, high = sums_of_decay(total, 0.9 * total, 1.1 * total, UPDATES, 0, rule(0.9, decoupled=True))
    np.testing.assert_allclose(best, 3e-2)
    np.testing.assert_allclose([low, high], [2.7e-2 * np.ones(5), 3.3e-2 * np.ones(5)], rtol=2e-3)


def test_an_unknown_number_of_updates_gives_the_leading_order():
    total = np.full(5, 0.05)
    best, *_ = sums_of_decay(total, total, total, np.full(5, np.nan), 0, rule(0.9))
    np.testing.assert_allclose(best, 0.005)


def test_an_assumed_momentum_leaves_the_start_open():
    x = np.full(500, 1e-3)
    total = lost(x, 0.0)  # no momentum at all
    _, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, momentum_sure=False))
    assert low[0] / 0.1 <= total[0] * 1.01
    assert high[0] / 0.1 > total[0]


def test_a_rate_beyond_the_fastest_settled_clock_gives_no_number():
    total = np.full(5, 50.0)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 10_000, rule(0.99))
    assert np.isnan(best).all()
    assert np.isnan(low).all()
    assert np.isnan(high).all()
