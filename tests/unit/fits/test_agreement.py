import numpy as np
import pytest

from smd_analyze.fits.agreement import AGREES, DIFFERS, FEW, UNSURE, Ratio, rms_interval, settled_level


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.98, 1.02, AGREES), (1.01, 1.05, AGREES), (0.91, 0.94, AGREES), (0.88, 1.05, AGREES), (0.895, 0.986, AGREES),
        (0.82, 0.96, UNSURE), (0.7, 1.2, UNSURE), (1.06, 1.15, DIFFERS), (0.8, 0.94, DIFFERS), (1.2, 1.3, DIFFERS),
        (np.nan, np.nan, FEW),
    ],
)  # fmt: skip
def test_what_an_interval_may_claim(low, high, outcome):
    assert Ratio(0.5 * (low + high), low, high, 3, "").outcome == outcome


def test_three_batches_use_their_scatter_and_fewer_have_no_interval():
    three = rms_interval(np.array([1.0, 1.1, 0.9]), np.arange(3))
    assert three is not None
    assert three.value == pytest.approx(np.sqrt(np.mean([1, 1.21, 0.81])))
    assert three.low < 0.8 < 1.2 < three.high
    for batch in (np.arange(3)[:2], np.array([0, 0])):
        few = rms_interval(np.array([1.0, 1.1]), batch)
        assert few is not None
        assert few.value == pytest.approx(np.sqrt(1.105))
        assert np.isnan(few.low)
        assert few.outcome == FEW
    assert rms_interval(np.array([np.nan]), np.array([0])) is None


def test_the_interval_of_the_rms_covers():
    rng = np.random.default_rng(0)
    squares = rng.gamma(50, 1 / 50, (1000, 6))
    found = [rms_interval(np.sqrt(s), np.arange(6)) for s in squares]
    assert 0.92 <= np.mean([f is not None and f.low <= 1 <= f.high for f in found]) <= 0.97


def test_measurements_that_share_gradients_are_one_batch():
    rng = np.random.default_rng(3)
    shared = np.repeat(rng.gamma(50, 1 / 50, (1000, 5)), 10, axis=1)  # ten rows of the same gradients
    batch = np.repeat(np.arange(5), 10)
    found = [rms_interval(np.sqrt(s), batch) for s in shared]
    assert 0.92 <= np.mean([f is not None and f.low <= 1 <= f.high for f in found]) <= 0.97
    naive = [rms_interval(np.sqrt(s), np.arange(50)) for s in shared]
    assert np.mean([f is not None and f.low <= 1 <= f.high for f in naive]) < 0.7


def test_the_settled_level_covers_an_autocorrelated_series():
    rng = np.random.default_rng(1)
    decay, steps, runs = np.full(59, 0.1), 60, 600  # 4 × 0.1 of a relaxation time between checkpoints
    phi = np.exp(-0.4)
    z = np.empty((runs, steps))
    z[:, 0] = rng.standard_normal(runs)
    for t in range(1, steps):
        z[:, t] = phi * z[:, t - 1] + np.sqrt(1 - phi**2) * rng.standard_normal(runs)
    found = [settled_level(5 + 0.1 * row, decay, 4) for row in z]
    covered = np.mean([low <= 5 <= high for _, low, high, _ in found])
    assert 0.88 <= covered <= 0.98


def test_a_short_stretch_has_a_level_without_an_interval():
    value, low, _, _ = settled_level(np.array([1.0, 1.2, 1.1]), np.array([0.1, 0.1]), 4)
    assert value == pytest.approx(1.1)
    assert np.isnan(low)
