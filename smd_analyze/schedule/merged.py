"""The schedule table with intervals of one rate merged: what a person reads, one row per stretch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.schedule.account import CHANGE, EXPECTED, RATE, TOLD
from smd_analyze.schedule.clock_pools import ULP
from smd_analyze.schedule.clock_readings import Z95
from smd_analyze.schedule.stretches import ALIKE, pooled

DECAY = ("sum_decay", "sum_decay_low", "sum_decay_high")
ETA = ("learning_rate", "learning_rate_low", "learning_rate_high")
NUMBERS = (
    *RATE, *EXPECTED, "ratio", "ratio_low", "ratio_high", *DECAY, *TOLD, *ETA, "momentum", "told_weight_decay", *CHANGE,
)  # fmt: skip
MERGED = {
    "parameter_group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "intervals": pl.Int64,
    **dict.fromkeys(NUMBERS, pl.Float64), "optimizer": pl.String, "decoupled": pl.Boolean,
    "momentum_assumed": pl.Boolean, "read_off": pl.String, "source": pl.String, "told_source": pl.String,
    "shape": pl.String,
}  # fmt: skip
SAME = ("optimizer", "decoupled", "momentum", "momentum_assumed", "read_off", "source", "told_source", "shape")
Row = dict[str, Any]


def merged(schedule: pl.DataFrame) -> pl.DataFrame:
    """One row per parameter group and stretch of constant rate, from a schedule table with `account`'s columns.

    `decay_per_step`: mean of the stretch, weighted by inverse variance; the run's first interval, in which a momentum
    buffer fills, counts only if it is alone. `told_per_step`: mean of what files and caller would give there, `ratio`
    the one over the other. `sum_decay`, `told_decay`: sums, null where an interval lacks its own. `learning_rate`:
    Σηλ / (λ × steps) with the λ of files and caller; decoupled decay tells ηλ to half of fp32's step below 1 only.
    `change_step`: where the rate jumped, of the stretch that begins there. Intervals of one stretch that differ in
    source, or in what files say by more than 2e-4, stay apart.
    """
    if "stretch" not in schedule.columns:
        return pl.DataFrame(schema=MERGED)
    out: list[Row] = []
    for table in schedule.partition_by("parameter_group", maintain_order=True):
        run: list[Row] = []
        for row in table.sort("step_from", maintain_order=True).iter_rows(named=True):
            if run and not _alike(run[-1], row):
                out.append(_row(run))
                run = []
            run.append(row)
        if run:
            out.append(_row(run))
    return pl.DataFrame(out, schema=MERGED)


def _alike(before: Row, row: Row) -> bool:
    if before["stretch"] != row["stretch"] or before["step_to"] != row["step_from"]:
        return False
    if any(before.get(key) != row.get(key) for key in SAME):
        return False
    told = [_rate(r, "told_decay") for r in (before, row)]
    if None in told:
        return told[0] == told[1]
    return abs(told[1] - told[0]) <= ALIKE * max(abs(told[0]), abs(told[1])) or row["decay_per_step"] is not None


def _rate(row: Row, key: str) -> Any:
    value = row[key]
    return None if value is None else value / max(row["step_to"] - row["step_from"], 1)


def _row(rows: Sequence[Row]) -> Row:
    first, last = rows[0], rows[-1]
    row: Row = dict.fromkeys(MERGED)
    row |= {key: first.get(key) for key in ("parameter_group", "step_from", *SAME)}
    row |= {"step_to": last["step_to"], "intervals": len(rows), "told_weight_decay": first["told_weight_decay"]}
    length = last["step_to"] - first["step_from"]
    row |= _pooled(rows)
    for keys in (DECAY, TOLD):
        row |= {key: _sum(rows, key) for key in keys}
    steps = np.array([r["step_to"] - r["step_from"] for r in rows], float)
    for key in EXPECTED:
        values = [r[key] for r in rows]
        row[key] = None if None in values or not steps.sum() else float(np.average(values, weights=steps))
    if row["decay_per_step"] is not None and row["told_per_step"]:
        rate, (low, high) = row["decay_per_step"], _ends(row)
        row |= {"ratio": rate / row["told_per_step"]}
        row |= {
            "ratio_low": low / row["told_per_step_high"],
            "ratio_high": high / max(row["told_per_step_low"], 1e-300),
        }
    lam, coarse = first["told_weight_decay"], ULP / 2 if first["decoupled"] else 0.0
    if lam and row["decay_per_step"] is not None and length and row["sum_decay"] is not None:
        for eta, key, room in zip(ETA, DECAY, (0.0, -coarse, coarse), strict=True):
            row[eta] = None if row[key] is None else max(row[key] / length + room, 0.0) / lam
    changed = next((r for r in rows if r["change_step"] is not None), None)
    if changed is not None:
        row |= {key: changed[key] for key in CHANGE}
    return row


def _ends(row: Row) -> tuple[float, float]:
    rate = row["decay_per_step"]
    low, high = row["decay_per_step_low"], row["decay_per_step_high"]
    return rate if low is None else low, rate if high is None else high


def _pooled(rows: Sequence[Row]) -> Row:
    """The rate of the intervals that were read, without the run's first where there are others."""
    read = [r for r in rows if r["decay_per_step"] is not None]
    if len(read) > 1 and read[0]["step_from"] == 0 and not read[0]["decoupled"]:
        read = read[1:]
    if not read:
        return dict.fromkeys(RATE)
    if len(read) == 1:
        return {key: read[0][key] for key in RATE}
    rate, low, high = (np.array([r[key] for r in read], float) for key in RATE)
    steps = np.array([r["step_to"] - r["step_from"] for r in read], float)
    if not rate.any():  # no decay: the bounds of each interval hold for their mean
        return {key: float(np.average(ends, weights=steps)) for key, ends in zip(RATE, (rate, low, high), strict=True)}
    mean, sd = pooled(rate, (high - low) / (2 * Z95), steps)
    return dict(zip(RATE, (mean, mean - Z95 * sd, mean + Z95 * sd), strict=True))


def _sum(rows: Sequence[Row], key: str) -> float | None:
    values = [r[key] for r in rows]
    return None if None in values else float(sum(values))
