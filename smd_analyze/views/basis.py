"""What the numbers of a run rest on where decay clocks speak: read off the weights, inferred, assumed. Two lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from smd_analyze.records.report import Report
from smd_analyze.views.schedule_words import NOTHING_READ, verdict
from smd_analyze.views.text import given

ASSUMED_HERE = ", assumed to hold here"
TOLD_ABOVE = frozenset({
    "clock-transfer-assumed", "optimizer-inferred", "optimizer-unknown", "momentum-assumed", "momentum-read",
})  # fmt: skip
"""Codes of findings that say at length what `lines_of_basis`, and the schedule's table, say in a few words."""
Row = Mapping[str, Any]


def lines_of_basis(report: Report, stretches: pl.DataFrame) -> Iterator[str]:
    """The decay that was read off the weights, against the files; then what was inferred and assumed on top of it.

    `stretches` merges the intervals of the report's schedule. Nothing where the weights tell nothing.
    """
    if not report.clocks.height:
        return
    told = verdict(report, stretches)
    if told == NOTHING_READ:
        return
    yield told
    rows = list(report.schedule.filter(pl.col("source").str.contains("clock of")).iter_rows(named=True))
    words = list(filter(None, (_read(rows), _assumed(rows), _unknown(rows))))
    if words:
        yield " ".join(words)


def _read(rows: Sequence[Row]) -> str:
    """Optimizer and momentum, where the weights gave them."""
    found: dict[str, None] = {}
    for row in rows:
        for part in str(row["source"]).split("; "):
            if part == "SGD inferred from it":
                found["SGD"] = None
            elif ", read off" in part:
                found[part.partition(",")[0]] = None
    return f"Read off the weights as well: {', '.join(found)}." if found else ""


def _assumed(rows: Sequence[Row]) -> str:
    """Of whom the decay is, and the momentum, where nothing tells."""
    parts = []
    guess = next((row for row in rows if row["momentum_assumed"]), None)
    if guess is not None:
        parts.append(f"momentum {given(guess['momentum'])} (θ₁, θ* and levels from theory rest on it, EI does not)")
    lent = next((row for row in rows if ASSUMED_HERE in str(row["source"])), None)
    if lent is not None:
        name = str(lent["source"]).partition(ASSUMED_HERE)[0].rpartition("clock of ")[2]
        parts.append(f"other tensors decay as {name} {'do' if ' more' in name else 'does'}")
    return f"Assumed: {'; '.join(parts)}." if parts else ""


def _unknown(rows: Sequence[Row]) -> str:
    """What would turn the decay into a prediction."""
    if not any(row["sum_decay"] for row in rows) or any(row["optimizer"] for row in rows):
        return ""
    return "The optimizer is not known: --optimizer adamw (or sgd with --momentum, …) gives the balance."
