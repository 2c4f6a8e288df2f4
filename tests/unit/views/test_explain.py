import re
from dataclasses import replace

import polars as pl
import pytest
from synthetic_report import empty_report, make_report

from smd_analyze.errors import UsageError
from smd_analyze.views.explain import explain_layer


def numbers_before(text, unit):
    return [float(found) for found in re.findall(r"([\d.]+(?:e-?\d+)?)(?:±[\d.]+)? " + unit, text)]


def test_the_formula_and_the_table_give_the_same_numbers():
    text = explain_layer(make_report(8), "layer1.0.conv1")
    section = text.split("Angular update at equilibrium")[1].split("\n\n")[0]
    formula, held = numbers_before(section, "mrad/step")
    assert formula == held == pytest.approx(2.294, abs=1e-3)
    assert "arccos(1 − 5e-06/(1+0.9))" in section
    section = text.split("implied by the norms")[1].split("\n\n")[0]
    formula, held = numbers_before(section, "mrad/step")
    assert formula == pytest.approx(held, rel=0.01)
    assert "ckpts/step_024000.pt" in text


@pytest.mark.parametrize(
    ("changes", "formula"),
    [
        ({"optimizer": "adamw", "beta1": 0.9, "momentum": None, "decoupled": True}, "√(2ηλ(1−β₁)/(1+β₁))"),
        ({"optimizer": "sgd", "nesterov": True}, "α⁴/(1−α²)"),
        ({"optimizer": "sgdw", "decoupled": True}, "arccos((1−ηλ+α)/(1+(1−ηλ)α))"),
        ({"optimizer": "lion"}, "no closed form is shown here for lion"),
        ({"optimizer": None}, "no closed form is shown here for an unknown optimizer"),
    ],
)
def test_every_optimizer_has_its_formula_or_says_that_it_has_none(changes, formula):
    report = make_report(5)
    types = {"beta1": pl.Float64, "momentum": pl.Float64, "optimizer": pl.String}
    columns = [pl.lit(value, dtype=types.get(name, pl.Boolean)).alias(name) for name, value in changes.items()]
    text = explain_layer(replace(report, schedule=report.schedule.with_columns(columns)), "conv1")
    assert formula in text
    assert "nan" not in text.lower()


def test_a_parameter_names_its_group_and_wrong_names_get_help():
    report = make_report(8)
    assert explain_layer(report, "fc.weight").startswith("fc\n  not invariant")
    with pytest.raises(UsageError, match=r"layer1\.0\.conv1"):
        explain_layer(report, "layer1.0.conv")
    with pytest.raises(UsageError, match="no layer 'x'"):
        explain_layer(empty_report(), "x")


def test_what_is_missing_is_said():
    report = make_report(8)
    empty = {
        name: getattr(report, name).clear() for name in ("schedule", "predictions", "angular_updates", "statistics")
    }
    text = explain_layer(replace(report, **empty), "conv1")
    for words in ("schedule unknown", "not implied", "not measured", "no prediction", "no checkpoint holds"):
        assert words in text
