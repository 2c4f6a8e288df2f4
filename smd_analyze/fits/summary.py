"""summarise(): the verdict and the table that a person reads, one row per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.fits.context import INVARIANT
from smd_analyze.fits.measured import measured_rows, within
from smd_analyze.fits.regime import names_of
from smd_analyze.fits.state import describe, impossible, settled
from smd_analyze.fits.verdict import verdict
from smd_analyze.records.group import Group, Groups
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics

Row = dict[str, Any]
ENDS = ("low", "high")
TEXT = (
    "group", "role", "status", "evidence", "granularity", "parameter_group", "level_basis", "state", "advice",
)  # fmt: skip
COLUMNS = (
    "group", "role", "status", "evidence", "granularity", "units", "numel", "parameter_group", "weight_norm",
    "norm_change", "angle_from_first", "level", "level_basis", "implied", "implied_low", "implied_high", "measured",
    "measured_low", "measured_high", "equilibrium", "ratio", "ratio_low", "ratio_high", "half_lives",
    "equilibrium_index", "equilibrium_index_low", "equilibrium_index_high", "relaxation_rate",
    "relaxation_rate_low", "relaxation_rate_high", "relaxation_rate_ratio", "relaxation_rate_ratio_low",
    "relaxation_rate_ratio_high", "effective_learning_rate", "state", "advice",
)  # fmt: skip
SCHEMA: dict[str, Any] = {
    c: pl.String if c in TEXT else pl.Int64 if c in ("units", "numel") else pl.Float64 for c in COLUMNS
}


def summarise(
    stats: Statistics, schedule: Schedule, angular_updates: pl.DataFrame, predictions: pl.DataFrame,
    fits: pl.DataFrame, groups: Groups, run_steps: Sequence[int] | None = None,
) -> tuple[str, pl.DataFrame]:  # fmt: skip
    """The verdict in one sentence, and the `layers` table.

    `implied` is the rms angular update per step that the norms imply, `measured` that of independent measurements,
    both over the stationary stretch (else of the last one); `ratio` is measured over equilibrium. `level` is the norm
    at which the series settled, else the predicted one; `level_basis` says which. `state` claims agreement only of
    independent measurements.
    """
    by_group = {g: _by_quantity(fits, g) for g in fits["group"].unique()}
    norms = _last_norms(stats.table)
    turned = dict(stats.table.sort("step").group_by("group").agg(pl.col("angle_from_first").last()).iter_rows())
    grouped_angles, grouped_predictions = _rows_of(angular_updates), _rows_of(predictions)
    rows: list[Row] = []
    changes: list[float] = []
    states: list[tuple[Group, Mapping[str, Row], Row]] = []
    for group in groups.groups:
        quantities = by_group.get(group.name)
        if quantities is None:
            continue
        change = _change(norms.get(group.name, []))
        changes += [] if change is None else [change]
        row = _layer(
            group, quantities, norms.get(group.name, []), change, turned.get(group.name),
            grouped_angles.get(group.name, []), grouped_predictions.get(group.name, []), schedule,
        )  # fmt: skip
        rows.append(row)
        states.append((group, quantities, row))
    count = len(stats.steps if run_steps is None else run_steps)
    return verdict(states, count, changes), pl.DataFrame(rows, schema=SCHEMA)


def _layer(
    group: Group, fits: Mapping[str, Row], norms: list[tuple[int, float]], change: float | None,
    turned: float | None, angles: list[Row], predicted: list[Row], schedule: Schedule,
) -> Row:  # fmt: skip
    since = fits["stationary_since"]["value"]
    implied = within([a for a in angles if a["method"] == "norms" and a["angular_update"] is not None], since)
    measured = within(sorted(measured_rows(angles), key=lambda a: a["step_to"]), since)
    last = predicted[-1] if predicted else {}
    level, basis = fits["level"]["value"], "measured"
    if level is None:
        level, basis = last.get("equilibrium_norm"), last.get("norm_basis") or ""
        basis = basis if level is not None else ""
    row: Row = {
        "group": group.name, "role": group.role, "status": group.status, "evidence": group.evidence,
        "granularity": group.granularity, "units": group.units, "numel": group.numel,
        "parameter_group": ", ".join(names_of(group, schedule)), "weight_norm": norms[-1][1] if norms else None,
        "norm_change": change, "angle_from_first": turned, "level": level,
        "level_basis": basis, "equilibrium": last.get("equilibrium_angular_update"),
        "half_lives": last.get("half_lives"),
        "effective_learning_rate": fits["effective_learning_rate"]["value"],
    }  # fmt: skip
    for name, found in (("implied", implied), ("measured", measured)):
        for end in ("", "_low", "_high"):
            row[name + end] = _rms([a[f"angular_update{end}"] for a in found])
    same = ("equilibrium_index", "relaxation_rate", "relaxation_rate_ratio")
    for name, quantity in (("ratio", "agreement"), *((s, s) for s in same)):
        found = fits.get(quantity, {})  # a rate is fitted to invariant weights only, its ratio only where there is one
        claims = found.get("level") is not None
        row |= {name: found.get("value")} | {f"{name}_{end}": found.get(end) if claims else None for end in ENDS}
    if since is not None:  # over a stretch the fits' intervals are narrower than those of its single rows
        if row["implied_low"] is not None:  # where theory's gap is larger than any scatter, rows have no interval
            _narrow(row, "implied", "equilibrium_index", lambda ei: max(0.0, 1 + ei) ** 0.5)
        _narrow(row, "measured", "ratio", lambda ratio: ratio)
    row["state"] = describe(group, fits, row["half_lives"], change)
    row["advice"] = _advice(group, fits)
    return row


def _narrow(row: Row, name: str, by: str, law: Callable[[float], float]) -> None:
    """Give `name` the relative interval of `by`, to which it is proportional through `law`."""
    value, low, high = row[by], row[f"{by}_low"], row[f"{by}_high"]
    if row[name] is not None and value is not None and low is not None and high is not None and law(value) > 0:
        row[f"{name}_low"] = row[name] * law(low) / law(value)
        row[f"{name}_high"] = row[name] * law(high) / law(value)


def _advice(group: Group, fits: Mapping[str, Row]) -> str:
    """The first thing to do about what could not be told, of the quantities that the state speaks of."""
    if group.status == "unknown":
        return "the model's graph would tell whether it is scale-invariant: give --model"
    if group.status not in INVARIANT:
        return ""
    if impossible(fits):
        return fits["equilibrium_index"]["advice"]
    wanted = ("equilibrium_index", "agreement") if not settled(fits) else ("agreement",)
    return next((fits[q]["advice"] for q in wanted if fits[q]["advice"]), "")


def _rms(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.sqrt(np.mean(np.square(known)))) if known and len(known) == len(values) else None


def _change(norms: list[tuple[int, float]]) -> float | None:
    """Per cent by which the norm changed from the first checkpoint to the last that have it."""
    return 100 * (norms[-1][1] / norms[0][1] - 1) if len(norms) > 1 else None


def _by_quantity(fits: pl.DataFrame, group: str) -> dict[str, Row]:
    rows = fits.filter((pl.col("group") == group) & pl.col("unit").is_null()).iter_rows(named=True)
    return {row["quantity"]: row for row in rows}


def _rows_of(table: pl.DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["group"], []).append(row)
    return found


def _last_norms(table: pl.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """Of each group the (step, weight_norm) that are known, in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for group, step, norm in table.select("group", "step", "weight_norm").sort("step").iter_rows():
        if norm is not None and 0 < norm < np.inf:
            found.setdefault(group, []).append((step, norm))
    return found
