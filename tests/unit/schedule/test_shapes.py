"""Schedules recognised from the means over intervals, and what is not recognised."""

import numpy as np
import pytest

from smd_analyze.schedule.shape_words import in_words
from smd_analyze.schedule.shapes import CONSTANT, NONE, STEPS, recognise

T, PEAK = 10_000, 1e-5


def cosine(x, begin, end, high, low):
    part = np.clip((x - begin) / (end - begin), 0, 1)
    return low + 0.5 * (high - low) * (1 + np.cos(np.pi * part))


CURVES = {
    "linear": lambda x: PEAK * (1 - x / 12_000),
    "exponential": lambda x: PEAK * np.exp(-x / 3000),
    "polynomial": lambda x: PEAK * (1 - x / T) ** 0.9,
    "cosine": lambda x: cosine(x, 0, T, PEAK, 0.01 * PEAK),
    "cosine restarts": lambda x: cosine(x % 2500, 0, 2500, PEAK, 0),
    "warm-up, then constant": lambda x: PEAK * np.minimum(x / 700, 1),
    "warm-up, then inverse square root": lambda x: PEAK * np.minimum(x / 700, np.sqrt(700 / np.maximum(x, 1))),
    "warm-up, then linear": lambda x: PEAK * np.minimum(x / 700, (T - x) / (T - 700)),
    "warm-up, then cosine": lambda x: np.where(x < 700, PEAK * x / 700, cosine(x, 700, T, PEAK, 0.1 * PEAK)),
    "one-cycle": lambda x: np.where(x < 3000, cosine(x, 0, 3000, 0.04 * PEAK, PEAK), cosine(x, 3000, T, PEAK, 0)),
}
TRUTH = {
    "linear": {"end": 12_000}, "exponential": {"scale": 3000}, "polynomial": {"power": 0.9, "end": T},
    "cosine": {"peak": PEAK, "floor": 0.01, "end": T}, "cosine restarts": {"period": 2500, "peak": PEAK},
    "warm-up, then constant": {"warm_up": 700, "peak": PEAK}, "warm-up, then inverse square root": {"warm_up": 700},
    "warm-up, then linear": {"warm_up": 700, "end": T},
    "warm-up, then cosine": {"warm_up": 700, "end": T, "floor": 0.1},
    "one-cycle": {"warm_up": 3000, "first": 0.04, "end": T},
}  # fmt: skip


def read(curve, intervals, seed=0, relative=1e-4):
    """Interval means of a schedule that is set at every update, with noise of a known size."""
    edges = np.linspace(0, T, intervals + 1).astype(int)
    sums = np.r_[0, np.cumsum(curve(np.arange(T, dtype=float)))]
    rate = np.diff(sums[edges]) / np.diff(edges)
    sd = np.maximum(relative * rate, 1e-11)
    noise = np.random.default_rng(seed).standard_normal(intervals)
    return edges[:-1].astype(float), edges[1:].astype(float), rate + sd * noise, sd


@pytest.mark.parametrize("kind", CURVES)
def test_every_form_is_found_with_its_numbers(kind):
    shape = recognise(*read(CURVES[kind], 25))
    assert shape.kind == kind
    assert shape.others == ()
    for name, truth in TRUTH[kind].items():
        value, low, high = shape.parameters[name]
        assert value == pytest.approx(truth, rel=2e-3)
        margin = 2e-4 * truth  # an interval holds 95 % of the time, and this is one draw
        assert low - margin <= truth <= high + margin


def test_the_interval_of_a_number_holds_it():
    held = 0
    for seed in range(8):
        _, low, high = recognise(*read(CURVES["warm-up, then constant"], 25, seed)).parameters["warm_up"]
        held += low <= 700 <= high
    assert held >= 6


def test_constant_and_steps():
    constant = recognise(*read(lambda x: PEAK + 0 * x, 10))
    assert constant.kind == CONSTANT
    assert constant.parameters["peak"][1] <= PEAK <= constant.parameters["peak"][2]
    assert recognise(*read(lambda x: PEAK * np.where(x < 4321, 1, np.where(x < 7000, 0.1, 0.01)), 25)).kind == STEPS


def test_an_epochs_stairs_are_seen_as_their_curve():
    shape = recognise(*read(lambda x: cosine(x // 500 * 500, 0, T, PEAK, 0), 100))
    assert shape.kind == "cosine"
    assert shape.parameters["end"][0] == pytest.approx(T, rel=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_what_follows_no_form_is_called_so(seed):
    levels = np.exp(np.random.default_rng(seed).standard_normal(20))
    assert recognise(*read(lambda x: PEAK * levels[(x // 500).astype(int)], 20)).kind == NONE
    assert recognise(*read(lambda x: PEAK * (1.2 + np.sin(x / 900)), 20)).kind == NONE


@pytest.mark.parametrize("kind", ["cosine", "warm-up, then cosine", "one-cycle", "cosine restarts"])
def test_too_few_intervals_name_no_form_of_many_numbers(kind):
    assert recognise(*read(CURVES[kind], 5)).kind in (NONE, "")
    assert recognise(*read(CURVES[kind], 2)).kind == ""


def test_noise_leaves_the_simplest_form():
    assert recognise(*read(lambda x: PEAK * (1 - 0.02 * x / T), 12, relative=0.02)).kind == CONSTANT


def test_scaling_rates_and_time_changes_nothing_else():
    start, stop, rate, sd = read(CURVES["warm-up, then cosine"], 25)
    one, other = recognise(start, stop, rate, sd), recognise(3 * start, 3 * stop, 1e3 * rate, 1e3 * sd)
    assert one.kind == other.kind
    assert other.parameters["warm_up"][0] == pytest.approx(3 * one.parameters["warm_up"][0], rel=2e-3)
    assert other.parameters["peak"][0] == pytest.approx(1e3 * one.parameters["peak"][0], rel=1e-3)


def test_words_give_each_form_with_its_numbers():
    shape = recognise(*read(CURVES["warm-up, then cosine"], 25))
    assert in_words(shape, [], [], []).startswith("linear warm-up until step 700")
    assert in_words(shape, [], [], []).endswith(" of the peak at step 9999.9±1.0")
    steps = recognise(*read(lambda x: PEAK * np.where(x < 4321, 1, 0.1), 25))
    told = in_words(steps, [(1e-5, 1e-10), (5e-6, 1e-9), (1e-6, 1e-11)], [10, 1, 14], [(4321.0, 4320.6, 4321.4)])
    assert told == "constant, then divided by 10.0000±0.0003 at step 4321.0±0.4"
