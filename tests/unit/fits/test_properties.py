"""What may not change a ratio: the weights' scale, the unit of time, how the schedule's rows are cut, units' order."""

import numpy as np
import pytest
from fits_runs import SCALE, angles, chain, group, predictions, quantities, schedule, statistics

from smd_analyze.fits.fitting import fit

T = 3000
STEPS = np.arange(0, T + 1, 150)
RATES = np.where(np.arange(T) < T // 2, 1e-3, 2.5e-4)
RATIOS = ("equilibrium_index", "relaxation_rate_ratio", "steps_to_equilibrium")
VV = chain(STEPS, RATES, 16, start=2.0, seed=3)


def rows(vv=VV, steps=STEPS, planned=None):
    planned = planned or schedule(steps, RATES)
    own = {group(units=vv.shape[1]): vv}
    return quantities(fit(statistics(steps, own), planned, angles(), predictions()))


def same(one, two, names=RATIOS, rel=1e-6):
    assert any(one[name]["value"] is not None for name in names)
    for name in names:
        for end in ("value", "low", "high", "p10", "p90"):
            if one[name][end] is None:
                assert two[name][end] is None
            else:
                assert two[name][end] == pytest.approx(one[name][end], rel=rel, abs=1e-9), (name, end)
        assert one[name]["outcome"] == two[name]["outcome"]


def test_weights_times_a_number_leave_ratios_alone():
    same(rows(), rows(9 * VV), rel=1e-4)


def test_the_order_of_the_units_does_not_matter():
    """To the units that a rate is fitted to: with twelve and fewer all of them."""
    few = VV[:, :12]
    same(rows(few), rows(few[:, ::-1]))


def test_rows_of_the_schedule_may_be_cut_finer():
    finer = np.arange(0, T + 1, 50)
    same(rows(), rows(planned=schedule(finer, RATES)))


def test_steps_may_be_counted_from_anywhere():
    later = STEPS + 7000
    planned = schedule(later, np.concatenate([np.full(7000, RATES[0]), RATES]))
    same(rows(), rows(steps=later, planned=planned), names=RATIOS[:2])


def test_slower_decay_over_more_steps_is_the_same_run():
    """η², ηλ → a quarter, steps → four times as many: the same intervals in relaxation times."""
    longer = np.repeat(RATES / 2, 4)
    table = schedule(STEPS * 4, longer, decay=SCALE / 2)
    one, two = rows(), rows(steps=STEPS * 4, planned=table)
    same(one, two, names=("equilibrium_index",), rel=1e-3)
    ratio = [r["relaxation_rate_ratio"]["value"] for r in (one, two)]
    assert ratio[1] == pytest.approx(ratio[0], rel=0.03)  # but for momentum's corrections
