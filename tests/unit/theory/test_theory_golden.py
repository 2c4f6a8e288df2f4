"""Closed forms against numbers computed once with 40 digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from smd_analyze.theory import adam_l2, adamw, decoupled, geometry, lion, nesterov, relaxation, sgd, sgdw
from smd_analyze.theory.laws import HEAVY_BALL, NESTEROV

GOLDEN = {
    name: entry["outputs"]
    for name, entry in json.loads((Path(__file__).parents[2] / "golden" / "theory.json").read_text()).items()
}
ETA, LAM, ALPHA = 0.1, 5e-4, 0.9
X = ETA * LAM
COSINE_ETAS = 0.05 * (1 + np.cos(np.pi * np.arange(1000) / 1000))
DIGITS = 1e-10


def close(value, name, key, rel=DIGITS):
    assert np.asarray(value) == pytest.approx(np.asarray(GOLDEN[name][key]), rel=rel), key


def chord(cosine):
    return np.sqrt(2 - 2 * cosine)


def pieces(etas, lam=LAM):
    return [(np.asarray(etas), np.asarray(etas) * lam, np.ones(len(etas)))]


def test_one_step_of_sgd():
    following, cosine = sgd.step(2, 0.1, 0.01, 3)
    close(following, "G1_sgd_one_step", "n_next")
    close(cosine, "G1_sgd_one_step", "cos")


def test_equilibrium_of_sgd():
    level = sgd.equilibrium_quartic_norm(ETA, X, 0.0, 1.0)
    close(level, "G2_sgd_equilibrium", "S_exact")
    close(level**0.25, "G2_sgd_equilibrium", "w")
    close(geometry.angle_of_cosine(sgd.equilibrium_cosine(X)), "G2_sgd_equilibrium", "theta1")
    close(chord(sgd.equilibrium_cosine(X)), "G2_sgd_equilibrium", "chord")


def test_equilibrium_of_heavy_ball():
    name = "G3_sgdm_equilibrium"
    level, cosine = sgd.equilibrium_quartic_norm(ETA, X, ALPHA, 1.0), sgd.equilibrium_cosine(X, ALPHA)
    close(level, name, "S")
    close(level**0.25, name, "w")
    close(cosine, name, "cos1")
    close(geometry.angle_of_cosine(cosine), name, "theta1")
    close(4 * sgd.effective_decay(X, ALPHA), name, "rate_paper")
    close(sgd.relaxation_rate(X, ALPHA), name, "rate_closed")


def test_the_relaxation_rate_is_the_slow_eigenvalue_of_the_moment_map():
    assert sgd.relaxation_rate(X, ALPHA) == pytest.approx(GOLDEN["G3b_sgdm_exact_rate"]["rate_exact"], rel=1e-3)


def test_cosines_of_heavy_ball_at_any_lag():
    lags = np.array([1, 2, 10, 100, 1000])
    cosines = sgd.cosine(X, ALPHA, lags)
    close(cosines, "G4_sgdm_cos_k", "cos")
    close(geometry.angle_of_cosine(cosines), "G4_sgdm_cos_k", "theta")


def test_cosines_where_the_weights_oscillate():
    close(sgd.cosine(1e-4, 0.99, np.array([1, 10, 100, 1000])), "G4b_complex_roots", "cos", rel=1e-8)


def test_equilibrium_of_nesterov():
    cosine = nesterov.equilibrium_cosine(X, ALPHA)
    close(nesterov.equilibrium_quartic_norm(ETA, X, ALPHA, 1.0), "G5_nesterov", "S")
    close(cosine, "G5_nesterov", "cos1")
    close(chord(cosine), "G5_nesterov", "chord", rel=1e-9)
    slow = sgd.effective_decay(X, ALPHA)
    close(np.sqrt(nesterov.angle_share(ALPHA) * 2 * slow), "G5_nesterov", "chord_leading")


def test_equilibrium_of_sgdw():
    cosine = sgdw.equilibrium_cosine(X, ALPHA)
    close(sgdw.equilibrium_quartic_norm(ETA, X, ALPHA, 1.0), "G6_sgdw", "S")
    close(cosine, "G6_sgdw", "cos1")
    close(chord(cosine), "G6_sgdw", "chord", rel=1e-9)


def test_equilibrium_of_adamw():
    name = "G7_adamw"
    close(adamw.equilibrium_squared_norm(1e-3, 1e-4, 0.9, 1000), name, "n_exact")
    close(chord(adamw.equilibrium_cosine(1e-4, 0.9)), name, "chord", rel=1e-9)
    close(adamw.relaxation_rate(1e-4, 0.999), name, "slow_rate_b2_999")
    assert adamw.relaxation_rate(1e-4) == pytest.approx(2e-4)


def test_equilibrium_of_adam_with_l2():
    name = "G8_adam_l2"
    norm = adam_l2.equilibrium_norm(1e-3, 1e-2, 4, 256)
    effective = adam_l2.effective_decay(1e-3, 1e-2, 4, 256, norm**2)
    close(norm, name, "w")
    close(effective, name, "xe")
    close(chord(adam_l2.equilibrium_cosine(effective, 0.9)), name, "chord")
    assert adam_l2.cosine(effective, 0.9, 1) == pytest.approx(adam_l2.equilibrium_cosine(effective, 0.9))
    assert adam_l2.relaxation_rate(effective) == pytest.approx(3 * effective)


def test_equilibrium_of_lion():
    name, gamma = "G9_lion", lion.autocovariance(0.9, 0.99)
    n = decoupled.equilibrium_squared_norm(1e-4, 1e-4, 256, gamma)
    close(n, name, "n")
    close(chord(decoupled.equilibrium_cosine(1e-4, gamma)), name, "chord", rel=1e-9)
    close(np.sqrt(1e-8 * 256 / n - 1e-8), name, "chord_from_norm", rel=1e-9)


@pytest.mark.parametrize(
    ("law", "etas", "key"),
    [
        (HEAVY_BALL, np.full(100, ETA), "n100_torch"),
        (NESTEROV, np.full(100, ETA), "n100_nesterov"),
        (HEAVY_BALL, COSINE_ETAS, "n1000_cos_torch"),
    ],
)
def test_the_moment_map(law, etas, key):
    followed = relaxation.sgd_moments(law, pieces(etas), np.array([ALPHA]), np.array([10.0]), fresh=True)
    close(followed[0, 0], "G11_moments", key)


def test_the_linear_map_over_a_schedule():
    etas, decays, _ = pieces(COSINE_ETAS)[0]
    factor, source, _ = relaxation.one_step(HEAVY_BALL, etas, decays, 0.0)
    s = 100.0
    for f, b in zip(factor, source, strict=True):
        s = f * s + b
    close(s, "G12_schedule_sgd", "S_disc")


def test_the_velocity_form_over_a_schedule():
    for etas, key in ((np.full(100, ETA), "n100_tf"), (COSINE_ETAS, "n1000_cos_tf")):
        start, momenta = np.array([10.0]), np.array([ALPHA])
        followed = relaxation.sgd_moments(HEAVY_BALL, pieces(etas), momenta, start, fresh=True, in_velocity=True)
        close(followed[0, 0], "G11_moments", key)


def test_retention_without_momentum():
    kept = HEAVY_BALL.retention(0.002, 0.0, 1 - 0.002, 50)
    close(kept, "G19_retention_sd", "mean")
    close(np.prod(1 - COSINE_ETAS * LAM), "G12_schedule_sgd", "retention")


def test_one_segment_of_a_schedule():
    factor, source, noise = relaxation.one_step(HEAVY_BALL, np.full(100, ETA), np.full(100, X), 0.0)
    phi, b, c = 1.0, 0.0, 0.0
    for f, s, v in zip(factor, source, noise, strict=True):
        phi, b, c = f * phi, f * b + s, f * f * c + v
    close(phi, "G14_segment", "Phi")
    close(b, "G14_segment", "B")
    close(c, "G14_segment", "C")


def test_the_angle_that_norms_imply():
    growth, k = np.log(10.4 / 10), 500
    square = sgd.angle_share(ALPHA) * (2 * sgd.effective_decay(X, ALPHA) + growth / k)
    close(np.sqrt(square), "G17_norms_only", "chord_rms")


def test_a_tiny_angle_under_a_large_change_of_norm():
    u, v = np.array([1.0, 0.0]), 2 * np.array([np.cos(1e-5), np.sin(1e-5)])
    angle = geometry.unit_angle((v * v).sum(), ((v - u) ** 2).sum(), ((v - u) * v).sum())
    assert angle == pytest.approx(1e-5, rel=1e-4)
    # the golden case lies below what double sums of squares resolve: its exact sums give it back
    golden = GOLDEN["G18_angle"]
    assert 2 * np.arcsin(np.sqrt(golden["s2"])) == pytest.approx(golden["theta"], rel=1e-9)
    assert geometry.unit_angle(1.0, 0.0, 0.0) == 0
    assert np.isnan(geometry.unit_angle(0.0, 1.0, 0.0))
