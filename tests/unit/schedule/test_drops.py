"""Jumps located inside an interval, against the recursion of clock and momentum buffer step by step."""

import numpy as np
import pytest

from smd_analyze.decay_formulas import coupled_rate, log_ratios, settled_buffer, step_matrices
from smd_analyze.schedule.drops import Momentum, Reading, changes, jump_across, jump_step, velocity_form

ALPHA = 0.9


def readings(x1, x2, jump, edges, inside, sd=1e-9):
    """A clock whose ηλ goes from x1 to x2 after `jump` updates, read between `edges`."""
    x = np.where(np.arange(edges[-1]) < jump, x1, x2)
    matrices = step_matrices(x, 1.0, ALPHA, rate_in_velocity=inside)
    buffer = settled_buffer(x1, 1.0, ALPHA, rate_in_velocity=inside)
    logs, _ = log_ratios(matrices, edges, buffer)
    return [Reading(float(r / k), sd, float(k)) for r, k in zip(logs, np.diff(edges), strict=True)]


def test_the_golden_drop_is_at_472_steps():
    """Heavy ball, 0.9: ηλ = 2e-6 for 472 of 500 steps, then 2e-7: ln ratio 0.009497795346204959."""
    before, after = (Reading(float(coupled_rate(x, ALPHA)), 1e-13, 500) for x in (2e-6, 2e-7))
    drop = jump_step(Reading(0.009497795346204959 / 500, 1e-13, 500), before, after, ALPHA)
    assert drop is not None
    assert drop.step == pytest.approx(472.0, abs=1e-3)
    assert drop.low < 472.0 < drop.high


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("jump", [403, 450, 470])
def test_a_jump_is_where_it_was_in_either_form_of_momentum(inside, jump):
    edges = np.arange(0, 1001, 100)
    r = readings(1e-5, 1e-6, jump, edges, inside)
    dated = changes(r, [True] * 9, [(0, 4), (4, 5), (5, 10)], Momentum(ALPHA, inside))
    assert list(dated) == [4]
    drop = dated[4]
    assert drop.step == pytest.approx(jump - 400, abs=0.1)
    assert drop.low <= jump - 400 <= drop.high


def test_the_interval_holds_the_step_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        jump, sd = int(rng.integers(405, 495)), 2e-7
        exact = readings(1e-5, 2e-6, jump, np.arange(0, 1001, 100), False, sd)
        r = [Reading(e.rate + sd * rng.standard_normal(), sd, e.steps) for e in exact]
        drop = changes(r, [True] * 9, [(0, 4), (4, 5), (5, 10)], Momentum(ALPHA, False))[4]
        held += drop.low <= jump - 400 <= drop.high
    assert held >= 930


def test_an_old_velocity_that_reaches_into_the_next_interval_tells_the_form():
    edges = np.arange(0, 401, 20)
    r = readings(1e-4, 1e-5, 197, edges, True)
    found = [(0, 9), (9, 10), (10, 11), (11, 20)]
    drop = changes(r, [True] * 19, found, Momentum())[9]
    assert drop.form == "inside"
    assert drop.low - 0.1 <= 17 <= drop.high + 0.1
    assert not changes(r, [True] * 19, found, Momentum(ALPHA, False))  # outside: nothing else explains two of them


def test_two_jumps_are_not_taken_for_one():
    before, after = Reading(1e-4, 1e-9, 100), Reading(1e-5, 1e-9, 100)
    assert jump_across((Reading(7e-5, 1e-9, 100), Reading(5e-5, 1e-9, 100)), before, after, ALPHA) is None


@pytest.mark.parametrize("inside", [False, True])
def test_a_jump_at_a_known_step_tells_the_form_of_momentum(inside):
    r = readings(1e-6, 1e-7, 4000, np.arange(3000, 5001, 1000), inside)
    before, after = (Reading(float(coupled_rate(x, ALPHA)), 1e-11, 1000) for x in (1e-6, 1e-7))
    assert velocity_form(r[1], 0, before, after, ALPHA) == ("inside" if inside else "outside")
    blurred = Reading(r[1].rate, 1e-6, 1000)
    assert velocity_form(blurred, 0, before, after, ALPHA) == ""


def test_caffe_keeps_the_learning_rate_inside():
    """Measured 4.32446e-6 over 1,000 steps after a drop by ten: 4.32437e-6 if inside, 4.00002e-6 if outside."""
    before, after = (Reading(float(coupled_rate(x, ALPHA)), 0.0, 1000) for x in (4e-6, 4e-7))
    assert velocity_form(Reading(4.32446e-6, 1e-10, 1000), 0, before, after, ALPHA) == "inside"


def test_without_a_difference_nothing_is_dated():
    same = Reading(1e-5, 1e-7, 100)
    assert jump_step(same, same, Reading(1.01e-5, 1e-7, 100)) is None
    assert jump_step(Reading(3e-5, 1e-9, 100), Reading(2e-5, 1e-9, 100), Reading(1e-5, 1e-9, 100)) is None


def test_a_jump_at_a_checkpoint_lies_within_what_both_sides_hide():
    r = [Reading(1e-5, 1e-8, 100)] * 3 + [Reading(1e-6, 1e-8, 100)] * 3
    drop = changes(r, [True] * 5, [(0, 3), (3, 6)], Momentum(0.0, False))[3]
    assert drop.step == 0.0
    assert -1 < drop.low < 0 < drop.high < 1


def test_an_unknown_form_of_momentum_widens_the_date():
    r = readings(1e-5, 1e-6, 450, np.arange(0, 1001, 100), False)
    found = [(0, 4), (4, 5), (5, 10)]
    known, unknown = (changes(r, [True] * 9, found, Momentum(ALPHA, form))[4] for form in (False, None))
    assert unknown.low == pytest.approx(known.low - 9.0)
    assert unknown.high == known.high
