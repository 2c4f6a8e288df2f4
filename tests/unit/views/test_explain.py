import re
from dataclasses import replace

import polars as pl
import pytest
from synthetic_report import empty_report, make_report

from smd_analyze.errors import UsageError
from smd_analyze.views.explain import SECTIONS, explain_layer
from smd_analyze.views.explain_ways import Way, told


def section(text, title):
    return text.split(title)[1].split("\n\n")[0]


def test_the_formula_gives_the_tables_number():
    text = explain_layer(make_report(8), "layer1.0.conv1")
    line = next(line for line in text.split("\n") if "arccos(1 − ηλ/(1+α))" in line)
    assert "arccos(1 − 5e-06/(1+0.9)) → 2.294" in line
    assert "θ* = 2.294 mrad/step" in section(text, "Angular update")
    assert "read in: ckpts/step_024000.pt" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adamw", "beta1": 0.9, "momentum": None, "decoupled": True}, "√(2ηλ(1−β₁)/(1+β₁))"),
        ({"optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "decoupled": True}, "with β₂ = 0.95 (v̂ scatters)"),
        ({"optimizer": "sgd", "nesterov": True}, "α⁴/(1−α²)"),
        ({"optimizer": "sgdw", "decoupled": True}, "arccos((1−ηλ+α)/(1+(1−ηλ)α))"),
        ({"optimizer": "lion", "beta1": 0.9, "beta2": 0.99, "decoupled": True}, "(2/π)arcsin ρ_k"),
        ({"optimizer": None}, "optimizer unknown"),
        ({"optimizer": "lamb"}, "lamb"),
        ({"momentum": None}, "momentum"),
    ],
)
def test_every_optimizer_has_its_formula_or_says_that_it_has_none(changes, words):
    report = make_report(5)
    types = {"optimizer": pl.String, "nesterov": pl.Boolean, "decoupled": pl.Boolean}
    columns = [pl.lit(value, dtype=types.get(name, pl.Float64)).alias(name) for name, value in changes.items()]
    text = explain_layer(replace(report, schedule=report.schedule.with_columns(columns)), "conv1")
    assert words in text
    assert "nan" not in text.lower()


def test_it_asks_in_a_persons_order():
    text = explain_layer(make_report(8), "conv1")
    at = [text.index(title) for title, _ in SECTIONS]
    assert at == sorted(at)
    assert text.startswith("conv1: norm stationary, EI = 0.02 ± 0.01; agrees with theory\n")
    asked = ["Angular update", "Weight norm", "Time-scales", "Where learning rate and decay come from", "Estimates"]
    assert [title.partition(":")[0] for title, _ in SECTIONS] == asked


def test_a_parameter_names_its_group_and_wrong_names_get_help():
    report = make_report(8)
    assert explain_layer(report, "fc.weight").startswith("fc: reference only")
    with pytest.raises(UsageError, match=r"layer1\.0\.conv1"):
        explain_layer(report, "layer1.0.conv")
    with pytest.raises(UsageError, match="no layer 'x'"):
        explain_layer(empty_report(), "x")


def test_what_is_missing_is_said():
    report = make_report(8)
    empty = {
        name: getattr(report, name).clear() for name in ("schedule", "predictions", "angular_updates", "statistics")
    }
    text = explain_layer(replace(report, **empty, units=lambda _: None), "conv1")
    for words in (
        "schedule unknown",
        "θ₁ implied: no number",
        "θ₁ measured: no number",
        "no prediction",
        "no checkpoint",
    ):
        assert words in text


def test_a_fit_without_a_number_says_why_and_what_would_help():
    report = make_report(5)
    row = {"value": None, "low": None, "high": None, "outcome": "not separable", "advice": "save more"}
    fits = report.fits.with_columns(**{k: pl.lit(v, dtype=report.fits.schema[k]) for k, v in row.items()})
    text = explain_layer(replace(report, fits=fits), "conv1")
    assert "relaxation_rate = –: not separable (save more)" in text


def test_a_number_that_does_not_follow_is_told():
    way = Way("x", "x", "what it is", 2.0, ("1 + 1",), 2.0)
    assert list(told(way)) == ["  x = 2.000: what it is — 1 + 1 → 2.000"]
    assert way.agrees
    wrong = replace(way, result=2.1)
    assert wrong.agrees is False
    assert next(told(wrong)).endswith("→ 2.100, not the report's number")
    rough = replace(way, result=2.1, within=0.1, why="leading order")
    assert rough.agrees
    assert next(told(rough)).endswith("→ about 2.100 (leading order)")


def test_lines_are_wrapped_and_papers_listed_once():
    text = explain_layer(make_report(8), "layer1.0.conv1")
    assert max(map(len, text.split("\n"))) <= 116
    assert len(re.findall(r"arXiv:2006\.08419", text)) == 1
    assert text.split("\n\n")[-1].startswith("Papers: Wan et al. 2021, arXiv:2006.08419")
