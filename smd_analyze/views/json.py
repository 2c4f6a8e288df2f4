"""Tables as strict JSON: null for what is missing, never NaN or Infinity."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smd_analyze.records.report import TABLES

if TYPE_CHECKING:
    import polars as pl

    from smd_analyze.records.group import Groups
    from smd_analyze.records.report import Report


def rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON objects."""
    return [{name: strict(value) for name, value in row.items()} for row in table.iter_rows(named=True)]


def report_json(report: Report) -> dict[str, Any]:
    """Verdict, provenance, and every table by its name as a list of rows."""
    tables = {name: rows(getattr(report, name)) for name in TABLES}
    return {"verdict": report.verdict, "provenance": dict(report.provenance)} | tables


def groups_json(
    found: Groups, parameters: pl.DataFrame, groups: pl.DataFrame, findings: pl.DataFrame
) -> dict[str, Any]:
    """The tables as rows, what they rest on, each group's index sets, and the sums that feel no gradient."""
    each = [
        row | {"index_sets": [asdict(m) | {"shape": list(m.shape)} for m in group.members]}
        for row, group in zip(rows(groups), found.groups, strict=True)
    ]
    sums = [asdict(t) | {"axes": list(t.axes)} for t in found.translations]
    return {
        "source": found.source, "parameters": rows(parameters), "groups": each, "translations": sums,
        "findings": rows(findings),
    }  # fmt: skip


def strict(value: Any) -> Any:
    """The value, or None where JSON has no word for it (NaN, ±∞)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [strict(item) for item in value]
    return value
