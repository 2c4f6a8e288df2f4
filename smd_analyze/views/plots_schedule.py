"""The figure of a schedule that was read off weights: decay per step over training, beside what the files say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from smd_analyze.errors import CannotWrite
from smd_analyze.records.report import Report
from smd_analyze.views.drawing import (
    EQUILIBRIUM,
    GREY,
    MEASURED,
    THEORY,
    Panel,
    figure,
    legend,
    log_ticks,
    nothing,
    step_name,
    style,
    values,
)
from smd_analyze.views.text import abbreviate, shorten

Used = dict[str, Artist]
MOST = 6  # parameter groups that get a panel
DECADES = 6  # of an axis at most: what is smaller is drawn at its lower end
FILE = "schedule.png"


def schedule(report: Report) -> Figure:
    """Decay per step of each parameter group that a clock speaks for: read off the weights, and by files and caller.

    Intervals are steps with their 95 % bands; jumps are marked where they were located. A rate of zero is an arrow at
    the bottom of the logarithmic axis.
    """
    groups = _groups(report)
    step = step_name(report)
    path = report.provenance.get("path", "")
    title = "Decay in force, read off the weights" + (f" · {shorten(path, 60)}" if path else "")
    used: Used = {}
    with style():
        panels = [Panel(abbreviate(name, 30), (), False, note) for name, note, _ in groups]
        drawn, axes = figure(panels, title, f"t [{step}]", f"decay per {step}")
        if not groups:
            for text in drawn.texts[:]:
                text.remove()
            nothing(drawn, "no decay clock was found: the table says what was looked for")
        for (_, _, rows), ax in zip(groups, axes, strict=True):
            _panel(ax, rows, used)
        legend(drawn, used)
    return drawn


def save_schedule(report: Report, folder: str | Path) -> Path:
    """Write the figure as schedule.png (150 dpi) into `folder`, which is made if need be.

    Raises:
        CannotWrite: the file cannot be written there.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        schedule(report).savefig(place / FILE, dpi=150)
    except OSError as error:
        raise CannotWrite(f"{folder}: the figure cannot be written: {error}") from error
    return place / FILE


def _groups(report: Report) -> list[tuple[str, str, pl.DataFrame]]:
    """Title, note and rows of the groups with a reading; those whose clock is another group's come last, if at all."""
    if "decay_per_step" not in report.schedule.columns:
        return []
    found = []
    for rows in report.schedule.partition_by("parameter_group", maintain_order=True):
        read = rows.filter(pl.col("decay_per_step").is_not_null())
        if read.height:
            assumed = read["source"].fill_null("").str.contains("assumed to hold here").any()
            group, tensor = rows["parameter_group"][0], read["read_off"][0]
            several = report.schedule["parameter_group"].n_unique() > 1
            title = f"parameter group {group}" if several and group else "all parameters"
            found.append((bool(assumed), title, f"clock of {tensor}", rows.sort("step_from")))
    own = [entry for entry in found if not entry[0]] or found
    return [entry[1:] for entry in own[:MOST]]


def _panel(ax: Axes, rows: pl.DataFrame, used: Used) -> None:
    read = values(rows, "decay_per_step")
    told = values(rows, "told_per_step")
    limits = _limits([*read[read > 0], *told[told > 0]])
    if limits is not None:
        ax.set_yscale("log")
        ax.set_ylim(*limits)
        log_ticks(ax.yaxis, *limits)
    x, files = _stairs(rows, told)
    if np.isfinite(files).any():
        line = ax.plot(x, files, color=THEORY, lw=2.6, alpha=0.55, zorder=3, solid_capstyle="butt")[0]
        used.setdefault("by files and options", line)
    x, weights = _stairs(rows, read)
    if (read > 0).any():
        used.setdefault("read off the weights", ax.plot(x, weights, color=MEASURED, lw=1.3, zorder=5)[0])
        low, high = (_stairs(rows, values(rows, f"decay_per_step_{end}"))[1] for end in ("low", "high"))
        bottom = limits[0] if limits else 0.0
        ax.fill_between(x, np.maximum(low, bottom), high, color=MEASURED, alpha=0.25, lw=0, zorder=4)
    _zeros(ax, rows.filter(pl.col("decay_per_step") == 0), used)
    _jumps(ax, rows, used)


def _stairs(rows: pl.DataFrame, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of every interval with its height; a gap where an interval is missing."""
    start, stop = rows["step_from"].to_numpy(), rows["step_to"].to_numpy()
    x = np.column_stack([start, stop]).ravel().astype(float)
    return x, np.repeat(height, 2)


def _zeros(ax: Axes, rows: pl.DataFrame, used: Used) -> None:
    """Intervals in which nothing was decayed: marks at the bottom of the picture."""
    if not rows.height:
        return
    middle = 0.5 * (rows["step_from"].to_numpy() + rows["step_to"].to_numpy())
    if ax.get_yscale() != "log":
        most = values(rows, "decay_per_step_high")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        marks = ax.errorbar(middle, np.zeros(rows.height), yerr=np.array([np.zeros(rows.height), most]), fmt="o", ms=3,
                            color=MEASURED, lw=1.0, zorder=5)  # fmt: skip
        used.setdefault("no decay, up to", marks.lines[0])
        return
    height = np.full(rows.height, 0.03)
    marks = ax.plot(middle, height, "v", ms=4, color=MEASURED, transform=ax.get_xaxis_transform(), zorder=6)[0]
    used.setdefault("no decay", marks)


def _jumps(ax: Axes, rows: pl.DataFrame, used: Used) -> None:
    """Located jumps: a line, and the interval that it lies in where that is wide enough to see."""
    for row in rows.filter(pl.col("change_step").is_not_null()).iter_rows(named=True):
        line = ax.axvline(row["change_step"], color=EQUILIBRIUM, lw=0.9, ls="--", zorder=2)
        used.setdefault("jump, located within the interval", line)
        ax.axvspan(row["change_step_low"], row["change_step_high"], color=GREY, alpha=0.2, lw=0, zorder=1)
        ax.annotate(f"{row['change_step']:.0f}", (row["change_step"], 0.97), xycoords=("data", "axes fraction"),
                    xytext=(3, 0), textcoords="offset points", fontsize=7, color=EQUILIBRIUM, va="top")  # fmt: skip


def _limits(found: Sequence[float]) -> tuple[float, float] | None:
    """The ends of a logarithmic axis with room above and below, over DECADES at most; None where all is zero."""
    if not found:
        return None
    top = max(found) * 1.8
    return max(min(found) / 1.8, 10 ** (math.log10(top) - DECADES)), top
