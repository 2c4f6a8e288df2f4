"""What the weights say beside what files and caller say, on clocks made up from the recursion."""

import numpy as np
import pytest
from schedule_runs import checkpoint, clock_table, run, setting, sgd, ticking

from smd_analyze.decay_formulas import coupled_rate, decoupled_rate, log_ratios, step_matrices
from smd_analyze.schedule.account import COLUMNS, account
from smd_analyze.schedule.course import Rule, follow, without_filling
from smd_analyze.schedule.merged import merged
from smd_analyze.schedule.resolve import resolve_schedule
from smd_analyze.schedule.stretches import pooled, stretches

STEPS = tuple(range(0, 2001, 100))
NAMES = ("conv.weight", "fc.weight")


def rates(x, momentum=0.9):
    """−ln(c'/c) per step of a torch clock whose buffer begins empty."""
    return log_ratios(step_matrices(x, 1.0, momentum), STEPS)[0] / 100


def dropping(high=1e-4, low=1e-5, at=1234):
    return np.where(np.arange(STEPS[-1]) < at, high, low)


def told(table, settings=lambda step: (), wide=1e-5, **more):
    found = run(*(checkpoint(t, settings(t), NAMES) for t in STEPS), **more)
    files, both = resolve_schedule(found), resolve_schedule(found, table)
    return account(found, both, files, table).table


def clock(x, wide=1e-5):
    return clock_table(*ticking("fc.weight", STEPS, rates(x), wide=wide))


def test_a_run_without_clocks_keeps_its_schedule_and_gains_what_the_files_say():
    table = told(None, lambda t: sgd(0.1))
    assert set(COLUMNS) < set(table.columns)
    assert table["decay_per_step"].null_count() == table.height
    assert table["told_decay"].to_list() == pytest.approx([100 * 0.1 * 5e-4] * 20)
    assert table["told_per_step"].to_list() == pytest.approx([float(coupled_rate(5e-5, 0.9))] * 20)
    (row,) = merged(table).to_dicts()
    assert (row["step_from"], row["step_to"], row["ratio"]) == (0, 2000, None)


def test_weights_alone_give_stretches_and_the_step_of_the_drop():
    table = told(clock(dropping()))
    rows = merged(table).to_dicts()
    assert [(r["step_from"], r["step_to"]) for r in rows] == [(0, 1200), (1200, 1300), (1300, 2000)]
    assert rows[0]["decay_per_step"] == pytest.approx(float(coupled_rate(1e-4, 0.9)), rel=1e-4)
    assert rows[2]["decay_per_step_low"] < float(coupled_rate(1e-5, 0.9)) < rows[2]["decay_per_step_high"]
    assert rows[1]["change_step_low"] <= 1234 <= rows[1]["change_step_high"]
    assert rows[1]["change_step"] == pytest.approx(1234, abs=0.1)
    assert rows[0]["told_decay"] is None
    assert "divided by 10" in rows[0]["shape"]
    assert "at step 1234" in rows[0]["shape"]


def test_what_the_files_say_stands_beside_it():
    """The script's drop comes 100 steps later than the weights': each stretch has its own ratio."""
    table = told(clock(dropping(at=1200)), lambda t: sgd(0.2 if t < 1300 else 0.02))
    ratio = {(r["step_from"], r["step_to"]): r["ratio"] for r in merged(table).to_dicts()}
    assert ratio[(0, 1200)] == pytest.approx(1.0, abs=1e-3)
    late = table.filter(table["step_from"] == 1200).to_dicts()[0]
    assert late["decay_per_step"] < 0.2 * late["told_per_step"]
    assert late["decay_per_step"] == pytest.approx(late["told_per_step_low"], rel=1e-2)


def test_learning_rate_follows_from_a_known_weight_decay():
    table = told(clock(dropping(at=9999)), lambda t: [setting("weight_decay", 5e-4), setting("momentum", 0.9)])
    (row,) = merged(table).to_dicts()
    assert row["learning_rate"] == pytest.approx(1e-4 / 5e-4, rel=2e-3)


def test_decoupled_decay_is_compared_with_both_ways_to_round():
    x = 2e-6
    adamw = [setting("learning_rate", 2e-4), setting("weight_decay", 0.01), setting("optimizer", "AdamW")]
    for exact in (False, True):
        rate = float(decoupled_rate(x, exact=exact))
        table = told(clock_table(*ticking("fc.weight", STEPS, [rate] * 20, "unit 3")), lambda t: adamw)
        (row,) = merged(table).to_dicts()
        assert row["ratio_low"] <= 1 <= row["ratio_high"]
        assert row["learning_rate_low"] < 2e-4 < row["learning_rate_high"]


def test_a_clock_at_rest_says_no_decay_whatever_the_files_say():
    still = clock_table(*ticking("fc.weight", STEPS, [0.0] * 20, wide=1e-9, kind="no decay"))
    rows = [r for r in merged(told(still, lambda t: sgd(0.1))).to_dicts() if r["read_off"]]
    assert rows
    for row in rows:
        assert row["decay_per_step"] == 0
        assert row["decay_per_step_high"] <= 1.01e-9
        assert row["shape"] == "no decay"


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_a_buffer_that_begins_empty_is_allowed_for(momentum):
    edges = np.array(STEPS, float)
    rate = rates(np.full(STEPS[-1], 1e-6), momentum)
    right, _, alone = without_filling(edges[:-1], edges[1:], rate, 1e-4 * rate, Rule(momentum, True))
    assert alone == 0
    np.testing.assert_allclose(right, right[-1], rtol=1e-4)


def test_a_warm_up_is_not_taken_for_an_empty_buffer():
    edges = np.array(STEPS, float)
    rate = rates(1e-5 * np.minimum(np.arange(STEPS[-1]) / 250, 1))
    kept, sd, alone = without_filling(edges[:-1], edges[1:], rate, 1e-4 * rate, Rule(0.9, True))
    assert alone == 1
    assert kept[0] == rate[0]
    assert sd[0] > 0.05 * rate[0]
    assert "warm-up until step 25" in follow(edges[:-1], edges[1:], rate, 1e-4 * rate, Rule(0.9, True)).words


def test_stretches_are_as_few_as_the_noise_allows():
    rng = np.random.default_rng(3)
    truth = np.repeat([1e-5, 1e-6, 1e-7], [200, 150, 100])
    sd = 0.01 * truth
    assert stretches(truth + sd * rng.standard_normal(450), sd) == [(0, 200), (200, 350), (350, 450)]
    flat = [len(stretches(1e-5 + 1e-7 * rng.standard_normal(100), np.full(100, 1e-7))) for _ in range(20)]
    assert flat == [1] * 20
    assert stretches(np.array([]), np.array([])) == []


def test_a_pooled_rate_grows_its_error_with_the_scatter():
    calm = pooled(np.array([1.0, 1.1, 0.9]), np.full(3, 0.1), np.ones(3))
    wild = pooled(np.array([1.0, 3.0, -1.0]), np.full(3, 0.1), np.ones(3))
    assert calm == pytest.approx((1.0, 0.1 / np.sqrt(3)))
    assert wild[1] > 10 * calm[1]


@pytest.mark.parametrize("inside", [False, True])
def test_a_drop_that_the_files_date_tells_the_form_of_momentum(inside):
    edges = np.arange(0, 2001, 50)
    x = np.where(np.arange(2000) < 1000, 1e-5, 1e-6)
    rate = log_ratios(step_matrices(x, 1.0, 0.9, rate_in_velocity=inside), edges)[0] / 50
    course = follow(edges[:-1], edges[1:], rate, 1e-4 * rate, Rule(0.9, True), known=[20])
    assert (course.form, course.seen) == ("inside" if inside else "outside", 20)
    assert follow(edges[:-1], edges[1:], rate, 1e-4 * rate, Rule(0.9, False), known=[20]).form in ("", "inside")


def test_a_velocity_that_is_not_the_frameworks_is_a_finding():
    steps = list(range(0, 2001, 50))
    x = np.where(np.arange(2000) < 1000, 1e-5, 1e-6)
    rate = log_ratios(step_matrices(x, 1.0, 0.9, rate_in_velocity=True), steps)[0] / 50
    found = run(*(checkpoint(t, sgd(0.02 if t < 1000 else 0.002), NAMES) for t in steps))
    table = clock_table(*ticking("fc.weight", steps, rate))
    settings = {"weight_decay": 5e-4, "schedule": {"steps": [0, 1000], "learning_rate": [0.02, 0.002]}}
    files, both = resolve_schedule(found, None, settings), resolve_schedule(found, table, settings)
    codes = [f.code for f in account(found, both, files, table).findings]
    assert "velocity-form" in codes
