from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fits_runs import SCALE, angles, chain, group, groups_of, predictions, quantities, schedule, statistics

from smd_analyze.fits.context import SCHEMA
from smd_analyze.fits.fitting import fit
from smd_analyze.fits.summary import COLUMNS, summarise

X = 5e-5
THETA = np.sqrt(2 * X / 1.9)
T = 3000
STEPS = np.arange(0, T + 1, 300)
RATES = np.full(T, X / SCALE)


def measured(factor=1.0, wide=0.02, name="conv1", steps=STEPS, method="buffer"):
    return [
        (name, int(t) - 1, int(t), method, 1, THETA * (factor + 0.005 * (-1) ** i), THETA * (factor - wide),
         THETA * (factor + wide), True, "")
        for i, t in enumerate(steps[1:])
    ]  # fmt: skip


def implied(name="conv1"):
    return [
        (name, int(a), int(b), "norms", int(b - a), THETA, None, None, False, "")
        for a, b in zip(STEPS, STEPS[1:], strict=False)
    ]


def predicted(name="conv1", halves=8.6, norm=None, steps=STEPS):
    return [(name, int(t), THETA, norm, "theory" if norm else None, halves * t / steps[-1]) for t in steps]


def told(found, rows=(), forecast=(), planned=None, steps=STEPS):
    """(verdict, layers, fits) of {group: vv}."""
    stats = statistics(steps, found)
    planned = planned if planned is not None else schedule(steps, RATES, parameters=[f"{g.name}.weight" for g in found])
    a, p = angles(rows), predictions(forecast)
    fits = fit(stats, planned, a, p)
    verdict, layers = summarise(stats, planned, a, p, fits, groups_of(*found), list(steps))
    assert fits.columns == list(SCHEMA)
    assert layers.columns == list(COLUMNS)
    floats = fits.select(pl.col(pl.Float64).is_nan().any()).row(0)
    assert not any(floats)
    assert all(len(s) <= 75 for s in layers["state"])
    return verdict, layers.row(0, named=True), quantities(fits, next(iter(found)).name)


def still(units=32, seed=1):
    return chain(STEPS, RATES, units, noise=1.0, seed=seed)


def test_an_independent_measurement_may_agree():
    one = group()
    verdict, layer, fits = told({one: still()}, measured() + implied(), predicted(norm=4.5))
    assert layer["state"].startswith("norm stationary since step ")
    assert "rotation agrees: 1.00 ± 0.0" in layer["state"]
    assert fits["agreement"]["outcome"] == "agrees with theory"
    assert fits["level"]["low"] < fits["level"]["value"] < fits["level"]["high"]
    assert fits["level_ratio"]["value"] == pytest.approx(layer["level"] / 4.5)
    assert layer["level_basis"] == "measured"
    assert layer["implied"] == pytest.approx(THETA)
    assert layer["measured"] == pytest.approx(THETA, rel=0.01)
    assert layer["equilibrium_index_low"] < 0.02
    assert (
        verdict
        == "1 of 1 scale-invariant weight has a stationary norm; measured rotation agrees with theory in 1 (1.00)."
    )


def test_norms_alone_show_stationarity_and_no_more():
    verdict, layer, fits = told({group(): still()}, implied(), predicted())
    assert layer["state"].startswith("norm stationary since step ")
    assert ", EI = " in layer["state"]
    assert "agree" not in layer["state"]
    assert layer["ratio"] is None
    assert fits["agreement"]["outcome"] == "no independent measurement"
    assert "no independent measurement tells" in verdict


@pytest.mark.parametrize(
    ("factors", "word"), [((1.3, 1.31, 1.29), "differs"), ((0.7, 1.0, 1.2), "too wide"), ((1.3, 1.3), "too few")]
)
def test_rotation_that_does_not_agree(factors, word):
    rows = [measured(f, 0.02)[i - len(factors)] for i, f in enumerate(factors)]
    _, layer, _ = told({group(): still()}, rows, predicted())
    assert word in layer["state"]


def test_a_norm_that_moves_is_not_said_to_disagree():
    verdict, layer, fits = told(
        {group(): chain(STEPS // 10, RATES, 32, start=2.0, noise=1.0, momentum=0.0)}, measured(1.2, steps=STEPS // 10),
        predicted(halves=0.8, steps=STEPS // 10), schedule(STEPS // 10, RATES, momentum=0.0), STEPS // 10,
    )  # fmt: skip
    assert layer["state"] == "still relaxing: 0.8 half-lives"
    assert fits["agreement"]["outcome"] == "measured, not at equilibrium"
    assert fits["level"]["value"] is None
    assert "1 still relaxes" in verdict


def test_no_decay_has_no_equilibrium():
    planned = schedule(STEPS, RATES, decay=0.0)
    vv = np.exp(2e-5 * STEPS)[:, None] * np.ones((1, 4))
    verdict, layer, fits = told({group(): vv}, planned=planned)
    grown = 100 * np.expm1(1e-5 * (STEPS[-1] - STEPS[0]))
    assert layer["state"] == f"no decay: no equilibrium, norm grew {grown:.2g} % over the run"
    assert verdict == "Weight decay is 0: no equilibrium exists (1 scale-invariant weight)."
    assert fits["stationary_since"]["value"] is None


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"status": "not invariant", "evidence": "refuted"}, "theory does not apply: not scale-invariant"),
        ({"status": "dead"}, "dead: no gradient, the loss does not depend on it"),
        ({"status": "unknown"}, "scale invariance unknown"),
    ],
)
def test_weights_that_are_not_invariant(change, state):
    verdict, layer, fits = told({group(**change): still()}, measured(), predicted())
    assert layer["state"] == state
    assert "agrees" not in fits["agreement"]["outcome"]
    assert verdict.startswith("No scale-invariant weight found")


def test_a_guess_is_marked():
    verdict, layer, _ = told({group(evidence="guessed"): still()}, measured(), predicted())
    assert layer["state"].endswith("(if invariant)")
    assert "presumably scale-invariant" in verdict


def test_three_checkpoints_identify_nothing():
    steps = np.array([0, 1500, 3000])
    vv = chain(steps, RATES, 8)
    verdict, layer, fits = told({group(): vv}, planned=schedule(steps, RATES), steps=steps)
    assert layer["state"] == "not identifiable: 3 checkpoints"
    assert fits["equilibrium_index"]["value"] is not None
    assert fits["equilibrium_index"]["low"] is None
    assert "at least 6 checkpoints" in layer["advice"]
    assert (
        verdict
        == "1 scale-invariant weight in 3 checkpoints; the balance cannot be told: not identifiable: 3 checkpoints."
    )


def test_one_checkpoint():
    steps = np.array([0])
    planned = schedule([0, 1], [0.1])
    verdict, layer, _ = told({group(): np.ones((1, 4))}, planned=planned, steps=steps)
    assert layer["state"] == "not identifiable: one checkpoint"
    assert "one checkpoint" in verdict


def test_unknown_hyperparameters_are_named():
    verdict, layer, fits = told({group(): still()}, planned=schedule(STEPS, RATES, decay=None))
    assert layer["state"] == "weight decay unknown"
    assert fits["effective_learning_rate"]["value"] is not None
    assert "weight decay unknown" in verdict


def test_effective_learning_rates_of_the_units():
    vv = np.ones((len(STEPS), 3)) * np.array([1.0, 2.0, 4.0])
    _, layer, fits = told({group(units=3): vv})
    assert layer["effective_learning_rate"] == pytest.approx(X / SCALE / 2)
    assert fits["effective_learning_rate"]["p90"] > fits["effective_learning_rate"]["value"]


def test_units_that_differ_are_said():
    vv = still(40)
    vv[:, :16] *= np.exp(2 * 5e-4 * 0.6 * STEPS)[:, None]  # two fifths of the units climb
    vv[:, 16:32] *= np.exp(-2 * 5e-4 * 0.6 * STEPS)[:, None]
    verdict, layer, fits = told({group(units=40): vv})
    assert fits["equilibrium_index"]["outcome"] == "units differ"
    assert fits["stationary_since"]["value"] is None
    assert layer["state"].startswith("units differ: EI = -")
    assert fits["equilibrium_index"]["p90"] > 0.5
    assert verdict.endswith("1 differs from unit to unit.")


def test_wide_intervals_show_neither():
    vv = still(4)
    vv *= np.exp(0.12 * (-1.0) ** np.arange(len(STEPS)))[:, None]  # EI of ±0.8, about 0
    verdict, layer, fits = told({group(): vv}, measured(), predicted(halves=1.0))
    assert fits["stationary_since"]["value"] is None
    assert layer["state"].startswith("not shown to be stationary, EI = ")
    assert verdict.endswith("1 is not shown to be stationary.")


def test_a_norm_behind_a_falling_learning_rate_lags():
    rates = RATES * 0.5 * (1.001 + np.cos(np.pi * np.arange(T) / T))
    verdict, layer, fits = told({group(): chain(STEPS, rates, 32)}, planned=schedule(STEPS, rates))
    assert fits["equilibrium_index"]["value"] < -0.3  # the equilibrium falls faster than the norm can
    assert layer["state"].startswith("norm lags behind the learning rate as expected, EI = -0.")
    assert verdict.endswith("1 lags behind the learning rate as expected.")


def test_a_lag_that_the_schedule_does_not_make():
    rates = RATES * 0.5 * (1.001 + np.cos(np.pi * np.arange(T) / T))
    vv = chain(STEPS, rates, 32, scale=np.linspace(1, 3, T))
    verdict, layer, _ = told({group(): vv}, planned=schedule(STEPS, rates))
    assert layer["state"].startswith("norm lags behind the learning rate, EI = ")
    assert verdict.endswith("1 lags behind the learning rate.")


def test_tensors_missing_in_a_checkpoint_do_not_break():
    vv = still()
    vv[2] = np.nan
    _, layer, fits = told({group(): vv}, measured(), predicted())
    assert layer["state"].startswith("norm stationary")
    assert fits["level"]["value"] == pytest.approx(np.sqrt(np.nansum(vv, axis=1)[3:].mean()), rel=0.01)


def test_frozen_weights_are_named():
    vv = np.ones((len(STEPS), 4))
    stats = statistics(STEPS, {group(): vv})
    same = replace(stats.units("conv1"), dd=np.concatenate([np.full((1, 4), np.nan), np.zeros((len(STEPS) - 1, 4))]))
    stats = replace(stats, units=lambda _: same)
    fits = quantities(fit(stats, schedule(STEPS, RATES), angles(), predictions()))
    assert fits["equilibrium_index"]["outcome"] == "the weights never move"
    assert fits["equilibrium_index"]["value"] is None


def test_layers_of_several_kinds_are_counted():
    a, b = group("conv1"), group("conv2", status="not invariant")
    c = group("conv3")
    climbing = np.exp(2 * 5e-4 * 0.5 * STEPS)[:, None] * np.ones((1, 4))
    found = {a: still(), b: still(), c: climbing}
    verdict, _, _ = told(found, measured(), predicted() + predicted("conv3"))
    assert verdict.startswith("1 of 2 scale-invariant weights has a stationary norm; measured rotation agrees")
    assert verdict.endswith("1 still moves.")


def test_nothing_analysed():
    stats = statistics(STEPS, {})
    planned = schedule(STEPS, RATES)
    fits = fit(stats, planned, angles(), predictions())
    verdict, layers = summarise(stats, planned, angles(), predictions(), fits, groups_of())
    assert verdict.startswith("Nothing was analysed")
    assert layers.height == 0


def test_a_learning_rate_that_may_have_changed_gives_no_effective_one():
    planned = schedule(STEPS, RATES, momentum=0.0, learning_rate_last_low=1e-3, learning_rate_last_high=0.1)
    _, layer, fits = told({group(): still()}, planned=planned)
    assert layer["effective_learning_rate"] is None
    assert "unknown" in fits["effective_learning_rate"]["outcome"]


def test_adam_has_the_effective_learning_rate_of_elementwise_steps():
    adam = schedule(STEPS, RATES, momentum=None, optimizer="adamw", beta1=0.9, beta2=0.999)
    _, layer, fits = told({group(units=3): np.ones((len(STEPS), 3)) * np.array([1.0, 4.0, 16.0])}, planned=adam)
    assert layer["effective_learning_rate"] == pytest.approx(RATES[-1] * 9**0.5 / 2)
    assert fits["effective_learning_rate"]["method"].startswith("η√d/‖w‖,")


def test_measurements_below_resolution_are_said_to_be():
    row = (*measured(1.0)[-1][:5], None, None, None, True, "below resolution: steps smaller than the rounding")
    _, layer, fits = told({group(): still()}, [row], predicted())
    assert fits["agreement"]["outcome"] == "below resolution"
    assert layer["state"].endswith("rotation below resolution")


def test_a_norm_that_falls_faster_than_decay_allows():
    alone = X / (1 - 0.9)  # decay per step with momentum, all that acts on ‖w‖ where there is no gradient
    vv = np.exp(-2 * 3 * alone * STEPS)[:, None] * np.ones((1, 4))
    _, layer, _ = told({group(): vv})
    assert layer["state"].startswith("norm falls faster than weight decay alone")
    assert "check both" in layer["advice"]
