"""What the report knows of one layer, gathered for its explanation: rows of tables and per-unit sums, nothing computed
but the decay and length of intervals as theory reads them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import polars as pl

from smd_analyze.errors import UsageError
from smd_analyze.records.report import INVARIANT, Report
from smd_analyze.views.text import present

if TYPE_CHECKING:
    from smd_analyze.records.statistics import UnitSeries

Row = dict[str, Any]
DIRECT = "optimizer steps"


@dataclass(frozen=True, eq=False)
class Facts:
    """One layer. `layer`: its rows of `groups` and `layers`; `schedule`: the rows of its parameter group, in order."""

    report: Report
    name: str
    layer: Row
    schedule: Sequence[Row]
    norms: Sequence[Row]
    angles: Sequence[Row]
    predicted: Sequence[Row]
    fits: Sequence[Row]

    @property
    def last(self) -> Row:
        """Its last row of `predictions`, {} if there is none."""
        return self.predicted[-1] if self.predicted else {}

    @property
    def row(self) -> Row:
        """The last row of its schedule, {} if there is none."""
        return self.schedule[-1] if self.schedule else {}

    @property
    def invariant(self) -> bool:
        """Whether theory claims anything of it."""
        return self.layer.get("status") in INVARIANT

    @property
    def numel(self) -> int:
        """Elements of the layer."""
        return self.layer["numel"] or 0

    @property
    def unit(self) -> str:
        """What a rate is per: `step`, or `epoch` where checkpoints count epochs."""
        return (self.report.provenance.get("step_unit") or DIRECT).removeprefix("optimizer ").removesuffix("s")

    @cached_property
    def series(self) -> UnitSeries | None:
        """Per-unit sums, None where the report holds none that fit its checkpoints."""
        return self.report.units(self.name)

    def fit(self, quantity: str) -> Row:
        """The layer's row of `fits` for a quantity (the first if there are several), {} if there is none."""
        return next((row for row in self.fits if row["quantity"] == quantity), {})

    def at(self, step: int) -> int | None:
        """Index of a checkpoint in the per-unit series."""
        if self.series is None:
            return None
        found = [i for i, s in enumerate(self.series.steps.tolist()) if s == step]
        return found[0] if found else None

    def between(self, start: int, stop: int) -> list[Row]:
        """The schedule's rows from one checkpoint to another; [] unless they tile the whole span."""
        rows = [r for r in self.schedule if r["step_from"] >= start and r["step_to"] <= stop]
        return rows if sum(r["step_to"] - r["step_from"] for r in rows) == stop - start else []

    @cached_property
    def per_step(self) -> float | None:
        """Optimizer steps of a recorded step: 1, or where epochs are recorded what Σ learning rate tells."""
        if (self.report.provenance.get("step_unit") or DIRECT) == DIRECT:
            return 1.0
        found = [
            r["sum_learning_rate"] / r["learning_rate_last"] / (r["step_to"] - r["step_from"])
            for r in self.schedule
            if r["sum_learning_rate"] and r["learning_rate_last"] and not r["learning_rate_changes"]
        ]
        return median(found) if found else None

    def updates(self, rows: Sequence[Row]) -> float:
        """Optimizer steps (recorded ones where those cannot be counted) of rows of the schedule."""
        return sum(r["step_to"] - r["step_from"] for r in rows) * (self.per_step or 1.0)

    def total(self, rows: Sequence[Row], key: str = "sum_decay") -> float | None:
        """Σηλ (or Ση) over rows; None where one is not known."""
        values = [r[key] for r in rows]
        return float(sum(values)) if rows and all(map(present, values)) else None

    @cached_property
    def decay(self) -> float | None:
        """ηλ of the last update, dampening left out: λ in force times its η; the interval's mean if η is unknown."""
        return self.decay_of(self.row)

    def decay_of(self, row: Row, end: str = "last") -> float | None:
        """ηλ of the last (or first) update of a row of the schedule."""
        if not row:
            return None
        total, rates, rate = row["sum_decay"], row["sum_learning_rate"], row[f"learning_rate_{end}"]
        rule = row.get("decay_rule") or ""
        if "alone" in rule or not present(rate) or not rates:
            if not present(total):
                return row["weight_decay"] * rate if present(row["weight_decay"]) and present(rate) else None
            return total / self.updates([row])
        if "²" in rule and present(total):
            mean = rates / self.updates([row])
            return total / self.updates([row]) * (rate / mean) ** 2
        weight_decay = total / rates if present(total) else row["weight_decay"]
        return weight_decay * rate if present(weight_decay) else None


def facts_of(report: Report, layer: str) -> Facts:
    """Of a group, or of the group that a parameter belongs to. Raises UsageError if there is none; names those near."""
    name = _group(report, layer)
    here = pl.col("group") == name
    about = _first(report.groups.filter(here)) | _first(report.layers.filter(here))
    owners = _owners(report, about)
    rows = report.schedule.filter(pl.col("parameter_group") == owners[0]).sort("step_from") if owners else None
    norms = report.statistics.filter(here & pl.col("weight_norm").is_not_null()).sort("step")
    fits = report.fits.filter(here & pl.col("unit").is_null()) if report.fits.width else report.fits
    return Facts(
        report, name, about, [] if rows is None else rows.to_dicts(), norms.to_dicts(),
        _of(report.angular_updates, name, "step_to"), _of(report.predictions, name, "step"), fits.to_dicts(),
    )  # fmt: skip


def _of(table: pl.DataFrame, name: str, order: str) -> list[Row]:
    return table.filter(pl.col("group") == name).sort(order).to_dicts() if table.width else []


def _first(table: pl.DataFrame) -> Row:
    return next(table.iter_rows(named=True), {})


def _group(report: Report, layer: str) -> str:
    names = report.groups["group"].to_list()
    if layer in names:
        return layer
    owners = report.parameters.filter(pl.col("parameter") == layer)["group"].drop_nulls().unique().to_list()
    owners = [name for name in owners if name]
    if len(owners) == 1:
        return owners[0]
    near = owners or difflib.get_close_matches(layer, names, 5, 0.3) or names[:5]
    raise UsageError(f"no layer {layer!r} in this report; there are for example {', '.join(near)}")


def _owners(report: Report, about: Row) -> list[str]:
    known = set(report.schedule["parameter_group"].to_list()) if report.schedule.height else set()
    text = str(about.get("parameter_group") or "")
    return [text] if text in known else [name for name in text.split(", ") if name in known]
