"""fit(): one table of estimates, a row per group and quantity, each with its interval or the reason why it has none.

Each family of quantities is a function of one file, from a group's Context to its rows; QUANTITIES lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from smd_analyze.fits.context import SCHEMA, Context, Row
from smd_analyze.fits.effective import effective_rate_rows
from smd_analyze.fits.gradient import gradient_scale_rows
from smd_analyze.fits.lags import lag_rows
from smd_analyze.fits.level import level_rows
from smd_analyze.fits.measured import agreement_rows
from smd_analyze.fits.rates import relaxation_rows
from smd_analyze.fits.recovered import decay_rows
from smd_analyze.fits.regime import regimes
from smd_analyze.fits.stationary import stationarity_rows
from smd_analyze.fits.timescales import timescale_rows
from smd_analyze.fits.transient import transient_rows
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics

CLIPS = (
    "clipnorm", "global_clipnorm", "clipvalue", "max_grad_norm", "gradient_clip_val", "clip_grad", "clip_grad_norm",
    "grad_clip", "gradient_clipping",
)  # fmt: skip
Family = Callable[[Context], list[Row]]
QUANTITIES: tuple[Family, ...] = (
    stationarity_rows,
    level_rows,
    agreement_rows,
    relaxation_rows,
    gradient_scale_rows,
    decay_rows,
    effective_rate_rows,
    timescale_rows,
    transient_rows,
    lag_rows,
)
"""In the order of the table. A new one is a file with such a function, and a line here."""


def fit(
    stats: Statistics, schedule: Schedule, angular_updates: pl.DataFrame, predictions: pl.DataFrame,
    settings: pl.DataFrame | None = None, lags: pl.DataFrame | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Estimates of every group: columns group, unit (null: the whole group), quantity, value, low, high, level
    (coverage that the interval claims, null if it claims none), p10, p90 (over the units), method, outcome, advice,
    kind (of the outcome: `outcomes.Kind`), checks (what the row's assumptions were checked by).

    What cannot be told has a null value, an outcome that says why, and an advice. `settings`, the table of that name,
    tells whether gradients were clipped; `lags`, too, what far checkpoints are compared by.
    """
    rows = [
        row for c in contexts(stats, schedule, angular_updates, predictions, settings, lags) for row in fit_group(c)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def fit_group(c: Context) -> list[Row]:
    """All rows of one group."""
    return [row for family in QUANTITIES for row in family(c)]


def contexts(
    stats: Statistics, schedule: Schedule, angular_updates: pl.DataFrame, predictions: pl.DataFrame,
    settings: pl.DataFrame | None = None, lags: pl.DataFrame | None = None,
) -> Iterator[Context]:  # fmt: skip
    """What each group's estimates rest on, one group's per-unit series at a time."""
    angles, predicted = _by_group(angular_updates), _by_group(predictions)
    far = _by_group(lags) if lags is not None else {}
    courses, clipped = regimes(stats.groups, stats.steps, schedule), _clipping(settings)
    for g in stats.groups:
        types = tuple(stats.dtypes.get(g.name, ()))
        rows = angles.get(g.name, []), predicted.get(g.name, [])
        yield Context(g, stats.units(g.name), courses[g.name], *rows, types, clipped, far.get(g.name, []))


def _clipping(settings: pl.DataFrame | None) -> str:
    """`clipnorm 1`, where the recipe clips gradients, else ""."""
    if settings is None:
        return ""
    found = settings.filter(pl.col("name").is_in(CLIPS) & (pl.col("value") > 0)).select("name", "value").unique()
    return ", ".join(f"{name} {value:g}" for name, value in found.sort("name").iter_rows())


def _by_group(table: pl.DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["group"], []).append(row)
    return found
