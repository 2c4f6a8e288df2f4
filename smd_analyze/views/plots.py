"""Figures of a report. Each function returns a matplotlib Figure; pyplot and the user's backend are left alone.

They draw what the tables hold and compute nothing but medians over layers that share a panel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smd_analyze.errors import CannotWrite
from smd_analyze.records.report import Report
from smd_analyze.views.balance import balance
from smd_analyze.views.drawing import (
    EQUILIBRIUM,
    GREY,
    IMPLIED,
    MEASURED,
    THEORY,
    Panel,
    axis_label,
    figure,
    legend,
    milli,
    panels,
    step_name,
    style,
    values,
)
from smd_analyze.views.plots_lags import lags
from smd_analyze.views.plots_schedule import schedule
from smd_analyze.views.plots_stages import transients
from smd_analyze.views.text import shorten

__all__ = ["angles", "angular_updates", "balance", "lags", "norms", "save_all", "schedule"]

Used = dict[str, Artist]
SMOOTH = 0.4  # a learning rate that changes in more than this part of the intervals follows a smooth schedule


def norms(report: Report) -> Figure:
    """Weight norm of every layer over training, with the norm that theory expects and its equilibrium."""
    shown = panels(report)
    unit = step_name(report)
    used: Used = {}
    fitted = "extrapolated" in report.predictions["norm_basis"].to_list()
    told = "fitted to these norms" if fitted else "constant over the run"
    theory = f"expected by theory, gradient scale {told}"
    rest = "equilibrium norm, extrapolated from these norms" if fitted else "equilibrium norm"
    with style():
        drawn, axes = figure(shown, _title("Weight norms", report), _x(unit), axis_label("weight_norm"))
        for panel, ax in zip(shown, axes, strict=True):
            color = GREY if panel.reference else MEASURED
            _lines(ax, report.statistics, "step", "weight_norm", panel, color, "weight norm", used)
            if not panel.reference:
                _lines(ax, report.predictions, "step", "expected_norm", panel, THEORY, theory, used, "--")
            _frame(ax)
            if not panel.reference:
                _equilibrium_norm(ax, report, panel, rest, used)
            _learning_rate(ax, report, panel, used)
        legend(drawn, used)
    return drawn


def angular_updates(report: Report) -> Figure:
    """Angle that one step turns: implied by the norms (line), measured (markers), at equilibrium (steps)."""
    shown = panels(report)
    unit = step_name(report)
    used: Used = {}
    by_norms = report.angular_updates.filter(pl.col("method") == "norms")
    independent = report.angular_updates.filter(pl.col("method") != "norms")
    rest = report.predictions["equilibrium_angular_update"]
    values = [*by_norms["angular_update"], *independent["angular_update"], *rest]
    limits = _log_limits(values)
    with style():
        y = axis_label("angular_update", -3, unit)
        drawn, axes = figure(shown, _title("Angular updates", report), _x(unit), y, sharey=True)
        for panel, ax in zip(shown, axes, strict=True):
            color = GREY if panel.reference else IMPLIED
            _lines(ax, by_norms, "step_to", "angular_update", panel, color, "implied by the norms", used, steps=True)
            _markers(ax, independent, panel, used)
            name = "equilibrium: reference only" if panel.reference else "equilibrium"
            line: dict[str, Any] = {
                "color": GREY if panel.reference else EQUILIBRIUM,
                "ls": ":" if panel.reference else "--",
            }
            for step, value in _per_step(report.predictions, "equilibrium_angular_update", panel):
                used.setdefault(name, ax.plot(step, value, drawstyle="steps-pre", lw=1.3, zorder=7, **line)[0])
            transients(ax, report, panel, _per_step(report.predictions, "equilibrium_angular_update", panel), used)
            _learning_rate(ax, report, panel, used)
            milli(ax, limits)
        if axes and not limits:
            axes[0].set_ylim(bottom=0)
        if axes and all(value is None for value in values):
            axes[0].annotate("no angular update is known: see the table", (0.5, 0.5), xycoords="axes fraction",
                             ha="center", fontsize=8, color=GREY)  # fmt: skip
        legend(drawn, used)
    return drawn


def angles(report: Report) -> Figure:
    """Angle between one checkpoint and the next, beside that of a diffusion with zero-mean gradients (no verdict).

    Intervals shorter than a fifth of the usual one are left out: a pair of consecutive steps would only zigzag.
    """
    shown = panels(report)
    unit = step_name(report)
    used: Used = {}
    with style():
        drawn, axes = figure(shown, _title("Angles between checkpoints", report), _x(unit), axis_label("angle"), True)
        usual = _usual_spacing(report)
        measured, expected = (t.filter(pl.col("step").is_in(usual)) for t in (report.statistics, report.predictions))
        for panel, ax in zip(shown, axes, strict=True):
            color = GREY if panel.reference else MEASURED
            _lines(ax, measured, "step", "angle", panel, color, "angle from the previous checkpoint", used)
            name = "zero-mean diffusion: a reference, no verdict"
            if not panel.reference:
                _lines(ax, expected, "step", "diffusion_angle", panel, THEORY, name, used, ":")
            _learning_rate(ax, report, panel, used)
        if axes:
            axes[0].set_ylim(bottom=0)
        legend(drawn, used)
    return drawn


def save_all(report: Report, folder: str | Path) -> list[Path]:
    """Write every figure as a PNG (150 dpi) into `folder`, which is made if need be.

    Raises:
        CannotWrite: a file cannot be written there.
    """
    place = Path(folder)
    figures: dict[str, Callable[[Report], Figure]] = {
        "weight_norms.png": norms,
        "angular_updates.png": angular_updates,
        "balance.png": balance,
        "angles.png": angles,
    }
    if report.lags.height:
        figures["lags.png"] = lags
    if report.clocks.height:
        figures["schedule.png"] = schedule
    written = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, draw in figures.items():
            draw(report).savefig(place / name, dpi=150)
            written.append(place / name)
    except OSError as error:
        raise CannotWrite(f"{folder}: the figures cannot be written: {error}") from error
    return written


def _usual_spacing(report: Report) -> list[int]:
    """The steps whose distance from the step before is at least a fifth of the median distance, and the first."""
    steps = report.checkpoints["step"].to_numpy()
    gaps = np.diff(steps, prepend=-np.inf)
    least = 0.2 * np.median(gaps[1:]) if len(gaps) > 1 else 0.0
    return [int(step) for step, gap in zip(steps, gaps, strict=True) if gap >= least]


def _title(what: str, report: Report) -> str:
    path = report.provenance.get("path", "")
    return f"{what} · {shorten(path, 60)}" if path else what


def _x(unit: str) -> str:
    return f"t [{unit}]"


def _series(frame: pl.DataFrame, x: str, y: str, panel: Panel) -> Iterator[pl.DataFrame]:
    """The rows of each layer of the panel, in order of `x`; layers without a number are left out."""
    chosen = frame.filter(pl.col("group").is_in(list(panel.groups))) if y in frame.columns else frame.clear()
    for rows in chosen.partition_by("group", maintain_order=True):
        if rows[y].null_count() < rows.height:
            yield rows.sort(x)


def _lines(
    ax: Axes,
    frame: pl.DataFrame,
    x: str,
    y: str,
    panel: Panel,
    color: str,
    name: str,
    used: Used,
    dash: str = "-",
    steps: bool = False,
) -> None:
    """One layer: its line and the band of its interval. Several: thin lines and their median (theory: median only)."""
    rows = list(_series(frame, x, y, panel))
    draw = "steps-pre" if steps else "default"
    theory = dash != "-"
    name += " (not compared with theory)" if panel.reference else ""
    if panel.single:
        for layer in rows:
            mark = "" if theory or steps else "o"
            line = ax.plot(layer[x], values(layer, y), dash, marker=mark, ms=2.5, color=color, lw=1.4, drawstyle=draw)
            used.setdefault(name, line[0])
            if f"{y}_low" in layer.columns:
                ends = values(layer, f"{y}_low"), values(layer, f"{y}_high")
                ax.fill_between(layer[x], *ends, step="pre" if steps else None, color=color, alpha=0.18, lw=0)
        return
    for layer in rows if not theory else ():
        line = ax.plot(layer[x], values(layer, y), color=color, lw=0.7, alpha=0.4, drawstyle=draw)
        used.setdefault(f"{name}: one of several layers", line[0])
    for step, value in _medians(rows, x, y):
        line = ax.plot(step, value, dash, color=color, lw=2.0, drawstyle=draw, zorder=5)
        used.setdefault(name if theory else f"{name}: their median", line[0])


def _medians(rows: list[pl.DataFrame], x: str, y: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if rows:
        middle = pl.concat([layer.select(x, y) for layer in rows]).group_by(x).agg(pl.col(y).median()).sort(x)
        yield middle[x].to_numpy(), values(middle, y)


def _per_step(frame: pl.DataFrame, y: str, panel: Panel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Steps and the value there: a layer's own, or the median of the layers that share the panel."""
    return _medians(list(_series(frame, "step", y, panel)), "step", y)


def _markers(ax: Axes, frame: pl.DataFrame, panel: Panel, used: Used) -> None:
    """Independent measurements, with their intervals in panels of one layer."""
    for method, mark in (("consecutive", "D"), ("buffer", "o")):
        for layer in _series(frame.filter(pl.col("method") == method), "step_to", "angular_update", panel):
            name = {"consecutive": "measured: consecutive steps", "buffer": "measured: optimizer state"}[method]
            color, at, value = GREY if panel.reference else MEASURED, layer["step_to"], values(layer, "angular_update")
            size, alpha = (4.0, 1.0) if panel.single else (2.5, 0.5)
            name += " (not compared with theory)" if panel.reference else ""
            used.setdefault(name, ax.plot(at, value, mark, ms=size, color=color, alpha=alpha, mew=0, zorder=6)[0])
            if panel.single:
                low, high = values(layer, "angular_update_low"), values(layer, "angular_update_high")
                ax.vlines(at, low, high, color=color, lw=1.0, zorder=6)


def _equilibrium_norm(ax: Axes, report: Report, panel: Panel, name: str, used: Used) -> None:
    """Steps at the equilibrium norm; where it lies far outside the picture, an arrow and its last value."""
    bottom, top = ax.get_ylim()
    for step, value in _per_step(report.predictions, "equilibrium_norm", panel):
        line = ax.plot(step, value, ":", drawstyle="steps-pre", color=EQUILIBRIUM, lw=1.3, zorder=4)[0]
        used.setdefault(name, line)
        if panel.single and "equilibrium_norm_low" in report.predictions.columns:
            layer = next(_series(report.predictions, "step", "equilibrium_norm", panel))
            ends = values(layer, "equilibrium_norm_low"), values(layer, "equilibrium_norm_high")
            ax.fill_between(step, *ends, step="pre", color=EQUILIBRIUM, alpha=0.12, lw=0)
        finite = value[np.isfinite(value)]
        span, last = top - bottom, float(finite[-1])
        if bottom - 2 * span < finite.min() and finite.max() < top + 2 * span:
            ax.set_ylim(min(bottom, finite.min() - 0.05 * span), max(top, finite.max() + 0.05 * span))
        else:
            ax.set_ylim(bottom, top)
            if not bottom <= last <= top:
                high, arrow = (0.85, "↑") if last > top else (0.05, "↓")
                ax.annotate(f"‖w‖* = {last:.3g} {arrow}", (0.985, high), xycoords="axes fraction", ha="right",
                            fontsize=7, color=EQUILIBRIUM)  # fmt: skip


def _learning_rate(ax: Axes, report: Report, panel: Panel, used: Used) -> None:
    """Mark the intervals where the learning rate drops or rises; a smooth schedule would only blacken the picture."""
    owners = report.groups.filter(pl.col("group").is_in(list(panel.groups)))["parameter_group"].unique()
    wanted = {"learning_rate_first", "learning_rate_last", "learning_rate_changes"}
    if not wanted <= set(report.schedule.columns):
        return
    marks: set[tuple[int, int]] = set()
    for owner in owners:
        rows = report.schedule.filter(pl.col("parameter_group") == owner).sort("step_from")
        before, found = None, set()
        for row in rows.iter_rows(named=True):
            first = row["learning_rate_first"]
            if row["learning_rate_changes"]:
                found.add((row["step_from"], row["step_to"]))
            elif before is not None and first is not None and not math.isclose(first, before, rel_tol=1e-6):
                found.add((row["step_from"], row["step_from"]))
            before = row["learning_rate_last"]
        if len(found) <= max(1, SMOOTH * rows.height):
            marks |= found
    for start, stop in sorted(marks):
        if start == stop:
            used.setdefault("learning rate changes", ax.axvline(start, color=GREY, lw=0.9, ls="-.", zorder=1))
        else:
            span = ax.axvspan(start, stop, color=GREY, alpha=0.16, lw=0, zorder=0)
            used.setdefault("learning rate changes here", span)


def _frame(ax: Axes) -> None:
    """At least 4 % of the value from bottom to top: noise of the last digit should not fill the picture."""
    bottom, top = ax.get_ylim()
    middle = (bottom + top) / 2
    least = 0.04 * abs(middle)
    if top - bottom < least:
        ax.set_ylim(middle - least / 2, middle + least / 2)
    ax.ticklabel_format(axis="y", useOffset=False)


def _log_limits(found: list[float | None]) -> tuple[float, float] | None:
    """The ends of a logarithmic axis, if the values span so much that no other shows them all."""
    positive = [value for value in found if value is not None and value > 0]
    if not positive or max(positive) < 15 * min(positive):
        return None
    return min(positive) / 1.6, max(positive) * 1.6
