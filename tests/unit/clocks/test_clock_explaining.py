"""What the graph says about clocks, and clocks that disagree among themselves."""

import numpy as np
import pytest
from clock_runs import clocks_of, codes, train

from smd_analyze.records.group import Translation

STEPS = tuple(range(0, 401, 50))
SOFTMAX = Translation("head", "sum over units", (0,), "a softmax ignores it", "if the loss is a softmax")
NORM = Translation("hidden", "sum over units", (0,), "norm subtracts it")
ALL = ("head", "emb", "hidden")


@pytest.fixture(scope="module")
def run():
    return train(STEPS, 1e-4)


def test_a_predicted_clock_carries_its_reason(run):
    found = clocks_of(run, STEPS, translations=(SOFTMAX,), in_graph=ALL)
    head = found.table.filter(found.table["parameter"] == "head")
    assert all("a softmax ignores it (if the loss is a softmax)" in e for e in head["evidence"])
    assert "expected by the graph" not in "".join(found.table.filter(found.table["parameter"] == "emb")["evidence"])
    assert set(codes(found)) == {"decay-replayed"}


def test_a_predicted_sum_that_moves_is_a_contradiction(run):
    found = clocks_of(run, STEPS, translations=(SOFTMAX, NORM), in_graph=ALL)
    (finding,) = [f for f in found.findings if f.code == "clock-contradicted"]
    assert finding.where == "hidden"
    assert "norm subtracts it" in finding.message


def test_no_sum_is_contradicted_where_none_is_a_clock(run):
    """Adam breaks sums of three rows and more: nothing is wrong with the graph."""
    saved = [{n: v for n, v in s.items() if n != "head"} for s in run]
    assert "clock-contradicted" not in codes(clocks_of(saved, STEPS, translations=(NORM,), in_graph=ALL))


def test_a_tensor_that_nothing_uses_tells_no_optimizer(run):
    """All of it only decays, so its sums do, too: that is no sign of SGD."""
    w = np.random.default_rng(0).standard_normal((8, 32))
    saved = [
        {"hidden": s["hidden"], "unused": (w * np.exp(-1e-4 * t)).astype(np.float32)}
        for t, s in zip(STEPS, run, strict=True)
    ]
    found = clocks_of(saved, STEPS, translations=(NORM,), in_graph=ALL)
    assert "unused (sum over units)" in set(found.table["clock"])
    assert "clock-contradicted" not in codes(found)


def test_a_clock_that_the_graph_does_not_know(run):
    found = clocks_of(run, STEPS, translations=(NORM,), in_graph=("head",))
    (finding,) = [f for f in found.findings if f.code == "clock-unexplained"]
    assert finding.where == "head"
    assert "clock-unexplained" not in codes(clocks_of(run, STEPS))  # without a graph nobody expects anything


def test_tensors_that_disagree_are_told():
    """The embedding decays at half the rate of the head: not one average, but two clocks and a finding."""
    full, half = train(STEPS, 1e-4), train(STEPS, 5e-5)
    saved = [{"head": a["head"], "emb": b["emb"]} for a, b in zip(full, half, strict=True)]
    found = clocks_of(saved, STEPS)
    (finding,) = [f for f in found.findings if f.code.startswith("clocks-")]
    assert finding.code == "clocks-differ"
    assert finding.severity == "note"
    one_group = clocks_of(saved, STEPS, parameter_group={"head": "0", "emb": "0"})
    (finding,) = [f for f in one_group.findings if f.code.startswith("clocks-")]
    assert (finding.code, finding.severity) == ("clocks-disagree", "warning")
    assert "parameter group 0" in finding.message


def test_a_slice_that_disagrees_with_its_tensor_is_left_out():
    """Eight rows at one rate, one at another: it is told, and not averaged."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((24, 32))
    rate = np.full((24, 1), 1e-4)
    rate[5] = 1.5e-4
    saved = []
    for t in STEPS:
        now = w * np.exp(-rate * t)
        now[9:] += 0.01 * rng.standard_normal((15, 32))
        saved.append({"emb": now.astype(np.float32)})
    found = clocks_of(saved, STEPS)
    assert "unit 5" not in set(found.table["functional"])
    assert found.table["functional"].n_unique() == 8
    (finding,) = found.findings
    assert finding.code == "clocks-disagree"
    assert "unit 5 shrinks by 0.00015 per step" in finding.message


def test_one_tensor_under_two_names_is_one_witness():
    """A tied embedding in two checkpoints: its second name confirms nothing. No one factor reproduces its bits."""
    run = train(STEPS, lambda t: 1e-4 * (0.9 + 0.2 * (t % 50) / 50))
    saved = [{"emb": s["emb"], "tied": s["emb"]} for s in (run[2], run[4])]
    assert clocks_of(saved, (100, 200)).table.is_empty()


def test_copies_of_the_last_file_leave_two(run):
    """Three files of which two are the same: the rule for two holds."""
    saved = [{n: run[t][n] for n in ("head", "emb")} for t in (2, 4, 4)]
    found = clocks_of(saved, (100, 200, 250))
    assert set(found.table["parameter"]) == {"head", "emb"}
    assert set(found.table["step_to"]) == {200}


def test_rates_are_told_in_the_unit_of_the_steps():
    found = clocks_of(train(STEPS, 0.0), tuple(range(1, 10)), "epochs")
    (finding,) = [f for f in found.findings if f.code == "no-decay"]
    assert "per epoch" in finding.message
