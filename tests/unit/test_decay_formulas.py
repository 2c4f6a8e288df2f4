"""Rates of decay clocks against golden numbers, against PyTorch's optimizers stepping, and against replayed bits."""

import numpy as np
import pytest
import torch

from smd_analyze import decay_formulas as f

FORMS = [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.5}]


def test_golden_heavy_ball_and_nesterov():
    assert f"{f.coupled_rate(4e-4, 0.9):.10g}" == "0.004164768518"
    assert f"{f.coupled_rate(2e-4, 0.9, nesterov=True):.10g}" == "0.002035699297"


def test_golden_decoupled_fp32():
    assert [f"{r:.6g}" for r in f.decoupled_rate([2e-6, 3e-5, 3e-4])] == ["2.02656e-06", "2.99816e-05", "0.000300035"]
    assert f"{f.decoupled_rate(3e-4):.10g}" == "0.0003000351832"


def test_golden_drop():
    before, after = f.coupled_rate([2e-6, 2e-7], 0.9)
    assert 472 * before + 28 * after == pytest.approx(0.009497795346, rel=3e-10)
    assert 500 * f.drop_position(0.009497795346204959 / 500, before, after) == pytest.approx(472.0, abs=1e-6)
    eta = np.repeat([2e-6, 2e-7], [472, 28])
    ratio, _ = f.log_ratios(f.step_matrices(eta, momentum=0.9), [0, 500], f.settled_buffer(2e-6, momentum=0.9))
    assert 500 * f.drop_position(ratio[0] / 500, before, after) == pytest.approx(
        472.0, abs=1e-3
    )  # the buffer resettles


@pytest.mark.parametrize("form", FORMS)
def test_inverse_returns_the_decay(form):
    x = np.geomspace(1e-9, 2e-3, 50)
    np.testing.assert_allclose(f.decay_of(f.coupled_rate(x, **form), **form), x, rtol=1e-12)
    assert f.decay_of(0.0, **form) == 0
    assert f.decay_of(-1e-6, **form) < 0  # lower ends of intervals pass through


def test_inverse_of_decoupled_ignores_momentum():
    np.testing.assert_allclose(f.decay_of(f.decoupled_rate(1e-3, exact=True), 0.9, decoupled=True), 1e-3, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS[1:])
def test_beyond_the_limit_there_is_no_rate(form):
    limit = float(f.oscillation_limit(**form))
    assert not f.oscillates(limit * 0.999, **form)
    assert f.oscillates(limit * 1.001, **form)
    assert np.isnan(f.coupled_rate(limit * 1.001, **form))
    assert np.isnan(f.decay_of(f.coupled_rate(limit * 0.9999, **form) * 1.1, **form))
    ratios, _ = f.log_ratios(f.step_matrices(np.full(4000, 4 * limit), **form), [0, 3, 4000])
    assert np.isfinite(ratios[0])
    assert np.isnan(ratios[1])


def test_without_momentum_nothing_oscillates():
    assert not f.oscillates(0.5, 0.0)
    assert f.coupled_rate(0.5) == pytest.approx(np.log(2))


def stepped(make, eta, lam, start=1.0, dtype=torch.float64):
    """A weight without gradient under a PyTorch optimizer, with a learning rate per update."""
    w = torch.nn.Parameter(torch.as_tensor(start, dtype=dtype) * torch.ones(1, dtype=dtype))
    opt = make([w], lr=float(eta[0]), weight_decay=lam)
    seen = [w.item()]
    for rate in eta:
        opt.param_groups[0]["lr"] = float(rate)
        w.grad = torch.zeros_like(w)
        opt.step()
        seen.append(w.item())
    return np.array(seen)


@pytest.mark.parametrize("form", FORMS)
def test_recursion_is_torch_sgd_under_any_schedule(form):
    eta = np.concatenate([np.linspace(0.01, 0.3, 100), np.full(150, 0.1), np.full(150, 0.01)])
    seen = stepped(lambda p, **kw: torch.optim.SGD(p, **kw, **form), eta, 2e-3)
    edges = [0, 1, 2, 100, 257, 400]
    fresh = f.fresh_buffer(2e-3, form.get("momentum", 0), form.get("dampening", 0))
    ratios, _ = f.log_ratios(f.step_matrices(eta, 2e-3, **form), edges, fresh)
    np.testing.assert_allclose(ratios, -np.diff(np.log(seen[edges])), rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_settled_torch_sgd_shrinks_at_the_settled_rate(form):
    seen = stepped(lambda p, **kw: torch.optim.SGD(p, **kw, **form), np.full(700, 0.1), 1e-3)
    assert -np.log(seen[700] / seen[500]) / 200 == pytest.approx(float(f.coupled_rate(1e-4, **form)), rel=1e-9)


def test_a_saved_buffer_starts_the_recursion_in_mid_run():
    eta = np.geomspace(0.2, 0.01, 300)
    matrices = f.step_matrices(eta, 2e-3, 0.9)
    whole, buffers = f.log_ratios(matrices, [0, 120, 300])
    rest, _ = f.log_ratios(matrices[120:], [0, 180], buffers[1])
    assert rest[0] == pytest.approx(whole[1], rel=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_form_is_keras_and_lags_behind(nesterov):
    """v ← αv − η·λw; w ← w + v (Nesterov: w + αv − ηλw): a drop shows α/(1−α) (α²/(1−α)) updates late."""
    eta, lam, a = np.repeat([0.1, 0.01], [400, 400]), 1e-4, 0.9
    w, v, seen = 1.0, 0.0, [1.0]
    for rate in eta:
        g = lam * w
        v = a * v - rate * g
        w += a * v - rate * g if nesterov else v
        seen.append(w)
    edges = [0, 200, 300, 500, 800]
    form = {"nesterov": nesterov, "momentum": a}
    ratios, _ = f.log_ratios(f.step_matrices(eta, lam, rate_in_velocity=True, **form), edges)
    np.testing.assert_allclose(ratios, -np.diff(np.log(np.array(seen)[edges])), rtol=1e-9)
    inside = f.coupled_rate(eta * lam, **form)
    late = 200 * f.drop_position(ratios[2] / 200, inside[0], inside[-1]) - 100
    assert late == pytest.approx(float(f.velocity_lag(a, nesterov)), abs=0.02)
    assert ratios[1] == pytest.approx(100 * inside[0], rel=1e-6)
    assert f.settled_buffer(0.1, lam, rate_in_velocity=True, **form) > 0


def test_settled_buffer_stays_settled():
    for form in FORMS:
        for inside in (False, True):
            if inside and form.get("dampening"):
                continue
            matrices = f.step_matrices(np.full(50, 0.1), 1e-3, rate_in_velocity=inside, **form)
            ratios, _ = f.log_ratios(matrices, range(51), f.settled_buffer(0.1, 1e-3, rate_in_velocity=inside, **form))
            np.testing.assert_allclose(ratios, f.coupled_rate(1e-4, **form), rtol=1e-9)


def test_torch_adamw_multiplies_by_the_rounded_factor():
    for x in (2e-6, 3e-5, 3e-4, 2e-8):
        seen = stepped(torch.optim.AdamW, np.full(1, x / 0.1), 0.1, start=1.0, dtype=torch.float32)
        assert seen[1] == f.fp32_factor(x)
    assert f.fp32_factor(0.99 * f.RESOLUTION) == 1
    assert f.fp32_factor(1.01 * f.RESOLUTION) < 1


def test_factor_tells_the_decays_that_make_it():
    low, high = f.decay_of_factor(f.fp32_factor(2e-6))
    assert low < 2e-6 < high
    assert f.fp32_factor(low * 1.0001) == f.fp32_factor(high * 0.9999)
    assert high - low == pytest.approx(2.0**-24)


@pytest.mark.parametrize("form", ["factor", "fused"])
@pytest.mark.parametrize("x", [4e-8, 1e-7, 7e-7, 2e-6, 3e-5])
def test_rounded_rate_is_what_replayed_elements_do(form, x):
    """A slice of 200,000 log-uniform elements, 20 updates, in fp32 itself."""
    w = np.exp(np.random.default_rng(1).uniform(-6 * np.log(2), 0, 200_000)).astype(np.float32)
    v = w.copy()
    for _ in range(20):
        v = v * np.float32(1 - x) if form == "factor" else v - np.float32(x) * v
    seen = -np.mean(np.log(v.astype(float) / w)) / 20
    assert seen == pytest.approx(float(f.rounded_rate(x, form)), rel=4e-3)


def test_bfloat16_weights_feel_no_small_decay():
    w = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(w.clone().mul_(1 - 1e-3), w)
    assert f.rounded_rate(1e-3, dtype="bfloat16") == 0
    assert f.rounded_rate(1e-2, dtype="bfloat16") > 0


def test_adam_with_l2_shrinks_linearly_by_the_learning_rate():
    seen = stepped(lambda p, **kw: torch.optim.Adam(p, **kw), np.full(2000, 1e-4), 0.01, start=5.0)
    slope = (seen[1000] - seen[2000]) / 1000
    assert slope == pytest.approx(float(f.adam_l2_slope(5.0, 1e-4, 0.01, 1e-8)), rel=0.02)
    assert slope == pytest.approx(1e-4, rel=0.02)


@pytest.mark.parametrize("x", [1e-7, 3e-7, 1e-6])
def test_rounding_bias_bounds_what_a_slice_shows(x):
    """Weights as nn.Linear draws them, w − xw in fp32: the error of the rate stays within the bias, nor far from it."""
    for seed in range(5):
        w = np.random.default_rng(seed).uniform(-0.1, 0.1, 500).astype(np.float32)
        v = w.copy()
        for _ in range(20):
            v = (v - np.float64(x) * v).astype(np.float32)
        seen = -np.log(np.linalg.norm(v.astype(float)) / np.linalg.norm(w.astype(float))) / 20
        bias = f.rounding_bias(w, seen)
        assert abs(seen - x) <= bias + 1e-11
        assert bias < 0.5 * x
