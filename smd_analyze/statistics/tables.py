"""The `statistics` table from the groups' sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.statistics.collecting import DD, DV, FIRST_DD, FIRST_DV, VV, Totals
from smd_analyze.statistics.plan import Plan, items
from smd_analyze.statistics.reading import Files
from smd_analyze.statistics.trajectories import angle, norm

if TYPE_CHECKING:
    import polars as pl


def statistics_table(steps: Sequence[int], groups: Sequence[Group], totals: Totals) -> pl.DataFrame:
    """One row per group and checkpoint: norm, rms, angles and count of what is not finite; null where missing.

    totals: sums [G, 5, T] and counts [G, T] of whole groups.
    """
    import polars as pl  # a fifth of a second, which reading need not wait for

    vv = totals.sums[:, VV]
    weight_norm = norm(vv)
    numel = np.array([max(1, group.numel) for group in groups], float)
    from_first = angle(vv, totals.sums[:, FIRST_DD], totals.sums[:, FIRST_DV])
    for number, first in enumerate(totals.first):
        if first >= 0 and np.isfinite(vv[number, first]):
            from_first[number, first] = 0.0
    columns = {
        "weight_norm": weight_norm,
        "rms_weight": weight_norm / np.sqrt(numel)[:, None],
        "angle": angle(vv, totals.sums[:, DD], totals.sums[:, DV]),
        "angle_from_first": from_first,
    }
    count = len(steps)
    present = np.isfinite(vv) | (totals.nonfinite > 0)
    return pl.DataFrame(
        {
            "group": pl.Series(np.repeat([group.name for group in groups], count), dtype=pl.String),
            "step": pl.Series(np.tile(np.array(steps, np.int64), len(groups)), dtype=pl.Int64),
            **{name: pl.Series(_finite(values.reshape(-1)), nan_to_null=True) for name, values in columns.items()},
            "nonfinite": pl.Series(totals.nonfinite.reshape(-1), dtype=pl.Int64),
        }
    ).with_columns(pl.when(pl.Series(present.reshape(-1))).then(pl.col("nonfinite")))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def blank_files(plan: Plan, files: Files, totals: Totals) -> dict[int, np.ndarray]:
    """Take out what came from files that turned out to be spoilt. Returns group → its checkpoints [T] that are lost."""
    lost: dict[int, np.ndarray] = {}
    if not files.problems:
        return lost
    spoilt = np.array(sorted(files.problems))
    for item in items(plan):
        bad = np.isin(item.chunk.files, spoilt) if not item.chunk.tensors else None
        if bad is not None and bad.any():
            for span in item.chunk.spans:
                if span.group >= 0:
                    lost[span.group] = lost.get(span.group, False) | bad
    for group, bad in lost.items():
        sums = totals.sums[group]
        sums[:, bad] = np.nan
        sums[DD : DV + 1, 1:][:, bad[:-1]] = np.nan
        if bad[totals.first[group]]:
            sums[FIRST_DD:] = np.nan
    return lost
