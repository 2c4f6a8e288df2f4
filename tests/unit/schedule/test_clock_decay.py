"""Σηλ from what a clock lost, against the recursion that a clock obeys."""

import numpy as np
import pytest

from smd_analyze.decay_formulas import log_ratios, step_matrices
from smd_analyze.schedule.clock_decay import UpdateRule, sums_of_decay

EDGES = np.arange(0, 800, 100)
UPDATES = np.diff(EDGES).astype(float)


def rule(momentum, n=7, **more):
    return UpdateRule(np.full(n, momentum), np.zeros(n), **more)


def lost(x, momentum, **form):
    """−ln of the shrinking over each interval, of a run whose decay per update is `x` [700]."""
    return log_ratios(step_matrices(x, 1.0, momentum, **form), EDGES)[0]


def truth(x):
    return np.array([x[a:b].sum() for a, b in zip(EDGES, EDGES[1:], strict=False)])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_constant_decay_is_given_back_from_the_first_update_on(momentum, nesterov):
    x = np.full(700, 1e-4)
    total = lost(x, momentum, nesterov=nesterov)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(momentum, nesterov=nesterov))
    np.testing.assert_allclose(best[1:], truth(x)[1:], rtol=2e-6)
    assert best[0] == pytest.approx(truth(x)[0], rel=3e-3)  # the empty buffer, to first order
    assert (low <= truth(x) * (1 + 2e-6)).all()
    assert (high >= truth(x) * (1 - 2e-6)).all()


def test_an_empty_buffer_that_is_not_allowed_for_would_be_far_off():
    x = np.full(700, 1e-4)
    total = lost(x, 0.9)
    late = sums_of_decay(total, total, total, UPDATES, 10_000, rule(0.9))[0]
    assert late[0] < 0.95 * truth(x)[0]


@pytest.mark.parametrize("at", [200, 230, 295])
@pytest.mark.parametrize(("inside", "told"), [(False, False), (True, True), (True, None)])
def test_the_interval_holds_the_truth_around_a_drop(at, inside, told):
    x = np.where(np.arange(700) < at, 1e-4, 1e-5)
    total = lost(x, 0.9, rate_in_velocity=inside)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, in_velocity=told))
    assert (low <= truth(x) * (1 + 1e-5)).all()
    assert (high >= truth(x) * (1 - 1e-5)).all()
    if not inside:
        assert high[3] - low[3] < 0.02 * best[3]
        np.testing.assert_allclose(best, truth(x), rtol=5e-3)


def test_a_velocity_that_lingers_is_allowed_for_where_it_is_known():
    x = np.where(np.arange(700) < 300, 1e-4, 1e-5)
    total = lost(x, 0.9, rate_in_velocity=True)
    sure = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, in_velocity=True))[0]
    unsure, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, in_velocity=None))
    assert sure[3] == pytest.approx(truth(x)[3], rel=0.02)
    assert unsure[3] > 1.5 * truth(x)[3]  # nine updates' worth of the old rate acted here
    assert high[3] - low[3] > 0.9 * unsure[3]


def test_a_smooth_schedule_is_followed():
    x = 1e-4 * 0.5 * (1 + np.cos(np.pi * np.arange(700) / 800))
    total = lost(x, 0.9)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9))
    np.testing.assert_allclose(best, truth(x), rtol=4e-3)
    assert ((low <= truth(x)) & (truth(x) <= high)).all()


def test_decoupled_decay_needs_no_momentum():
    total = -np.log1p(-3e-4) * UPDATES
    best, low, high = sums_of_decay(total, 0.9 * total, 1.1 * total, UPDATES, 0, rule(0.9, decoupled=True))
    np.testing.assert_allclose(best, 3e-2)
    np.testing.assert_allclose([low, high], [2.7e-2 * np.ones(7), 3.3e-2 * np.ones(7)], rtol=2e-3)


def test_an_unknown_number_of_updates_gives_the_leading_order():
    total = np.full(7, 0.05)
    best, *_ = sums_of_decay(total, total, total, np.full(7, np.nan), 0, rule(0.9))
    np.testing.assert_allclose(best, 0.005)


def test_an_assumed_momentum_leaves_the_start_open():
    x = np.full(700, 1e-3)
    total = lost(x, 0.0)  # no momentum at all
    _, low, high = sums_of_decay(total, total, total, UPDATES, 0, rule(0.9, momentum_sure=False))
    assert low[0] / 0.1 <= total[0] * 1.01
    assert high[0] / 0.1 > total[0]


def test_a_rate_beyond_the_fastest_settled_clock_gives_no_number():
    total = np.full(7, 50.0)
    best, low, high = sums_of_decay(total, total, total, UPDATES, 10_000, rule(0.99))
    assert np.isnan(best).all()
    assert np.isnan(low).all()
    assert np.isnan(high).all()


@pytest.mark.parametrize(("inside", "wide"), [(True, True), (None, True), (False, False)])
def test_two_files_do_not_tell_what_a_velocity_still_held(inside, wide):
    x = np.where(np.arange(700) < 300, 1e-5, 1e-6)  # as from a first file at update 300
    total = lost(x, 0.9, rate_in_velocity=bool(inside))[3:4]
    _, low, high = sums_of_decay(total, total, total, np.array([100.0]), 300, rule(0.9, 1, in_velocity=inside))
    assert low[0] <= 1e-4 * (1 + 1e-4)
    assert high[0] >= 1e-4
    assert bool(high[0] - low[0] > 1e-5) is wide


def random_schedule(generator, length):
    """Relative learning rates of every update, and the edges of the intervals between checkpoints."""
    u = np.arange(length)
    steps = np.ones(length)
    for drop in generator.integers(1, length, 3):
        steps[drop:] *= generator.choice([0.1, 0.3])
    warm = length // 10
    shapes = [
        np.ones(length), steps, 0.5 * (1 + np.cos(np.pi * u / length)), 1 - u / length,
        np.where(u < warm, (u + 1) / warm, 0.5 * (1 + np.cos(np.pi * (u - warm) / (length - warm)))),
    ]  # fmt: skip
    first = 0 if generator.random() < 0.6 else length // 5
    even = np.linspace(first, length, int(generator.integers(4, 20))).astype(int)
    odd = np.unique(np.r_[first, generator.integers(first + 1, length, 10), length])
    return shapes[generator.integers(len(shapes))], even if generator.random() < 0.5 else odd


@pytest.mark.parametrize(("inside", "told"), [(False, False), (True, True), (True, None)])
def test_intervals_hold_the_truth_over_random_schedules(inside, told):
    generator = np.random.default_rng(5)
    held = []
    for _ in range(80):
        shape, edges = random_schedule(generator, 1500)
        momentum, nesterov = float(generator.choice([0.5, 0.9, 0.95])), bool(generator.random() < 0.3) and not inside
        x = shape * (1 - momentum) ** 2 * 10 ** generator.uniform(-5, -2)
        matrices = step_matrices(x, 1.0, momentum, nesterov=nesterov, rate_in_velocity=inside)
        total = log_ratios(matrices, np.unique(np.r_[0, edges]))[0][-(len(edges) - 1) :]
        form = rule(momentum, len(total), nesterov=nesterov, in_velocity=told)
        _, low, high = sums_of_decay(total, total, total, np.diff(edges).astype(float), float(edges[0]), form)
        true = np.array([x[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])
        held += list((low <= true * (1 + 1e-6)) & (true <= high * (1 + 1e-6)))
    assert np.mean(held) > 0.96
