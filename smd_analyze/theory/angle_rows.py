"""The rows of the `angular_updates` table, and what all methods share."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl

from smd_analyze.theory.autoregression import Floats

SCHEMA = {
    "group": pl.String, "step_from": pl.Int64, "step_to": pl.Int64, "method": pl.String, "steps_covered": pl.Int64,
    "angular_update": pl.Float64, "angular_update_low": pl.Float64, "angular_update_high": pl.Float64,
    "independent": pl.Boolean, "note": pl.String,
}  # fmt: skip
ENOUGH = 8  # units from which their scatter makes an interval


@dataclass(frozen=True)
class Row:
    """One row without its group: an angle with its interval [rad/step], NaN where unknown."""

    step_from: int
    step_to: int
    method: str
    steps_covered: int
    angle: float
    low: float
    high: float
    independent: bool
    note: str


def scatter(squares: Floats) -> float:
    """1.96 standard errors of the mean of θ² over the units; NaN for fewer than ENOUGH."""
    return 1.96 * float(squares.std(ddof=1)) / sqrt(len(squares)) if len(squares) >= ENOUGH else np.nan


def root_mean(squares: Floats) -> tuple[float, float, float]:
    """Root mean square over the units that have an angle, and its interval; NaN where there is none."""
    squares = squares[np.isfinite(squares)]
    if not len(squares):
        return np.nan, np.nan, np.nan
    square, error = float(squares.mean()), scatter(squares)
    if np.isnan(error):
        return sqrt(square), np.nan, np.nan
    return sqrt(square), sqrt(max(square - error, 0.0)), sqrt(square + error)


def frame(group: str, rows: list[Row]) -> pl.DataFrame:
    """Rows of one group as a table."""

    def numbers(values: list[float]) -> list[float | None]:
        return [v if np.isfinite(v) else None for v in values]

    return pl.DataFrame(
        {
            "group": [group] * len(rows),
            "step_from": [r.step_from for r in rows],
            "step_to": [r.step_to for r in rows],
            "method": [r.method for r in rows],
            "steps_covered": [r.steps_covered for r in rows],
            "angular_update": numbers([r.angle for r in rows]),
            "angular_update_low": numbers([r.low for r in rows]),
            "angular_update_high": numbers([r.high for r in rows]),
            "independent": [r.independent for r in rows],
            "note": [r.note for r in rows],
        },
        schema=SCHEMA,
    )
