"""Decoupled decay replayed bit by bit, and not where one ulp or one step is off."""

import numpy as np
import pytest
from clock_runs import clocks_of, train

from smd_analyze.clocks.replaying import ULP, replay_factor, replay_product

STEPS = 1000


@pytest.fixture(scope="module")
def start():
    return (0.05 * np.random.default_rng(0).standard_normal(64)).astype(np.float32)


def by_factor(w, ulps, steps=STEPS):
    for _ in range(steps):
        w = w * np.float32(1 - ulps * ULP)
    return w


def by_fused(w, x, steps=STEPS):
    for _ in range(steps):
        w = (w - x * w.astype(np.float64)).astype(np.float32)
    return w


def by_product(w, x, steps=STEPS):
    for _ in range(steps):
        w = w - np.float32(x) * w
    return w


def measured(start, end, steps=STEPS):
    return float(np.log(np.linalg.norm(start) / np.linalg.norm(end))) / steps


@pytest.mark.parametrize("ulps", [2, 34, 503])
def test_the_factor_is_found(start, ulps):
    end = by_factor(start, ulps)
    found = replay_factor(start, end, STEPS, measured(start, end), 2e-8)
    assert found is not None
    assert found.decay == ulps * ULP
    assert found.rate == pytest.approx(-np.log1p(-ulps * ULP))
    assert found.low < found.decay < found.high
    assert found.else_equal < 0.7


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 1, STEPS + 7])
def test_a_wrong_number_of_steps_fails(start, steps):
    end = by_factor(start, 34)
    assert replay_factor(start, end, steps, measured(start, end, steps), 2e-8) is None


def test_one_element_one_ulp_off_fails(start):
    end = by_factor(start, 34)
    end[5] = np.nextafter(end[5], np.float32(1))
    assert replay_factor(start, end, STEPS, measured(start, end), 2e-8) is None
    assert replay_product(start, end, STEPS, measured(start, end), 2e-8, "fused") is None


def test_a_changing_factor_fails(start):
    end = by_factor(by_factor(start, 34, STEPS // 2), 30, STEPS // 2)
    rate = measured(start, end)
    assert replay_factor(start, end, STEPS, rate, 1e-7) is None
    assert replay_product(start, end, STEPS, rate, 1e-7, "fused") is None
    assert replay_product(start, end, STEPS, rate, 1e-7, "product") is None


@pytest.mark.parametrize("x", [2e-6, 3e-5])
def test_the_fused_form_is_found(start, x):
    end = by_fused(start, x)
    rate = measured(start, end)
    assert replay_factor(start, end, STEPS, rate, 2e-8) is None
    found = replay_product(start, end, STEPS, rate, 2e-8, "fused")
    assert found is not None
    assert found.decay == pytest.approx(x, rel=1e-3)


@pytest.mark.parametrize("x", [2e-6, 3e-5])
def test_the_product_form_is_found(start, x):
    end = by_product(start, x)
    found = replay_product(start, end, STEPS, measured(start, end), 2e-8, "product")
    assert found is not None
    assert found.decay == pytest.approx(x, rel=1e-3)
    assert replay_product(start, end, STEPS + 1, measured(start, end), 2e-8, "product") is None


def test_the_same_bits_without_a_memory_prove_nothing():
    """Powers of two all round alike: any of several factors may have made them."""
    start = np.full(16, 0.5, np.float32)
    end = start.copy()
    assert replay_factor(start, end, 100, 1e-9, 2e-8) is None


def test_a_run_is_certified():
    steps = tuple(range(0, 601, 200))
    found = clocks_of(train(steps, 34 * ULP), steps)
    rows = found.table.filter(found.table["parameter"] == "emb")
    assert rows.height == 6
    assert all("reproduced in every bit over 200 steps" in e for e in rows["evidence"])
    assert rows["decay_per_step"].to_numpy() == pytest.approx(-np.log1p(-34 * ULP), rel=1e-12)
    (note,) = [f for f in found.findings if f.code == "decay-replayed"]
    assert note.where == "emb"
    assert "unit 3, unit 4" in note.message
    assert "ηλ = 2.02656e-06" in note.message


def test_a_step_label_that_is_off_is_not_certified():
    steps = tuple(range(0, 601, 200))
    found = clocks_of(train(steps, 34 * ULP), (0, 201, 402, 603))
    assert found.table.height > 0
    assert not [f for f in found.findings if f.code == "decay-replayed"]


def test_coupled_decay_and_moving_rates_are_not_certified():
    steps = tuple(range(0, 601, 200))
    found = clocks_of(train(steps, lambda t: 34 * ULP * (1 + t / 300)), steps)
    assert set(found.table["parameter"]) >= {"emb"}
    assert not [f for f in found.findings if f.code == "decay-replayed"]


def test_saves_of_an_unknown_number_of_updates_are_not_replayed():
    """One learning rate in the first half of each and another in the second: no number of updates fits."""
    saved = train(tuple(range(0, 601, 200)), lambda t: 34 * ULP * (1 if t % 200 < 100 else 7))
    found = clocks_of(saved, (0, 1, 2, 3), "saves")
    assert not [f for f in found.findings if f.code == "decay-replayed"]
