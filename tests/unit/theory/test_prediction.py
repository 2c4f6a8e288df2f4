"""predict() on toy runs whose truth is known, and on records with gaps."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from smd_analyze.records.group import Member
from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory.course import course_of
from smd_analyze.theory.prediction import SCHEMA, predict

STEPS = [0, 100, 200, 500, 1000, 1500, 2000, 2500, 3000]
ETAS = np.full(3000, 0.05)
UNEQUAL = np.exp(np.random.default_rng(3).standard_normal(16))  # L differs from unit to unit


def norm_of(toy):
    return np.sqrt(toy.series.vv.sum(axis=1))


def layer_angles(toy):
    pairs = zip(toy.saved[:-1].reshape(len(STEPS) - 1, -1), toy.saved[1:].reshape(len(STEPS) - 1, -1), strict=True)
    return np.arccos([(u @ v) / np.sqrt((u @ u) * (v @ v)) for u, v in pairs])


@pytest.fixture(scope="module")
def flat():
    """Norms that lie flat, for cases where only words matter."""
    steps = np.array([0, 100, 200])
    vv = np.full((3, 4), 2.0)
    return UnitSeries("layer", steps, vv, np.full((3, 4), np.nan), np.full((3, 4), np.nan))


def only(frame, column):
    return frame[column].to_list()


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "sgdw"])
@pytest.mark.parametrize("buffers", [True, False])
def test_the_sgd_family_from_start_to_equilibrium(toy, statistics, schedule, kind, buffers):
    run = toy(ETAS, 0.01, STEPS, 0.9, kind, start=1.5, gradient=UNEQUAL, save_direction=buffers)
    optimizer = "sgdw" if kind == "sgdw" else "sgd"
    table = predict(
        statistics((run.series, {})), schedule(ETAS, 0.01, STEPS, optimizer, 0.9, nesterov=kind == "nesterov")
    )
    assert dict(table.schema) == SCHEMA
    norms = norm_of(run)
    assert set(table["norm_basis"]) == {"theory" if buffers else "extrapolated"}
    np.testing.assert_allclose(table["expected_norm"], norms, rtol=0.02)
    assert table["expected_norm"][0] == pytest.approx(norms[0])
    angle = np.sqrt((run.true_angles[2000:] ** 2).mean())
    if kind != "sgdw":  # whose half-life is ten times longer: not settled yet
        assert table["equilibrium_norm"][-1] == pytest.approx(norms[-1], rel=0.02)
        assert table["equilibrium_angular_update"][-1] == pytest.approx(angle, rel=0.005)
        low, high = table["equilibrium_norm_low"][-1], table["equilibrium_norm_high"][-1]
        assert low < table["equilibrium_norm"][-1] < high < 1.1 * low
    truth = np.sqrt(np.sqrt(UNEQUAL).sum()) * level(kind)
    assert table["equilibrium_norm"][-1] == pytest.approx(truth, rel=0.02 if kind != "sgdw" else 0.05)
    np.testing.assert_allclose(table["diffusion_angle"][1:].to_numpy(), layer_angles(run), rtol=0.08)
    assert table["diffusion_angle"][0] is None
    assert ("fit, not a prediction" in table["source"][0]) is not buffers


def level(kind):
    """(S*/L)^¼ at η = 0.05, λ = 0.01, α = 0.9, from the leading orders of the textbook."""
    return (0.05 / (2 * 0.01 * 0.1 ** (2 if kind == "sgdw" else 1))) ** 0.25


def test_adamw_needs_no_norm_for_its_level(toy, statistics, schedule):
    etas = np.full(3000, 0.005)
    run = toy(etas, 0.2, STEPS, 0.9, "adamw", start=1.5, units=32)
    table = predict(statistics((run.series, {})), schedule(etas, 0.2, STEPS, "adamw", 0.9))
    norms = norm_of(run)
    np.testing.assert_allclose(table["expected_norm"], norms, rtol=0.01)
    assert table["equilibrium_norm"][0] == pytest.approx(np.sqrt(0.005 * 32 * 64 / 0.4), rel=0.01)
    assert table["equilibrium_norm"][-1] == pytest.approx(norms[-1], rel=0.07)  # 1.9 half-lives after the start
    assert set(table["norm_basis"]) == {"theory"}
    assert table["equilibrium_norm_low"].null_count() == len(table)
    assert table["half_lives"][-1] < 2 * 3000 * 0.001 / np.log(2)  # v̂ lags behind the norm
    # the first steps of a run are larger than the map knows
    np.testing.assert_allclose(table["diffusion_angle"][2:].to_numpy(), layer_angles(run)[1:], rtol=0.06)
    assert "zero-mean gradients" in table["source"][0]


def test_a_drop_inside_an_interval(toy, statistics, schedule):
    etas = np.r_[np.full(1400, 0.05), np.full(1600, 0.005)]
    run = toy(etas, 0.01, STEPS, 0.9, start=1.5, gradient=UNEQUAL, save_direction=False)
    table = predict(statistics((run.series, {})), schedule(etas, 0.01, STEPS, "sgd", 0.9))
    np.testing.assert_allclose(table["expected_norm"], norm_of(run), rtol=0.02)
    theta = table["equilibrium_angular_update"].to_numpy()
    assert theta[5] == pytest.approx(theta[4] / np.sqrt(10), rel=1e-3)  # η of the update that made checkpoint 1500
    assert table["equilibrium_norm"][8] == pytest.approx(table["equilibrium_norm"][3] / 10**0.25, rel=0.03)
    halves = np.diff(table["half_lives"].to_numpy())
    assert halves[-1] == pytest.approx(4 * 0.00005 / 0.1 * 500 / np.log(2), rel=0.025)  # A = 0.0045
    assert halves[4] == pytest.approx(0.8 * halves[3] + 0.2 * halves[-1])


def test_a_smooth_schedule(toy, statistics, schedule):
    etas = 0.025 * (1 + np.cos(np.pi * np.arange(3000) / 3000))
    run = toy(etas, 0.01, STEPS, 0.0, start=1.5, gradient=4.0, save_direction=False)
    table = predict(statistics((run.series, {})), schedule(etas, 0.01, STEPS, "sgd", 0.0))
    np.testing.assert_allclose(table["expected_norm"], norm_of(run), rtol=0.01)


def test_dampening_slows_gradient_and_decay(toy, statistics, schedule):
    run = toy(ETAS, 0.02, STEPS, 0.9, start=2.5, dampening=0.5)
    table = predict(statistics((run.series, {})), schedule(ETAS, 0.02, STEPS, "sgd", 0.9, dampening=0.5))
    assert table["norm_basis"][0] == "theory"
    assert table["equilibrium_norm"][-1] == pytest.approx(norm_of(run)[-1], rel=0.02)
    angle = np.sqrt((run.true_angles[1000:] ** 2).mean())
    assert table["equilibrium_angular_update"][-1] == pytest.approx(angle, rel=0.01)


def test_decay_alone_is_enough_for_what_it_tells(toy, statistics, schedule):
    """A clock knows Σηλ but not η: the angle, the half-lives and the extrapolated level stay the same."""
    run = toy(ETAS, 0.01, STEPS, 0.9, start=1.5, gradient=UNEQUAL, save_direction=True)
    stats = statistics((replace(run.series, uu=None, wu=None), {}))
    known = predict(stats, schedule(ETAS, 0.01, STEPS, "sgd", 0.9))
    gone = dict.fromkeys(("sum_learning_rate", "learning_rate_first", "learning_rate_last", "weight_decay"))
    clock = predict(stats, schedule(ETAS, 0.01, STEPS, "sgd", 0.9, **gone))
    for column in ("equilibrium_angular_update", "equilibrium_norm", "expected_norm", "half_lives", "diffusion_angle"):
        np.testing.assert_allclose(clock[column].drop_nulls(), known[column].drop_nulls(), rtol=1e-6)
    buffers = predict(statistics((run.series, {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9, **gone))
    assert set(buffers["norm_basis"]) == {"extrapolated"}  # L of a buffer needs λ to become a norm
    adam = predict(stats, schedule(ETAS, 0.01, STEPS, "adamw", 0.9, **gone))
    assert adam["equilibrium_norm"].null_count() == len(STEPS)
    assert adam["equilibrium_angular_update"].null_count() == 0
    assert "learning rate unknown" in adam["source"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(optimizer=None), "optimizer unknown"),
        (dict(optimizer="lamb", decoupled=True), "no theory for optimizer lamb yet"),
        (dict(optimizer="lion", decoupled=True, beta2=None), "beta2 unknown"),
        (dict(optimizer="adamw", decay_rule="cautious"), "agree in sign"),
        (dict(optimizer="adam", decoupled=False), "gradients' size"),
        (dict(momentum=None), "momentum unknown"),
        (dict(optimizer="adamw", beta1=None, decoupled=True), "beta1 unknown"),
        (dict(sum_decay=None, weight_decay=None), "weight decay unknown"),
        (dict(sum_decay=0.0, weight_decay=0.0), "no decay: no equilibrium"),
        (dict(momentum=0.99, sum_decay=0.01), "> 1/16: the norm oscillates"),
    ],
)
def test_a_missing_number_has_its_reason(flat, statistics, schedule, changes, words):
    optimizer = changes.pop("optimizer", "sgd")
    table = predict(
        statistics((flat, {})), schedule(ETAS, 0.01, [0, 100, 200], optimizer, **({"momentum": 0.9} | changes))
    )
    assert all(words in source for source in table["source"])
    missing = "half_lives" if "oscillates" in words else "equilibrium_angular_update"
    assert table[missing][1] is None
    assert table["equilibrium_norm"].null_count() == (0 if "oscillates" in words else 3)
    for column in SCHEMA:
        if SCHEMA[column] == pl.Float64:
            assert not table[column].is_nan().any(), column


def test_weight_decay_times_learning_rate_serves_where_the_sum_is_missing(flat, statistics, schedule):
    plain = predict(statistics((flat, {})), schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9))
    same = predict(statistics((flat, {})), schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9, sum_decay=None))
    np.testing.assert_allclose(same["equilibrium_norm"], plain["equilibrium_norm"])


def test_without_decay_the_norm_still_has_an_expectation(toy, statistics, schedule):
    run = toy(ETAS, 0.0, STEPS, 0.9, start=3.0, save_direction=False)
    table = predict(statistics((run.series, {})), schedule(ETAS, 0.0, STEPS, "sgd", 0.9))
    np.testing.assert_allclose(table["expected_norm"], norm_of(run), rtol=0.02)
    assert only(table, "half_lives") == [0.0] * len(STEPS)
    np.testing.assert_allclose(table["diffusion_angle"][1:].to_numpy(), layer_angles(run), rtol=0.08)


def test_diffusion_at_short_spacing_while_the_norm_grows(toy, statistics, schedule):
    """Shorter than the momentum's memory and far from equilibrium: neither √k nor the stationary AR(2) would do."""
    steps = [60, 61, 63, 68, 80, 120]
    run = toy(ETAS[:120], 0.01, steps, 0.9, start=0.5, units=32, elements=128)
    table = predict(statistics((run.series, {})), schedule(ETAS, 0.01, steps, "sgd", 0.9))
    dots = (run.saved[:-1] * run.saved[1:]).sum((1, 2)) / (norm_of(run)[:-1] * norm_of(run)[1:])
    np.testing.assert_allclose(table["diffusion_angle"][1:].to_numpy(), np.arccos(dots), rtol=0.05)


def test_standing_of_the_group_is_said(flat, statistics, schedule):
    plan = schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9)
    said = {
        "": {},
        "if invariant; ": {"evidence": "guessed"},
        "reference only: not scale-invariant; without invariance": {"status": "not invariant", "evidence": "proved"},
    }
    for words, changes in said.items():
        table = predict(statistics((flat, changes)), plan)
        assert table["source"][0].startswith(words)
        assert "cos θ*" in table["source"][0]
        assert table["equilibrium_angular_update"].null_count() == 0


def test_unknown_length_of_a_step(flat, statistics, schedule):
    """Epochs of unknown length: what needs only η, λ and the sums is still there."""
    gone = dict.fromkeys(("sum_learning_rate", "learning_rate_first", "learning_rate_last", "weight_decay"))
    plan = schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9, step_unit="epochs", **gone)
    table = predict(statistics((flat, {})), plan)
    assert table["half_lives"][2] == pytest.approx(4 * 200 * 0.0005 / 0.1 / np.log(2))
    for column in ("diffusion_angle", "equilibrium_angular_update", "equilibrium_norm"):
        assert table[column].null_count() == 3
    rates = schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9, step_unit="epochs", sum_learning_rate=None, sum_decay=None)
    table = predict(statistics((flat, {})), rates)
    assert table["equilibrium_angular_update"][1] == pytest.approx(np.sqrt(2 * 0.0005 / 1.9), rel=1e-3)


def test_epochs_of_known_length_are_as_good_as_steps(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=1.5)
    plan = schedule(ETAS, 0.01, STEPS, "sgd", 0.9)
    whole = predict(statistics((run.series, {})), plan)
    epochs = [t // 100 for t in STEPS]
    shorter = pl.col("step_from") // 100, pl.col("step_to") // 100
    plan = replace(plan, table=plan.table.with_columns(*shorter), step_unit="epochs")
    table = predict(statistics((replace(run.series, steps=np.array(epochs)), {})), plan)
    for column in ("expected_norm", "equilibrium_norm", "diffusion_angle", "half_lives"):
        np.testing.assert_allclose(table[column].drop_nulls(), whole[column].drop_nulls(), rtol=1e-9)


def test_a_learning_rate_of_zero_has_no_equilibrium(flat, statistics, schedule):
    for optimizer in ("sgd", "sgdw", "adamw"):
        plan = schedule(ETAS, 0.01, [0, 100, 200], optimizer, 0.9, learning_rate_last=0.0)
        table = predict(statistics((flat, {})), plan)
        assert table["equilibrium_angular_update"].is_null().to_list() == [False, True, True]
        assert "learning rate 0" in table["source"][1]
        assert table["equilibrium_norm"].is_null().to_list() == [False, True, True]


def test_members_of_different_parameter_groups_have_no_common_theory(flat, statistics, schedule):
    plan = schedule(ETAS, 0.01, [0, 100, 200], "sgd", 0.9)
    plan = replace(plan, parameter_group={"a": "decay", "b": "no decay"})
    members = (Member("a", 0, 0, 4), Member("b", 0, 0, 4))
    table = predict(statistics((flat, {"members": members})), plan)
    assert "differ in learning rate or weight decay" in table["source"][0]
    assert table["equilibrium_angular_update"].null_count() == 3


def test_gaps_dead_units_and_single_checkpoints(toy, statistics, schedule):
    run = toy(ETAS, 0.01, STEPS, 0.9, start=1.5, save_direction=False)
    gap = run.series.vv.copy()
    gap[3] = np.nan
    gap[:, 0] = 0.0
    gap[3, 0] = np.nan
    table = predict(statistics((replace(run.series, vv=gap), {})), schedule(ETAS, 0.01, STEPS, "sgd", 0.9))
    assert table["diffusion_angle"].is_null().to_list() == [True, False, False, True, True] + [False] * 4
    assert table["equilibrium_norm"].null_count() == 0
    assert table["expected_norm"][8] == pytest.approx(np.sqrt(gap[8].sum()), rel=0.02)
    assert "missing or not finite" in table["source"][0]
    single = UnitSeries("layer", np.array([5]), np.ones((1, 4)), np.ones((1, 4)), np.ones((1, 4)))
    alone = predict(statistics((single, {})), schedule(ETAS, 0.01, [5], "sgd", 0.9))
    assert len(alone) == 1
    assert "one checkpoint" in alone["source"][0]
    assert alone["equilibrium_angular_update"][0] is None


def test_a_course_keeps_the_recorded_sums(schedule):
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(3000) / 3000))
    for etas, steps in ((cosine, STEPS), (np.r_[np.full(1400, 0.1), np.full(1600, 0.01)], STEPS)):
        course = course_of(schedule(etas, 5e-4, steps, "sgd", 0.9), "decay", tuple(steps))
        for i in range(1, len(steps)):
            rates, decays, counts = course.pieces(i)
            assert counts.sum() == pytest.approx(steps[i] - steps[i - 1])
            assert (rates * counts).sum() == pytest.approx(etas[steps[i - 1] : steps[i]].sum(), rel=1e-9)
            assert (decays * counts).sum() == pytest.approx(5e-4 * etas[steps[i - 1] : steps[i]].sum(), rel=1e-9)
    drop = course.pieces(5)
    np.testing.assert_allclose(drop[2], [400, 100])
    np.testing.assert_allclose(drop[0], [0.1, 0.01])
