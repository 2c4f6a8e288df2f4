"""fit(): one table of estimates, a row per group and quantity, each with its interval or the reason why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.fits import agreement, index
from smd_analyze.fits.drop import relaxation_rows
from smd_analyze.fits.regime import COUPLED, DECOUPLED, FOURTH_POWER, MIXED, Regime, regimes
from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries

SCHEMA: dict[str, Any] = {
    "group": pl.String, "unit": pl.Int64, "quantity": pl.String, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "level": pl.Float64, "p10": pl.Float64, "p90": pl.Float64, "method": pl.String,
    "outcome": pl.String, "advice": pl.String,
}  # fmt: skip
INVARIANT = ("invariant", "jointly invariant")
STATIONARY, APART, MOVING, LAGGING = "stationary", "units differ", "still moving", "lags behind the learning rate"
BELOW = "below resolution"
UNDECIDED = "not shown to be stationary"
MORE = "save at least {} checkpoints, {} optimizer steps apart or more, at a constant learning rate"
MEMORY = 2  # times 1/(1−α): optimizer steps after which one update says nothing about the next
ADVICE = {
    agreement.FEW: "measure more updates at this learning rate: three or more pairs of checkpoints or optimizer states",
    agreement.DIFFERS: "each measures the update just made: one that ends an epoch with a short batch turns more",
}
Row = dict[str, Any]


def fit(
    stats: Statistics, schedule: Schedule, angular_updates: pl.DataFrame, predictions: pl.DataFrame
) -> pl.DataFrame:
    """Estimates of every group: columns group, unit (null: the whole group), quantity, value, low, high, level
    (coverage that the interval claims), p10, p90 (over the units), method, outcome, advice.

    Quantities: equilibrium_index, stationary_since (a step), level, level_ratio (over the predicted norm),
    agreement (measured over predicted angular update), relaxation_rate (1/step), relaxation_rate_ratio,
    effective_learning_rate. What cannot be told has a null value, an outcome that says why, and an advice.
    """
    angles = _by_group(angular_updates)
    predicted = _by_group(predictions)
    courses = regimes(stats.groups, stats.steps, schedule)
    rows: list[Row] = []
    for group in stats.groups:
        series = stats.units(group.name)
        rows += fit_group(group, series, courses[group.name], angles, predicted)
    return pl.DataFrame(rows, schema=SCHEMA)


def fit_group(
    group: Group, series: UnitSeries, r: Regime, angles: Mapping[str, list[Row]], predicted: Mapping[str, list[Row]]
) -> list[Row]:
    """All rows of one group."""
    row = _writer(group.name)
    present = np.isfinite(series.vv).any(axis=1)
    found = _stationarity(series, r)
    rows = [*_index_rows(row, series, r, found, int(present.sum()))]
    rows += _level_rows(row, series, r, found, predicted.get(group.name, []))
    rows.append(_agreement_row(row, group, found, series, r, angles.get(group.name, []), predicted.get(group.name, [])))
    rows += relaxation_rows(row, series.vv, r) if group.status in INVARIANT else []
    rows.append(_effective_rate_row(row, series, r))
    return rows


def _by_group(table: pl.DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["group"], []).append(row)
    return found


def _writer(group: str) -> Any:
    """A function that makes a row of the table: NaN becomes null, an interval gets its level."""

    def row(
        quantity: str, value: float | None = None, low: float | None = None, high: float | None = None, **more: Any
    ) -> Row:
        made: Row = dict.fromkeys(SCHEMA)
        made |= {"group": group, "quantity": quantity, "method": "", "outcome": "", "advice": ""}
        made |= {"value": value, "low": low, "high": high} | more
        for key in ("value", "low", "high", "p10", "p90"):
            if made[key] is not None:
                made[key] = float(made[key]) if np.isfinite(made[key]) else None
        if made["low"] is not None and made["level"] is None:
            made["level"] = index.LEVEL
        return made

    return row


def _stationarity(series: UnitSeries, r: Regime) -> index.Stationarity | None:
    """Of the last stretch with a constant learning rate; of the last half of the run where it always changes."""
    if r.gap or r.no_decay or len(series.vv) < 2 or frozen(series):
        return None
    start = r.final_stretch()
    if start >= len(r.decay):
        start = len(r.decay) // 2
    found = index.blocks(series.vv, r, start)
    return None if found is None else index.stationarity(found)


def frozen(series: UnitSeries) -> bool:
    """Whether every checkpoint holds the same weights."""
    known = series.dd[np.isfinite(series.dd)]
    return len(known) > 0 and not known.any()


def _why_not(series: UnitSeries, r: Regime, count: int) -> tuple[str, str]:
    """Outcome and advice where there is no equilibrium index."""
    if count < 2:
        return "not identifiable: one checkpoint", MORE.format(index.FEWEST + 1, round(index.SPACING * r.smear))
    if frozen(series):
        return "the weights never move", "frozen on purpose? else one file was saved under several names"
    if r.gap:
        return r.gap, _say(r)
    if not (series.vv[-1] > 0).any():
        return "no finite norm above 0", "see the column nonfinite of the statistics"
    if r.no_decay:
        return "no decay: no equilibrium", "none: without weight decay there is no balance to reach"
    return f"not identifiable: {count} checkpoints", MORE.format(index.FEWEST + 1, round(index.SPACING * r.smear))


def _say(r: Regime) -> str:
    """What to do about a gap in the schedule; nothing helps where the optimizer itself has no theory."""
    if r.gap == MIXED:
        return "theory needs one learning rate and one weight decay for all tensors that share a scale"
    return "say it with an option or --settings run.toml" if r.optimizer in ("", *COUPLED, *DECOUPLED) else ""


def _index_rows(row: Any, series: UnitSeries, r: Regime, found: index.Stationarity | None, count: int) -> list[Row]:
    """equilibrium_index and stationary_since."""
    if found is None or not np.isfinite(found.value):
        outcome, advice = _why_not(series, r, count)
        return [row(q, outcome=outcome, advice=advice) for q in ("equilibrium_index", "stationary_since")]
    method = (
        f"norms of {found.blocks} intervals from step {series.steps[found.first]:g} on, median over units, t interval"
    )
    if r.final_stretch() >= len(r.decay):
        method += "; the learning rate changes throughout"
    numbers = {"p10": found.p10, "p90": found.p90}
    if found.since is not None:
        outcome = STATIONARY
        return [
            row("equilibrium_index", found.value, found.low, found.high, method=method, outcome=outcome, **numbers),
            row("stationary_since", series.steps[found.since], method=EQUIVALENCE_TEST, outcome=outcome),
        ]
    around = found.low <= index.TOLERANCE and found.high >= -index.TOLERANCE
    if found.blocks < index.FEWEST:
        outcome, advice = f"not identifiable: {count} checkpoints", MORE.format(
            index.FEWEST + 1, round(index.SPACING * r.smear)
        )  # fmt: skip
        if found.blocks < count - 1:
            outcome = f"not identifiable: {found.blocks} interval{'s' * (found.blocks > 1)} at one learning rate"
    elif around and found.p10 < 0 < found.p90 and max(-found.p10, found.p90) > index.SPREAD:
        outcome, advice = APART, "look at the units: some norms grow while others shrink"
    elif r.final_stretch() >= len(r.decay):
        outcome, advice = LAGGING, "the equilibrium moves with the learning rate: compare at a constant one"
    elif around:
        outcome, advice = UNDECIDED, "more checkpoints at this learning rate would tell"
    else:
        outcome, advice = MOVING, "train on, or compare at a constant learning rate"
    return [
        row(
            "equilibrium_index",
            found.value,
            found.low,
            found.high,
            method=method,
            outcome=outcome,
            advice=advice,
            **numbers,
        ),
        row("stationary_since", method=EQUIVALENCE_TEST, outcome=outcome, advice=advice),
    ]


EQUIVALENCE_TEST = f"90 % interval of the equilibrium index within ±{index.TOLERANCE:g} from this step to the end"


def _level_rows(
    row: Any, series: UnitSeries, r: Regime, found: index.Stationarity | None, predicted: list[Row]
) -> list[Row]:
    """level and level_ratio, of the stationary stretch."""
    if found is None or found.since is None:
        return [row("level", outcome="the norm is not known to be stationary", advice="see stationary_since")]
    kept = found.since + np.flatnonzero(np.isfinite(series.vv[found.since :]).any(axis=1))
    norm = np.sqrt(np.nansum(series.vv[kept], axis=1))
    decay = np.array([r.decay[a:b].sum() for a, b in zip(kept, kept[1:], strict=False)])
    power = 4 if r.optimizer in FOURTH_POWER else 2
    value, low, high, batches = agreement.settled_level(norm, decay, power)
    short = not np.isfinite(low)
    method = f"mean weight norm from step {series.steps[found.since]:g} on, {batches} batch means"
    advice = "the stretch lasts less than six relaxation times: train on for an interval" if short else ""
    rows = [row("level", value, low, high, method=method, outcome=STATIONARY, advice=advice)]
    last = predicted[-1] if predicted else {}
    theory = last.get("equilibrium_norm")
    if theory and last.get("norm_basis") == "theory":
        method = "level over the norm that theory predicts"
        rows.append(row("level_ratio", value / theory, low / theory, high / theory, method=method, outcome=STATIONARY))
    return rows


def measured_rows(rows: list[Row]) -> list[Row]:
    """The independent measurements to use: one method, consecutive checkpoints before buffers unless these are more."""
    kinds = {m: [a for a in rows if a["independent"] and a["method"] == m] for m in ("consecutive", "buffer")}
    kinds = {m: [a for a in found if a["angular_update"] is not None] for m, found in kinds.items()}
    return max(kinds.values(), key=len)


def within(rows: list[Row], since: float | None) -> list[Row]:
    """The rows from step `since` on; of those none, or without `since`, the last row."""
    later = (
        [] if since is None else [a for a in rows if a["step_from"] >= since or _single(a) and a["step_to"] >= since]
    )
    return later or rows[-1:]


def _single(row: Row) -> bool:
    """Whether it is the angle of one update, read at the checkpoint that it made."""
    return row["steps_covered"] == 1


def _agreement_row(
    row: Any, group: Group, found: index.Stationarity | None, series: UnitSeries, r: Regime, angles: list[Row],
    predicted: list[Row],
) -> Row:  # fmt: skip
    """Measured over predicted angular update, in the stationary stretch; elsewhere of the last measurement."""
    measured = sorted(measured_rows(angles), key=lambda a: a["step_to"])
    if not measured:
        shown = " ".join(a["note"] or "" for a in angles if a["independent"])
        if BELOW in shown:
            advice = "save the optimizer state beside these weights, or weights of a finer type"
            return row("agreement", outcome=BELOW, advice=advice)
        useful = r.optimizer == "adamw" or (r.optimizer in FOURTH_POWER and (r.momentum > 0).any() and not r.nesterov)
        advice = "save two checkpoints one step apart" + (", or the optimizer state" if useful else "")
        return row("agreement", outcome="no independent measurement", advice=advice)
    equilibrium = {p["step"]: p["equilibrium_angular_update"] for p in predicted}
    since = None if found is None or found.since is None else float(series.steps[found.since])
    used = within(measured, since)
    theory = np.array([equilibrium.get(a["step_to"]) or np.nan for a in used])
    found_angles = np.array([np.nan if a["angular_update"] is None else a["angular_update"] for a in used], float)
    ratio = agreement.rms_interval(found_angles / theory, _batches(used, MEMORY * r.smear))
    if ratio is None:
        return row("agreement", outcome="no prediction", advice=r.gap and _say(r))
    method = f"{used[0]['method']}, {ratio.method}"
    outcome, advice = ratio.outcome, ADVICE.get(ratio.outcome, "")
    if group.status not in INVARIANT:
        outcome = "reference only: not scale-invariant"
    elif since is None:
        outcome, advice = "measured, not at equilibrium", "the ratio tells that the norm is not stationary"
    return row("agreement", ratio.value, ratio.low, ratio.high, method=method, outcome=outcome, advice=advice)


def _batches(rows: list[Row], reach: float) -> np.ndarray:
    """Numbers of the batches that rows, sorted by step, form: of those less than `reach` steps apart."""
    steps = np.array([a["step_to"] for a in rows], float)
    numbers, begin = np.zeros(len(rows), int), steps[0]
    for i in range(1, len(rows)):
        new = steps[i] - begin >= reach
        begin = steps[i] if new else begin
        numbers[i] = numbers[i - 1] + new
    return numbers


def _effective_rate_row(row: Any, series: UnitSeries, r: Regime) -> Row:
    """η/‖w‖² of the units at the last checkpoint."""
    if frozen(series):
        return row("effective_learning_rate", outcome="the weights never move")
    if r.optimizer and r.optimizer not in FOURTH_POWER:
        return row(
            "effective_learning_rate", outcome=f"η/‖w‖² is for SGD: {r.optimizer} steps whatever the gradient's size"
        )
    if len(r.rate_last) and r.uncertain[-1]:
        outcome = "learning rate of the last update unknown: it changed since the checkpoint before"
        return row("effective_learning_rate", outcome=outcome, advice="--settings run.toml with a [schedule] table")
    rate = r.rate_last[-1] if len(r.rate_last) else np.nan
    norms = series.vv[-1] if len(series.vv) else np.array([])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not np.isfinite(rate) or not len(norms):
        return row("effective_learning_rate", outcome=r.gap or "no finite norm", advice="--lr" if not r.gap else "")
    p10, median, p90 = np.percentile(rate / norms, [10, 50, 90])
    method = f"learning rate of the last update over squared norm at step {series.steps[-1]:g}, median over units"
    return row("effective_learning_rate", median, p10=p10, p90=p90, method=method)
