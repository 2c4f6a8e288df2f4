"""angular_updates(): against the angles that a toy run really turned."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from smd_analyze.theory.angles import SCHEMA, angular_updates

STEPS = [0, 20, 200, 500, 1000, 1500, 1501, 2000]
ETAS = np.full(2000, 0.05)
DROP = np.r_[np.full(1000, 0.05), np.full(1000, 0.01)]


def true_angle(run, start, stop):
    return np.sqrt((run.true_angles[start:stop] ** 2).mean())


def rows(table, method):
    return list(table.filter(pl.col("method") == method).iter_rows(named=True))


@pytest.mark.parametrize(
    ("kind", "optimizer", "lam"), [("sgd", "sgd", 0.01), ("sgdw", "sgdw", 0.1), ("adamw", "adamw", 0.1)]
)
def test_the_buffer_gives_the_past_angle_exactly_even_after_the_learning_rate_changed(
    toy, statistics, schedule, kind, optimizer, lam
):
    etas = DROP * (0.1 if kind == "adamw" else 1)
    run = toy(etas, lam, STEPS, 0.9, kind, start=2.0)
    table = angular_updates(statistics((run.series, {})), schedule(etas, lam, STEPS, optimizer, 0.9))
    assert dict(table.schema) == SCHEMA
    found = rows(table, "buffer")
    assert [row["step_to"] for row in found] == STEPS[1:]
    for row in found:
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=1e-8)
        assert row["angular_update_low"] < row["angular_update"] < row["angular_update_high"]
        assert (row["steps_covered"], row["independent"], row["note"]) == (1, True, "")


def test_consecutive_checkpoints_are_measured(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0, units=16)
    table = angular_updates(statistics((run.series, {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9))
    (row,) = rows(table, "consecutive")
    assert (row["step_from"], row["step_to"], row["independent"]) == (1500, 1501, True)
    assert row["angular_update"] == pytest.approx(true_angle(run, 1500, 1501), rel=1e-8)
    unknown = schedule(ETAS, 0.01, STEPS, None, None)
    assert len(rows(angular_updates(statistics((run.series, {})), unknown), "consecutive")) == 1
    epochs = schedule(ETAS, 0.01, STEPS, "sgd", 0.9, step_unit="epochs")
    assert rows(angular_updates(statistics((run.series, {})), epochs), "consecutive") == []


@pytest.mark.parametrize(
    ("kind", "optimizer", "lam"),
    [("sgd", "sgd", 0.01), ("nesterov", "sgd", 0.01), ("sgdw", "sgdw", 0.1), ("adamw", "adamw", 0.2)],
)
def test_norms_give_the_angle_far_from_equilibrium(toy, statistics, schedule, kind, optimizer, lam):
    """Growing norms, gradients that change from unit to unit: no equilibrium, no constant L is needed."""
    etas = ETAS * (0.1 if kind == "adamw" else 1)
    sizes = np.exp(np.random.default_rng(0).standard_normal(16))
    run = toy(etas, lam, STEPS, 0.9, kind, start=1.0, gradient=sizes, save_direction=False)
    plan = schedule(etas, lam, STEPS, optimizer, 0.9, nesterov=kind == "nesterov")
    found = rows(angular_updates(statistics((run.series, {})), plan), "norms")
    # 20 steps are too short, and so is the one step from 1500: both join a neighbour
    assert [(row["step_from"], row["step_to"]) for row in found] == [
        (0, 200), (200, 500), (500, 1000), (1000, 1500), (1500, 2000),
    ]  # fmt: skip
    for row in found[1:]:
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=0.01)
        assert not row["independent"]
        assert ("zero-mean" in row["note"]) is (kind in ("nesterov", "adamw"))
    assert "first update" in found[0]["note"]
    assert "first update" not in found[1]["note"]


def test_nesterov_has_no_buffer_rows_and_its_own_factor(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, "nesterov", start=2.0, save_direction=False)
    table = angular_updates(statistics((run.series, {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9, nesterov=True))
    assert rows(table, "buffer") == []
    heavy = angular_updates(statistics((run.series, {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9))
    ratio = rows(table, "norms")[-1]["angular_update"] / rows(heavy, "norms")[-1]["angular_update"]
    assert ratio == pytest.approx(1.159, abs=1e-3)


def test_changes_of_the_learning_rate_are_noted(toy, statistics, schedule):
    run = toy(DROP, 0.01, STEPS, 0.9, start=2.0, save_direction=False)
    found = rows(angular_updates(statistics((run.series, {})), schedule(DROP, 0.01, STEPS, "sgd", 0.9)), "norms")
    noted = {row["step_from"]: "changed within 10/(1−α)" in row["note"] for row in found}
    assert noted == {0: False, 200: False, 500: False, 1000: True, 1500: False}
    assert found[-1]["angular_update"] == pytest.approx(true_angle(run, 1500, 2000), rel=0.01)
    cosine = 0.025 * (1 + np.cos(np.pi * np.arange(8000) / 8000))  # changes slowly: nothing to note
    smooth = angular_updates(statistics((run.series, {})), schedule(cosine, 0.01, STEPS, "sgd", 0.9))
    assert not any("changed" in row["note"] for row in rows(smooth, "norms"))


def test_the_interval_of_the_decay_is_carried_over(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0, units=4)
    plan = schedule(ETAS, 0.01, STEPS, "sgd", 0.9)
    bare = rows(angular_updates(statistics((run.series, {})), plan), "norms")[-1]
    assert bare["angular_update_low"] is None  # four units say nothing about their scatter
    wide = replace(
        plan,
        table=plan.table.with_columns(
            sum_decay_low=pl.col("sum_decay") * 0.9, sum_decay_high=pl.col("sum_decay") * 1.1
        ),
    )
    row = rows(angular_updates(statistics((run.series, {})), wide), "norms")[-1]
    low, high = (row[f"angular_update_{end}"] ** 2 for end in ("low", "high"))
    assert high - low == pytest.approx(0.2 * 2 * 0.0005 / 1.9, rel=2e-3)  # and what a moving norm adds


def test_what_is_unknown_gives_no_rows(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    stats = statistics((run.series, {}))
    for changes in (dict(optimizer="lion"), dict(sum_decay=None, weight_decay=None), dict(momentum=None)):
        plan = schedule(ETAS, 0.01, STEPS, **({"optimizer": "sgd", "momentum": 0.9} | changes))
        table = angular_updates(stats, plan)
        assert rows(table, "norms") == []
        assert bool(rows(table, "buffer")) is ("optimizer" not in changes)
    adam = schedule(ETAS, 0.01, STEPS, "adam", 0.9, decoupled=False)
    assert rows(angular_updates(stats, adam), "norms") == []
    no_rate = schedule(ETAS, 0.01, STEPS, "sgd", 0.9, learning_rate_last=None)
    assert rows(angular_updates(stats, no_rate), "buffer") == []


def test_the_first_checkpoint_uses_the_first_rate_only_if_it_stays(toy, statistics, schedule):
    later = STEPS[2:]
    run = toy(DROP, 0.01, later, 0.9, start=2.0)
    found = rows(angular_updates(statistics((run.series, {})), schedule(DROP, 0.01, later, "sgd", 0.9)), "buffer")
    assert found[0]["step_to"] == 200
    changing = schedule(DROP, 0.01, later, "sgd", 0.9, learning_rate_changes=True)
    assert rows(angular_updates(statistics((run.series, {})), changing), "buffer")[0]["step_to"] == 500


def test_norms_that_fall_too_fast_are_said_not_shown(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    falling = replace(run.series, vv=run.series.vv[0] * np.exp(-0.1 * np.arange(len(STEPS)))[:, None], uu=None, wu=None)
    plan = schedule(ETAS, 1e-6, STEPS, "sgd", 0.9)
    found = rows(angular_updates(statistics((falling, {"evidence": "guessed"})), plan), "norms")
    assert found[-1]["angular_update"] is None
    assert "fall faster" in found[-1]["note"]
    assert "if invariant" in found[-1]["note"]
    reference = rows(angular_updates(statistics((run.series, {"status": "not invariant"})), plan), "norms")
    assert all("reference only" in row["note"] for row in reference)


def test_gaps_break_and_short_runs_are_noted(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    vv = run.series.vv.copy()
    vv[4] = np.nan
    gap = rows(
        angular_updates(statistics((replace(run.series, vv=vv), {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9)), "norms"
    )
    assert [(row["step_from"], row["step_to"]) for row in gap] == [(0, 200), (200, 500), (1500, 2000)]
    short = [0, 10, 20]
    run = toy(ETAS, 0.01, short, 0.9, start=2.0, save_direction=False)
    (row,) = rows(angular_updates(statistics((run.series, {})), schedule(ETAS, 0.01, short, "sgd", 0.9)), "norms")
    assert (row["step_from"], row["step_to"]) == (0, 20)
    assert "spacing under 5/(1−α) steps" in row["note"]
    single = toy(ETAS, 0.01, [7], 0.9)
    assert len(angular_updates(statistics((single.series, {})), schedule(ETAS, 0.01, [7]))) == 0


def test_epochs(toy, statistics, schedule):
    """Steps that count epochs: per optimizer step if the sums tell their length, else per recorded step, and said."""
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    stats = statistics((run.series, {}))
    known = angular_updates(stats, schedule(ETAS, 0.01, STEPS, "sgd", 0.9, step_unit="epochs"))
    direct = angular_updates(stats, schedule(ETAS, 0.01, STEPS, "sgd", 0.9))
    assert set(known["method"]) == {"norms"}
    assert rows(known, "norms") == rows(direct, "norms")
    gone = dict.fromkeys(("sum_learning_rate", "learning_rate_first", "learning_rate_last", "weight_decay"))
    clock = schedule(ETAS, 0.01, STEPS, "sgd", 0.9, step_unit="epochs", **gone)
    found = rows(angular_updates(stats, clock), "norms")
    assert all("length in optimizer steps is unknown" in row["note"] for row in found)
    assert len(found) == len(STEPS) - 1


def rounded_to_bfloat16(weights):
    bits = weights.astype(np.float32).view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).view(np.float32).astype(float)


@pytest.mark.parametrize(("eta", "seen"), [(0.5, True), (0.005, False)])
def test_the_rounding_of_saved_copies_is_taken_off_or_hides_the_angle(toy, statistics, schedule, eta, seen):
    etas = np.full(2000, eta)
    run = toy(etas, 0.001, STEPS, 0.9, start=2.0, units=16, elements=256, gradient=0.01)
    saved = rounded_to_bfloat16(run.saved)
    moved = np.diff(saved, axis=0, prepend=np.nan)
    series = replace(run.series, vv=(saved**2).sum(-1), dd=(moved**2).sum(-1), dv=(moved * saved).sum(-1))
    stats = replace(statistics((series, {})), dtypes={"layer": ("bfloat16", "float32")})
    table = angular_updates(stats, schedule(etas, 0.001, STEPS, "sgd", 0.9))
    (row,) = rows(table, "consecutive")
    true = true_angle(run, 1500, 1501)
    if seen:
        assert row["angular_update"] == pytest.approx(true, rel=0.03)
    else:
        assert row["angular_update"] is None
        assert row["angular_update_low"] is None
        assert "below resolution" in row["note"]
    for row in rows(table, "buffer"):  # the direction does not suffer
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=1e-3)


@pytest.mark.parametrize(
    ("least", "most", "kept"), [(0.05, 0.05, "plain"), (0.04, 0.05, "noted"), (0.01, 0.05, "dropped")]
)
def test_a_past_learning_rate_that_is_not_known_widens_or_drops_the_row(toy, statistics, schedule, least, most, kept):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    planned = schedule(ETAS, 0.01, STEPS, "sgd", 0.9)
    bounds = pl.DataFrame({"learning_rate_last_low": [least] * 7, "learning_rate_last_high": [most] * 7})
    planned = replace(planned, table=planned.table.hstack(bounds))
    found = rows(angular_updates(statistics((run.series, {})), planned), "buffer")
    assert len(found) == (0 if kept == "dropped" else 7)
    for row in found:
        assert ("known only between" in row["note"]) == (kept == "noted")
        if kept == "noted":
            assert row["angular_update_low"] < 0.8 * row["angular_update"]


def test_norms_intervals_hold_where_the_momentum_still_remembers(toy, statistics, schedule):
    steps = [0, 100, 900, 1000, 1100, 1200]
    etas = np.r_[np.full(1000, 0.05), np.full(200, 0.005)]
    run = toy(etas, 0.01, steps, 0.9, start=1.5, units=64, save_direction=False)
    found = rows(angular_updates(statistics((run.series, {})), schedule(etas, 0.01, steps, "sgd", 0.9)), "norms")
    for row in found:
        true = true_angle(run, row["step_from"], row["step_to"])
        assert row["angular_update_low"] <= true <= row["angular_update_high"]
    after = next(row for row in found if row["step_from"] == 1000)
    assert abs(after["angular_update"] / true_angle(run, 1000, 1100) - 1) > 0.1  # the identity alone is off here


@pytest.mark.parametrize(("kind", "lam"), [("sgd", 0.01), ("sgdw", 0.1)])
def test_saved_momentum_at_both_ends_makes_norms_exact_even_after_a_drop(toy, statistics, schedule, kind, lam):
    steps = [100, 900, 1000, 1060, 1200]
    etas = np.r_[np.full(1000, 0.05), np.full(200, 0.005)]
    run = toy(etas, lam, steps, 0.9, kind, start=1.5, units=32)
    found = rows(angular_updates(statistics((run.series, {})), schedule(etas, lam, steps, kind, 0.9)), "norms")
    for row in found:
        assert row["note"] == "with the saved momentum at both ends"
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=0.004)


def test_where_norms_are_no_identity_they_have_no_interval(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0)
    planned = schedule(ETAS, 0.01, STEPS, "sgd", 0.9)
    for row in rows(angular_updates(statistics((run.series, {"status": "not invariant"})), planned), "norms"):
        assert row["angular_update"] is not None
        assert row["angular_update_low"] is None
    adam = schedule(ETAS * 0.1, 0.1, STEPS, "adamw", 0.9)
    for row in rows(angular_updates(statistics((run.series, {})), adam), "norms"):
        assert row["angular_update_low"] is None


def test_weights_that_do_not_move_turn_by_no_angle(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=2.0, save_direction=False)
    first = run.series.vv[:1].repeat(len(STEPS), axis=0)
    nothing = np.vstack([np.full_like(first[:1], np.nan), np.zeros_like(first[1:])])
    series = replace(run.series, vv=first, dd=nothing, dv=nothing)
    found = rows(angular_updates(statistics((series, {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9)), "norms")
    assert found
    for row in found:
        assert row["angular_update"] is None
        assert "do not move" in row["note"]
