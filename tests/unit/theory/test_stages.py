"""The table of stages: where they end, what flowed, and what is said of it."""

import math

import numpy as np
import polars as pl
import pytest

from smd_analyze.records.schedule import Schedule
from smd_analyze.theory.stages import SCHEMA, stages

ROW = {
    "parameter_group": "all", "optimizer": "sgd", "momentum": 0.9, "dampening": 0.0, "nesterov": False, "beta1": None,
    "beta2": None, "eps": None, "decoupled": False, "source": "test",
}  # fmt: skip
FLOATS = (
    "sum_learning_rate", "sum_learning_rate_low", "sum_learning_rate_high", "sum_decay", "sum_decay_low",
    "sum_decay_high", "learning_rate_first", "learning_rate_last", "learning_rate_last_low", "learning_rate_last_high",
    "weight_decay", "momentum", "beta1", "beta2", "eps",
)  # fmt: skip


def recorded(steps, rates, lam=5e-4, unit="optimizer steps", per_unit=1, **more):
    """The schedule of known learning rates[t], one per optimizer step; `per_unit` of them are one recorded step."""
    rows = []
    for a, b in zip(steps, steps[1:], strict=False):
        part = np.asarray(rates[a * per_unit : b * per_unit], float)
        total, x = float(part.sum()), float(part.sum()) * lam
        rows.append(
            ROW
            | {"step_from": a, "step_to": b, "weight_decay": lam, "sum_learning_rate": total}
            | dict.fromkeys(("sum_learning_rate_low", "sum_learning_rate_high"), total)
            | dict.fromkeys(("sum_decay", "sum_decay_low", "sum_decay_high"), x)
            | {"learning_rate_first": part[0]}
            | dict.fromkeys(("learning_rate_last", "learning_rate_last_low", "learning_rate_last_high"), part[-1])
            | {"learning_rate_changes": bool(np.ptp(part) > 0)}
            | more
        )
    table = pl.DataFrame(rows, schema_overrides=dict.fromkeys(FLOATS, pl.Float64) | {"optimizer": pl.String})
    return Schedule(table, {"w": "all"}, unit)


def table(steps, rates, lam=5e-4, units=(None, None), **more):
    return stages(recorded(steps, rates, lam, **more), steps, *units).to_dicts()


def test_a_drop_inside_an_interval_cuts_there():
    found = table(range(0, 3001, 100), [0.1] * 1050 + [0.01] * 1950)
    assert [(r["stage"], r["step_from"], r["step_to"]) for r in found] == [(0, 0, 3000), (1, 0, 1050), (2, 1050, 3000)]
    whole, before, after = found
    assert before["half_lives"] == pytest.approx(4 * 5e-4 * 1050 / math.log(2), rel=0.03)
    assert whole["half_lives"] == pytest.approx(before["half_lives"] + after["half_lives"])
    assert whole["effective_decay"] == pytest.approx((0.1 * 1050 + 0.01 * 1950) * 5e-4 / 0.1)
    assert (after["learning_rate_from"], after["learning_rate_to"]) == pytest.approx((0.01, 0.01))
    assert (after["level_ratio"], after["dip"]) == pytest.approx((10, 10**-0.5))
    assert (after["weight_factor"], after["buffer_factor"]) == pytest.approx((10**-0.25, 10**0.25))
    assert after["recovery_steps"] == pytest.approx(22112.7, rel=0.002)  # to first order in A
    assert before["level_ratio"] is None
    assert before["share"] + after["share"] == pytest.approx(1)


def test_more_checkpoints_change_no_sum():
    rates = [0.1] * 1000 + [0.02] * 1000
    few, many = table([0, 1000, 2000], rates), table(range(0, 2001, 20), rates)
    assert len(few) == len(many) == 3
    for a, b in zip(few, many, strict=True):
        for name in ("half_lives", "effective_decay", "share", "updates", "time_scale", "covered", "dip"):
            assert a[name] == pytest.approx(b[name]) if a[name] is not None else b[name] is None


@pytest.mark.parametrize("every", [50, 400])
def test_warm_up_and_cosine_are_two_stages(every):
    t = np.arange(4000)
    rates = np.where(t < 400, 0.1 * (t + 1) / 400, 0.05 * (1 + np.cos(np.pi * (t - 400) / 3600)))
    found = table(range(0, 4001, every), rates)
    assert [(r["step_from"], r["step_to"]) for r in found[1:]] == [(0, 400), (400, 4000)]
    assert found[1]["learning_rate_to"] > 0.09 > 0.01 > found[2]["learning_rate_to"]
    assert found[2]["half_lives"] == pytest.approx(4 * 5e-3 * rates[400:].sum() / math.log(2), rel=0.03)


def test_small_steps_are_a_schedule_and_large_ones_stages():
    exponential = np.repeat(0.1 * 0.9 ** np.arange(20), 100)
    assert len(table(range(0, 2001, 100), exponential)) == 2
    halved = np.repeat(0.1 * 0.5 ** np.arange(4), 500)
    assert len(table(range(0, 2001, 500), halved)) == 5
    restarts = np.tile(0.1 * 0.9 ** np.arange(10), 2).repeat(100)
    assert [(r["step_from"], r["step_to"]) for r in table(range(0, 2001, 100), restarts)[1:]] == [
        (0, 1000),
        (1000, 2000),
    ]


def test_too_short_whatever_the_data_say():
    whole = table(range(0, 1001, 100), [0.01] * 1000)[0]
    assert whole["half_lives"] == pytest.approx(0.2885, rel=0.01)
    assert whole["outcome"].startswith(
        "0.29 half-lives: too short for the balance to be reached, whatever the data say"
    )
    assert f"{100 * whole['covered']:.0f} % of the way" in whole["outcome"]
    assert whole["steps_needed"] == pytest.approx(math.log2(15 / (1.1**4 - 1)) / whole["half_lives"] * 1000)
    long = table(range(0, 50001, 5000), [0.01] * 50000)[0]
    assert long["outcome"] == "14 half-lives: long enough for the balance to be reached"


def test_no_decay_and_what_is_not_known():
    steps, rates = [0, 100, 200], [0.1] * 100 + [0.01] * 100
    none = table(steps, rates, 0.0)
    assert {r["outcome"] for r in none} == {"no decay: no equilibrium"}
    assert none[0]["half_lives"] is None
    assert none[0]["initial_left"] == 1
    assert [r["share"] for r in none[1:]] == pytest.approx([10 / 11, 1 / 11])
    assert {r["outcome"] for r in table(steps, rates, optimizer=None)} == {"optimizer unknown"}
    assert "gradients' size" in table(steps, rates, optimizer="adam", beta1=0.9, beta2=0.999)[0]["outcome"]
    assert table(steps, rates, momentum=None)[0]["outcome"] == "momentum unknown"
    assert stages(recorded([0, 100], [0.1] * 100), [0]).height == 0
    assert stages(recorded([0, 100], [0.1] * 100), [0, 100]).schema == pl.Schema(SCHEMA)


def test_epochs_of_unknown_length_are_said():
    gone = dict.fromkeys(("sum_learning_rate", "sum_learning_rate_low", "sum_learning_rate_high", "sum_decay"))
    found = table(range(3), [0.1] * 200, unit="epochs", per_unit=100, **gone)
    assert found[0]["outcome"] == "steps per epoch unknown: --steps-per-epoch N tells"
    assert found[0]["half_lives"] is None


def test_half_lives_have_the_schedules_interval():
    found = table([0, 100, 200], [0.1] * 200, sum_decay_low=4e-3, sum_decay_high=6e-3)[0]
    assert found["half_lives_low"] == pytest.approx(0.8 * found["half_lives"])
    assert found["half_lives_high"] == pytest.approx(1.2 * found["half_lives"])


def test_epochs_are_the_unit_where_steps_count_them():
    """100 updates an epoch: the same half-lives, all steps in epochs."""
    rates = [0.1] * 1000 + [0.01] * 1000
    by_step = table(range(0, 2001, 100), rates, units=(100.0, 2048.0))
    by_epoch = table(range(21), rates, unit="epochs", per_unit=100)
    for a, b in zip(by_step, by_epoch, strict=True):
        assert b["half_lives"] == pytest.approx(a["half_lives"])
        assert b["updates"] == pytest.approx(a["updates"])
        assert b["time_scale"] == pytest.approx(a["time_scale"] / 100)
        assert b["time_scale_epochs"] == pytest.approx(a["time_scale_epochs"])
        assert a["time_scale_tokens"] == pytest.approx(a["time_scale"] * 2048)
        assert b["time_scale_tokens"] is None
    assert by_step[1]["time_scale"] == pytest.approx(0.1 / (0.1 * 5e-4))


def test_steps_per_epoch_unknown_leaves_what_needs_only_sums():
    """Σηλ alone (a clock per epoch): half-lives in leading order, no count of updates."""
    found = stages(
        recorded([0, 1, 2], [0.1] * 200, unit="epochs", per_unit=100, sum_learning_rate=None,
                 sum_learning_rate_low=None, sum_learning_rate_high=None), [0, 1, 2],
    ).to_dicts()  # fmt: skip
    assert found[0]["half_lives"] == pytest.approx(4 * 0.1 * 200 * 5e-4 / 0.1 / math.log(2))
    assert found[0]["updates"] is None
    assert found[0]["time_scale"] == pytest.approx(2 / 0.1)


def test_clocks_alone_give_stages():
    """No learning rate, Σηλ with the noise of a clock: stages end where the decay changes."""
    steps = list(range(0, 2001, 100))
    known = recorded(steps, [0.1] * 1000 + [0.01] * 1000)
    noise = pl.Series(1 + 0.003 * np.random.default_rng(0).standard_normal(20))
    nothing = [pl.lit(None, pl.Float64).alias(c) for c in FLOATS if "learning_rate" in c or c == "weight_decay"]
    clocked = known.table.with_columns(*nothing, pl.lit(None, pl.Boolean).alias("learning_rate_changes"))
    clocked = clocked.with_columns(pl.col("sum_decay") * noise)
    found = stages(Schedule(clocked, {"w": "all"}, "optimizer steps"), steps).to_dicts()
    assert [(r["step_from"], r["step_to"]) for r in found] == [(0, 2000), (0, 1000), (1000, 2000)]
    assert found[1]["learning_rate_from"] is None
    assert found[2]["level_ratio"] == pytest.approx(10, rel=0.05)  # if λ stayed
    assert found[1]["half_lives"] == pytest.approx(
        table(steps, [0.1] * 1000 + [0.01] * 1000)[1]["half_lives"], rel=0.01
    )
    assert sum(r["share"] for r in found[1:]) == pytest.approx(1)


def test_parameter_groups_have_their_own_stages():
    one, two = recorded([0, 100, 200], [0.1] * 200), recorded([0, 100, 200], [0.1] * 100 + [0.01] * 100)
    both = pl.concat([one.table, two.table.with_columns(pl.lit("head").alias("parameter_group"))])
    found = stages(Schedule(both, {}, "optimizer steps"), [0, 100, 200])
    assert found.group_by("parameter_group", maintain_order=True).len()["len"].to_list() == [2, 3]


def test_a_norm_that_oscillates_has_the_half_lives_of_its_envelope():
    """A = αx/(1−α)² above 1/16: the envelope falls as α^{t/2} whatever x is."""
    found = table(range(0, 1001, 100), [0.1] * 1000, 1e-3, momentum=0.99)[0]
    assert found["half_lives"] == pytest.approx(1000 * -math.log(0.99) / 2 / math.log(2))


def test_velocities_that_hold_the_learning_rate_shrink_with_it():
    found = table(range(0, 2001, 100), [0.16] * 1000 + [0.01] * 1000, rate_in_velocity=True)[2]
    assert (found["weight_factor"], found["buffer_factor"]) == pytest.approx((0.5, 2 / 16))


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon"])
def test_decoupled_optimizers_relax_at_twice_the_decay(optimizer):
    more = {"optimizer": optimizer, "decoupled": True, "beta1": 0.9, "beta2": 0.99, "momentum": 0.9}
    found = table(range(0, 2001, 100), [0.01] * 1000 + [0.001] * 1000, 0.02, **more)
    assert found[1]["half_lives"] == pytest.approx(2 * 2e-4 * 1000 / math.log(2), rel=0.05)
    assert found[1]["time_scale"] == pytest.approx(1 / 2e-4)
    assert found[2]["weight_factor"] == pytest.approx(10**-0.5)
    assert found[2]["second_moment_factor"] == (pytest.approx(10) if optimizer == "adamw" else None)


def test_lag_of_a_falling_schedule_in_simulation(toy):
    """Where the norm stands at the end, over its equilibrium there: the schedule alone tells."""
    t = np.arange(6000)
    rates = 0.05 * (0.55 + 0.45 * np.cos(np.pi * t / 6000))
    lam, steps = 0.02, list(range(0, 6001, 500))
    found = table(steps, rates, lam, momentum=0.0)[0]
    assert found["lag"] > 1.15
    run = toy(rates, lam, steps, 0.0, start=1.0, units=32, elements=64)
    level = (rates[-1] / (2 * lam)) ** 0.25
    norms = np.sqrt(run.series.vv[-1])
    assert found["lag"] == pytest.approx(float(np.sqrt(np.mean(norms**2))) / level, rel=0.03)
    assert f"ends at about {found['lag']:.2g} times its balance" in found["outcome"]


def test_lag_of_adamw_in_simulation(toy):
    t = np.arange(3000)
    rates = 0.01 * (0.6 + 0.4 * np.cos(np.pi * t / 3000))
    steps = list(range(0, 3001, 250))
    more = {"optimizer": "adamw", "decoupled": True, "beta1": 0.9, "beta2": 0.95, "momentum": None}
    found = table(steps, rates, 0.2, **more)[0]
    run = toy(rates, 0.2, steps, 0.9, "adamw", 2.0, units=32, elements=64, beta2=0.95)
    level = math.sqrt(rates[-1] * 64 / (2 * 0.2))
    assert found["lag"] > 1.3
    assert found["lag"] == pytest.approx(float(np.sqrt(np.mean(run.series.vv[-1]))) / level, rel=0.06)


def test_the_tail_is_where_decay_moves_nothing_more():
    t = np.arange(5000)
    rates = 0.05 * (1 + np.cos(np.pi * t / 5000))
    found = table(range(0, 5001, 250), rates)[0]
    later = 4 * rates[t >= found["tail_from"]].sum() * 5e-4 / 0.1
    assert 1 - math.exp(-later) == pytest.approx(0.1, abs=0.01)
    assert found["tail_from"] > 3500


def test_a_schedule_without_later_columns_is_read_too(schedule):
    found = stages(schedule(np.full(20, 0.1), 0.01, [0, 10, 20]), [0, 10, 20])
    assert found["half_lives"].to_list() == pytest.approx([4 * 1e-3 * 20 / math.log(2)] * 2, rel=0.01)


def test_slower_training_takes_longer_and_is_the_same():
    """Learning rate / c and steps × c at λ·c⁰: half-lives, shares and dips stay, steps grow by c."""
    fast = table(range(0, 2001, 200), [0.05] * 1000 + [0.005] * 1000, 1e-3)
    slow = table(range(0, 8001, 800), [0.0125] * 4000 + [0.00125] * 4000, 1e-3)
    for a, b in zip(fast, slow, strict=True):
        for name in ("half_lives", "share", "dip", "covered", "start_highest"):
            assert b[name] == (None if a[name] is None else pytest.approx(a[name], rel=0.05))
        assert b["time_scale"] == pytest.approx(4 * a["time_scale"], rel=0.01)


def test_decay_that_the_learning_rate_does_not_scale():
    """λ alone: the level goes as η², so η / 2 is q = 4."""
    steps = list(range(0, 2001, 100))
    found = recorded(steps, [0.1] * 1000 + [0.05] * 1000)
    alone = found.table.with_columns(
        sum_decay=pl.lit(5e-3), decay_rule=pl.lit("weight decay alone"), weight_decay=pl.lit(5e-5)
    )
    after = stages(Schedule(alone, {}, "optimizer steps"), steps).to_dicts()[2]
    assert (after["level_ratio"], after["dip"]) == pytest.approx((4, 0.5))
