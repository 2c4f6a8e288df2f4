"""The Context of one group of a report, so that pictures and per-unit tables can be made of a saved one."""

from __future__ import annotations

import numpy as np
import polars as pl

from smd_analyze.errors import UsageError
from smd_analyze.fits.context import Context
from smd_analyze.fits.regime import regime
from smd_analyze.records.group import Group, Member
from smd_analyze.records.report import Report
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import UnitSeries


def context_of(report: Report, series: UnitSeries) -> Context:
    """What the estimates of the group of `series` rest on. Raises UsageError if the report does not know the group."""
    rows = report.groups.filter(pl.col("group") == series.group).to_dicts()
    if not rows:
        raise UsageError(f"the report has no group {series.group!r}: see report.groups")
    row = rows[0]
    of = {p: g for p, g in report.parameters.select("parameter", "parameter_group").iter_rows() if p and g}
    members = tuple(Member(name, 0, 0, row["units"]) for name in (row["members"] or "").split(", ") if name)
    group = Group(
        row["group"], members, row["status"], row["granularity"], row["units"], row["numel"], row["parameter_group"],
        row["evidence"], row["role"], row["reason"],
    )  # fmt: skip
    named = set(report.schedule["parameter_group"].to_list())
    schedule = Schedule(
        report.schedule, {p: g for p, g in of.items() if g in named}, report.provenance.get("step_unit", "")
    )
    found = regime(group, np.asarray(series.steps), schedule)
    predicted = report.predictions.filter(pl.col("group") == series.group).to_dicts()
    angles = report.angular_updates.filter(pl.col("group") == series.group).to_dicts()
    return Context(group, series, found, angles, predicted)
