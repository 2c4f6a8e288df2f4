import numpy as np
import polars as pl
import pytest
from schedule_runs import checkpoint, codes, column, run, setting

from smd_analyze.schedule.clock_decay import decay_of
from smd_analyze.schedule.resolve import resolve_schedule

CLOCKS = {
    "clock": pl.String, "parameter": pl.String, "functional": pl.String, "step_from": pl.Int64, "step_to": pl.Int64,
    "decay_per_step": pl.Float64, "decay_per_step_low": pl.Float64, "decay_per_step_high": pl.Float64,
}  # fmt: skip


def clock(rate, parameter="conv.weight", a=0, b=100, wide=1e-3):
    row = ("c", parameter, "sum over units", a, b, rate, rate * (1 - wide), rate * (1 + wide))
    return pl.DataFrame([row], CLOCKS, orient="row")


def rate_of(x, momentum, nesterov):
    """Settled rate of a gradient-free coordinate, by running torch's update rule on it."""
    c, v = 1.0, 0.0
    for _ in range(3000):
        v = momentum * v + x * c
        step = x * c + momentum * v if nesterov else v
        c, before = c - step, c
    return -np.log(c / before)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_rate_gives_back_the_decay(momentum, nesterov):
    assert decay_of(rate_of(4e-4, momentum, nesterov), momentum, nesterov, False) == pytest.approx(4e-4, rel=1e-6)


def test_golden_rates():
    assert decay_of(0.004164768517992813, 0.9, False, False) == pytest.approx(4e-4, rel=1e-9)
    assert decay_of(0.0020356992971204096, 0.9, True, False) == pytest.approx(2e-4, rel=1e-9)
    assert decay_of(-np.log1p(-3e-4), 0.9, False, True) == pytest.approx(3e-4, rel=1e-9)


def test_a_clock_fills_an_unknown_decay_of_its_own_group_and_lends_it_to_others():
    told = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "groups": {"*.bias": {"nesterov": False}}}
    found = resolve_schedule(run(checkpoint(0), checkpoint(100)), clock(0.004164768517992813), told)
    assert column(found, "sum_decay", "all") == pytest.approx([0.04])
    assert column(found, "weight_decay", "all") == pytest.approx([4e-3])
    assert column(found, "source", "all") == ["caller; clock of conv.weight"]
    assert column(found, "source", "*.bias") == ["caller; clock of conv.weight, assumed to hold here"]
    assert column(found, "sum_decay_low", "all")[0] < 0.04 < column(found, "sum_decay_high", "all")[0]
    assert "missing-weight-decay" not in codes(found)


def test_a_clock_that_contradicts_the_files_is_a_finding():
    settings = {"optimizer": "sgdw", "momentum": 0.9, "lr": 0.1, "weight_decay": 1e-3}
    agreeing = resolve_schedule(run(checkpoint(0), checkpoint(100)), clock(-np.log1p(-1e-4)), settings)
    assert codes(agreeing) == []
    found = resolve_schedule(run(checkpoint(0), checkpoint(100)), clock(-np.log1p(-2e-4)), settings)
    assert codes(found) == ["clock-disagrees"]
    assert column(found, "sum_decay") == pytest.approx([0.01])  # what was said stays
    assert "2 times" in found.findings[0].message


def test_clocks_that_do_not_cover_or_have_no_rule_change_nothing():
    points = [checkpoint(t, [setting("learning_rate", 0.1)]) for t in (0, 100)]
    found = resolve_schedule(run(*points), clock(1e-3))  # optimizer unknown
    assert column(found, "sum_decay") == [None]
    settings = {"optimizer": "adamw", "lr": 0.1}
    found = resolve_schedule(run(*points), clock(1e-3, a=50), settings)
    assert column(found, "sum_decay") == [None]
    assert "missing-weight-decay" in codes(found)
    assert resolve_schedule(run(*points), pl.DataFrame(schema=CLOCKS)).table.height == 1
