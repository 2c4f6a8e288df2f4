"""The figure of near and far checkpoints: the angle between them against their distance, beside zero-mean gradients."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smd_analyze.records.report import Report
from smd_analyze.views.drawing import (
    GREY,
    MEASURED,
    THEORY,
    Panel,
    figure,
    legend,
    log_ticks,
    panels,
    step_name,
    style,
)
from smd_analyze.views.text import shorten

HIDDEN = "below resolution"
FREE = "zero-mean gradients: a reference, no verdict"


def lags(report: Report) -> Figure:
    """Angle between checkpoints against the steps between them, log-log: one curve a layer, median over its pairs.

    Dashed: what zero-mean gradients would give. Below it the weights stay near where they were (confinement), a curve
    that catches up with it drifts; momentum alone makes both steep at short lags. Angles that the rounding of the saved
    weights hides are left out.
    """
    rows = curves(report)
    shown = [panel for panel in panels(report) if rows.filter(pl.col("group").is_in(list(panel.groups))).height]
    used: dict[str, Artist] = {}
    path = report.provenance.get("path", "")
    title = "Angles over near and far checkpoints" + (f" · {shorten(path, 60)}" if path else "")
    with style():
        drawn, axes = figure(shown, title, f"distance k [{step_name(report)}]", "angle θₖ [rad]", sharey=True)
        if not shown:
            drawn.texts[-1].set_text("nothing to compare: fewer than four checkpoints, or angles below resolution")
        for panel, ax in zip(shown, axes, strict=True):
            _panel(ax, rows.filter(pl.col("group").is_in(list(panel.groups))), panel, used)
        if axes:
            _scales(axes[0], rows)
        legend(drawn, used)
    return drawn


def curves(report: Report) -> pl.DataFrame:
    """One row per group and about equal distance: median recorded steps, angle, and that of zero-mean gradients."""
    if not report.lags.height:
        return pl.DataFrame(schema={"group": pl.String, "steps": pl.Float64, "angle": pl.Float64, "free": pl.Float64})
    reach = (pl.col("step_to") - pl.col("step_from")).cast(pl.Float64).alias("steps")
    kept = report.lags.filter(~pl.col("note").str.contains(HIDDEN) & (pl.col("angle") > 0))
    near = kept.select("group", reach, "angle", pl.col("diffusion_angle").alias("free"))
    octave = pl.col("steps").log(2).round().alias("octave")
    middle = [pl.col(name).median() for name in ("steps", "angle", "free")]
    return near.group_by("group", octave, maintain_order=True).agg(middle).drop("octave").sort("group", "steps")


def _panel(ax: Axes, rows: pl.DataFrame, panel: Panel, used: dict[str, Artist]) -> None:
    color = GREY if panel.reference else MEASURED
    name = "measured" + (" (not compared with theory)" if panel.reference else "")
    mark, wide, alpha = ("o", 1.4, 1.0) if panel.single else ("", 0.8, 0.5)
    for layer in rows.partition_by("group", maintain_order=True):
        line = ax.plot(layer["steps"], layer["angle"], marker=mark, ms=2.5, color=color, lw=wide, alpha=alpha)
        used.setdefault(name if panel.single else f"{name}: one of several layers", line[0])
        free = layer.drop_nulls("free")
        if free.height:
            dash = ":" if panel.reference else "--"
            line = ax.plot(free["steps"], free["free"], dash, color=GREY if panel.reference else THEORY, lw=wide)
            used.setdefault(f"{FREE} (not scale-invariant)" if panel.reference else FREE, line[0])


def _scales(ax: Axes, rows: pl.DataFrame) -> None:
    """Logarithmic axes that all panels share, with ticks that can be read."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, columns in ((ax.xaxis, ("steps",)), (ax.yaxis, ("angle", "free"))):
        found = np.concatenate([rows[name].drop_nulls().to_numpy() for name in columns])
        log_ticks(axis, float(found.min()), float(found.max()))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
