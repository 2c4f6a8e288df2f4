import numpy as np
import pytest
from schedule_runs import checkpoint, clock_table, codes, column, run, sgd, ticking

from smd_analyze.decay_formulas import coupled_rate
from smd_analyze.schedule.clock_causes import likely_cause, one_ratio, stale_since
from smd_analyze.schedule.resolve import resolve_schedule

SGD = {"optimizer": "sgd", "momentum": 0.9, "decoupled": False, "learning_rate_first": 0.03}
SGDW = {"optimizer": "sgdw", "momentum": 0.9, "decoupled": True, "learning_rate_first": 0.03}


@pytest.mark.parametrize(
    ("ratio", "row", "words"),
    [
        (0.0, SGD, "no decay acted"), (0.1, SGD, "SGDW instead of SGD"), (10.0, SGDW, "SGD with L2 instead"),
        (2.0, SGD, "2λ"), (33.3, SGD, "not multiplied by the learning rate"), (0.25, SGD, "one of 4 recorded steps"),
        (8.0, SGD, "each recorded step were 8 updates"), (0.9137, SGD, ""),
        (10.0, SGD | {"momentum": 0.0, "learning_rate_first": 0.1}, "momentum 0.9"),
    ],
)  # fmt: skip
def test_a_ratio_suggests_its_cause(ratio, row, words):
    found = likely_cause(ratio, row)
    assert words in found
    assert bool(found) is bool(words)


def test_one_ratio_or_none():
    files = np.array([1.0, 2.0, np.nan, 0.0, 4.0])
    assert one_ratio(np.array([0.5, 1.0, 1.0, 1.0, 2.01]), files) == pytest.approx(0.5)
    assert one_ratio(np.array([0.5, 2.0, 1.0, 1.0, 1.0]), files) is None
    assert one_ratio(np.full(5, np.nan), files) is None


def test_a_clock_that_goes_on_as_before_is_stale():
    files, updates = np.array([1.0, 1.0, 1.0, 0.1, 0.1]), np.full(5, 100.0)

    def since(clock):
        return stale_since(clock, files, np.abs(clock / files - 1) > 0.01, updates)

    assert since(np.ones(5)) == 3
    assert since(files) is None
    assert since(2 * np.ones(5)) is None
    assert since(np.array([1, 1, 1, 0.5, 0.1])) is None
    assert since(np.array([1, 1, 1, 1, np.nan])) is None


def test_a_resume_that_kept_the_old_rate_is_said():
    steps = (1000, 1100, 1200, 1300, 1400, 1500)
    points = [checkpoint(t, sgd(0.1 if t < 1300 else 0.01)) for t in steps]
    table = clock_table(*ticking("conv.weight", steps, [float(coupled_rate(5e-5, 0.9))] * 5))
    found = resolve_schedule(run(*points, groups={"0": ("conv.weight", "norm.bias")}), table)
    assert codes(found) == ["clock-disagrees"]
    assert "from step 1300 on it goes on as before" in found.findings[0].message
    assert column(found, "sum_decay") == pytest.approx([0.005] * 5, rel=1e-4)
