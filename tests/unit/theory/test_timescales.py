"""Half-lives, time scales, shares and learning-rate changes against simulation, golden numbers and each other."""

import math

import numpy as np
import pytest

from smd_analyze.theory import timescales
from smd_analyze.theory.rescaling import rescaling


def test_golden_drop():
    """SGD with momentum, η 0.1 → 0.01, λ = 5e-4, α = 0.9 (closed form, 40 digits)."""
    rate = 4 * 0.01 * 5e-4 / 0.1
    chord = math.sqrt(2 * 0.01 * 5e-4 / 1.9)
    assert timescales.angle_after_change(0, 10, rate) == pytest.approx(0.316227766, rel=1e-9)
    at_1000 = timescales.angle_after_change(1000, 10, rate) * chord
    assert at_1000 == pytest.approx(0.000793044207, rel=1e-9)
    assert timescales.recovery_time(10, rate) == pytest.approx(22112.70445, rel=1e-9)
    assert math.log(2) / rate == pytest.approx(3465.735903, rel=1e-9)
    found = rescaling(10, 4)
    assert (found.weights, found.buffers) == pytest.approx((0.5623413252, 1.77827941), rel=1e-9)


def test_golden_relaxation():
    """S₀ = 5000, S* = 1000, r = 0.002: the way covered after 100 and 1000 steps is that of the closed solution."""
    h = 0.002 * np.array([100, 1000]) / math.log(2)
    assert 5000 - 4000 * timescales.covered(h) == pytest.approx([4274.923012, 1541.341133], rel=1e-9)


def test_golden_fluctuation():
    """sd(n)/n = 0.0025 at CV = 0.5, x = 5e-5; that of the norm is half of it."""
    assert timescales.norm_fluctuation(5e-5, 0.5) == pytest.approx(0.00125, rel=1e-12)


@pytest.mark.parametrize("power", [2, 4])
def test_needed_and_starting_norms_are_each_others_inverse(power):
    for h in (0.05, 0.9, 1.4, 3.1, 7.0):
        lowest, highest = timescales.starting_norms(h, power)
        assert timescales.half_lives_needed(highest, power) == pytest.approx(h)
        if lowest > 0:
            assert timescales.half_lives_needed(lowest, power) == pytest.approx(h)
        else:
            assert timescales.half_lives_needed(0.0, power) <= h
    assert timescales.half_lives_needed(1.05, power) == 0
    assert timescales.half_lives_needed(1.0, power) == 0


def test_half_lives_needed_bring_the_norm_there():
    """From twice the equilibrium norm, the linear equation ends at 1.1 times it."""
    h = timescales.half_lives_needed(2.0, 4)
    end = 1 + (2.0**4 - 1) * (1 - timescales.covered(h))
    assert end**0.25 == pytest.approx(1.1)


def test_recovery_ends_within_the_tolerance():
    for ratio, end in ((10.0, 0.95), (0.2, 1.05)):
        time = timescales.recovery_time(ratio, 0.003)
        assert timescales.angle_after_change(time, ratio, 0.003) == pytest.approx(end)
    assert timescales.recovery_time(1.02, 0.003) == 0


def test_shares_add_to_one_and_cutting_changes_nothing():
    rates, decays, counts = np.array([0.1, 0.05, 0.01]), np.array([1e-3, 5e-4, 1e-4]), np.array([700.0, 900.0, 5000.0])
    whole, left = timescales.shares(rates, decays, counts)
    assert whole.sum() == pytest.approx(1)
    assert left == pytest.approx((counts * np.log1p(-decays)).sum())
    index, cut = [0, 0, 1, 2, 2, 2], np.array([300.0, 400.0, 900.0, 1.0, 999.0, 4000.0])
    parts, again = timescales.shares(rates[index], decays[index], cut)
    assert np.bincount(index, parts) == pytest.approx(whole)
    assert again == pytest.approx(left)


def test_shares_are_those_of_the_sum_over_steps():
    rng = np.random.default_rng(0)
    eta = rng.uniform(0.01, 0.1, 400)
    x = eta * 0.05
    after = np.append(np.cumprod((1 - x)[::-1])[::-1][1:], 1.0)
    expected = eta * after / (eta * after).sum()
    parts, left = timescales.shares(eta, x, np.ones(400))
    assert parts == pytest.approx(expected)
    assert math.exp(left) == pytest.approx(np.prod(1 - x))


def test_shares_survive_long_trainings_and_no_decay():
    parts, left = timescales.shares([0.1, 0.1], [0.01, 0.01], [1e6, 1e6])
    assert parts == pytest.approx([0, 1])
    assert left < -1e4
    parts, left = timescales.shares([0.3, 0.1], [0.0, 0.0], [100, 100])
    assert parts == pytest.approx([0.75, 0.25])
    assert left == 0


def test_shares_with_constant_decay_are_a_moving_average():
    """Weights of the exponential moving average: updates x·Π(1−x), initialisation Π(1−x); they add to one."""
    x = np.full(5, 2e-3)
    counts = np.array([100, 50, 300, 20, 10])
    parts, left = timescales.shares(np.full(5, 0.02), x, counts)
    after = np.append(np.cumsum((counts * np.log1p(-x))[::-1])[::-1][1:], 0.0)
    average = np.exp(after) * (1 - (1 - x) ** counts)
    assert average.sum() + math.exp(left) == pytest.approx(1)
    assert parts == pytest.approx(average / average.sum())


def angle(u, v):
    """Angle between the rows of two arrays."""
    u, v = (w / np.linalg.norm(w, axis=-1, keepdims=True) for w in (u, v))
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def chords(run, begin, end):
    """Root mean square angle of updates begin … end − 1 (0-based), over all units."""
    return float(np.sqrt(np.mean(run.true_angles[begin:end] ** 2)))


@pytest.mark.parametrize(("kind", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("sgdw", 0.9)])
def test_dip_and_recovery_in_simulation(toy, kind, momentum):
    eta, lam, k, before = 0.02, 0.1 if momentum == 0 or kind == "sgdw" else 0.01, 5.0, 200
    x = eta * lam / ((1 - momentum) if kind == "sgd" else 1)
    level = (eta / (2 * lam * (1 - momentum))) / ((1 - momentum) if kind == "sgdw" else 1)  # S* of L = 1
    rate = 4 * x / k
    span = int(1.5 / rate)
    etas = [eta] * before + [eta / k] * span
    run = toy(etas, lam, [0], momentum, kind, start=level**0.25, units=64, elements=128)
    at_rest = angle_at_rest(kind, eta / k * lam, momentum)
    wait = int(round(3 / (1 - momentum))) if momentum else 0
    for t in (wait, span // 2, span - 40):
        found = chords(run, before + t, before + t + 40) / at_rest
        assert found == pytest.approx(float(timescales.angle_after_change(t + 20, k, rate)), rel=0.05)


def angle_at_rest(kind, x, momentum):
    if kind == "sgdw":
        return math.acos((1 - x + momentum) / (1 + (1 - x) * momentum))
    return math.acos(1 - x / (1 + momentum))


@pytest.mark.parametrize("with_buffer", [True, False])
def test_rescaling_skips_the_transient(with_buffer):
    """Weights × k^−¼ with the buffer × k^¼ turn at the new equilibrium at once; the weights alone do not."""
    k, eta, lam, a, units, d = 10.0, 0.02, 0.01, 0.9, 64, 128
    rng = np.random.default_rng(1)
    level = eta / (2 * lam * (1 - a))
    w = rng.standard_normal((units, d))
    w *= level**0.25 / np.linalg.norm(w, axis=1, keepdims=True)
    v = np.zeros_like(w)
    turned = []
    found = rescaling(k, 4)
    for t in range(200 + 12):
        if t == 200:
            w, v, eta = w * found.weights, v * (found.buffers if with_buffer else 1.0), eta / k
        n = (w * w).sum(axis=1, keepdims=True)
        g = rng.standard_normal(w.shape)
        g -= (g * w).sum(axis=1, keepdims=True) * w / n
        g /= np.sqrt(d - 1) * np.sqrt(n)
        v = a * v + g + lam * w
        u, w = w, w - eta * v
        turned.append(angle(u, w))
    first = np.sqrt(np.mean(np.square(turned[200:203]))) / angle_at_rest("sgd", eta * lam, a)
    assert first == pytest.approx(1.0, abs=0.06) if with_buffer else first < 0.8


def test_rescaling_of_adamw_and_of_velocities():
    found = rescaling(4, 2)
    assert (found.weights, found.buffers, found.second_moments) == pytest.approx((0.5, 2.0, 4.0))
    held = rescaling(16, 4, velocity_rate_ratio=1 / 16)  # the velocity holds η: it shrinks with it
    assert (held.weights, held.buffers) == pytest.approx((0.5, 2 / 16))


def test_stationary_fluctuation_in_simulation():
    """Scatter of ‖w‖ over units and time against ½CV√(x/2); gradients of random length: CV = 1/√2."""
    rng = np.random.default_rng(2)
    x, units, steps = 0.01, 400, 2500
    n, kept = np.full(units, math.sqrt(x / (1 - (1 - x) ** 4) * 2)), []
    for t in range(steps):
        n = (1 - x) ** 2 * n + rng.gamma(2.0, 0.5, units) * 2 * x / n
        if t >= 500 and t % 50 == 0:
            kept.append(np.sqrt(n))
    scatter = np.std(kept) / np.mean(kept)
    assert scatter == pytest.approx(float(timescales.norm_fluctuation(x, math.sqrt(0.5))), rel=0.06)


def test_dip_and_recovery_of_adamw_in_simulation(toy):
    """‖w‖² relaxes at 2ηλ; up to 12 % off because v̂ lags behind the norm."""
    eta, lam, k, before, b1 = 0.02, 0.2, 4.0, 400, 0.9
    rate = 2 * eta / k * lam
    span = int(1.5 / rate)
    start = math.sqrt(eta * 128 / (2 * lam))
    run = toy([eta] * before + [eta / k] * span, lam, [0], b1, "adamw", start, units=32, elements=128, beta2=0.98)
    at_rest = angle_at_rest("sgdw", eta / k * lam, b1)
    for t in (30, span // 2, span - 40):
        found = chords(run, before + t, before + t + 40) / at_rest
        assert found == pytest.approx(float(timescales.angle_after_change(t + 20, k, rate)), rel=0.12)


def test_a_rescaled_network_computes_the_same():
    """Convolutions before batch normalization, in training mode, after real updates."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8, eps=1e-12), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, bias=False), torch.nn.BatchNorm2d(8, eps=1e-12), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5),
    ).double()  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    inputs, labels = torch.randn(32, 3, 8, 8).double(), torch.randint(0, 5, (32,))
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    factors = rescaling(10.0, 4)
    before = net(inputs).detach()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(inputs), labels).backward()
    gradients = [p.grad.clone() for p in (net[0].weight, net[3].weight)]
    with torch.no_grad():
        for layer in (net[0], net[3]):
            layer.weight *= factors.weights
    torch.testing.assert_close(net(inputs).detach(), before, rtol=1e-6, atol=1e-8)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(inputs), labels).backward()
    for layer, old in zip((net[0], net[3]), gradients, strict=True):  # why the buffers are scaled the other way
        torch.testing.assert_close(layer.weight.grad, old * factors.buffers, rtol=1e-6, atol=1e-9)
