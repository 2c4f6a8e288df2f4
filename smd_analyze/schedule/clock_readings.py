"""The `clocks` table as arrays: of each clock, by how much it shrank between every two checkpoints."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from smd_analyze.records.clocks import Clocks
from smd_analyze.records.run import Run

Floats = npt.NDArray[np.float64]
Z95 = 1.96
LEAST_TERMS = 3  # a sum over so many rows moves cleanly under the SGD family only: elementwise rules break it
SLICES = ("unit ", "input ", "index ", "whole")  # functionals of tensors that get no gradient at all
NO_DECAY, AT_MOST = "no decay", "at most"
REPLAYED = "weights times fp32(1 − ηλ)"  # in the evidence of a slice whose decoupled decay was replayed bit by bit


@dataclass(frozen=True)
class Reading:
    """One clock. Arrays are per interval between consecutive checkpoints [I], NaN where it was not read.

    `total` = −ln(c'/c), what acted on the weights over the interval, with its 95 % interval `low` to `high`; `bound`:
    the most it can have been where nothing more is known. `resting`: every interval that was read is without decay.
    `proves_sgd`: a sum over LEAST_TERMS rows or more of a tensor that does move, which only the SGD family leaves
    without noise. `decoupled`: replayed in every bit as decoupled decay, which nothing else does.
    """

    clock: str
    parameter: str
    functional: str
    total: Floats
    low: Floats
    high: Floats
    bound: Floats
    resting: bool
    proves_sgd: bool
    decoupled: bool = False

    @property
    def sd(self) -> Floats:
        """Standard deviation of `total` [I]."""
        return (self.high - self.low) / (2 * Z95)

    @property
    def name(self) -> str:
        """Parameter and functional, for a sentence."""
        return f"{self.parameter} ({self.functional})"


def readings(run: Run, clocks: Clocks | pl.DataFrame | None) -> tuple[Reading, ...]:
    """Every clock of the table over the run's intervals.

    A row between two neighbouring checkpoints is taken as it is, several that tile an interval are added. A row over
    several intervals (a checkpoint lacks the tensor) says only that none of them can hold more than all of it.
    """
    table = clocks.table if isinstance(clocks, Clocks) else clocks
    if table is None or not table.height:
        return ()
    steps = [c.step for c in run.checkpoints]
    by_clock = _by_clock(table)
    found = [_reading(rows, steps) for rows in by_clock.values()]
    sliced = {r.parameter for r in found if r.functional.startswith(SLICES)}
    sizes = {rows[0]["clock"]: _terms(rows[0], run) for rows in by_clock.values()}
    return tuple(
        replace(r, proves_sgd=not r.resting and r.parameter not in sliced and sizes[r.clock] >= LEAST_TERMS)
        for r in found
    )


def _by_clock(table: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.sort("step_from", maintain_order=True).iter_rows(named=True):
        found.setdefault(row["clock"] or row["parameter"], []).append(row)
    return found


def _reading(rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> Reading:
    n = max(len(steps) - 1, 0)
    total, low, high, bound = (np.full(n, np.nan) for _ in range(4))
    known = [r for r in rows if r["decay_per_step"] is not None or r["decay_per_step_high"] is not None]
    tiled: dict[int, list[Mapping[str, Any]]] = {}
    for row in known:
        i = bisect_right(steps, row["step_from"]) - 1
        if 0 <= i < n and row["step_to"] <= steps[i + 1]:
            tiled.setdefault(i, []).append(row)
            continue
        inside = slice(bisect_left(steps, row["step_from"]), max(bisect_right(steps, row["step_to"]) - 1, 0))
        most = _ends(row)[2] * (row["step_to"] - row["step_from"])
        bound[inside] = np.fmin(bound[inside], max(most, 0.0))
    for i, parts in tiled.items():
        if sum(p["step_to"] - p["step_from"] for p in parts) != steps[i + 1] - steps[i]:
            continue
        ends = [[end * (p["step_to"] - p["step_from"]) for end in _ends(p)] for p in parts]
        sums = ends[0] if len(ends) == 1 else np.array(ends).sum(axis=0)
        if any(p.get("kind") == AT_MOST for p in parts):
            bound[i] = max(sums[2], 0.0)
        elif all(p.get("kind") == NO_DECAY for p in parts):  # what is left is rounding: nothing acted
            total[i], low[i], high[i] = 0.0, min(sums[1], 0.0), max(sums[2], 0.0)
        else:
            total[i], low[i], high[i] = sums
    read = np.isfinite(total)
    first = rows[0]
    resting = bool(read.any() and (total[read] == 0).all())
    replayed = any(REPLAYED in (row.get("evidence") or "") for row in rows)
    return Reading(
        first["clock"], first["parameter"], first["functional"], total, low, high, bound, resting, False, replayed
    )  # fmt: skip


def _ends(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Rate, low and high per step; a missing end leaves the rate known to a factor of two."""
    rate, low, high = (row[f"decay_per_step{end}"] for end in ("", "_low", "_high"))
    rate = high if rate is None else rate
    return rate, (0.5 * rate if low is None else low), (2.0 * rate if high is None else high)


def _terms(row: Mapping[str, Any], run: Run) -> float:
    """How many elements of its tensor each element of a sum adds up; 1 for what is no sum or of unknown shape."""
    if not row["functional"].startswith(("sum", "within")):
        return 1.0
    shapes = (c.parameters[row["parameter"]].shape for c in run.checkpoints if row["parameter"] in c.parameters)
    shape = next(shapes, ())
    directions = row.get("directions")
    if directions:
        return float(np.prod(shape)) / directions if shape else 1.0
    return float(shape[0]) if len(shape) > 1 else 1.0
