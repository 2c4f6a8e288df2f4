from dataclasses import replace

import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from synthetic_report import empty_report, make_report

from smd_analyze.errors import CannotWrite
from smd_analyze.views import plots
from smd_analyze.views.drawing import MOST_PANELS, panels


def column(table, name, **where):
    return table.filter(**where)[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def drawn(ax):
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


def holds(ax, wanted):
    return any(len(y) == len(wanted) and np.array_equal(y, wanted, equal_nan=True) for y in drawn(ax))


def panel(figure, title):
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == title)


def test_norms_draw_what_the_tables_hold():
    report = make_report(8)
    figure = plots.norms(report)
    assert len(figure.axes) == 8
    ax = panel(figure, "layer1.0.conv2")  # its second checkpoint is missing: the line has a gap
    assert holds(ax, column(report.statistics, "weight_norm", group="layer1.0.conv2"))
    assert holds(ax, column(report.predictions, "expected_norm", group="layer1.0.conv2"))
    assert holds(ax, column(report.predictions, "equilibrium_norm", group="layer1.0.conv2"))
    assert any(np.isnan(y).any() for y in drawn(ax))


def test_no_theory_is_drawn_for_layers_that_are_not_invariant():
    ax = panel(plots.norms(make_report(8)), "fc")
    assert len(ax.lines) == 1
    ax = panel(plots.angular_updates(make_report(8)), "fc")
    assert {line.get_linestyle() for line in ax.lines} == {"-", "None", ":"}  # a dotted reference, no dashed theory


def test_only_a_report_without_angles_says_that_none_is_known():
    """Values that need no logarithmic axis are values too."""

    def said(report):
        return any("no angular update" in t.get_text() for ax in plots.angular_updates(report).axes for t in ax.texts)

    full = make_report(3)
    near = full.angular_updates.with_columns(pl.col("angular_update") * 0 + 0.005)
    level = full.predictions.with_columns(pl.col("equilibrium_angular_update") * 0 + 0.005)
    assert not said(replace(full, angular_updates=near, predictions=level))
    assert said(replace(full, angular_updates=near.clear(), predictions=level.clear()))


def test_angular_updates_draw_lines_and_markers():
    report = make_report(8)
    ax = panel(plots.angular_updates(report), "layer1.0.conv1")
    for method in ("norms", "buffer", "consecutive"):
        assert holds(ax, column(report.angular_updates, "angular_update", group="layer1.0.conv1", method=method))
    assert holds(ax, column(report.predictions, "equilibrium_angular_update", group="layer1.0.conv1"))


def test_angles_have_a_reference_that_is_no_verdict():
    report = make_report(5)
    figure = plots.angles(report)
    assert holds(panel(figure, "conv1"), column(report.statistics, "angle", group="conv1"))
    assert holds(panel(figure, "conv1"), column(report.predictions, "diffusion_angle", group="conv1"))
    assert any("no verdict" in text.get_text() for text in figure.legends[0].get_texts())


def test_axes_carry_symbols_and_units():
    report = make_report(5)
    assert plots.norms(report).get_supylabel() == "weight norm ‖w‖"
    figure = plots.angular_updates(report)
    assert figure.get_supylabel() == "angular update θ₁ [10⁻³ rad/step]"
    assert figure.axes[-1].get_xlabel() == "t [step]"
    assert figure.axes[0].yaxis.get_major_formatter()(0.002, 0) == "2"


@pytest.mark.parametrize("layers", [60, 300])
def test_many_layers_share_few_panels_without_long_legends(layers):
    report = make_report(layers, checkpoints=4)
    figure = plots.norms(report)
    assert len(figure.axes) <= MOST_PANELS
    assert len(figure.legends[0].get_texts()) <= 10
    assert sum(len(p.groups) for p in panels(report)) == layers
    thin = sum(len(ax.lines) for ax in figure.axes)
    assert thin >= layers


def test_an_unsorted_network_of_many_kinds_still_has_few_panels():
    report = make_report(60, checkpoints=3)
    letters = [f"block_{chr(97 + i % 26)}{chr(97 + i // 26)}.weight_{chr(97 + i % 7)}" for i in range(60)]
    names = dict(zip(report.groups["group"], letters, strict=True))
    renamed = report.groups.with_columns(pl.col("group").replace_strict(names))
    found = panels(replace(report, groups=renamed))
    assert len(found) <= MOST_PANELS
    assert sorted(name for p in found for name in p.groups) == sorted(letters)


def test_learning_rate_changes_are_marked_unless_they_are_everywhere():
    report = make_report(3)
    assert len(panel(plots.norms(report), "conv1").patches) == 1
    smooth = report.schedule.with_columns(learning_rate_changes=pl.lit(True))
    assert len(panel(plots.norms(replace(report, schedule=smooth)), "conv1").patches) == 0


def test_balance_is_the_update_over_equilibrium():
    report = make_report(8)
    ax = plots.balance(report).axes[0]
    rows = report.layers.filter(pl.col("equilibrium").is_not_null())
    dots = {float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"}
    for name in ("implied", "measured"):
        ratios = (rows[name] / rows["equilibrium"]).drop_nulls().to_list()
        assert all(any(dot == pytest.approx(ratio) for dot in dots) for ratio in ratios)
    assert len(ax.get_yticks()) == rows.height
    many = plots.balance(make_report(120, checkpoints=2)).axes[0]
    assert len(many.get_yticks()) < 10
    points = sum(len(found.get_offsets()) for found in many.collections)
    assert points == 118 * 2 + 1  # implied and measured of the invariant ones, implied of fc


@pytest.mark.parametrize("draw", [plots.norms, plots.angular_updates, plots.balance, plots.angles])
def test_an_empty_report_gives_a_figure_that_says_so(draw):
    figure = draw(empty_report())
    assert isinstance(figure, Figure)
    assert figure.texts
    assert figure._repr_png_()[1:4] == b"PNG"


def test_figures_are_written_and_the_users_settings_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    backend = matplotlib.rcParams._get("backend") if hasattr(matplotlib.rcParams, "_get") else None
    written = plots.save_all(make_report(4, checkpoints=4), tmp_path / "new" / "figures")
    names = ["weight_norms.png", "angular_updates.png", "balance.png", "angles.png"]
    assert [path.name for path in written] == names
    assert all(path.read_bytes()[1:4] == b"PNG" for path in written)
    assert dict(matplotlib.rcParams) == before
    if backend is not None:
        assert matplotlib.rcParams._get("backend") == backend
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="file"):
        plots.save_all(make_report(3), tmp_path / "file")


def test_consecutive_pairs_do_not_zigzag_through_the_angles():
    report = make_report(5)
    steps = report.checkpoints["step"].to_list()
    close = replace(report, checkpoints=report.checkpoints.with_columns(step=pl.Series([*steps[:-1], steps[-2] + 1])))
    drawn = [len(np.atleast_1d(line.get_xdata())) for line in panel(plots.angles(close), "conv1").lines]
    whole = [len(np.atleast_1d(line.get_xdata())) for line in panel(plots.angles(report), "conv1").lines]
    assert drawn[0] == whole[0] - 1
