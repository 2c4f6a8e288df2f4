"""Report: the tables, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smd_analyze.records import display
from smd_analyze.records.statistics import UnitSeries, no_table

if TYPE_CHECKING:
    import polars as pl

TABLES = (
    "layers", "checkpoints", "settings", "parameters", "groups", "statistics", "clocks", "schedule",
    "stages", "lags", "angular_updates", "predictions", "fits", "findings",
)  # fmt: skip

HEADS = {
    "group": "layer", "status": "status", "evidence": "evidence", "weight_norm": "‖w‖", "level": "level ‖w‖*",
    "implied": "θ₁ implied [rad/step]", "measured": "θ₁ measured [rad/step]", "equilibrium": "θ* [rad/step]",
    "half_lives": "half-lives", "state": "state",
}  # fmt: skip
"""Columns of `layers` that a notebook shows, and their heads."""
INVARIANT = ("invariant", "jointly invariant")
CLAIMS = ("level", "half_lives")
"""Columns that say nothing of a weight that is not scale-invariant."""


@dataclass(frozen=True)
class Report:
    """All results of one analysis: one polars table per fact kind (docs/report-format.md), missing numbers are null.

    `layers` is the table that a person reads, one row per group; `verdict` the one line above it.
    `provenance` holds version, command, path, device, time, step_unit, ordered_by, groups_source.
    `units(name)` gives a group's per-unit series, or None where the report holds none.
    """

    verdict: str
    layers: pl.DataFrame
    checkpoints: pl.DataFrame
    settings: pl.DataFrame
    parameters: pl.DataFrame
    groups: pl.DataFrame
    statistics: pl.DataFrame
    clocks: pl.DataFrame
    schedule: pl.DataFrame
    angular_updates: pl.DataFrame
    predictions: pl.DataFrame
    fits: pl.DataFrame
    findings: pl.DataFrame
    stages: pl.DataFrame = field(default_factory=no_table)
    lags: pl.DataFrame = field(default_factory=no_table)
    provenance: Mapping[str, str] = field(default_factory=dict)
    units: Callable[[str], UnitSeries | None] = field(default=lambda _: None, repr=False)

    def __repr__(self) -> str:
        lines = [f"  {group}: {state}" for group, state in self.layers.select("group", "state").iter_rows()]
        more = len(lines) - 2 * display.SHOWN
        if more > 0:
            lines[2 * display.SHOWN :] = [f"  … {more} more in report.layers"]
        return "\n".join([self.verdict, *lines])

    def _repr_html_(self) -> str:
        unit = self.provenance.get("step_unit", "step").removeprefix("optimizer ").removesuffix("s")
        heads = [head.replace("step", unit) for head in HEADS.values()]
        layers = sorted(self.layers.iter_rows(named=True), key=lambda row: row["status"] not in INVARIANT)
        rows = [
            tuple("" if n in CLAIMS and row["status"] not in INVARIANT else display.number(row[n]) for n in HEADS)
            for row in layers
        ]
        found = display.html_list(self.findings.select("severity", "where", "message").iter_rows())
        return display.html_head(self.verdict) + display.html_table(heads, rows) + found
