"""Σ ηλ from decay clocks: directions that feel no gradient shrink by weight decay alone, at a rate that gives ηλ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import polars as pl

from smd_analyze.records.finding import Finding
from smd_analyze.schedule.updates import Clock

SLACK = 0.01  # relative: the files and a clock must differ by more than that to be reported
Row = dict[str, Any]


def decay_of(rate: float, momentum: float, nesterov: bool, decoupled: bool) -> float:
    """ηλ of one update from a settled clock's rate −ln(c'/c) per step.

    With z = e^−rate: 1 − z for decoupled decay and without momentum α; heavy ball, z² − (1+α−x)z + α = 0; Nesterov,
    z² − (1+α)(1−x)z + α(1−x) = 0. Symmetry: Kunin et al. 2021, arXiv:2012.04728.
    """
    z = exp(-rate)
    if decoupled or momentum == 0:
        return 1 - z
    if nesterov:
        return 1 - z * z / ((1 + momentum) * z - momentum)
    return 1 + momentum - z - momentum / z


def fill_from_clocks(
    rows: Sequence[Row], clocks: pl.DataFrame, of_parameter: Mapping[str, str], ticks: Clock
) -> tuple[list[Row], list[Finding]]:
    """Rows whose Σ ηλ was unknown get it from a clock of their own group, else from another's, and say so.

    Where files or caller gave Σ ηλ and a clock of the same group says otherwise, that is a finding; the row stays.
    """
    found = clocks.to_dicts()
    told: dict[str, Finding] = {}
    filled = []
    for row in rows:
        covering = [c for c in found if c["step_from"] <= row["step_from"] and c["step_to"] >= row["step_to"]]
        own = [c for c in covering if of_parameter.get(c["parameter"]) == row["parameter_group"]]
        chosen = min(own or covering, key=_width, default=None)
        sums = None if chosen is None or not ticks.known else _sums(row, chosen, ticks)
        if chosen is None or sums is None:
            filled.append(row)
        elif row["sum_decay"] is None:
            filled.append(row | sums | {"source": _source(row, chosen, bool(own))})
        else:
            filled.append(row)
            if own and _apart(row, sums):
                told.setdefault(row["parameter_group"], _disagrees(row, chosen, sums))
    return filled, list(told.values())


def _width(clock: Row) -> float:
    low, high = clock["decay_per_step_low"], clock["decay_per_step_high"]
    return float("inf") if low is None or high is None else (high - low) / max(abs(clock["decay_per_step"]), 1e-300)


def _sums(row: Row, clock: Row, ticks: Clock) -> Row | None:
    """sum_decay with its ends, and the weight decay that it means; None where the update rule is not known."""
    momentum = 0.0 if row["decoupled"] else row["momentum"]
    if row["optimizer"] is None or momentum is None:
        return None
    updates = ticks.made(row["step_to"]) - ticks.made(row["step_from"])
    sums: Row = {}
    for end in ("", "_low", "_high"):
        rate = clock[f"decay_per_step{end}"]
        per_step = None if rate is None else decay_of(rate, momentum, bool(row["nesterov"]), bool(row["decoupled"]))
        sums[f"sum_decay{end}"] = None if per_step is None else updates * per_step
    if row["weight_decay"] is None and row["sum_learning_rate"]:
        sums["weight_decay"] = sums["sum_decay"] / row["sum_learning_rate"]
    return sums


def _source(row: Row, clock: Row, own: bool) -> str:
    word = f"clock of {clock['parameter']}" + ("" if own else ", assumed to hold here")
    return word if row["source"] == "unknown" else f"{row['source']}; {word}"


def _apart(row: Row, sums: Row) -> bool:
    """Whether the two intervals of Σ ηλ leave a gap of more than SLACK."""
    low = sums["sum_decay_low"] if sums["sum_decay_low"] is not None else sums["sum_decay"]
    high = sums["sum_decay_high"] if sums["sum_decay_high"] is not None else sums["sum_decay"]
    return row["sum_decay_high"] < low * (1 - SLACK) or row["sum_decay_low"] > high * (1 + SLACK)


def _disagrees(row: Row, clock: Row, sums: Row) -> Finding:
    ratio = "" if not row["sum_decay"] else f" ({sums['sum_decay'] / row['sum_decay']:.3g} times that)"
    return Finding(
        "clock-disagrees",
        "warning",
        f"parameter group {row['parameter_group']}",
        f"steps {row['step_from']} to {row['step_to']}: the files or options give Σηλ = {row['sum_decay']:.4g}, but "
        f"{clock['parameter']} ({clock['functional']}), which feels no gradient, says {sums['sum_decay']:.4g}{ratio}",
        "check weight decay, learning rate and momentum of this group, and whether the steps are optimizer steps",
    )
