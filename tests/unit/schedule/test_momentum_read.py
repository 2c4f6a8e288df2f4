"""A momentum that was read off the weights: in the schedule's rows and in what is said about it."""

import numpy as np
import pytest
from schedule_runs import checkpoint, clock_table, codes, column, run, sgd, ticking

from smd_analyze.decay_formulas import log_ratios, step_matrices
from smd_analyze.schedule.resolve import resolve_schedule

STEPS = list(range(0, 1300, 100))
NAMES = ("fc.weight", "conv.weight")


def rates(x, momentum, nesterov=False):
    matrices = step_matrices(np.full(STEPS[-1], x), 1.0, momentum, nesterov=nesterov)
    return log_ratios(matrices, STEPS)[0] / 100


def resolved(x, momentum, nesterov=False, settings=None, steps=STEPS, untrained=None, **more):
    found = run(*(checkpoint(s, more.get("saved", ()), NAMES) for s in steps))
    clocks = clock_table(*ticking("fc.weight", steps, rates(x, momentum, nesterov), wide=1e-5))
    return resolve_schedule(found, clocks, settings, untrained=untrained)


def message(schedule, code):
    return next(f.message for f in schedule.findings if f.code == code)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.95, True)])
def test_what_was_read_is_taken_and_not_called_assumed(momentum, nesterov):
    schedule = resolved(1e-5, momentum, nesterov)
    assert set(column(schedule, "momentum")) == {momentum}
    assert set(column(schedule, "nesterov")) == {nesterov}
    assert not any(column(schedule, "momentum_assumed"))
    assert "momentum-assumed" not in codes(schedule)
    assert f"{momentum:.2g}"[:3] in message(schedule, "momentum-read")
    assert "read off steps 0 to" in column(schedule, "source")[0]
    np.testing.assert_allclose(column(schedule, "sum_decay"), 1e-3, rtol=1e-5)  # the first interval as well


def test_none_is_certain_only_if_training_surely_began_here():
    unsure, sure = resolved(1e-4, 0.0), resolved(1e-4, 0.0, untrained=lambda: True)
    for schedule, assumed in ((unsure, True), (sure, False)):
        assert set(column(schedule, "momentum")) == {0.0}
        assert set(column(schedule, "momentum_assumed")) == {assumed}
    assert "resumed" in message(unsure, "momentum-assumed")
    assert "untrained" in message(sure, "momentum-read")


def test_a_run_that_began_elsewhere_keeps_the_assumption():
    schedule = resolved(1e-5, 0.95, steps=[s + 5000 for s in STEPS])
    assert set(column(schedule, "momentum")) == {0.9}
    assert all(column(schedule, "momentum_assumed"))


def test_callers_and_files_are_not_overruled():
    told = resolved(1e-5, 0.95, settings={"momentum": 0.8})
    assert set(column(told, "momentum")) == {0.8}
    saved = resolved(1e-5, 0.95, saved=sgd(0.1, momentum=0.8))
    assert set(column(saved, "momentum")) == {0.8}
    assert "momentum-read" not in codes(saved)


def test_it_is_asked_whether_the_run_began_untrained_only_where_that_matters():
    def never():
        raise AssertionError("asked although the momentum is known")

    assert resolved(1e-5, 0.9, saved=sgd(0.1), untrained=never).table.height


def test_decay_that_is_read_for_a_while_only_is_said_to_end():
    steps = [*STEPS, 1300, 1400]
    found = run(*(checkpoint(s, (), NAMES) for s in steps))
    clocks = clock_table(*ticking("fc.weight", STEPS, rates(4e-4, 0.9), wide=1e-5))
    said = message(resolve_schedule(found, clocks), "clock-ends")
    assert "until step 1200" in said
    assert "rounding" in said


def test_sgd_is_inferred_from_a_sum_and_not_from_a_slice():
    found = run(*(checkpoint(s, (), ("fc.weight", "in.weight")) for s in STEPS))
    rows = [*ticking("in.weight", STEPS, rates(1e-5, 0.9), "input 3", wide=1e-6)]
    rows += ticking("fc.weight", STEPS, rates(1e-5, 0.9), wide=1e-5)
    assert "fc.weight (sum over units)" in message(resolve_schedule(found, clock_table(*rows)), "optimizer-inferred")


def test_a_default_gives_way_to_what_the_weights_say():
    schedule = resolved(1e-5, 0.9, True, settings={"optimizer": "sgd"})
    assert set(column(schedule, "momentum")) == {0.9}
    assert set(column(schedule, "nesterov")) == {True}
    assert "default-assumed" not in codes(schedule)
    elsewhere = resolved(1e-5, 0.9, settings={"optimizer": "sgd"}, steps=[s + 5000 for s in STEPS])
    assert set(column(elsewhere, "momentum")) == {0.0}
    assert "default-assumed" in codes(elsewhere)
