"""Identities that hold for any hyperparameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_analyze.theory import adamw, autoregression, geometry, laws, nesterov, relaxation, sgd, sgdw

decays = st.floats(1e-7, 1e-2)
momenta = st.floats(0.0, 0.99)
rates = st.floats(1e-4, 1.0)


@given(rate=rates, decay=decays)
def test_one_step_at_equilibrium_keeps_the_norm_and_turns_by_the_predicted_angle(rate, decay):
    level = sgd.equilibrium_quartic_norm(rate, decay, 0.0, 3.0)
    following, cosine = sgd.step(np.sqrt(level), rate, decay / rate, 3.0)
    assert following == pytest.approx(np.sqrt(level), rel=1e-9)
    assert cosine == pytest.approx(sgd.equilibrium_cosine(decay), rel=1e-12)


@given(rate=rates, decay=decays, momentum=momenta)
def test_heavy_ball_is_the_autoregression_without_moving_average(rate, decay, momentum):
    variance, rho = autoregression.variance_and_correlation(*sgd.autoregression(decay, momentum))
    assert rate**2 * variance == pytest.approx(sgd.equilibrium_quartic_norm(rate, decay, momentum, 1.0), rel=1e-4)
    assert rho == pytest.approx(sgd.equilibrium_cosine(decay, momentum), rel=1e-12)


@given(rate=rates, decay=decays)
def test_without_momentum_all_forms_are_plain_sgd(rate, decay):
    for level, cosine in (
        (nesterov.equilibrium_quartic_norm(rate, decay, 0.0, 2.0), nesterov.equilibrium_cosine(decay, 0.0)),
        (sgdw.equilibrium_quartic_norm(rate, decay, 0.0, 2.0), sgdw.equilibrium_cosine(decay, 0.0)),
        (sgdw.equilibrium_quartic_norm(rate, decay, 0.0, 2.0, True), sgdw.equilibrium_cosine(decay, 0.0, True)),
    ):
        assert level == pytest.approx(sgd.equilibrium_quartic_norm(rate, decay, 0.0, 2.0), rel=1e-6)
        assert cosine == pytest.approx(1 - decay, rel=1e-10)
    assert nesterov.angle_share(0.0) == sgdw.angle_share(0.0, True) == sgd.angle_share(0.0) == 1
    assert adamw.equilibrium_cosine(decay, 0.0) == pytest.approx(1 - decay, rel=1e-10)


@given(decay=decays, momentum=momenta, lag=st.integers(2, 60))
def test_any_lag_obeys_the_recursion(decay, momentum, lag):
    for module in (sgd, nesterov, sgdw):
        phi1, phi2 = module.autoregression(decay, momentum)
        rho = module.cosine(decay, momentum, np.array([lag - 2, lag - 1, lag]))
        assert rho[2] == pytest.approx(phi1 * rho[1] + phi2 * rho[0], abs=1e-6)
    assert sgd.cosine(decay, momentum, 0) == pytest.approx(1)


def test_a_double_root_is_a_limit_like_any_other():
    phi1, phi2 = 1.8, -0.81
    explicit = [1.0, 0.95]
    for _ in range(8):
        explicit.append(phi1 * explicit[-1] + phi2 * explicit[-2])
    np.testing.assert_allclose(autoregression.correlation(phi1, phi2, 0.95, np.arange(10)), explicit, rtol=1e-9)


@given(decay=st.floats(1e-8, 1e-5), momentum=st.floats(0.0, 0.9))
def test_small_decay_gives_the_textbook_leading_orders(decay, momentum):
    for law in (laws.HEAVY_BALL, laws.NESTEROV, laws.SGDW, laws.SGDW_NESTEROV, laws.ADAMW):
        square = 2 * (1 - law.equilibrium_cosine(decay, momentum))
        # the angle of a stationary norm is ζ 2x_e
        expected = law.angle_share(momentum) * 2 * decay * law.amplification(momentum)
        assert square == pytest.approx(float(expected), rel=3e-2), law.name
        rate = law.relaxation_rate(decay, momentum, 0.9)
        assert rate == pytest.approx(float(law.power * decay * law.amplification(momentum)), rel=3e-2), law.name


def test_everything_takes_arrays():
    x, a = np.array([[1e-5], [1e-4]]), np.array([0.0, 0.5, 0.9])
    for law in (laws.HEAVY_BALL, laws.NESTEROV, laws.SGDW, laws.SGDW_NESTEROV, laws.ADAMW):
        for values in (law.equilibrium_cosine(x, a), law.level(0.1, x, a), law.relaxation_rate(x, a, 0.999) + 0 * a):
            assert values.shape == (2, 3)
            assert np.isfinite(values).all()


def test_a_norm_that_oscillates_has_no_single_rate():
    assert sgd.momentum_number(1e-4, 0.99) == pytest.approx(0.99)
    assert np.isnan(sgd.relaxation_rate(1e-4, 0.99))
    assert np.isfinite(sgd.relaxation_rate(1e-4, 0.9))


@pytest.mark.parametrize("law", [laws.HEAVY_BALL, laws.NESTEROV, laws.SGDW, laws.SGDW_NESTEROV], ids=lambda v: v.name)
def test_the_moment_map_rests_at_the_equilibrium_and_relaxes_at_its_rate(law):
    eta, x, a = 0.05, 2e-5, 0.9
    level = float(np.sqrt(law.level(eta, x, a)))
    one = (np.array([eta]), np.array([x]), np.array([3000.0]))
    n = relaxation.sgd_moments(law, [one, one], np.array([a, a]), level * np.array([1.0, 1.02]), fresh=False)
    assert n[1, 0] == pytest.approx(level, rel=3e-4)
    left = n[:, 1] ** 2 - n[:, 0] ** 2
    assert np.log(left[0] / left[1]) / 3000 == pytest.approx(law.relaxation_rate(x, a, np.nan), rel=0.01)


def test_the_map_of_adamw_rests_at_the_equilibrium_and_relaxes_at_its_slow_rate():
    eta, x, b1, b2 = 1e-3, 1e-4, 0.9, 0.999
    level = float(adamw.equilibrium_squared_norm(eta, x, b1, 1.0))
    one = (np.array([eta]), np.array([x]), np.array([10000.0]))
    pair = np.array([b1, b1]), np.array([b2, b2])
    n = relaxation.adamw_moments(adamw.noise_gain, [one, one], *pair, level * np.array([1.0, 1.001]), fresh=False)
    assert n[1, 0] == pytest.approx(level, rel=1e-6)
    left = n[:, 1] - n[:, 0]
    assert np.log(left[0] / left[1]) / 10000 == pytest.approx(adamw.relaxation_rate(x, b2), rel=0.01)


@given(angle=st.floats(1e-5, 3.0), size=st.floats(0.5, 2.0), first=st.floats(1e-3, 1e3))
def test_the_angle_from_sums_is_the_angle(angle, size, first):
    u = first * np.array([1.0, 0.0])
    v = first * size * np.array([np.cos(angle), np.sin(angle)])
    found = geometry.unit_angle((v * v).sum(), ((v - u) ** 2).sum(), ((v - u) * v).sum())
    assert found == pytest.approx(angle, rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "nesterov_flag", "decoupled", "expected"),
    [
        ("sgd", False, False, laws.HEAVY_BALL),
        ("SGD", None, None, laws.HEAVY_BALL),
        ("sgd", True, False, laws.NESTEROV),
        ("sgd", False, True, laws.SGDW),
        ("sgdw", True, None, laws.SGDW_NESTEROV),
        ("adamw", None, None, laws.ADAMW),
        ("adam", None, True, laws.ADAMW),
    ],
)
def test_every_optimizer_finds_its_law(optimizer, nesterov_flag, decoupled, expected):
    assert laws.law_of(optimizer, nesterov_flag, decoupled) is expected


def test_no_law_is_said_in_words():
    assert laws.law_of(None, None, None) == "optimizer unknown"
    assert laws.law_of("lion", None, True) == "beta2 unknown"
    assert laws.law_of("lamb", None, True) == "no theory for optimizer lamb yet"
    assert "shape" in str(laws.law_of("muon", None, True))
    assert "sign" in str(laws.law_of("adamw", None, True, decay_rule="cautious"))
    assert "decay in the gradient" in str(laws.law_of("lion", None, False, beta2=0.99))
    assert "gradients' size" in str(laws.law_of("adam", None, False))
    assert not laws.saved_direction_was_update("muon", False)
    assert not laws.saved_direction_was_update("sgd", True)
    assert laws.saved_direction_was_update("adam", None)
