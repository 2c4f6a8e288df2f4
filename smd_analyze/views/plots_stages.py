"""The transient of a learning-rate change in a figure: the predicted dip of the angular update and its recovery.

Worked out here for display alone, from the dip and the half-lives that the table `stages` holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from smd_analyze.records.report import Report
from smd_analyze.views.drawing import THEORY, Panel

NAME = "predicted after the learning rate changed, if in balance before"
POINTS = 60
UNTIL = 1.5  # times the recovery to 5 %: how far the curve is drawn


def transients(
    ax: Axes, report: Report, panel: Panel, rest: Iterable[tuple[np.ndarray, np.ndarray]], used: dict[str, Artist]
) -> None:
    """Draw each change's dip and recovery in a panel; `rest`: (steps, θ* [rad/step] there) of the panel's layers."""
    if panel.reference or not report.stages.height:
        return
    owners = report.layers.filter(pl.col("group").is_in(list(panel.groups)))["parameter_group"].unique()
    rows = report.stages.filter(pl.col("parameter_group").is_in(owners) & pl.col("dip").is_not_null())
    for steps, theta in rest:
        for row in rows.unique(["step_from", "step_to"]).sort("step_from").iter_rows(named=True):
            inside = theta[(steps > row["step_from"]) & (steps <= row["step_to"]) & np.isfinite(theta)]
            if not len(inside):
                continue
            length = min(UNTIL * row["recovery_steps"], row["step_to"] - row["step_from"])
            at = np.linspace(0.0, length, POINTS)
            gone = 2.0 ** (-at * row["half_lives"] / (row["step_to"] - row["step_from"]))
            curve = inside[-1] / np.sqrt(1 + (row["dip"] ** -2 - 1) * gone)
            line = ax.plot(row["step_from"] + at, curve, ":", color=THEORY, lw=1.6, zorder=8)[0]
            used.setdefault(NAME, line)
