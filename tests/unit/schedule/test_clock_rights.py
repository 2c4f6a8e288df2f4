"""Which clock speaks for which tensor: own group, assumed elsewhere, refuted, at rest, in conflict with the files."""

import numpy as np
import polars as pl
import pytest
from schedule_runs import CLOCKS, checkpoint, clock_table, codes, column, run, setting, sgd, ticking

from smd_analyze.decay_formulas import coupled_rate
from smd_analyze.records.clocks import Clocks
from smd_analyze.schedule.resolve import resolve_schedule

STEPS = (1000, 1100, 1200, 1300, 1400)
NAMES = ("conv.weight", "embed.weight", "fc.weight")
X = 1e-4  # ηλ per update
SGD_RATE = float(coupled_rate(X, 0.9))


def bare(settings=(), groups=None, unit="optimizer steps", steps=STEPS, names=NAMES, framework="plain torch"):
    points = (checkpoint(t, settings, names, framework=framework) for t in steps)
    return run(*points, groups=groups, unit=unit)


def even(parameter, rate, functional="sum over units", **more):
    return ticking(parameter, STEPS, [rate] * 4, functional, **more)


def message(found, code):
    return next(f.message for f in found.findings if f.code == code)


def test_with_no_files_a_class_sum_tells_sgd_its_decay_and_what_is_assumed():
    found = resolve_schedule(bare(), Clocks(clock_table(*even("fc.weight", SGD_RATE))))
    assert column(found, "optimizer") == ["sgd"] * 4
    assert column(found, "momentum") == [0.9] * 4
    assert column(found, "momentum_assumed") == [True] * 4
    assert column(found, "sum_decay") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert column(found, "sum_learning_rate") == column(found, "weight_decay") == [None] * 4
    assert column(found, "learning_rate_changes") == [False] * 4
    words = "clock of fc.weight, assumed to hold here; SGD inferred from it; momentum 0.9 assumed"
    assert column(found, "source") == [words] * 4
    assert sorted(codes(found)) == ["clock-transfer-assumed", "momentum-assumed", "optimizer-inferred"]
    assert any(f.remedy == "--momentum" for f in found.findings)


def test_the_callers_momentum_is_not_assumed():
    found = resolve_schedule(bare(), clock_table(*even("fc.weight", float(coupled_rate(X, 0.5)))), {"momentum": 0.5})
    assert column(found, "momentum_assumed") == [False] * 4
    assert column(found, "sum_decay") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert "momentum-assumed" not in codes(found)


@pytest.mark.parametrize(
    ("functional", "directions"), [("unit 3", 64), ("whole", 10), ("input 7", 10), ("sum over units", 320)]
)
def test_slices_vectors_and_sums_of_two_rows_do_not_tell_the_optimizer(functional, directions):
    table = clock_table(*even("embed.weight", 3e-4, functional)).with_columns(directions=pl.lit(directions))
    found = resolve_schedule(bare(), table)
    assert column(found, "optimizer") == column(found, "momentum") == [None] * 4
    assert column(found, "sum_decay") == pytest.approx([0.03] * 4, rel=1e-3)  # as it acted on the weights
    assert "missing-optimizer" in codes(found)
    assert "optimizer-unknown" in codes(found)


def test_a_sum_over_a_tensor_that_gets_no_gradient_at_all_proves_nothing():
    table = clock_table(*even("embed.weight", 3e-4), *even("embed.weight", 3e-4, "unit 0"))
    assert column(resolve_schedule(bare(), table), "optimizer") == [None] * 4


def test_a_clock_beats_the_files_in_its_own_group_and_says_by_how_much():
    points = bare(sgd(0.1, "0") + sgd(0.1, "1", wd=0.0), {"0": NAMES[1:], "1": NAMES[:1]})
    files = 100 * 0.1 * 5e-4
    agreeing = resolve_schedule(points, clock_table(*even("fc.weight", float(coupled_rate(5e-5, 0.9)))))
    assert codes(agreeing) == []
    assert column(agreeing, "sum_decay", "0") == pytest.approx([files] * 4)
    assert column(agreeing, "source", "0") == ["opt.pt; clock of fc.weight agrees"] * 4
    found = resolve_schedule(points, clock_table(*even("fc.weight", float(coupled_rate(1e-4, 0.9)))))
    assert codes(found) == ["clock-disagrees"]
    assert column(found, "sum_decay", "0") == pytest.approx([2 * files] * 4, rel=1e-5)
    assert len(set(column(found, "weight_decay", "0"))) == 1
    assert column(found, "weight_decay", "0")[0] == pytest.approx(1e-3, rel=1e-5)
    assert "2 times" in message(found, "clock-disagrees")
    assert "2λ" in message(found, "clock-disagrees")
    assert column(found, "sum_decay", "1") == [0.0] * 4  # another group: the files stand
    assert column(found, "source", "1") == ["opt.pt"] * 4


def test_a_wide_clock_confirms_and_does_not_replace():
    points = bare(sgd(0.1, "0"), {"0": NAMES})
    found = resolve_schedule(points, clock_table(*even("fc.weight", 1.4 * float(coupled_rate(5e-5, 0.9)), wide=0.5)))
    assert codes(found) == []
    assert column(found, "sum_decay") == pytest.approx([0.005] * 4)


def test_a_sharp_clock_narrows_what_the_files_leave_wide():
    points = run(*(checkpoint(t, sgd(lr), NAMES) for t, lr in zip(STEPS, (0.4, 0.3, 0.15, 0.1, 0.05), strict=True)),
                 groups={"0": NAMES})  # fmt: skip
    alone = resolve_schedule(points)
    means = [0.358, 0.23, 0.13, 0.08]
    rates = [float(coupled_rate(m * 5e-4, 0.9)) for m in means]
    found = resolve_schedule(points, clock_table(*ticking("fc.weight", STEPS, rates)))
    assert codes(found) == []
    assert column(found, "sum_decay") == pytest.approx([m * 0.05 for m in means], rel=0.01)
    for end in ("_low", "_high"):
        near, far = column(found, f"sum_decay{end}"), column(alone, f"sum_decay{end}")
        assert all(abs(n - m * 0.05) < abs(f - m * 0.05) for n, f, m in zip(near, far, means, strict=True))


def test_a_clock_at_rest_speaks_for_its_own_tensor_only():
    told = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "weight_decay": 5e-4}
    table = clock_table(*even("fc.weight", 0.0, wide=1e-9, kind="no decay"))
    found = resolve_schedule(bare(), table, told)
    assert found.parameter_group == {"conv.weight": "all", "embed.weight": "all", "fc.weight": "fc.weight"}
    assert column(found, "sum_decay", "fc.weight") == column(found, "weight_decay", "fc.weight") == [0.0] * 4
    assert column(found, "sum_decay", "all") == pytest.approx([0.005] * 4)
    assert codes(found) == ["clock-disagrees"]
    assert "no decay acted" in message(found, "clock-disagrees")
    nothing = resolve_schedule(bare(), table)
    assert column(nothing, "sum_decay", "all") == [None] * 4
    assert column(nothing, "sum_decay", "fc.weight") == [0.0] * 4


def test_a_clock_at_rest_in_a_group_without_decay_is_no_news():
    points = bare(sgd(0.1, "0", wd=0.0), {"0": NAMES})
    found = resolve_schedule(points, clock_table(*even("fc.weight", 0.0, wide=1e-9, kind="no decay")))
    assert codes(found) == []
    assert set(found.parameter_group.values()) == {"0"}


def test_an_exempt_tensor_does_not_stop_another_clock():
    table = clock_table(*even("fc.weight", SGD_RATE), *even("embed.weight", 0.0, wide=1e-9, kind="no decay"))
    found = resolve_schedule(bare(), table)
    assert column(found, "sum_decay", "all") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert column(found, "sum_decay", "embed.weight") == [0.0] * 4
    assert "not for embed.weight" in message(found, "clock-transfer-assumed")


def test_clocks_that_agree_are_taken_together():
    table = clock_table(*even("fc.weight", SGD_RATE), *even("embed.weight", SGD_RATE * (1 + 1e-4), wide=1.01e-4))
    found = resolve_schedule(bare(), table)
    assert column(found, "source")[0].startswith("clock of fc.weight and 1 more, assumed to hold here")
    assert column(found, "sum_decay") == pytest.approx([100 * X * (1 + 5e-5)] * 4, rel=1e-5)


def test_clocks_that_disagree_are_not_averaged_and_do_not_speak_for_others():
    table = clock_table(*even("fc.weight", SGD_RATE), *even("embed.weight", float(coupled_rate(2 * X, 0.9))))
    found = resolve_schedule(bare(), table)
    assert column(found, "sum_decay", "fc.weight") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert column(found, "sum_decay", "embed.weight") == pytest.approx([200 * X] * 4, rel=2e-3)
    assert column(found, "sum_decay", "all") == [None] * 4
    assert "clocks-apart" in codes(found)
    known = bare(sgd(0.1, "0"), {"0": NAMES})
    found = resolve_schedule(known, table)
    assert column(found, "sum_decay", "0") == pytest.approx([0.005] * 4)  # the files' word for the others
    assert "clocks-apart" in codes(found)


def test_a_tensor_that_shrinks_faster_than_the_clock_refutes_the_transfer():
    table = clock_table(*even("fc.weight", SGD_RATE))
    decay = 100 * SGD_RATE
    good = {"conv.weight": np.full(4, 0.9 * decay), "embed.weight": np.full(4, -0.1)}
    assert "clock-transfer-refuted" not in codes(resolve_schedule(bare(), table, shrinkage=good))
    found = resolve_schedule(bare(), table, shrinkage=good | {"conv.weight": np.full(4, 1.3 * decay)})
    assert "clock-transfer-refuted" in codes(found)
    assert "conv.weight" in message(found, "clock-transfer-refuted")
    assert column(found, "sum_decay", "fc.weight") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert column(found, "source", "fc.weight")[0].startswith("clock of fc.weight; SGD")
    assert column(found, "sum_decay", found.parameter_group["conv.weight"]) == [None] * 4


def test_one_tensor_of_many_that_refutes_it_stands_alone():
    names = ("a.weight", "b.weight", "c.weight", "d.weight", "fc.weight")
    shrinkage = {n: np.full(4, 0.5 * 100 * SGD_RATE) for n in names[:3]} | {"d.weight": np.full(4, 200 * SGD_RATE)}
    found = resolve_schedule(bare(names=names), clock_table(*even("fc.weight", SGD_RATE)), shrinkage=shrinkage)
    assert column(found, "sum_decay", "d.weight") == [None] * 4
    assert column(found, "sum_decay", "all") == pytest.approx([100 * X] * 4, rel=1e-5)
    assert found.parameter_group["a.weight"] == found.parameter_group["fc.weight"] == "all"


def test_adaptive_steps_may_shorten_a_tensor_without_decay():
    shrinkage = {"conv.weight": np.full(4, 1.0)}
    table = clock_table(*even("embed.weight", 1e-4, "unit 3"))
    found = resolve_schedule(bare(), table, {"optimizer": "adamw"}, shrinkage=shrinkage)
    assert "clock-transfer-refuted" not in codes(found)
    assert column(found, "sum_decay") == pytest.approx([0.01] * 4, rel=1e-3)
    assert column(found, "decoupled") == [True] * 4


def test_a_known_weight_decay_gives_the_learning_rate():
    rates = [float(coupled_rate(x, 0.9)) for x in (1e-4, 1e-4, 1e-5, 1e-5)]
    told = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3}
    found = resolve_schedule(bare(), clock_table(*ticking("fc.weight", STEPS, rates)), told)
    assert column(found, "sum_learning_rate") == pytest.approx([10, 10, 1, 1], rel=2e-2)
    assert column(found, "learning_rate_last")[-1] == pytest.approx(0.01, rel=2e-2)
    assert column(found, "learning_rate_changes") == [False, False, True, False]
    assert all(s.endswith("learning rate from it") for s in column(found, "source"))
    assert "missing-learning-rate" not in codes(found)


def test_a_weight_decay_that_is_not_known_comes_from_the_learning_rate():
    points = bare(
        [setting("learning_rate", 0.1), setting("optimizer", "SGD", kind="inferred"), setting("momentum", 0.9)]
    )
    rates = np.array([0.99999, 1.0, 1.00002, 1.0]) * SGD_RATE
    found = resolve_schedule(points, clock_table(*ticking("fc.weight", STEPS, rates)))
    assert len(set(column(found, "weight_decay"))) == 1
    assert column(found, "weight_decay")[0] == pytest.approx(1e-3, rel=1e-4)


def test_groups_with_another_known_decay_share_the_learning_rate_by_assumption():
    told = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3, "groups": {"conv*": {"weight_decay": 2e-3}}}
    found = resolve_schedule(bare(), clock_table(*even("fc.weight", SGD_RATE)), told)
    assert column(found, "sum_decay", "conv*") == pytest.approx([200 * X] * 4, rel=1e-5)
    assert column(found, "sum_learning_rate", "conv*") == pytest.approx([10.0] * 4, rel=1e-5)
    assert "assumed to hold here" in column(found, "source", "conv*")[0]


def test_no_transfer_to_another_optimizer():
    told = {"optimizer": "adamw", "groups": {"conv*": {"optimizer": "muon"}}}
    found = resolve_schedule(bare(), clock_table(*even("embed.weight", 1e-4, "unit 3")), told)
    assert column(found, "sum_decay", "conv*") == [None] * 4
    assert column(found, "sum_decay", "all") == pytest.approx([0.01] * 4, rel=1e-3)


def test_unknown_updates_per_step_still_give_the_decay():
    found = resolve_schedule(bare(unit="epochs"), clock_table(*even("fc.weight", 0.02)))
    assert column(found, "sum_decay") == pytest.approx([0.2] * 4)  # (1 − α) × 100 × 0.02
    assert column(found, "momentum_assumed") == [True] * 4


def test_what_a_slice_bounds_is_said_and_replaces_nothing():
    told = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1}
    rows = ticking("embed.weight", STEPS, [2.0**-25] * 4, "unit 3", wide=0.0, kind="at most")
    found = resolve_schedule(bare(), clock_table(*rows), told)
    assert "clock-at-rest" in codes(found)
    assert column(found, "sum_decay") == pytest.approx([0.01] * 4)
    quiet = resolve_schedule(bare(), clock_table(*rows), told | {"lr": 1e-7})
    assert "clock-at-rest" not in codes(quiet)


def test_a_many_rowed_sum_that_moves_contradicts_adamw():
    told = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1}
    found = resolve_schedule(bare(), clock_table(*even("fc.weight", 1e-4)), told)
    assert "clock-against-optimizer" in codes(found)


def test_rows_that_do_not_fit_the_intervals():
    joined = clock_table(("fc.weight", "sum over units", 1000, 1400, SGD_RATE, 1e-4))
    found = resolve_schedule(bare(), joined, {"optimizer": "sgd", "momentum": 0.9})
    assert column(found, "sum_decay") == [None] * 4
    halves = clock_table(
        *(("fc.weight", "sum over units", a, a + 50, SGD_RATE, 1e-4) for a in range(1000, 1400, 50)),
    )
    found = resolve_schedule(bare(), halves, {"optimizer": "sgd", "momentum": 0.9})
    assert column(found, "sum_decay") == pytest.approx([100 * X] * 4, rel=1e-5)


def test_clocks_of_tensors_that_the_run_lacks_and_empty_tables_change_nothing():
    assert column(resolve_schedule(bare(), pl.DataFrame(schema=CLOCKS)), "sum_decay") == [None] * 4
    assert column(resolve_schedule(bare(), clock_table(*even("other.weight", 1e-4))), "sum_decay") == [None] * 4
    lone = resolve_schedule(bare(steps=(5,)), clock_table(("fc.weight", "unit 1", 5, 5, 1e-4, 0.1)))
    assert column(lone, "sum_decay") == [None]


def test_files_without_a_momentum_and_a_clock_tell_it():
    told = [setting("learning_rate", 0.1), setting("weight_decay", 5e-4), setting("optimizer", "Momentum")]
    points = bare(told, {"0": NAMES})
    found = resolve_schedule(points, clock_table(*even("fc.weight", float(coupled_rate(5e-5, 0.95)))))
    assert column(found, "momentum") == [0.95] * 4
    assert column(found, "momentum_assumed") == [False] * 4
    assert column(found, "source")[0].endswith("clock of fc.weight agrees, with momentum 0.95")
    assert codes(found) == []
    configured = bare(told[:2])
    bold = resolve_schedule(configured, clock_table(*even("fc.weight", float(coupled_rate(5e-5, 0.8)))))
    assert column(bold, "optimizer") == ["sgd"] * 4
    assert column(bold, "momentum") == [0.8] * 4
    odd = resolve_schedule(points, clock_table(*even("fc.weight", 3.7 * float(coupled_rate(5e-5, 0.95)))))
    assert column(odd, "momentum_assumed") == [True] * 4
    assert {"clock-disagrees", "momentum-assumed"} <= set(codes(odd))


def test_a_learning_rate_that_was_not_the_runs_leaves_one_decay_per_stretch():
    rates = [
        float(coupled_rate(x, 0.9)) * e for x, e in zip((5e-5, 5e-5, 5e-6, 5e-6), (1, 1.00003, 1, 0.99997), strict=True)
    ]
    told = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "weight_decay": 1e-3}
    found = resolve_schedule(bare(), clock_table(*ticking("fc.weight", STEPS, rates)), told)
    assert column(found, "learning_rate_last") == [0.1] * 4
    decay = column(found, "weight_decay")
    assert decay[0] == decay[1] == pytest.approx(5e-4, rel=1e-3)
    assert decay[2] == decay[3] == pytest.approx(5e-5, rel=0.02)
    assert column(found, "learning_rate_changes") == [False, False, True, False]


def test_a_replay_in_every_bit_shows_decoupled_decay():
    words = "reproduced in every bit over 100 steps with ηλ = 0.0003 (weights times fp32(1 − ηλ); …); 64 elements"
    table = clock_table(*even("embed.weight", 3e-4, "unit 3")).with_columns(evidence=pl.lit(words))
    found = resolve_schedule(bare(), table)
    assert column(found, "decoupled") == [True] * 4
    assert "AdamW, SGDW, Lion" in message(found, "optimizer-unknown")
    told = {"optimizer": "adam", "lr": 3e-3, "weight_decay": 0.1}
    assert "clock-against-optimizer" in codes(resolve_schedule(bare(), table, told))
    assert "clock-against-optimizer" not in codes(resolve_schedule(bare(), table, told | {"optimizer": "adamw"}))


def test_a_tensor_whose_own_clocks_disagree_speaks_for_no_other():
    rows = [
        *even("fc.weight", SGD_RATE, "unit 1"),
        *even("fc.weight", 2 * SGD_RATE, "unit 2"),
        *even("fc.weight", SGD_RATE, "unit 3"),
    ]
    found = resolve_schedule(bare(), clock_table(*rows))
    assert column(found, "sum_decay", "all") == [None] * 4
    assert column(found, "sum_decay", "fc.weight") == pytest.approx([100 * SGD_RATE] * 4, rel=1e-3)
    assert "clocks-apart" in codes(found)


def test_a_tensor_that_moves_is_not_at_rest():
    rows = [*even("fc.weight", SGD_RATE), *even("fc.weight", 0.0, "within unit", wide=1e-9, kind="no decay")]
    found = resolve_schedule(bare(), clock_table(*rows))
    assert set(found.parameter_group.values()) == {"all"}
    assert column(found, "sum_decay") == pytest.approx([100 * X] * 4, rel=1e-5)
