"""The formulas, and how small an angle they can tell."""

import numpy as np
import pytest

from smd_analyze.statistics import trajectories


def sums_of(u, v):
    d = v - u
    return (v * v).sum(), (d * d).sum(), (d * v).sum()


def pair(angle, growth, size=2000):
    """Two float64 vectors with exactly this angle and ratio of norms, up to rounding."""
    random = np.random.default_rng(3)
    u, across = random.normal(size=(2, size))
    u /= np.linalg.norm(u)
    across -= (across @ u) * u
    across /= np.linalg.norm(across)
    return u, growth * (np.cos(angle) * u + np.sin(angle) * across)


@pytest.mark.parametrize(("growth", "error"), [(1.0, 1e-10), (1.001, 1e-9), (1.1, 3e-6), (0.9, 3e-6)])
def test_a_hundred_thousandth_of_a_radian_is_seen_through_a_change_of_norm(growth, error):
    u, v = pair(1e-5, growth)
    assert trajectories.angle(*sums_of(u, v)) == pytest.approx(1e-5, rel=error)


@pytest.mark.parametrize("angle", [1e-8, 1e-3, 0.5, 2.0, np.pi - 1e-3])
def test_angles_of_all_sizes(angle):
    assert trajectories.angle(*sums_of(*pair(angle, 1.0))) == pytest.approx(angle, rel=1e-6)


def test_scaling_turns_nothing():
    u, _ = pair(0.1, 1.0)
    assert trajectories.angle(*sums_of(u, u)) == 0
    assert trajectories.angle(*sums_of(u, 3 * u)) == pytest.approx(0, abs=3e-8)


def test_zero_vectors_have_no_angle():
    u, zero = np.ones(3), np.zeros(3)
    assert np.isnan(trajectories.angle(*sums_of(u, zero)))
    assert np.isnan(trajectories.angle(*sums_of(zero, u)))
    assert np.isnan(trajectories.angle(np.array(np.nan), np.array(1.0), np.array(1.0)))


def test_steps_and_what_is_kept():
    u, v = np.array([2.0, 0.0]), np.array([1.5, 1.0])
    vv, dd, dv = sums_of(u, v)
    assert trajectories.norm(vv) == pytest.approx(np.hypot(1.5, 1))
    assert trajectories.inner(vv, dv) == pytest.approx(3)
    assert trajectories.earlier(vv, dd, dv) == pytest.approx(4)
    assert trajectories.retention(vv, dd, dv) == pytest.approx(0.75)
    assert trajectories.relative_update(vv, dd, dv) == pytest.approx(np.hypot(0.5, 1) / 2)
    radial, tangential = trajectories.radial_step(vv, dv), trajectories.tangential_step(vv, dd, dv)
    assert radial == pytest.approx((v - u) @ v / np.linalg.norm(v))
    assert radial**2 + tangential**2 == pytest.approx(dd)


def test_the_angle_of_a_saved_direction():
    w, d = np.array([1.0, 2.0, 2.0]), np.array([0.5, -1.0, 0.25])
    before = w + 0.1 * d
    expected = trajectories.angle(*sums_of(before, w))
    assert trajectories.step_angle(w @ w, d @ d, w @ d, 0.1) == pytest.approx(float(expected), rel=1e-12)
