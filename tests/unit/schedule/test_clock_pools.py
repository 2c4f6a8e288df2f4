import numpy as np
import polars as pl
import pytest
from schedule_runs import checkpoint, clock_table, run, ticking

from smd_analyze.schedule.clock_pools import pools
from smd_analyze.schedule.clock_readings import readings

STEPS = (0, 100, 200, 300)
UPDATES = np.full(3, 100.0)
RUN = run(*(checkpoint(t, parameters=("fc.weight", "embed.weight", "fc.bias")) for t in STEPS))


def read(*rows, **more):
    return readings(RUN, clock_table(*rows).with_columns(**more))


def test_intervals_are_added_and_rates_times_steps():
    rows = [("fc.weight", "unit 1", 0, 40, 1e-3, 0.1), ("fc.weight", "unit 1", 40, 100, 2e-3, 0.1)]
    (found,) = read(*rows, ("fc.weight", "unit 1", 200, 300, 1e-3, 0.1))
    np.testing.assert_allclose(found.total, [0.16, np.nan, 0.1])
    np.testing.assert_allclose(found.high - found.low, [0.032, np.nan, 0.02])


def test_a_row_over_several_intervals_bounds_each_of_them():
    (found,) = read(("fc.weight", "unit 1", 0, 200, 1e-3, 0.1))
    assert np.isnan(found.total).all()
    np.testing.assert_allclose(found.bound, [0.22, 0.22, np.nan])


def test_rest_is_zero_and_a_constant_slice_only_a_bound():
    (rest,) = read(*ticking("fc.weight", STEPS, [1e-9] * 3, kind="no decay"))
    assert rest.resting
    assert (rest.total == 0).all()
    assert not rest.proves_sgd
    (bound,) = read(*ticking("fc.weight", STEPS, [3e-8] * 3, "unit 1", wide=0.0, kind="at most"))
    assert np.isnan(bound.total).all()
    np.testing.assert_allclose(bound.bound, 3e-6)
    assert pools([bound], UPDATES) == []


@pytest.mark.parametrize(
    ("functional", "directions", "proof"),
    [
        ("sum over units", 64, True), ("sum over units", 320, False), ("within unit", 10, True), ("unit 1", 64, False),
        ("whole", 10, False), ("sum over units", None, True),
    ],
)  # fmt: skip
def test_only_sums_of_three_and_more_rows_prove_sgd(functional, directions, proof):
    rows = ticking("fc.weight", STEPS, [1e-3] * 3, functional)
    (found,) = read(*rows, directions=pl.lit(directions, pl.Int64))
    assert found.proves_sgd is proof


def test_missing_ends_leave_a_wide_interval():
    (found,) = read(
        *ticking("fc.weight", STEPS, [1e-3] * 3), decay_per_step_low=pl.lit(None), decay_per_step_high=pl.lit(None)
    )
    np.testing.assert_allclose(found.low, 0.05)
    np.testing.assert_allclose(found.high, 0.2)


def test_agreeing_clocks_are_weighted_by_inverse_variance():
    rows = [
        *ticking("fc.weight", STEPS, [1e-3] * 3, wide=1e-3),
        *ticking("embed.weight", STEPS, [1.001e-3] * 3, wide=2e-3),
    ]
    (pool,) = pools(read(*rows), UPDATES)
    np.testing.assert_allclose(pool.total, (4 * 0.1 + 0.1001) / 5, rtol=1e-6)
    assert pool.name == "fc.weight and 1 more"
    narrow = 0.5 * (pool.high - pool.low) / pool.total
    np.testing.assert_allclose(narrow, 1e-3 / np.sqrt(1.25), rtol=0.02)


def test_many_clocks_do_not_make_an_interval_of_nothing():
    rows = [row for i in range(50) for row in ticking("embed.weight", STEPS, [1e-3] * 3, f"unit {i}", wide=1e-3)]
    (pool,) = pools(read(*rows), UPDATES)
    np.testing.assert_allclose(0.5 * (pool.high - pool.low) / pool.total, 0.5e-3, rtol=1e-6)


def test_a_scatter_beyond_the_intervals_widens_the_mean():
    generator = np.random.default_rng(0)
    rows = [
        row
        for i in range(8)
        for row in ticking("embed.weight", STEPS, 1e-3 + 2e-6 * generator.standard_normal(3), f"unit {i}", wide=1e-4)
    ]  # fmt: skip
    (pool,) = pools(read(*rows), UPDATES)
    half = 0.5 * (pool.high - pool.low) / pool.total
    assert (half > 5e-4).all()
    assert (np.abs(pool.total / 0.1 - 1) < 2 * half).all()


def test_disagreeing_clocks_stay_apart():
    rows = [*ticking("fc.weight", STEPS, [1e-3] * 3), *ticking("embed.weight", STEPS, [1.1e-3] * 3)]
    rows += ticking("fc.bias", STEPS, [1.1e-3] * 3, "whole")
    found = pools(read(*rows), UPDATES)
    assert [p.parameters for p in found] == [("embed.weight", "fc.bias"), ("fc.weight",)]


def test_slices_near_the_rounding_of_fp32_may_differ_by_it():
    rows = [*ticking("fc.weight", STEPS, [1e-7] * 3, "unit 1"), *ticking("embed.weight", STEPS, [1.4e-7] * 3, "unit 2")]
    assert len(pools(read(*rows), UPDATES)) == 1
    assert len(pools(read(*rows), np.full(3, np.nan))) == 2


def test_clocks_without_a_common_interval_do_not_contradict_each_other():
    rows = [("fc.weight", "unit 1", 0, 100, 1e-3, 0.1), ("embed.weight", "unit 1", 100, 200, 1e-4, 0.1)]
    (pool,) = pools(read(*rows), UPDATES)
    np.testing.assert_allclose(pool.total, [0.1, 0.01, np.nan])
