"""Kinds of outcome, and the states in which no norm tells of a balance."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fits_runs import SCALE, angles, chain, group, groups_of, predictions, quantities, schedule, statistics

from smd_analyze.fits.context import Context
from smd_analyze.fits.fitting import fit
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import regime
from smd_analyze.fits.summary import summarise
from smd_analyze.records.schedule import Schedule

X, T = 5e-5, 3000
STEPS = np.arange(0, T + 1, 300)
RATES = np.full(T, X / SCALE)


def told(vv, planned=None, dd=None, g=None):
    """(state, fits) of one layer."""
    g = g or group(units=vv.shape[1])
    stats = statistics(STEPS, {g: vv})
    if dd is not None:
        series = replace(stats.units(g.name), dd=dd)
        stats = replace(stats, units=lambda _: series)
    planned = planned or schedule(STEPS, RATES)
    fits = fit(stats, planned, angles(), predictions())
    _, layers = summarise(stats, planned, angles(), predictions(), fits, groups_of(g))
    return layers.row(0, named=True), quantities(fits, g.name)


def test_every_row_of_every_run_has_a_kind():
    for planned in (None, schedule(STEPS, RATES, decay=0.0), schedule(STEPS, RATES, decay=None)):
        _, rows = told(chain(STEPS, RATES, 8), planned)
        for row in rows.values():
            assert row["kind"] in set(Kind), row
            assert row["outcome"] or row["kind"] == Kind.ESTIMATED, row


def test_words_have_places_for_numbers():
    for outcome in Outcome:
        said = outcome.said(("7",) * outcome.words.count("{}"), (7,) * outcome.value.advice.count("{}"))
        assert "{" not in said["outcome"] + said["advice"]
        assert said["kind"] == outcome.kind


def test_weights_normalised_by_the_training_code():
    rng = np.random.default_rng(0)
    vv = 1 + 1e-7 * rng.standard_normal((len(STEPS), 6))
    dd = np.full_like(vv, 0.05)
    dd[0] = np.nan
    layer, rows = told(vv, dd=dd)
    assert rows["equilibrium_index"]["kind"] == Kind.NORM_CONSTRAINED
    assert rows["equilibrium_index"]["value"] == pytest.approx(0, abs=1e-3)
    assert rows["stationary_since"]["value"] is None
    assert rows["level"]["value"] is None
    assert "held by the training code" in layer["state"]


def test_a_norm_at_equilibrium_is_not_held():
    vv = chain(STEPS, RATES, 8, noise=1.0)
    dd = np.full_like(vv, 0.05)
    series = replace(statistics(STEPS, {group(): vv}).units("conv1"), dd=dd)
    one = Context(group(), series, regime(group(), STEPS, schedule(STEPS, RATES)))
    assert not one.held


def test_momentum_too_strong_oscillates():
    strong = schedule(STEPS, np.full(T, 0.02), decay=5e-3, momentum=0.99)  # A = 0.99
    layer, rows = told(chain(STEPS, RATES, 8), strong)
    assert rows["equilibrium_index"]["kind"] == Kind.OSCILLATING
    assert layer["state"].startswith("momentum too strong: the norm oscillates (A = 0.99)")
    assert "(!)" in rows["equilibrium_index"]["checks"]


def test_an_adaptive_step_may_shrink_the_norm_below_decay():
    alone = X / SCALE * SCALE
    vv = np.exp(-2 * 3 * alone * STEPS)[:, None] * np.ones((1, 4))
    planned = schedule(STEPS, RATES, momentum=None, optimizer="adamw", beta1=0.9, beta2=0.999)
    layer, rows = told(vv, planned)
    assert layer["state"].startswith("norm falls faster than weight decay alone") or "falls faster" in layer["state"]
    assert "adaptive step" in rows["equilibrium_index"]["advice"]
    assert "check both" not in layer["advice"]


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
def test_coupled_adaptive_decay_has_no_index(optimizer):
    layer, rows = told(chain(STEPS, RATES, 8), schedule(STEPS, RATES, momentum=None, optimizer=optimizer))
    assert rows["equilibrium_index"]["value"] is None
    assert rows["equilibrium_index"]["kind"] == Kind.NOT_APPLICABLE
    assert layer["state"] == f"{optimizer}: decay rate depends on gradients"


def test_a_norm_that_shrinks_without_decay_is_said_to():
    vv = np.exp(-2e-5 * STEPS)[:, None] * np.ones((1, 4))
    layer, _ = told(vv, schedule(STEPS, RATES, decay=0.0, momentum=None, optimizer="adam"))
    assert layer["state"].startswith("no decay: no equilibrium, norm shrank 3 %")


def clocked(**more):
    """A schedule of which decay clocks alone tell the decay."""
    known = schedule(STEPS, RATES)
    gone = [c for c in known.table.columns if "learning_rate" in c]
    nothing = [pl.lit(None, pl.Boolean if c.endswith("changes") else pl.Float64).alias(c) for c in gone]
    table = known.table.with_columns(*nothing, weight_decay=pl.lit(None, pl.Float64))
    return Schedule(table.with_columns(**more), known.parameter_group, "optimizer steps")


def test_clocks_alone_tell_whether_the_norm_is_stationary():
    vv = chain(STEPS, RATES, 32, noise=1.0)
    layer, rows = told(vv, clocked())
    full, same = told(vv)
    assert rows["equilibrium_index"]["value"] == pytest.approx(same["equilibrium_index"]["value"])
    assert layer["state"] == full["state"]
    assert "gradient_scale" not in rows  # no learning rate, no gradient
    assert rows["effective_learning_rate"]["value"] is None


def test_clocks_alone_tell_a_moving_learning_rate():
    per_update = np.linspace(1e-4, 1e-5, len(STEPS) - 1)
    moving = clocked(sum_decay=pl.Series(300 * per_update))
    found = regime(group(), STEPS, moving)
    assert found.changes.all()
    assert found.rate_first[1] == pytest.approx(per_update[:2].mean())
    two = clocked(sum_decay=pl.Series(300 * np.where(np.arange(len(STEPS) - 1) < 5, 1e-4, 1e-5)))
    found = regime(group(), STEPS, two)
    assert not found.changes.any()
    assert found.final_stretch() == 5
    assert not found.rate_known


def test_an_assumed_momentum_is_said():
    _, rows = told(chain(STEPS, RATES, 32), clocked(momentum_assumed=pl.lit(value=True)))
    assert "momentum 0.9 assumed" in rows["equilibrium_index"]["method"]
    assert "momentum 0.9 assumed" not in told(chain(STEPS, RATES, 32))[1]["equilibrium_index"]["method"]


def test_a_norm_that_follows_a_slowly_moving_equilibrium():
    long, steps = 40_000, np.arange(0, 40_001, 1000)
    rates = np.linspace(3e-3, 2e-3, long)
    vv = chain(steps, rates, 24, noise=0.7)
    g = group(units=24)
    planned = schedule(steps, rates)
    stats = statistics(steps, {g: vv})
    fits = fit(stats, planned, angles(), predictions())
    verdict, layers = summarise(stats, planned, angles(), predictions(), fits, groups_of(g))
    assert layers["state"][0].startswith("norm follows its equilibrium since step ")
    assert quantities(fits)["level"]["outcome"] == "the level moves with the learning rate"
    assert verdict.startswith("1 of 1 scale-invariant weight has a norm that follows its equilibrium")


def test_clipping_is_said():
    g = group(units=8)
    stats = statistics(STEPS, {g: chain(STEPS, RATES, 8)})
    settings = pl.DataFrame({"name": ["clipnorm", "learning_rate"], "value": [1.0, 0.1]})
    rows = quantities(fit(stats, schedule(STEPS, RATES), angles(), predictions(), settings))
    assert "gradients clipped: clipnorm 1 (!)" in rows["equilibrium_index"]["checks"]


def test_coarse_types_are_checked():
    g = group(units=8)
    vv = chain(STEPS, RATES, 8)
    coarse = replace(statistics(STEPS, {g: vv}), dtypes={"conv1": ("bfloat16",)})
    rows = quantities(fit(coarse, schedule(STEPS, RATES), angles(), predictions()))
    assert "rounding" in rows["equilibrium_index"]["checks"]


def test_a_decay_that_ends_before_the_run_does_is_said_to():
    steps = np.arange(0, 1000, 100)
    plan = schedule(steps, np.full(900, 0.1), decay=1e-3)
    late = pl.col("step_from") >= 500
    table = plan.table.with_columns(
        *(pl.when(late).then(None).otherwise(pl.col(k)).alias(k) for k in ("sum_decay", "sum_learning_rate")),
    )
    vv = np.ones((len(steps), 8)) * np.linspace(1, 1.1, len(steps))[:, None]
    rows = fit(statistics(steps, {group(): vv}), replace(plan, table=table), angles(), predictions())
    row = rows.filter(pl.col("quantity") == "equilibrium_index").row(0, named=True)
    assert row["outcome"] == "decay not known after step 500"
    assert "--steps 0:500" in row["advice"]


def test_rotation_under_coupled_decay_is_that_of_the_last_learning_rate():
    """After a drop the weights turn too slowly: what they did before it says nothing of that."""
    rates = np.where(np.arange(T) < 2850, 1.0, 0.1) * X / SCALE  # within the last interval
    planned = schedule(STEPS, rates, momentum=None, optimizer="adam", beta1=0.9, beta2=0.999)
    vv = chain(STEPS, RATES, 8)
    g = group(units=8)
    stats = statistics(STEPS, {g: vv})
    turned = [("conv1", t - 1, t, "buffer", 1, 1.3 if t < 2850 else 0.13, None, None, True, "") for t in STEPS[1:]]
    expected = [("conv1", t, 1.0, None, None, None) for t in STEPS]
    fits = quantities(fit(stats, planned, angles(turned), predictions(expected)))
    assert fits["agreement"]["value"] == pytest.approx(0.13)
    assert fits["agreement"]["outcome"] == Outcome.STANDING_UNKNOWN.words
