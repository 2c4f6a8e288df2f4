"""Rows that need no fit: intrinsic and effective learning rates, time to equilibrium, fluctuation, transients."""

import math

import numpy as np
import polars as pl
import pytest
from fits_runs import ANGLES, PREDICTIONS, SCALE, angles, chain, group, predictions, quantities, schedule, statistics

from smd_analyze.fits.fitting import fit
from smd_analyze.records.schedule import Schedule

STEPS = np.arange(0, 2001, 100)
RATES = np.full(2000, 0.01)
X = 0.01 * SCALE / 0.1  # decay per step with momentum 0.9


def predicted(level=1.0, low=None, high=None, basis="theory", steps=STEPS, rate=4 * X, rest=0.01, name="conv1"):
    """Rows of `predictions`: equilibrium norm, angular update, half-lives at a constant relaxation rate."""
    schema = PREDICTIONS | {"equilibrium_norm_low": pl.Float64, "equilibrium_norm_high": pl.Float64}
    rows = [
        {"group": name, "step": int(t), "equilibrium_angular_update": rest, "equilibrium_norm": level,
         "norm_basis": basis, "half_lives": float(t) * rate / math.log(2), "equilibrium_norm_low": low,
         "equilibrium_norm_high": high}
        for t in steps
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def still():
    """Norms of 8 units that stand still but for 1 %; ‖w‖ = 1 at the last checkpoint."""
    moved = 1 + 0.01 * np.random.default_rng(0).standard_normal((len(STEPS), 8))
    moved[-1] = 1
    return moved / 8


def moving():
    """Norms of 8 units that shrink at 0.2 of pure decay; ‖w‖ = 1 at the last checkpoint."""
    return np.exp(0.4 * X * (STEPS[-1] - STEPS))[:, None] * np.ones(8) / 8


WHOLE = group(granularity="tensor")


def told(vv=None, planned=None, measured=(), theory=None, g=None, steps=STEPS):
    g = g or group()
    stats = statistics(steps, {g: still() if vv is None else vv})
    planned = planned or schedule(steps, RATES)
    fits = fit(stats, planned, angles(measured), predictions() if theory is None else theory)
    return quantities(fits, g.name), fits


def test_intrinsic_learning_rate():
    rows, _ = told()
    assert rows["intrinsic_learning_rate"]["value"] == pytest.approx(0.01 * SCALE)
    dropped, _ = told(planned=schedule(STEPS, np.where(np.arange(2000) < 1950, 0.01, 0.001)))
    assert dropped["intrinsic_learning_rate"]["value"] == pytest.approx(0.001 * SCALE)
    none, _ = told(planned=schedule(STEPS, RATES, decay=0.0))
    assert none["intrinsic_learning_rate"]["value"] == 0
    adam, _ = told(planned=schedule(STEPS, RATES, optimizer="adamw", beta1=0.9, beta2=0.999))
    assert adam["intrinsic_learning_rate"]["value"] == pytest.approx(0.01 * SCALE)


def test_intrinsic_learning_rate_of_clocks_alone():
    """Σηλ known, no learning rate: the value is there, the effective learning rate is not."""
    known = schedule(STEPS, RATES)
    gone = [c for c in known.table.columns if "learning_rate" in c and c != "learning_rate_changes"]
    table = known.table.with_columns(*(pl.lit(None, pl.Float64).alias(c) for c in (*gone, "weight_decay")))
    rows, _ = told(planned=Schedule(table, known.parameter_group, "optimizer steps"))
    assert rows["intrinsic_learning_rate"]["value"] == pytest.approx(0.01 * SCALE)
    assert "clocks" in rows["intrinsic_learning_rate"]["method"]
    assert rows["effective_learning_rate"]["value"] is None
    assert rows["effective_learning_rate"]["outcome"] == "learning rate unknown"


def test_what_is_missing_is_said():
    unknown, _ = told(planned=schedule(STEPS, RATES, decay=None))
    assert unknown["intrinsic_learning_rate"]["outcome"] == "weight decay unknown"
    assert unknown["steps_to_equilibrium"]["outcome"] == "weight decay unknown"
    changing = schedule(STEPS, RATES, learning_rate_last_low=1e-3, learning_rate_last_high=0.1)
    rows, _ = told(planned=changing)
    assert "unknown" in rows["intrinsic_learning_rate"]["outcome"]
    none, _ = told(planned=schedule(STEPS, RATES, decay=0.0))
    assert none["steps_to_equilibrium"]["outcome"] == "no decay: no equilibrium"
    plain, _ = told(moving(), g=WHOLE)
    assert plain["steps_to_equilibrium"]["outcome"] == "no equilibrium norm is predicted"


@pytest.mark.parametrize("ratio", [2.0, 0.5, 1.05])
def test_steps_to_equilibrium_are_those_of_the_linear_equation(ratio):
    """After that many steps of S' = S* + (S − S*)e^−rt the norm is within 10 %."""
    rows, _ = told(moving(), theory=predicted(1 / ratio), g=WHOLE)
    value = rows["steps_to_equilibrium"]["value"]
    after = (1 + (ratio**4 - 1) * math.exp(-4 * X * value)) ** 0.25
    assert after == pytest.approx({2.0: 1.1, 0.5: 0.9, 1.05: 1.05}[ratio])
    assert (value == 0) == (ratio == 1.05)


def test_steps_to_equilibrium_have_the_levels_interval():
    rows, _ = told(moving(), theory=predicted(0.5, 0.4, 0.6, "extrapolated"), g=WHOLE)
    row = rows["steps_to_equilibrium"]
    assert row["low"] < row["value"] < row["high"]
    assert row["level"] is None  # claims no coverage
    assert "extrapolated" in row["method"]
    around, _ = told(moving(), theory=predicted(0.95, 0.6, 1.6), g=WHOLE)
    assert around["steps_to_equilibrium"]["low"] == 0
    assert around["steps_to_equilibrium"]["outcome"] == "norm within 10 % of equilibrium, still moving"
    assert around["steps_to_equilibrium"]["kind"] == around["equilibrium_index"]["kind"]


def test_a_stationary_norm_has_arrived_whatever_was_predicted():
    rows, _ = told(theory=predicted(0.5))
    row = rows["steps_to_equilibrium"]
    assert (row["value"], row["outcome"]) == (0, rows["equilibrium_index"]["outcome"])
    assert row["kind"] == "settled"


def test_units_far_and_near_have_their_own_time_to_equilibrium():
    """Those that began at S = 16 S* have ln(15/ε)/r − t steps to go, the others have arrived."""
    short, rates = STEPS[:7], RATES / 40
    start = np.where(np.arange(64) < 16, 1.0, 4.0)  # of n = ‖w‖²
    vv = chain(short, rates, 64, start=start, noise=0.3, seed=2)
    theory = predicted(1.0, steps=short, rate=X / 10)
    row = told(vv, schedule(short, rates), theory=theory, g=group(units=64), steps=short)[0]["steps_to_equilibrium"]
    left = math.log(15 / (1.1**4 - 1)) / (X / 10) - 600
    assert row["value"] == pytest.approx(left, rel=0.3)
    assert row["p10"] == 0
    assert row["low"] is None
    assert "median over 64 units" in row["method"]
    share = float(row["outcome"].split(" %")[0])
    assert 15 <= share <= 45


def test_a_moving_learning_rate_has_no_time_to_equilibrium():
    rows, _ = told(planned=schedule(STEPS, np.linspace(0.02, 0.001, 2000)), theory=predicted(0.5))
    assert rows["steps_to_equilibrium"]["value"] is None
    assert "moves with the learning rate" in rows["steps_to_equilibrium"]["outcome"]


def test_fluctuation_is_of_invariant_groups_under_sgd():
    rows, _ = told()
    assert rows["norm_fluctuation"]["value"] == pytest.approx(0.5 * math.sqrt(X / 2))
    other, _ = told(g=group(status="not invariant"))
    assert "norm_fluctuation" not in other
    assert "steps_to_equilibrium" not in other
    adam, _ = told(planned=schedule(STEPS, RATES, optimizer="adamw", beta1=0.9, beta2=0.999))
    assert adam["norm_fluctuation"]["value"] is None
    assert "√(2/d)" in adam["norm_fluctuation"]["outcome"]


def test_fluctuation_in_simulation():
    """Scatter of the norms of many units at equilibrium; the gradient's square varies by CV = 0.5 there."""
    vv = chain(STEPS, RATES, 400, noise=0.5)
    rows, _ = told(vv)
    found = np.std(np.sqrt(vv[10:])) / np.mean(np.sqrt(vv[10:]))
    assert found == pytest.approx(0.5 * rows["norm_fluctuation"]["value"], rel=0.12)


def test_effective_learning_rates_scale_as_their_forms_say():
    """Weights × c: η/‖w‖² by c^−2, η√d/‖w‖ by 1/c."""
    vv = still()
    adam = schedule(STEPS, RATES, optimizer="lion", beta1=0.9, beta2=0.99)
    for planned, power in ((schedule(STEPS, RATES), 2), (adam, 1)):
        one, two = (told(v, planned)[0]["effective_learning_rate"] for v in (vv, 9 * vv))
        assert one["value"] == pytest.approx(two["value"] * 3**power)
    unknown, _ = told(planned=schedule(STEPS, RATES, optimizer=None))
    assert unknown["effective_learning_rate"]["outcome"] == "optimizer unknown"


DROP = np.where(np.arange(2000) < 1000, 0.01, 0.001)


def dip(start, stop, spacing, off=1.0, rest=0.004, name="conv1"):
    """Angles of single updates after a drop by 10 at step 1000, as theory has them × off."""
    for t in range(start, stop, spacing):
        part = 1 / math.sqrt(1 + 9 * math.exp(-4 * X / 10 * (t - 1 - 1000)))
        yield dict(
            zip(ANGLES, (name, t - 1, t, "consecutive", 1, rest * part * off, None, None, True, ""), strict=True)
        )


def after_drop():
    before = predicted(steps=STEPS[:11], rest=0.004)
    later = [1000 * 4 * X / math.log(2) + (t - 1000) * 4 * X / 10 / math.log(2) for t in STEPS[11:]]
    rows = predicted(steps=STEPS[11:], rest=0.004).with_columns(pl.Series("half_lives", later))
    singles = [t for t in range(1040, 2000, 60) if t not in STEPS]
    extra = predicted(steps=singles, rest=0.004).with_columns(
        pl.Series("half_lives", [1000 * 4 * X / math.log(2) + (t - 1000) * 4 * X / 10 / math.log(2) for t in singles])
    )
    return pl.concat([before, rows, extra]).sort("step")


def rows_after(fits):
    return fits.filter(pl.col("quantity") == "angle_after_change").to_dicts()


def test_a_measured_dip_is_held_against_theory():
    planned = schedule(STEPS, DROP)
    _, fits = told(planned=planned, measured=dip(1040, 2000, 60), theory=after_drop())
    (row,) = rows_after(fits)
    assert row["value"] == pytest.approx(1.0, abs=1e-3)
    assert row["outcome"] == "agrees with theory"
    assert "× 0.1 at step 1000" in row["method"]
    _, fits = told(planned=planned, measured=dip(1040, 2000, 60, 1.4), theory=after_drop())
    assert rows_after(fits)[0]["outcome"].startswith("differs from theory, or")


def test_no_change_no_measurement_no_row():
    assert not rows_after(told(measured=dip(1040, 2000, 60), theory=after_drop())[1])
    assert not rows_after(told(planned=schedule(STEPS, DROP), theory=after_drop())[1])
    soon = [row for row in dip(1001, 1019, 2)]  # the buffer still holds the old gradients' pace
    assert not rows_after(told(planned=schedule(STEPS, DROP), measured=soon, theory=after_drop())[1])


def test_a_change_out_of_balance_makes_no_claim():
    """Fewer than two half-lives before the drop: the dip is another one."""
    short = after_drop().with_columns(pl.col("half_lives") * 0.05)
    _, fits = told(planned=schedule(STEPS, DROP), measured=dip(1040, 2000, 60), theory=short)
    assert not rows_after(fits)


def test_decay_that_changes_alone_is_no_change_of_the_learning_rate():
    """A clock against a learning rate that the caller holds constant: no row, no division by zero, no root of −1."""
    decay = np.where(STEPS[1:] <= 1000, X, X / 10) * 100
    planned = schedule(STEPS, RATES)
    table = planned.table.with_columns(pl.Series("sum_decay", decay * 0.1))
    _, fits = told(
        planned=Schedule(table, planned.parameter_group, "optimizer steps"), measured=dip(1040, 2000, 60),
        theory=after_drop(),
    )  # fmt: skip
    assert not rows_after(fits)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_change_that_is_not_located_widens_the_interval(factor):
    """The drop lies anywhere within an interval; updates before it, whose dip would have no real root, are left out."""
    rates = np.where(np.arange(2000) < 1050, 0.01, 0.01 / factor)
    known = schedule(STEPS, rates)
    blurred = known.table.with_columns(
        pl.when(pl.col("step_from") == 1000).then(0.5).otherwise(pl.col("sum_learning_rate_low"))
        .alias("sum_learning_rate_low")
    )  # fmt: skip
    measured = list(dip(100, 2000, 60))
    widths = []
    for table in (known.table, blurred):
        planned = Schedule(table, known.parameter_group, "optimizer steps")
        rows = rows_after(told(planned=planned, measured=measured, theory=after_drop())[1])
        widths.append(rows[0]["high"] - rows[0]["low"] if rows else 0.0)
    assert widths[1] > widths[0] >= 0
