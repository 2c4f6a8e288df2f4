"""The figure of angles over near and far checkpoints, and the table in a report file."""

from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest
from synthetic_report import empty_report, make_report

from smd_analyze.storage.hdf5 import load, save
from smd_analyze.theory.lags import BELOW, SCHEMA
from smd_analyze.views import plots
from smd_analyze.views.plots_lags import curves


def with_lags(layers=4, hidden=()):
    """θ = 0.01 √k, of zero-mean gradients 0.02 √k, over 100, 200, 400 steps; `hidden` lags are below resolution."""
    report = make_report(layers)
    rows = []
    for group in report.groups["group"]:
        for lag in (1, 2, 4):
            for start in range(0, 8, lag):
                ends, angle = (100 * start, 100 * (start + lag)), 0.01 * np.sqrt(100 * lag)
                note, ratio = (BELOW, None) if lag in hidden else ("", 0.25)
                rows.append((group, *ends, lag, 100.0 * lag, 64, angle, 0.99, 2 * angle, 0.98, 0.01, ratio, note))
    return replace(report, lags=pl.DataFrame(rows, SCHEMA, orient="row"))


def test_one_point_for_each_distance():
    found = curves(with_lags()).filter(pl.col("group") == "conv1")
    assert found["steps"].to_list() == [100.0, 200.0, 400.0]
    np.testing.assert_allclose(found["angle"], [0.1, 0.01 * np.sqrt(200), 0.2])
    np.testing.assert_allclose(found["free"], 2 * found["angle"].to_numpy())
    assert curves(with_lags(hidden=(1, 2)))["steps"].unique().to_list() == [400.0]


def test_measured_is_drawn_and_zero_mean_gradients_dashed():
    figure = plots.lags(with_lags())
    assert len(figure.axes) == 4
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        measured, free = ax.lines
        np.testing.assert_allclose(measured.get_ydata(), [0.1, 0.01 * np.sqrt(200), 0.2])
        np.testing.assert_allclose(free.get_ydata(), 2 * np.asarray(measured.get_ydata()))
        assert free.get_linestyle() in ("--", ":")
    assert [line.get_linestyle() for line in figure.axes[-1].lines] == ["-", ":"]  # fc: a reference only
    words = [text.get_text() for text in figure.legends[0].texts]
    assert "zero-mean gradients: a reference, no verdict" in words


def test_many_layers_share_panels():
    figure = plots.lags(with_lags(40))
    assert 1 < len(figure.axes) <= 12
    assert sum(len(ax.lines) for ax in figure.axes) == 80


@pytest.mark.parametrize("report", [empty_report(), make_report(3), with_lags(3, hidden=(1, 2, 4))])
def test_a_figure_without_points_says_why(report):
    figure = plots.lags(report)
    assert not figure.axes
    assert any("nothing to compare" in text.get_text() for text in figure.texts)
    assert figure._repr_png_()[1:4] == b"PNG"


def test_it_is_saved_only_where_there_is_something_to_see(tmp_path):
    names = [path.name for path in plots.save_all(with_lags(), tmp_path / "a")]
    assert "lags.png" in names
    assert "lags.png" not in [path.name for path in plots.save_all(make_report(4), tmp_path / "b")]


def test_the_report_keeps_the_table_and_older_ones_have_none(tmp_path):
    report = with_lags()
    save(report, tmp_path / "report.h5")
    assert load(tmp_path / "report.h5").lags.equals(report.lags)
    with h5py.File(tmp_path / "report.h5", "r+") as file:
        assert file["lags/lag"].attrs["long_name"] == "distance of the two checkpoints, counted in checkpoints"
        assert file["lags/angle"].attrs["units"] == "rad"
        assert all("units" in variable.attrs for variable in file["lags"].values())
        del file["lags"]
    assert load(tmp_path / "report.h5").lags.height == 0
