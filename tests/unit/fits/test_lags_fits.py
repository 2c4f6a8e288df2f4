"""Exponent, excess retention and drift fraction of simulated weights that diffuse, drift or are held back."""

import numpy as np
import pytest
from fits_runs import angles, predictions
from lag_runs import GROUP, records, walk

from smd_analyze.fits.fitting import contexts
from smd_analyze.fits.lags import lag_rows
from smd_analyze.records.group import Group, Member
from smd_analyze.theory.lags import lagged


def estimates(weights, **more):
    stats, told = records(weights, **more)
    found = contexts(stats, told, angles(), predictions(), None, lagged(stats, told))
    return {row["quantity"]: row for row in lag_rows(next(found))}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_diffusion_is_called_so(momentum):
    more = {"momentum": momentum, "decay": 1e-6 if momentum else 1e-5}
    found = estimates(walk(seed=2, **more), **more)
    exponent, free = found["displacement_exponent"], found["displacement_exponent_zero_mean"]
    assert exponent["value"] == pytest.approx(free["value"], abs=0.1)
    assert free["value"] == pytest.approx(1, abs=0.06)
    assert exponent["outcome"] == "grows with the lag as zero-mean gradients would make it"
    assert abs(found["excess_retention"]["value"]) < 0.01
    assert found["excess_retention"]["outcome"].endswith("over 3200 steps: about as they would")
    drift = found["drift_fraction"]
    assert drift["value"] < 1e-4
    assert drift["low"] == 0 < drift["high"] < 1e-3
    assert drift["outcome"] == "no steady drift is needed"


@pytest.mark.parametrize(("fraction", "every"), [(0.01, 100), (0.05, 100), (0.2, 50)])
def test_the_interval_holds_the_drift_fraction(fraction, every):
    """Seeded; of 280 runs with f = 0, 0.01, 0.05, 0.2 and 21 or 81 checkpoints 96 % of the intervals held it."""
    held, values = 0, []
    for seed in range(6):
        weights = walk(21, every, drift=fraction, elements=400, seed=seed)
        row = estimates(weights, every=every)["drift_fraction"]
        held += row["low"] <= fraction <= row["high"]
        values.append(row["value"])
        assert row["level"] == 0.95
        assert row["outcome"] == "this share of the squared gradient keeps one direction"
    assert held >= 5
    assert np.mean(values) == pytest.approx(fraction, rel=0.03)


def test_drift_shows_in_exponent_and_retention():
    found = estimates(walk(21, drift=0.05, elements=400))
    assert found["displacement_exponent"]["value"] > 1.7
    assert found["displacement_exponent"]["outcome"].startswith("grows faster")
    assert found["excess_retention"]["value"] < -0.1
    assert found["excess_retention"]["outcome"].endswith("drifting")


def test_weights_that_are_held_back_are_called_confined_and_have_no_drift():
    found = estimates(walk(41, spring=0.3, elements=400))
    assert found["displacement_exponent"]["value"] < 0.6 < found["displacement_exponent_zero_mean"]["value"]
    assert found["excess_retention"]["value"] > 0
    assert found["excess_retention"]["outcome"].startswith("turns 0.")
    assert found["excess_retention"]["outcome"].endswith("over 1600 steps: confined")
    assert found["drift_fraction"]["value"] is None
    assert found["drift_fraction"]["outcome"].startswith("no steady drift: θ² grows more slowly")


def test_momentum_alone_is_no_drift():
    """A step apart θ² grows almost like k²; so does that of zero-mean gradients."""
    weights = walk(33, 1, elements=4000)
    found = estimates(weights, every=1)
    assert found["displacement_exponent"]["value"] > 1.5
    assert found["displacement_exponent"]["outcome"] == "grows with the lag as zero-mean gradients would make it"
    assert found["drift_fraction"]["value"] is None


def test_what_cannot_be_told_has_a_reason():
    weights = walk(5, elements=100)
    few = estimates(weights)
    assert few["drift_fraction"]["value"] is None
    assert "too few checkpoints" in few["drift_fraction"]["outcome"]
    far = estimates(walk(9, 2000, decay=2e-4, elements=100), every=2000, decay=2e-4)
    assert far["drift_fraction"]["outcome"] == "the weights turn too far between checkpoints"
    reference = Group("w", GROUP.members, "not invariant", "tensor", 1, 100, "all", "proved", "linear", "")
    found = estimates(walk(21, elements=100), group=reference)
    assert found["excess_retention"]["outcome"].startswith("reference only, not scale-invariant; turns")
    assert found["drift_fraction"]["outcome"] == "reference only: not scale-invariant"
    hidden = estimates(walk(9, decay=1e-13, elements=100), decay=1e-13, dtype="bfloat16")
    assert hidden["excess_retention"]["kind"] == "below resolution"
    assert {row["value"] for row in hidden.values()} == {None}
    unknown = Group("w", (Member("v", 0, 0, 1),), "invariant", "tensor", 1, 100, "none", "proved", "linear", "")
    assert estimates(walk(9, elements=100), group=unknown)["displacement_exponent"]["kind"] == "settings missing"
    stats, told = records(weights)
    assert lag_rows(next(contexts(stats, told, angles(), predictions()))) == []
