"""What `--explain` works out anew from the inputs that it shows is the report's number, for every optimizer."""

from dataclasses import replace

import polars as pl
import pytest
from explain_runs import LAYER, MAKE, OF, WITHOUT_STATE, report_of

from smd_analyze.theory import adamw, lion, nesterov, sgd, sgdw
from smd_analyze.theory.decoupled import equilibrium_cosine, noise_gain
from smd_analyze.theory.geometry import angle_of_cosine
from smd_analyze.views.explain import explain_layer, explained
from smd_analyze.views.explain_laws import ADAMW, HEAVY, LION, NESTEROV, SGDW, Law

RUNS = [*MAKE, *OF, WITHOUT_STATE[0]]
ALWAYS = {"effective_learning_rate", "intrinsic_learning_rate"}
BALANCE = {"equilibrium_angular_update", "equilibrium_norm", "predictions.relaxation_rate"}
LACKING = {
    "Adam + L2": {"intrinsic_learning_rate"},
    "dampening": {"predictions.relaxation_rate"},  # its momentum number is beyond oscillation
    "cautious": {"intrinsic_learning_rate", *BALANCE},
    "weights only": {"effective_learning_rate"},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_result_is_the_reports_number(name):
    report = report_of(name)
    ways = explained(report, LAYER)
    assert [(w.quantity, w.result, w.held) for w in ways if w.agrees is False] == []
    followed = {w.quantity for w in ways if w.agrees}
    assert followed >= (ALWAYS | BALANCE) - LACKING.get(name, set())


@pytest.mark.parametrize("name", RUNS)
def test_every_quantity_of_the_table_is_explained_or_its_absence_is(name):
    report = report_of(name)
    text, ways = explain_layer(report, LAYER), explained(report, LAYER)
    told = {w.quantity.removeprefix("fit.") for w in ways}
    rows = report.fits.filter(pl.col("group") == LAYER)
    for row in rows.iter_rows(named=True):
        if row["value"] is None:
            assert row["outcome"].split(" (")[0][:40] in " ".join(text.split()), row["quantity"]
        elif row["quantity"] == "stationary_since":
            assert f"stationary since step {row['value']:.0f}" in text
        elif row["quantity"] == "steps_to_equilibrium" and row["value"] == 0:
            assert "to equilibrium" in text
        else:
            assert row["quantity"] in told
    assert "nan" not in text.lower()
    assert len(text.split("\n")) <= 120


@pytest.mark.parametrize(
    ("column", "quantity"),
    [("equilibrium_angular_update", "equilibrium_angular_update"), ("equilibrium_norm", "equilibrium_norm"),
     ("half_lives", "half_lives"), ("relaxation_rate", "predictions.relaxation_rate")],
)  # fmt: skip
def test_a_wrong_number_in_the_report_is_noticed(column, quantity):
    report = report_of("heavy ball")
    wrong = report.predictions.with_columns((pl.col(column) * 1.02).alias(column))
    ways = explained(replace(report, predictions=wrong), LAYER)
    assert next(w for w in ways if w.quantity == quantity).agrees is False
    assert "not the report's number" in " ".join(explain_layer(replace(report, predictions=wrong), LAYER).split())


@pytest.mark.parametrize(
    ("law", "cosine", "share"),
    [
        (Law(HEAVY, 3e-4, 0.9, 0.0), sgd.equilibrium_cosine(3e-4, 0.9), sgd.angle_share(0.9)),
        (Law(NESTEROV, 2e-4, 0.9, 0.0), nesterov.equilibrium_cosine(2e-4, 0.9), nesterov.angle_share(0.9)),
        (Law(SGDW, 1e-3, 0.9, 0.0), sgdw.equilibrium_cosine(1e-3, 0.9), sgdw.angle_share(0.9)),
        (Law(ADAMW, 1e-3, 0.9, 0.95), adamw.equilibrium_cosine(1e-3, 0.9, 0.95), adamw.angle_share(0.9, 0.95)),
        (Law(LION, 1e-3, 0.9, 0.99), equilibrium_cosine(1e-3, lion.autocovariance(0.9, 0.99)), None),
    ],
)
def test_closed_forms_are_those_of_the_theory_room(law, cosine, share):
    assert law.angle()[1] == pytest.approx(float(angle_of_cosine(cosine)), rel=1e-9)
    if share is not None:
        assert law.share()[1] == pytest.approx(float(share), rel=1e-12)


def test_rates_and_gains_are_those_of_the_theory_room():
    assert Law(HEAVY, 3e-4, 0.9, 0.0).rate()[1] == pytest.approx(float(sgd.relaxation_rate(3e-4, 0.9)), rel=1e-12)
    assert Law(ADAMW, 1e-4, 0.9, 0.999).rate()[1] == pytest.approx(float(adamw.relaxation_rate(1e-4, 0.999)), rel=1e-9)
    assert Law(ADAMW, 1e-3, 0.9, 0.95).gamma(1e-3) == pytest.approx(float(adamw.noise_gain(1e-3, 0.9, 0.95)), rel=1e-12)
    found = float(noise_gain(1e-3, lion.autocovariance(0.9, 0.99)))
    assert Law(LION, 1e-3, 0.9, 0.99).gamma(1e-3) == pytest.approx(found, rel=1e-9)


def test_a_clock_is_the_way_to_the_decay_of_weights_alone():
    text = explain_layer(report_of("weights only"), LAYER)
    assert "clock of fc.weight: assumed to hold here" in text
    assert "momentum 0.9" in text.partition("read in:")[2]
    assert "decay clock sum over units of fc.weight" in text
    assert "ηλ = u(1−α−u)/(1−u)" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decay alone", "decay rule: weight decay alone"),
        ("AdamC", "decay rule: lr²/lr_max (AdamC)"),
        ("cautious", "decay rule: cautious"),
        ("velocity", "the velocity holds the learning rate"),
        ("dampening", "τ = 0.5"),
        ("SGDW", "decoupled decay"),
    ],
)
def test_what_ties_decay_to_the_learning_rate_is_said(name, words):
    assert words in explain_layer(report_of(name), LAYER)
