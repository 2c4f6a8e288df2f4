"""Stages of training as a person reads them."""

from dataclasses import replace

import h5py
import polars as pl
import pytest
from rich.console import Console
from synthetic_report import empty_report, make_report

from smd_analyze.storage.hdf5 import load, save
from smd_analyze.theory.stages import SCHEMA
from smd_analyze.views.explain import explain_layer
from smd_analyze.views.plots import angular_updates
from smd_analyze.views.plots_stages import NAME
from smd_analyze.views.stages import effective_head, lines_of_run, print_stages
from smd_analyze.views.tables import print_report

ENOUGH = "18 half-lives: long enough for the balance to be reached"
SHORT = "0.20 half-lives: too short for the balance to be reached, whatever the data say (13 % of the way at most)"


def with_stages(outcomes=(ENOUGH, ENOUGH, SHORT), name="0", halves=18.0, **more):
    """A report whose parameter group has a run of two stages with a drop by 10 between them."""
    report = make_report(8)
    nothing = dict.fromkeys(SCHEMA)
    rows = []
    for number, outcome in enumerate(outcomes):
        start, stop = ((0, 24000), (0, 14000), (14000, 24000))[number]
        row = nothing | {
            "parameter_group": name, "stage": number, "step_from": start, "step_to": stop, "half_lives": halves,
            "learning_rate_from": 0.1 if number < 2 else 0.01, "learning_rate_to": 0.1 if number == 1 else 0.01,
            "covered": 0.9, "share": (1.0, 0.25, 0.75)[number], "time_scale": 2000.0, "time_scale_epochs": 40.0,
            "initial_left": 0.02 if number == 0 else None, "outcome": outcome, "source": "test",
        }  # fmt: skip
        if number == 2:
            row |= {"level_ratio": 10.0, "dip": 10**-0.5, "recovery_steps": 22100.0, "weight_factor": 0.5623}
            row |= {"buffer_factor": 1.778} | more
        rows.append(row)
    return replace(report, stages=pl.DataFrame(rows, schema=SCHEMA))


def shown(report, draw):
    console = Console(width=100, record=True, color_system=None)
    with console.capture() as held:
        draw(report, console)
    return held.get()


def test_near_the_verdict_stands_only_what_explains():
    assert list(lines_of_run(with_stages((ENOUGH, ENOUGH, ENOUGH)))) == []
    (line,) = lines_of_run(with_stages())
    assert line.startswith(
        "Time for the balance in the last stage (step 14000 to 24000, learning rate 0.01): 0.20 half"
    )
    (line,) = lines_of_run(with_stages((SHORT, SHORT, SHORT), halves=0.2))
    assert line == f"Time for the balance: {SHORT}."
    assert list(lines_of_run(with_stages(("no decay: no equilibrium",) * 3, halves=None))) == []
    assert list(lines_of_run(empty_report())) == []
    assert list(lines_of_run(replace(make_report(5), stages=pl.DataFrame()))) == []


def test_the_table_is_for_those_who_ask():
    report = with_stages()
    assert "Stages of training" not in shown(report, print_report)
    text = shown(report, lambda r, c: print_report(r, c, verbose=1))
    assert "Stages of training" in text
    lines = [line.split() for line in shown(report, print_stages).splitlines()]
    assert any(line[:3] == ["0", "14000–24000", "0.01"] for line in lines)
    assert shown(replace(report, stages=pl.DataFrame()), print_stages) == ""


def test_columns_without_numbers_are_left_out():
    report = with_stages((ENOUGH, ENOUGH))
    assert "start" not in shown(report, print_stages)
    assert "start" in shown(with_stages(), print_stages)


@pytest.mark.parametrize(("evidence", "may"), [("proved", True), ("guessed", False)])
def test_only_proved_layers_are_told_to_be_rescaled(evidence, may):
    report = with_stages()
    name = report.layers.filter(pl.col("status") == "invariant")["group"][0]
    proof = pl.when(pl.col("group") == name).then(pl.lit(evidence)).otherwise(pl.col("evidence")).alias("evidence")
    report = replace(report, layers=report.layers.with_columns(proof), groups=report.groups.with_columns(proof))
    text = explain_layer(report, name)
    section = " ".join(text[text.index("Time-scales") : text.index("Where learning rate")].split())
    assert "0.32 of its new balance" in section
    assert ("multiply these weights by 0.562 and their momentum buffers by 1.78" in section) == may
    assert "75 % of what updates added to the final weights" in section
    assert "2000 optimizer steps = 40 epochs" in section
    assert "decay left 2 % of the first checkpoint's weights" in section


def test_a_layer_that_is_not_invariant_is_never_rescaled():
    assert "multiply" not in explain_layer(with_stages(), "fc")


def test_the_head_says_which_effective_learning_rate():
    report = make_report(5)
    rows = [("conv1", "effective_learning_rate", 0.1, "η/‖w‖², learning rate of the last update")]
    schema = {"group": pl.String, "quantity": pl.String, "value": pl.Float64, "method": pl.String}
    sgd = pl.DataFrame(rows, schema=schema, orient="row")
    assert effective_head(replace(report, fits=sgd)) == "η/‖w‖²\n1/weight²"
    adam = sgd.with_columns(method=pl.lit("η√d/‖w‖, learning rate of the last update"))
    assert effective_head(replace(report, fits=adam)) == "η√d/‖w‖\n1/step"
    assert effective_head(replace(report, fits=pl.concat([sgd, adam]))) == "η/‖w‖² or\nη√d/‖w‖"


def test_the_figure_shows_the_predicted_transient():
    def curves(report):
        return [line for ax in angular_updates(report).axes for line in ax.lines if line.get_linestyle() == ":"]

    report = with_stages()
    assert NAME in [text.get_text() for legend in angular_updates(report).legends for text in legend.get_texts()]
    drawn = [line for line in curves(report) if line.get_xdata()[0] == 14000]
    assert drawn
    y = drawn[0].get_ydata()
    assert y[0] / y[-1] < 0.4
    assert not [line for line in curves(make_report(8)) if line.get_xdata()[0] == 14000]


def test_the_report_keeps_the_stages_and_older_ones_have_none(tmp_path):
    report = with_stages()
    save(report, tmp_path / "report.h5")
    assert load(tmp_path / "report.h5").stages.equals(report.stages)
    with h5py.File(tmp_path / "report.h5", "a") as file:
        assert file["stages/half_lives"].attrs["long_name"].startswith("half-lives of the norm's relaxation")
        assert all("units" in variable.attrs for variable in file["stages"].values())
        del file["stages"]
    again = load(tmp_path / "report.h5")
    assert again.stages.height == 0
    assert again.fits.equals(report.fits)
