"""Closed forms against short runs of the optimizers themselves, fed with tangent noise ‖g‖² = L/‖w‖²."""

import numpy as np
import pytest
import torch

from smd_analyze.theory import adam_l2, adamw, decoupled, laws, lion, muon


def run(make, start, steps, settle, units=32, elements=128, scales=None, seed=0):
    """‖w‖² [units, elements summed] and squared chord per step, means over units and the steps after `settle`."""
    noise = torch.Generator().manual_seed(seed)
    w = torch.randn(units, elements, generator=noise, dtype=torch.float64)
    w = w if scales is None else w * scales.sqrt()  # the balance of Adam with L2: w_i² ∝ √v̂_i
    w = torch.nn.Parameter(w * start / w.norm(dim=1, keepdim=True))
    optimizer = make([w])
    squared, chords = 0.0, 0.0
    for t in range(steps):
        with torch.no_grad():
            n = (w * w).sum(1, keepdim=True)
            z = torch.randn(units, elements, generator=noise, dtype=torch.float64)
            z = z if scales is None else z * scales
            z -= (z * w).sum(1, keepdim=True) / n * w
            w.grad = z / n.sqrt()
            old = w.detach().clone()
        optimizer.step()
        if t >= settle:
            with torch.no_grad():
                after = (w * w).sum(1)
                cosine = (w * old).sum(1) / (after * n[:, 0]).sqrt()
                squared += float(after.mean())
                chords += float((2 - 2 * cosine).mean())
    return squared / (steps - settle), chords / (steps - settle), w.detach(), optimizer


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"]).sub_(lr * torch.sign(b1 * m + (1 - b1) * p.grad))
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


@pytest.mark.parametrize(("beta2", "norm_error", "angle_error"), [(0.999, 0.004, 0.003), (0.95, 0.006, 0.003)])
def test_adamw_with_its_second_moments_memory(beta2, norm_error, angle_error):
    eta, lam = 0.01, 0.2
    level = float(adamw.equilibrium_squared_norm(eta, eta * lam, 0.9, 128, beta2))
    n, chord, *_ = run(
        lambda p: torch.optim.AdamW(p, lr=eta, betas=(0.9, beta2), eps=1e-16, weight_decay=lam),
        np.sqrt(level), 2600, 1000,
    )  # fmt: skip
    assert n == pytest.approx(level, rel=norm_error)
    theory = 2 - 2 * adamw.equilibrium_cosine(eta * lam, 0.9, beta2)
    assert np.sqrt(chord / theory) == pytest.approx(1, abs=angle_error)
    if beta2 == 0.95:  # which the limit β₂ → 1 would miss
        assert n < 0.985 * adamw.equilibrium_squared_norm(eta, eta * lam, 0.9, 128)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)])
def test_lion_obeys_the_arcsine_law(betas):
    eta, lam, d = 1e-3, 1.0, 256
    gamma = lion.autocovariance(*betas)
    # exactly tangent gradients make the norm larger by 1/d
    level = float(decoupled.equilibrium_squared_norm(eta, eta * lam, d, gamma)) * (1 + 1 / d)
    n, chord, *_ = run(lambda p: Lion(p, eta, betas, lam), np.sqrt(level), 3200, 1200, units=24, elements=d)
    assert n == pytest.approx(level, rel=0.01)
    assert np.sqrt(chord / (2 - 2 * decoupled.equilibrium_cosine(eta * lam, gamma))) == pytest.approx(1, abs=0.006)
    # the identity needs neither zero mean nor equilibrium: only the norm
    assert chord == pytest.approx(eta**2 * d / n - (eta * lam) ** 2, rel=0.002)


@pytest.mark.parametrize(
    ("shape", "nesterov", "rule"), [((24, 24), True, "original"), ((32, 12), False, "match_rms_adamw")]
)
def test_muon_of_torch(shape, nesterov, rule):
    eta, lam, mu = 0.02, 0.25, 0.9
    rows, columns = shape
    law = laws.law_of("muon", nesterov, True, shape=shape, adjustment=rule)
    level = float(law.level(eta, eta * lam, mu)) * rows * columns
    noise = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=noise) for _ in range(4)]
    weights = [torch.nn.Parameter(w * np.sqrt(level) / w.norm()) for w in weights]
    optimizer = torch.optim.Muon(
        weights, lr=eta, weight_decay=lam, momentum=mu, nesterov=nesterov, adjust_lr_fn=rule
    )  # fmt: skip
    squared, chords = [], []
    for t in range(900):
        with torch.no_grad():
            for w in weights:
                z = torch.randn(*shape, generator=noise)
                w.grad = (z - (z * w).sum() / (w * w).sum() * w) / w.norm()
            old = [w.detach().clone() for w in weights]
            optimizer.step()
            if t >= 300:
                squared.append([float((w * w).sum()) for w in weights])
                chords.append([
                    2 - 2 * float((w * o).sum() / (w.norm() * o.norm())) for w, o in zip(weights, old, strict=True)
                ])  # fmt: skip
    assert np.mean(squared) == pytest.approx(level, rel=0.025)
    theory = 2 - 2 * law.equilibrium_cosine(eta * lam, mu)
    assert np.sqrt(np.mean(chords) / theory) == pytest.approx(1, abs=0.015)
    implied = eta**2 * law.squared_update * rows * columns / np.mean(squared) - (eta * lam) ** 2
    assert np.sqrt(np.mean(chords) / implied) == pytest.approx(1, abs=0.025)


def test_orthogonalisation_is_that_of_torch():
    from torch.optim._muon import _zeropower_via_newtonschulz as zeropower

    y = np.random.default_rng(0).standard_normal((1, 16, 40)).astype(np.float32)
    torchs = zeropower(torch.from_numpy(y[0]), muon.COEFFICIENTS, muon.STEPS, 1e-7).float().numpy()
    np.testing.assert_allclose(muon.newton_schulz(y)[0], torchs, atol=0.02)  # torch works in bfloat16
    assert muon.adjusted(64, 16) == 2
    assert muon.adjusted(16, 64) == 1
    assert muon.adjusted(16, 64, "match_rms_adamw") == pytest.approx(1.6)


def test_large_matrices_are_simulated_by_small_ones_of_the_same_aspect(monkeypatch):
    monkeypatch.setattr(muon, "SAMPLES", 12)
    whole = muon.overlap.__wrapped__(96, 192)
    monkeypatch.setattr(muon, "SIDE", 48)
    small = muon.overlap.__wrapped__(96, 192)
    assert small[0] == pytest.approx(whole[0], rel=0.02)
    np.testing.assert_allclose(small[1][1:], whole[1][1:], rtol=0.03)


@pytest.mark.parametrize(("spread", "error", "angle_error"), [(0.0, 0.004, 0.008), (1.0, 0.02, 0.04)])
def test_adam_with_l2_from_its_own_second_moments(spread, error, angle_error):
    """Elements whose gradients differ e-fold: Σ√v̂ is what their balances add up to, Σv̂ would be 12 % off."""
    eta, lam, d = 0.003, 0.003, 128
    scales = torch.exp(spread * torch.randn(d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    scales = scales / np.sqrt(d)
    make = lambda p: torch.optim.Adam(p, lr=eta, betas=(0.9, 0.99), eps=1e-16, weight_decay=lam)  # noqa: E731
    guess = float(adam_l2.equilibrium_norm(eta, lam, float(scales.sum()) ** 2 / d, d))
    n, chord, w, optimizer = run(make, guess, 3000 if spread else 2500, 1500, scales=scales)
    state = optimizer.state[next(iter(optimizer.state))]
    roots = (state["exp_avg_sq"] / (1 - 0.99 ** int(state["step"]))).sqrt().sum(1)
    size = adam_l2.gradient_from_state((w * w).sum(1).numpy(), roots.numpy(), d)
    norms = adam_l2.equilibrium_norm(eta, lam, size, d)
    assert np.mean(norms) == pytest.approx(np.sqrt(n), rel=error)
    effective = adam_l2.effective_decay(eta, lam, size, d, norms**2)
    theory = np.mean(2 - 2 * adam_l2.equilibrium_cosine(effective, 0.9))
    assert np.sqrt(chord / theory) == pytest.approx(1, abs=angle_error)


def test_adam_with_l2_moves_as_its_equation():
    from scipy.integrate import solve_ivp

    eta, lam, size, d, h = 0.003, 0.003, 2.0, 128, 1e-3

    def slope(t, y):
        n, v = y
        return eta**2 * d / (n * v) - 2 * eta * lam * np.sqrt(d / (size * v)) * n, h * (1 / n - v)

    exact = solve_ivp(slope, (0, 2000), [0.5, 2.0], rtol=1e-9, atol=1e-12).y[:, -1]
    found = adam_l2.squared_norm_after(
        (np.array([0.5]), np.array([2.0])), eta, lam, 1 - h, np.array([size]), d, 2000
    )  # fmt: skip
    np.testing.assert_allclose([found[0][0], found[1][0]], exact, rtol=1e-4)
