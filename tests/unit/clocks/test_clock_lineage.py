"""Checkpoints that do not stand where they say, or are not of the run."""

import numpy as np
import polars as pl
import pytest
from clock_candidates import collect
from clock_runs import clocks_of, codes, train

from smd_analyze.clocks import smoothness
from smd_analyze.clocks.measuring import Measured
from smd_analyze.clocks.ordering import step_at
from smd_analyze.clocks.search import find_clocks
from smd_analyze.records.clocks import Candidate

STEPS = tuple(range(0, 401, 50))
RATE = float(-np.log(np.float64(np.float32(1 - 1e-4))))


@pytest.fixture(scope="module")
def run():
    return train(STEPS, 1e-4)


def only(found, code):
    """The one finding of this code, and no other on lineage."""
    told = [f for f in found.findings if f.code != "decay-replayed"]
    assert [f.code for f in told] == [code]
    return told[0]


def test_an_honest_run_says_nothing(run):
    assert set(codes(clocks_of(run, STEPS))) == {"decay-replayed"}


def test_a_schedule_is_no_lineage(run):
    for decay in (
        lambda t: 1e-4 * (0.5 + 0.5 * np.cos(np.pi * t / 400)),
        lambda t: 1e-4 * (1 - abs(t - 200) / 250),
        lambda t: 1e-4 if t < 175 else 1e-5,
        lambda t: 1e-4 if (t // 100) % 2 else 5e-5,
    ):
        assert set(codes(clocks_of(train(STEPS, decay), STEPS))) <= {"decay-replayed"}


def test_a_foreign_checkpoint_is_told_and_left_out(run):
    other = train(STEPS, 1e-4, seed=9)
    mixed = [*run[:4], other[4], *run[5:]]
    found = clocks_of(mixed, STEPS)
    assert only(found, "foreign-checkpoint").where == "step 200"
    assert found.table.filter(pl.col("step_from") == 150)["step_to"].unique().to_list() == [250]
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-3)


def test_two_foreign_checkpoints(run):
    other = train(STEPS, 1e-4, seed=9)
    found = clocks_of([*run[:3], other[3], run[4], run[5], other[6], *run[7:]], STEPS)
    assert sorted(f.where for f in found.findings if f.code == "foreign-checkpoint") == ["step 150", "step 300"]


def test_another_run_from_somewhere_on(run):
    other = train(STEPS, 1e-4, seed=9)
    finding = only(clocks_of([*run[:5], *other[5:]], STEPS), "lineage-broken")
    assert "between steps 200 and 250" in finding.message
    assert "not of one run" in finding.message


def test_a_row_that_wakes_up_is_no_foreign_file(run):
    """Its gradient turns it; the head goes on."""
    rng = np.random.default_rng(0)
    saved = [{n: v.copy() for n, v in s.items()} for s in run]
    for s in saved[5:]:
        s["emb"][3] = rng.standard_normal(32)
    assert set(codes(clocks_of(saved, STEPS))) <= {"decay-replayed"}


def test_exchanged_files(run):
    found = clocks_of([*run[:3], run[4], run[3], *run[5:]], STEPS)
    finding = only(found, "clock-backwards")
    assert finding.where == "steps 150 to 200"
    assert "exchanged" in finding.message
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-3)  # no rate rests on these steps
    assert found.table.filter(pl.col("step_from") == 100)["step_to"].unique().to_list() == [250]


def test_an_earlier_state_at_the_end(run):
    finding = only(clocks_of([*run[:7], run[7], run[2]], STEPS), "clock-backwards")
    assert finding.where == "steps 350 to 400"
    assert "earlier state" in finding.message


def test_an_early_file_amid_later_ones(run):
    """A copy of the first checkpoint in the place of the fifth: the rates are those without it."""
    found = clocks_of([*run[:4], run[0], *run[5:]], STEPS)
    assert "second of the two is an earlier state" in only(found, "clock-backwards").message
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-3)


def test_a_late_file_amid_earlier_ones(run):
    found = clocks_of([*run[:2], run[8], *run[2:7], run[7]], STEPS)
    assert "first of the two is a later state" in only(found, "clock-backwards").message


def test_a_reversed_run(run):
    found = clocks_of(run[::-1], STEPS)
    assert found.table.is_empty()
    assert "reversed" in only(found, "order-reversed").message


def test_rounding_is_no_other_run():
    """bfloat16 copies of a sum that gets spent: it turns by rounding, and that says nothing of lineage."""
    rng = np.random.default_rng(3)
    direction = 0.3 * rng.standard_normal(64)
    saved = []
    for t in range(0, 2001, 100):
        noise = 0.1 * rng.standard_normal((10, 64))
        w = np.float32(noise - noise.mean(0) + direction * np.exp(-4e-3 * t))
        saved.append({"head": (w.view(np.uint32) & 0xFFFF0000).view(np.float32)})
    found = find_clocks(collect(saved, "bfloat16"), tuple(range(0, 2001, 100)))
    assert found.table.height > 0
    assert codes(found) == []


def test_a_wrong_step_is_told_with_the_right_one(run):
    steps = (0, 50, 100, 150, 230, 250, 300, 350, 400)  # the fifth is of step 200
    found = clocks_of(run, steps)
    finding = only(found, "step-misplaced")
    assert finding.where == "step 230"
    assert "stands at step 200.0" in finding.message
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-3)


def test_a_resume_from_an_earlier_state(run):
    """Training went back to step 130 and counted on: 50 steps were recorded where 30 passed."""
    more = train(tuple(range(0, 401, 10)), 1e-4)
    at = [0, 50, 100, 150, 180, 230, 280, 330, 380]
    found = clocks_of([more[t // 10] for t in at], STEPS)
    finding = only(found, "clock-jumps")
    assert finding.where == "steps 150 to 200"
    assert "advanced 0.6 times as far" in finding.message


FINE = tuple(range(0, 601, 10))
MANY = tuple(range(0, 601, 30))


@pytest.fixture(scope="module")
def cosine():
    """A run under a cosine, a checkpoint every ten steps."""
    return train(FINE, lambda t: 1e-4 * (0.01 + 0.495 * (1 + np.cos(np.pi * t / 600))))


def standing(fine, at):
    """Checkpoints named MANY, each really of the step that `at` makes of it."""
    return clocks_of([fine[at(t) // 10] for t in MANY], MANY)


def test_a_cosine_is_no_lineage(cosine):
    assert set(codes(standing(cosine, lambda t: t))) <= {"decay-replayed"}


@pytest.mark.parametrize("true", [310, 290, 330, 270])
def test_a_wrong_step_under_a_cosine(cosine, true):
    """By a third of an interval, or as a copy of the file beside it: the rates are those without it."""
    found = standing(cosine, lambda t: true if t == 300 else t)
    finding = only(found, "step-misplaced")
    where = finding.message.split("stands at step ")[1].split()
    assert float(where[0]) == pytest.approx(true, abs=0.5)
    assert finding.where == "step 300"
    assert 300 not in found.table["step_from"].to_list()


def test_exchanged_files_under_a_cosine(cosine):
    found = standing(cosine, lambda t: {270: 300, 300: 270}.get(t, t))
    assert "exchanged" in only(found, "clock-backwards").message


def test_a_resume_under_a_cosine(cosine):
    found = standing(cosine, lambda t: t if t < 300 else t - 20)
    finding = only(found, "clock-jumps")
    assert finding.where == "steps 270 to 300"
    assert "advanced 0.333 times as far" in finding.message


def test_no_schedule_is_taken_for_a_wrong_step():
    """Rates that fall, rise, jump and come again, with as few as two checkpoints to a cycle."""
    t = np.arange(9000) / 9000
    shares = [
        *(np.minimum(t / w + 1e-3, 1) * np.clip((1 - t) / (1 - w), 0, 1) + 1e-5 for w in (0.01, 0.05, 0.1, 0.3)),
        *(0.5 * (1 + np.cos(np.pi * (t % c) / c)) + 1e-3 for c in (0.1, 0.15, 0.2, 0.33, 0.5)),
        *(np.abs((t / c) % 1 * 2 - 1) + low for c in (0.2, 0.33, 0.5) for low in (0.02, 0.5)),
        *(np.where(t < d, 1.0, f) for d in np.linspace(0.11, 0.9, 5) for f in (0.1, 0.5)),
    ]
    for share in shares:
        for many in (8, 13, 37):
            steps = np.linspace(0, 9000, many + 1).astype(int)
            fall = np.diff(np.append(0.0, np.cumsum(share))[steps]) * 3e-4
            m = intervals(fall, np.diff(steps))
            for i in range(1, many - 1):
                assert smoothness.stands(m, i) is None
                assert smoothness.uneven(m, i) is None


def intervals(fall, length):
    """Falls as a clock's."""
    yes, no = np.ones(len(fall), bool), np.zeros(len(fall), bool)
    ends = np.arange(len(fall) + 1)
    small = np.full(len(fall), 1e-9)
    c = Candidate("w", "unit 0", "slice", "float32", (8, 8), (0,), np.ones((len(ends), 8)), 8, ends, ends, 8)
    return Measured(
        c, ends[:-1], ends[1:], length.astype(float), fall, small, small, small, yes, yes, yes, no, no, yes, no, False
    )


def test_clocks_that_rest_for_an_interval_divide_by_nothing():
    """16-bit copies may hold the same bits for an interval: its rate is zero, and the next is no jump against it."""
    steps = tuple(range(0, 1200, 100))
    saved = [{n: np.float16(v).astype(np.float32) for n, v in s.items()} for s in train(steps, 1e-5)]
    found = find_clocks(collect(saved, "float16"), steps)
    assert not set(codes(found)) & {"clock-jumps", "step-misplaced", "clock-backwards"}


def test_copies_say_nothing(run):
    """The same weights twice: no time passed, and that is said elsewhere."""
    found = clocks_of([*run[:4], run[3], *run[4:]], (*STEPS[:4], 160, *(s + 10 for s in STEPS[4:])))
    assert not {f.code for f in found.findings} - {"decay-replayed"}
    assert 150 not in found.table["step_from"].to_list()


def test_the_step_at_which_a_checkpoint_stands():
    steps = np.arange(0, 1001)
    decay = np.where(steps <= 500, steps * 1e-4, 0.05 + (steps - 500) * 1e-5)
    value, low, high = step_at(0.03, 1e-5, steps, decay)
    assert value == pytest.approx(300)
    assert (low, high) == (pytest.approx(300 - 0.196, abs=1e-3), pytest.approx(300 + 0.196, abs=1e-3))
    value, low, high = step_at(0.0525, 1e-5, steps, decay)
    assert (value, low, high) == (pytest.approx(750), pytest.approx(748.04, abs=0.01), pytest.approx(751.96, abs=0.01))


def test_the_step_is_not_known_where_nothing_decays():
    steps = np.array([0, 100, 200, 300])
    value, low, high = step_at(0.01, 1e-6, steps, np.array([0, 0.01, 0.01, 0.02]))
    assert 100 <= value <= 200
    assert low == pytest.approx(100, abs=0.1)
    assert high == pytest.approx(200, abs=0.1)
    assert step_at(-1.0, 1e-6, steps, steps * 1e-4)[1:] == (0.0, 0.0)
    assert step_at(1.0, 1e-6, steps, steps * 1e-4)[1:] == (300.0, 300.0)
