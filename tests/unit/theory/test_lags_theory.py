"""The table `lags`: what zero-mean gradients leave of earlier weights over several intervals, against simulation."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from smd_analyze.statistics.samples import windows
from smd_analyze.theory.lags import SCHEMA, lagged
from smd_analyze.theory.laws import lion_law
from smd_analyze.theory.prediction import predict

KINDS = {
    "group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "lag": pl.Int64, "elements": pl.Int64,
    "angle": pl.Float64, "retention": pl.Float64,
}  # fmt: skip


def with_lags(stats, saved, types=()):
    """Statistics with the measured part of `lags`, from all weights [T, units, elements] as one vector."""
    flat = saved.reshape(len(saved), -1)
    norms = np.linalg.norm(flat, axis=1)
    rows = []
    for i, j, lag in windows(len(flat)).tolist():
        u, v = flat[i] / norms[i], flat[j] / norms[j]
        angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))
        steps = stats.steps[i], stats.steps[j]
        rows.append(("layer", *steps, lag, flat.shape[1], angle, float(flat[i] @ flat[j]) / norms[i] ** 2))
    dtypes = {"layer": types} if types else {}
    return replace(stats, lags=pl.DataFrame(rows, KINDS, orient="row"), dtypes=dtypes)


def table(run, steps, sched, statistics, types=(), **changes):
    return lagged(with_lags(statistics((run.series, changes)), run.saved, types), sched)


CASES = {
    "sgd": dict(momentum=0.0), "heavy ball": dict(momentum=0.9), "nesterov": dict(momentum=0.9, kind="nesterov"),
    "sgdw": dict(momentum=0.9, kind="sgdw"), "adamw": dict(momentum=0.9, kind="adamw"),
    "lion": dict(momentum=0.9, kind="lion", beta2=0.99),
}  # fmt: skip
SETTINGS = {
    "sgd": dict(optimizer="sgd"), "heavy ball": dict(optimizer="sgd"), "nesterov": dict(optimizer="sgd", nesterov=True),
    "sgdw": dict(optimizer="sgdw"), "adamw": dict(optimizer="adamw"),
    "lion": dict(optimizer="lion", beta1=0.9, beta2=0.99, decoupled=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_zero_mean_gradients_turn_as_expected_at_every_lag(toy, statistics, schedule, name):
    """Constant learning rate, then a fifth of it: the recursion, then the slow mode past the drop.

    Lion remembers 100 steps: from its equilibrium on, and not right after the drop.
    """
    steps = list(range(400, 1041, 20))
    decoupled = name in ("sgdw", "adamw", "lion")
    low, lam = (0.01, 0.1) if decoupled else (0.03, 0.01)
    etas = np.where(np.arange(1040) < 720, low, low / 5)
    start = np.sqrt(lion_law(0.99).level(low, low * lam, 0.9) * 128) if name == "lion" else 1.0
    run = toy(etas, lam, steps, start=start, units=48, elements=128, save_direction=False, seed=3, **CASES[name])
    sched = schedule(etas, lam, steps, momentum=CASES[name]["momentum"], **SETTINGS[name])
    found = table(run, steps, sched, statistics)
    if name == "lion":
        found = found.filter((pl.col("step_to") <= 720) | (pl.col("lag") == 16))
    assert found.schema == pl.Schema(SCHEMA)
    assert found["ratio"].null_count() == 0
    for lag in (1, 4, 16):
        rows = found.filter(pl.col("lag") == lag)
        assert rows["steps"].to_list() == [20.0 * lag] * rows.height
        ratio = (1 - np.cos(rows["angle"])).sum() / (1 - np.cos(rows["diffusion_angle"])).sum()
        assert ratio == pytest.approx(1, abs=0.06), lag
        assert rows["excess_retention"].mean() == pytest.approx(0, abs=0.012), lag
        assert rows["ratio"].median() == pytest.approx(1, abs=0.08)


def test_neighbours_are_as_in_the_predictions(toy, statistics, schedule):
    steps = list(range(0, 401, 25))
    etas = np.full(400, 0.05)
    run = toy(etas, 0.01, steps, momentum=0.9)
    sched = schedule(etas, 0.01, steps, momentum=0.9)
    found = table(run, steps, sched, statistics).filter(pl.col("lag") == 1)
    told = predict(statistics((run.series, {})), sched).filter(pl.col("step") > 0)
    np.testing.assert_allclose(found["diffusion_angle"], told["diffusion_angle"], rtol=1e-10)
    np.testing.assert_allclose(found["excess_retention"], told["excess_retention"], rtol=1e-8)


def test_a_saved_buffer_tells_what_the_start_still_does(toy, statistics, schedule):
    steps = list(range(0, 81, 4))
    etas = np.full(80, 0.05)
    run = toy(etas, 0.05, steps, momentum=0.9, units=128, elements=128)
    sched = schedule(etas, 0.05, steps, momentum=0.9)
    found = table(run, steps, sched, statistics).filter(pl.col("step_from") > 8)
    for lag, error in ((4, 0.01), (8, 0.03)):  # about 2 standard deviations of 128 × 128 elements
        assert (found.filter(pl.col("lag") == lag)["excess_retention"].abs() < error).all()
    without = replace(run, series=replace(run.series, uu=None, wu=None))
    worse = table(without, steps, sched, statistics).filter(pl.col("step_from") == 16)
    assert (worse["excess_retention"].abs() > 0.01).any()


def test_every_step_saved_under_a_moving_learning_rate(toy, statistics, schedule):
    """No interval is as long as the momentum's memory: the recursion is followed, not its slow mode."""
    steps = list(range(600, 665))
    etas = 0.03 * (1 + np.cos(np.pi * np.arange(1500) / 1500)) / 2
    run = toy(etas, 0.01, steps, momentum=0.9, units=128, elements=128, save_direction=False)
    sched = schedule(etas, 0.01, steps, momentum=0.9)
    found = table(run, steps, sched, statistics)
    for lag in (4, 16, 32):
        rows = found.filter(pl.col("lag") == lag)
        assert (1 - np.cos(rows["angle"])).sum() / (1 - np.cos(rows["diffusion_angle"])).sum() == pytest.approx(
            1, abs=0.1
        )


def test_adam_without_decay_only_loses_by_growing(toy, statistics, schedule):
    steps = list(range(400, 801, 25))
    etas = np.full(800, 0.003)
    run = toy(etas, 0.0, steps, momentum=0.9, kind="adam", units=32, elements=128, save_direction=False)
    sched = schedule(etas, 0.0, steps, "adam", momentum=0.9)
    found = table(run, steps, sched, statistics).filter(pl.col("lag") == 8)
    assert found["diffusion_retention"].mean() == pytest.approx(1, abs=0.02)
    assert found["ratio"].mean() == pytest.approx(1, abs=0.08)
    none = schedule(etas, 0.1, steps, "adam", momentum=0.9)
    told = table(run, steps, none, statistics)
    assert told["ratio"].null_count() == told.height
    assert "Adam with L2" in told["note"][0]
    assert told["angle"].null_count() == 0


def test_rounding_is_taken_off_and_what_it_hides_is_said(toy, statistics, schedule):
    steps = list(range(0, 161, 10))
    etas = np.full(160, 0.01)
    run = toy(etas, 0.01, steps, momentum=0.0, gradient=2e-2, units=64, elements=128, save_direction=False)
    sched = schedule(etas, 0.01, steps)
    exact = table(run, steps, sched, statistics)
    bits = (run.saved.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000  # to the nearest bfloat16
    rounded = replace(run, saved=bits.view(np.float32).astype(float))
    found = table(rounded, steps, sched, statistics, ("bfloat16",))
    both = exact.with_columns(found.select(pl.col("ratio").alias("seen"), pl.col("note").alias("said")))
    hidden = both.filter(pl.col("seen").is_null())
    assert 0 < hidden.height < both.height
    assert hidden["said"].str.contains("below resolution").all()
    assert (hidden["angle"] < 5.6e-3).all()
    seen = both.filter(pl.col("seen").is_not_null())
    assert seen["angle"].min() < 0.02
    np.testing.assert_allclose(seen["seen"], seen["ratio"], rtol=0.06)


def test_reasons_stand_in_the_note(toy, statistics, schedule):
    steps = list(range(0, 81, 10))
    etas = np.full(80, 0.05)
    run = toy(etas, 0.01, steps, momentum=0.9)
    for changes, words in (
        (dict(optimizer="adagrad"), "no theory for optimizer adagrad"),
        (dict(momentum=None), "momentum unknown"),
        (dict(sum_decay=None, weight_decay=None), "unknown"),
    ):
        sched = schedule(etas, 0.01, steps, **{"optimizer": "sgd", "momentum": 0.9} | changes)
        found = table(run, steps, sched, statistics)
        assert found["note"].str.contains(words).all()
        assert found["diffusion_angle"].null_count() == found.height == found["ratio"].null_count()
        assert found["angle"].null_count() == 0
    sched = schedule(etas, 0.01, steps, momentum=0.9)
    found = table(run, steps, sched, statistics, status="not invariant")
    assert found["note"].str.starts_with("reference only").all()
    assert found["ratio"].null_count() == 0
    assert lagged(statistics((run.series, {})), sched).schema == pl.Schema(SCHEMA)
