"""predict() and angular_updates(): Lion, Muon, Adam with L2, decay rules, velocities that hold the learning rate."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory import adam_l2, laws, timescales
from smd_analyze.theory.angles import angular_updates
from smd_analyze.theory.course import course_of
from smd_analyze.theory.of_group import matrix_shape
from smd_analyze.theory.orthogonality import check_orthogonality
from smd_analyze.theory.prediction import predict

STEPS = [0, 100, 300, 600, 1000, 1500, 2000, 2500, 3000]


def norms(run):
    return np.sqrt(run.series.vv.sum(axis=1))


def true_angle(run, start, stop):
    return np.sqrt((run.true_angles[start:stop] ** 2).mean())


def layer_angles(run):
    flat = run.saved.reshape(len(run.saved), -1)
    dots = (flat[:-1] * flat[1:]).sum(1) / np.sqrt((flat[:-1] ** 2).sum(1) * (flat[1:] ** 2).sum(1))
    return np.arccos(dots)


def implied(table):
    return list(table.filter(pl.col("method") == "norms").iter_rows(named=True))


def test_lion_from_start_to_equilibrium(toy, statistics, schedule):
    etas = np.full(3000, 1e-3)
    run = toy(etas, 1.0, STEPS, 0.9, "lion", start=1.0, units=24, elements=128, beta2=0.99)
    stats = statistics((run.series, {"numel": 24 * 128}))
    plan = schedule(etas, 1.0, STEPS, "lion", 0.9, beta2=0.99, decoupled=True)
    table = predict(stats, plan)
    np.testing.assert_allclose(table["expected_norm"][1:3], norms(run)[1:3], rtol=0.045)  # momentum builds up: 4 %
    np.testing.assert_allclose(table["expected_norm"][3:], norms(run)[3:], rtol=0.025)
    assert table["equilibrium_norm"][-1] == pytest.approx(norms(run)[-1], rel=0.012)
    assert set(table["norm_basis"]) == {"theory"}
    assert table["relaxation_rate"][-1] == pytest.approx(2e-3, rel=1e-3)
    assert table["half_lives"][-1] == pytest.approx(3000 * 2e-3 / np.log(2), rel=1e-3)
    np.testing.assert_allclose(table["diffusion_angle"][2:].to_numpy(), layer_angles(run)[1:], rtol=0.07)
    assert np.abs(table["excess_retention"][2:].to_numpy()).max() < 0.1
    assert "Lion" in table["source"][-1]
    for row in implied(angular_updates(stats, plan)):  # from the first step on, growing or not
        true = true_angle(run, row["step_from"], row["step_to"])
        assert row["angular_update"] == pytest.approx(true, rel=0.005 if row["step_from"] >= 300 else 0.025)
        assert row["angular_update_low"] < true < row["angular_update_high"]
        assert "from learning rate and norm" in row["note"]


def test_lions_angle_needs_no_zero_mean(toy, statistics, schedule):
    """Norms that no theory would predict still imply the right angle: ‖u‖² = d."""
    etas = np.full(600, 1e-3)
    steps = [0, 200, 400, 600]
    run = toy(etas, 0.01, steps, 0.0, "lion", start=0.4, units=16, elements=64, beta2=0.5)
    plan = schedule(etas, 1.0, steps, "lion", 0.9, beta2=0.99, decoupled=True)  # λ and β are wrong
    for row in implied(angular_updates(statistics((run.series, {"numel": 16 * 64})), plan)):
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=0.01)


def test_muon_needs_the_shape_of_the_matrix(statistics, schedule):
    steps = np.array([0, 100, 200])
    vv = np.full((3, 1), 40.0)
    series = UnitSeries("layer", steps, vv, np.full((3, 1), 0.5), np.full((3, 1), 0.25))
    stats = statistics((series, {"units": 1, "numel": 32 * 32, "granularity": "whole"}))
    plan = schedule(np.full(200, 0.02), 0.1, [0, 100, 200], "muon", 0.95, nesterov=True, decoupled=True)
    blind = predict(stats, plan)
    assert "shape of the whole matrix" in blind["source"][0]
    assert blind["equilibrium_angular_update"].null_count() == 3
    stats = replace(stats, shapes={"layer.weight": (32, 32)})
    table = predict(stats, plan)
    assert table["equilibrium_norm"][-1] == pytest.approx(np.sqrt(57.36), rel=0.01)  # torch.optim.Muon in a long run
    assert table["equilibrium_angular_update"][-1] == pytest.approx(0.013021, rel=0.015)
    assert "NS5" in table["source"][-1]
    (_, row) = implied(angular_updates(stats, plan))
    assert row["angular_update"] == pytest.approx(np.sqrt(0.02**2 * 0.757 * 32 / 40 - 0.002**2), rel=0.01)
    assert "white-noise" in row["note"]
    assert row["angular_update_low"] is None
    assert matrix_shape(stats.groups[0], {"layer.weight": (8, 4, 3, 3)}) == (8, 36)
    assert matrix_shape(stats.groups[0], {"layer.weight": (8,)}) is None


def test_adam_with_l2_is_predicted_where_its_state_is_saved(toy, statistics, schedule):
    etas = np.full(3000, 0.003)
    sizes = np.exp(np.random.default_rng(0).standard_normal(16))
    run = toy(etas, 0.02, STEPS, 0.9, "adam", start=1.5, gradient=sizes)
    plan = schedule(etas, 0.02, STEPS, "adam", 0.9, decoupled=False)
    table = predict(statistics((run.series, {})), plan)
    level = np.sqrt((adam_l2.equilibrium_norm(0.003, 0.02, sizes, 64) ** 2).sum())
    np.testing.assert_allclose(table["equilibrium_norm"][1:], level, rtol=0.015)  # long before the norm is there
    assert table["equilibrium_angular_update"][-1] == pytest.approx(true_angle(run, 2500, 3000), rel=0.04)
    np.testing.assert_allclose(table["expected_norm"], norms(run), rtol=0.01)
    assert table["half_lives"][-1] > 1
    assert "second moment" in table["source"][-1]
    blind = predict(statistics((replace(run.series, ss=None), {})), plan)
    assert blind["equilibrium_norm"].null_count() == len(STEPS)
    assert "gradients' size" in blind["source"][-1]


@pytest.mark.parametrize(
    ("rule", "power"), [("weight decay alone", 0), ("tied to lr/lr₀", 1), ("lr²/lr_max (AdamC)", 2)]
)
def test_decay_that_does_not_go_as_the_learning_rate(toy, statistics, schedule, rule, power):
    """η falls to a tenth; the decay stays, falls with it, or falls as its square: norm and angle follow the sums."""
    etas = 0.005 * (0.55 + 0.45 * np.cos(np.pi * np.arange(3000) / 3000))
    decays = 1e-3 * (etas / etas[0]) ** power
    run = toy(etas, decays, STEPS, 0.9, "adamw", start=1.5, units=32)
    plan = schedule(etas, 0.2, STEPS, "adamw", 0.9)
    sums = [decays[a:b].sum() for a, b in zip(STEPS, STEPS[1:], strict=False)]
    table = plan.table.with_columns(sum_decay=pl.Series(sums), decay_rule=pl.lit(rule))
    plan = replace(plan, table=table)
    course = course_of(plan, "decay", tuple(STEPS))
    for i in (1, 4, 8):
        assert course.decay_last[i] == pytest.approx(decays[STEPS[i] - 1], rel=1e-3)
        rates, each, counts = course.pieces(i)
        assert (each * counts).sum() == pytest.approx(sums[i - 1])
        assert each[0] / each[-1] == pytest.approx((rates[0] / rates[-1]) ** power)
    found = predict(statistics((run.series, {})), plan)
    np.testing.assert_allclose(found["expected_norm"], norms(run), rtol=0.015)
    theta = np.sqrt(2 * decays[2999] * 0.1 / 1.9)
    assert found["equilibrium_angular_update"][-1] == pytest.approx(theta, rel=0.01)
    for row in implied(angular_updates(statistics((run.series, {})), plan))[2:]:
        assert row["angular_update"] == pytest.approx(true_angle(run, row["step_from"], row["step_to"]), rel=0.02)


def test_a_rule_without_sums_is_not_taken_for_the_usual_one(statistics, schedule):
    series = UnitSeries("layer", np.array([0, 100]), np.ones((2, 4)), np.ones((2, 4)), np.ones((2, 4)))
    etas = np.full(100, 0.01)
    for rule, known in (("tied to lr/lr₀", False), ("weight decay alone", True)):
        plan = schedule(etas, 1e-3, [0, 100], "adamw", 0.9, sum_decay=None, decay_rule=rule)
        table = predict(statistics((series, {})), plan)
        assert (table["equilibrium_angular_update"][1] is not None) is known, rule
    assert table["equilibrium_angular_update"][1] == pytest.approx(np.sqrt(2e-3 * 0.1 / 1.9), rel=1e-3)  # x = λ


def test_a_velocity_that_holds_the_learning_rate(toy, statistics, schedule):
    """After a drop the old velocity moves on: the norm takes the map of that form, and the buffer its own rate."""
    steps = [0, 500, 1000, 1010, 1040, 1100, 1500]
    etas = np.r_[np.full(1000, 0.05), np.full(500, 0.005)]
    run = toy(etas, 0.01, steps, 0.9, "keras", start=1.5, units=32)
    held = schedule(etas, 0.01, steps, "sgd", 0.9, rate_in_velocity=True)
    blind = statistics((replace(run.series, uu=None, wu=None), {}))
    stats = statistics((run.series, {}))
    plain = predict(blind, schedule(etas, 0.01, steps, "sgd", 0.9))
    table = predict(blind, held)
    np.testing.assert_allclose(table["expected_norm"], norms(run), rtol=0.02)
    assert "inside the velocity" in table["source"][-1]
    assert "inside the velocity" not in plain["source"][-1]
    np.testing.assert_allclose(predict(stats, held)["diffusion_angle"][3:5], layer_angles(run)[2:4], rtol=0.06)
    found = implied(angular_updates(stats, held))
    after = next(row for row in found if row["step_from"] == 1000)
    assert after["note"] == "with the saved momentum at both ends"
    assert after["angular_update"] == pytest.approx(true_angle(run, 1000, after["step_to"]), rel=0.03)


def test_a_lone_checkpoint_with_a_row_of_its_own(toy, statistics, schedule):
    etas = np.full(1500, 0.05)
    run = toy(etas, 0.01, [1500], 0.9, start=2.0, units=64)
    stats = statistics((run.series, {}))
    plan = schedule(etas, 0.01, [1499, 1500], "sgd", 0.9)
    row = plan.table.with_columns(
        pl.col("step_to").alias("step_from"), pl.lit(None, pl.Float64).alias("sum_learning_rate"),
        pl.lit(None, pl.Float64).alias("sum_decay"),
    )  # fmt: skip
    plan = replace(plan, table=row)
    (measured,) = angular_updates(stats, plan).iter_rows(named=True)
    assert measured["method"] == "buffer"
    assert measured["angular_update"] == pytest.approx(true_angle(run, 1499, 1500), rel=1e-8)
    table = predict(stats, plan)
    assert len(table) == 1
    assert table["equilibrium_angular_update"][0] == pytest.approx(np.sqrt(2 * 0.0005 / 1.9), rel=1e-3)
    assert table["equilibrium_norm"][0] == pytest.approx(norms(run)[0], rel=0.03)
    assert table["norm_basis"][0] == "theory"
    assert table["relaxation_rate"][0] == pytest.approx(4 * 0.005, rel=0.35)


def test_what_is_assumed_is_said(toy, statistics, schedule):
    etas = np.full(1000, 0.05)
    run = toy(etas, 0.01, [0, 500, 1000], 0.9, start=2.0)
    source = "clock of fc.weight, assumed to hold here; run.yaml"
    plan = schedule(etas, 0.01, [0, 500, 1000], "sgd", 0.9, source=source, momentum_assumed=True)
    stats = statistics((run.series, {}))
    for text in (*predict(stats, plan)["source"], implied(angular_updates(stats, plan))[0]["note"]):
        assert "clock of fc.weight, assumed to hold here; momentum 0.9 assumed" in text
        assert "run.yaml" not in text


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_one_apart_test_scale_invariance(toy, statistics, schedule, momentum):
    steps = [0, 500, 501, 800]
    etas = np.full(800, 0.05)
    run = toy(etas, 0.01, steps, momentum, start=2.0, units=16)
    plan = schedule(etas, 0.01, steps, "sgd", momentum)
    (note,) = check_orthogonality(statistics((run.series, {})), plan)
    assert (note.code, note.severity) == ("gradient-orthogonal", "note")
    (warning,) = check_orthogonality(
        statistics((run.series, {})), schedule(etas, 0.1, steps, "sgd", momentum)
    )  # another decay than recorded
    assert warning.code == "gradient-along-weights"
    assert "layer" in warning.message
    shrunk = run.series.dv.copy()
    shrunk[2] -= 0.2 * np.sqrt(run.series.vv[2] * run.series.dd[2])  # the step has a part along the weights
    (warning,) = check_orthogonality(statistics((replace(run.series, dv=shrunk), {})), plan)
    assert warning.severity == "warning"
    assert check_orthogonality(statistics((run.series, {"status": "not invariant"})), plan) == ()
    if momentum:
        assert check_orthogonality(statistics((replace(run.series, wu=None, uu=None), {})), plan) == ()


def test_the_norms_own_fluctuation(toy, statistics, schedule):
    """Low and high of the expected norm hold the norm at 95 % of the checkpoints or more."""
    inside = []
    steps = list(range(0, 2001, 100))
    for seed in range(8):
        run = toy(np.full(2000, 0.05), 0.02, steps, 0.0, start=1.0, units=4, elements=8, seed=seed)
        table = predict(statistics((run.series, {})), schedule(run.etas, 0.02, steps, "sgd", 0.0))
        low, high = table["expected_norm_low"][1:].to_numpy(), table["expected_norm_high"][1:].to_numpy()
        inside += list((low < norms(run)[1:]) & (norms(run)[1:] < high))
        assert (high < 1.2 * low).all()
    assert np.mean(inside) > 0.95


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 4), ("adamw", 2), ("lion", 2)])
def test_weights_times_a_constant_leave_all_ratios_alone(toy, statistics, schedule, optimizer, power):
    """Time split at other checkpoints, and units of the weights, do not matter to what they should not."""
    etas = np.full(2000, 0.05 if power == 4 else 0.002)
    steps = [0, 500, 1000, 2000]
    run = toy(etas, 0.01 if power == 4 else 0.5, steps, 0.9, optimizer, start=1.5, save_direction=False)
    plan = schedule(etas, 0.01 if power == 4 else 0.5, steps, optimizer, 0.9, decoupled=power == 2)
    table = predict(statistics((run.series, {})), plan)
    scaled = replace(run.series, vv=9 * run.series.vv, dd=9 * run.series.dd, dv=9 * run.series.dv)
    grown = predict(statistics((scaled, {})), plan)
    for column in ("equilibrium_angular_update", "half_lives", "relaxation_rate"):
        np.testing.assert_allclose(grown[column].drop_nulls(), table[column].drop_nulls(), rtol=1e-12)
    if power == 4:  # the level is fitted from the norms, and scales with them
        np.testing.assert_allclose(grown["equilibrium_norm"], 3 * table["equilibrium_norm"], rtol=1e-9)
        np.testing.assert_allclose(grown["expected_norm"], 3 * table["expected_norm"], rtol=1e-9)
    finer = [0, 250, 500, 1000, 1500, 2000]
    vv = np.exp([np.interp(finer, steps, column) for column in np.log(run.series.vv).T]).T
    empty = np.full_like(vv, np.nan)
    split = UnitSeries("layer", np.array(finer), vv, empty, empty)
    plan = schedule(etas, 0.01 if power == 4 else 0.5, finer, optimizer, 0.9, decoupled=power == 2)
    again = predict(statistics((split, {})), plan)
    assert again["half_lives"][-1] == pytest.approx(table["half_lives"][-1], rel=1e-9)
    if power == 2:
        assert again["expected_norm"][-1] == pytest.approx(table["expected_norm"][-1], rel=1e-9)


@pytest.mark.parametrize(("optimizer", "eta", "lam"), [("adamw", 0.01, 0.1), ("lion", 1e-3, 1.0)])
def test_a_drop_of_the_learning_rate_dips_by_the_root_and_recovers(toy, statistics, schedule, optimizer, eta, lam):
    steps = [0, 1000, 2000, 2200, 2600, 3000]
    etas = np.r_[np.full(2000, eta), np.full(1000, eta / 2)]
    law = laws.law_of(optimizer, None, True, beta2=0.99)
    start = np.sqrt(float(law.level(eta, eta * lam, 0.9)) * 64)
    run = toy(etas, lam, steps, 0.9, optimizer, start=start, units=24, beta2=0.99)
    plan = schedule(etas, lam, steps, optimizer, 0.9, beta2=0.99, decoupled=True)
    table = predict(statistics((run.series, {"numel": 24 * 64})), plan)
    # Lion's first steps of a run are smaller, and its norm larger by 1/(2d)
    np.testing.assert_allclose(table["expected_norm"][2:], norms(run)[2:], rtol=0.015)
    rate = law.relaxation_rate(eta / 2 * lam, 0.9, 0.99)
    rest = float(np.arccos(law.equilibrium_cosine(eta / 2 * lam, 0.9)))
    theta = rest * timescales.angle_after_change(np.array([20.0, 400.0, 990.0]), 2.0, rate)
    for t, predicted in zip((2020, 2400, 2990), theta, strict=True):
        assert true_angle(run, t - 10, t + 10) == pytest.approx(predicted, rel=0.035)
    assert theta[0] / rest == pytest.approx(2**-0.5, rel=0.03)
