"""A short, seeded part of the coverage study (benchmarks/interval_coverage.py; docs/accuracy.md has the whole)."""

import pytest
from coverage_studies import adamw_study, exact_map_study, fits_study, index_study, ou_study, scale_study


@pytest.mark.parametrize("intervals", [10, 30])
def test_rate_and_level_of_single_units(intervals):
    rate, level = ou_study("constant", intervals, units=200)
    assert 0.9 < rate.coverage <= 1  # Monte Carlo error 1.5 %
    assert 0.9 < level.coverage <= 1
    drifting, _ = ou_study("×1.5", intervals, units=100)
    assert drifting.coverage < 0.5  # why `fit` prints no such rate


def test_gradient_scale_of_single_units():
    assert exact_map_study(10).coverage == pytest.approx(0.95, abs=0.015)
    assert scale_study("constant", 30, units=200).coverage > 0.91
    assert scale_study("cosine", 30, units=200).coverage > 0.93  # conservative: the floor of the variance


def test_what_is_printed_of_layers():
    steady = fits_study("constant", "constant", 30, layers=5)
    assert not steady.pop("relaxation_rate_ratio").claimed  # shown only where it holds theory's rate
    for tally in steady.values():
        assert tally.claimed
        assert tally.coverage >= 0.8  # one of five at most
    drifting = fits_study("constant", "×1.5", 30, layers=5)
    assert not drifting["relaxation_rate_ratio"].claimed
    assert not drifting["gradient_scale"].claimed


def test_what_is_printed_across_a_drop():
    for scale in ("×3", "correlated"):
        tally = fits_study("step", scale, 10, layers=4)["relaxation_rate_ratio"]
        assert tally.claimed == tally.held == 4
    assert adamw_study("×3", 20, layers=3).coverage == 1


def test_equilibrium_index_of_layers():
    index, _ = index_study("constant", "constant", 30, layers=12)
    assert index.claimed == 12
    assert index.coverage >= 0.9
