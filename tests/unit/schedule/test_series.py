import numpy as np
import pytest

from smd_analyze.schedule.series import CHUNK, exact, piecewise, through


def test_equal_values_are_constant_and_exact():
    best, low, high = through([1, 101, 201], [0.1, 0.1, 0.1 * (1 + 1e-8)]).total(1, 200)
    assert best == low == high == pytest.approx(20.0)


def test_one_value_holds_everywhere():
    assert through([101], [0.3]).total(1, 10) == pytest.approx((3.0, 3.0, 3.0))


def test_a_lone_drop_is_somewhere_inside():
    series = through([1, 101, 201, 301], [0.1, 0.1, 0.01, 0.01])
    assert series.total(1, 100) == pytest.approx((10, 10, 10))
    best, low, high = series.total(101, 200)
    assert low == pytest.approx(0.1 + 0.01 * 99)
    assert high == pytest.approx(10)
    assert best == pytest.approx(0.1 + 99 * 0.055)
    assert series.total(201, 300) == pytest.approx((1, 1, 1))


def test_a_value_logged_before_the_checkpoint_locates_the_drop():
    series = through([1, 101, 200, 201, 301], [0.1, 0.1, 0.1, 0.01, 0.01])
    assert series.total(101, 200) == pytest.approx((10, 10, 10))


def test_a_restart_inside_a_smooth_curve_is_a_jump():
    values = [1.0, 0.8, 0.6, 0.4, 3.0, 2.8, 2.6]
    series = through(np.arange(7) * 100 + 1, values)
    best, low, high = series.total(301, 400)
    assert low == pytest.approx(40)
    assert high == pytest.approx(0.4 + 99 * 3.0)


def test_cosine_is_met_by_the_cubic_and_bounded():
    def eta(u):
        return 0.05 * (1 + np.cos(np.pi * (u - 1) / 1000))

    updates = np.arange(0, 1001, 100) + 1.0
    series = through(updates, eta(updates))
    for a in range(0, 1000, 100):
        truth = eta(np.arange(a + 1, a + 101.0)).sum()
        best, low, high = series.total(a + 1, a + 100)
        assert low <= truth <= high
        assert abs(best - truth) < 0.012
        staircase = 100 * eta(a + 1.0)  # the scheduler is called once in 100 steps
        assert low <= staircase <= high + 1e-12


def test_values_at_updates_are_met_exactly():
    series = through([1, 11, 21, 31], [0.4, 0.3, 0.1, 0.05])
    assert [series.at(u) for u in (1, 11, 21, 31, 90)] == pytest.approx([0.4, 0.3, 0.1, 0.05, 0.05])


def test_piecewise_holds_after_its_step():
    series = piecewise([0, 100], [0.1, 0.01])
    assert [series.at(u) for u in (1, 100, 101)] == [0.1, 0.1, 0.01]


def test_sums_over_long_intervals():
    ramp = exact(lambda u: u)
    n = CHUNK + 10
    assert ramp.total(1, n)[0] == pytest.approx(n * (n + 1) / 2)


def test_a_value_that_was_only_meant_bounds_the_update_it_was_meant_for():
    sure, meant = (through([1, 101, 201], [1.0, 1.0, 0.1], m) for m in ((False,) * 3, (True,) * 3))
    assert sure.ends(101) == (1.0, 1.0)
    assert meant.ends(101) == (0.1, 1.0)  # a script or a resumed run may have set 0.1 right before the step
    assert meant.at(101) == 1.0
    assert meant.ends(100) == (1.0, 1.0)
    assert meant.ends(200) == (0.1, 1.0)
    assert meant.ends(201) == (0.1, 0.1)
