"""Statistics: norms and angles of every group at every checkpoint. No hyperparameter enters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from smd_analyze.records import display
from smd_analyze.records.clocks import Candidates
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


class UnitStore(Protocol):
    """Where per-unit sums go while they are made: a file, so that they never have to fit in memory."""

    def put(self, kind: str, group: str, units: int, first_unit: int, sums: np.ndarray) -> None:
        """Keep `sums` [K, T, u] (float64) as units first_unit … first_unit+u of `units`. One thread at a time."""
        ...

    def get(self, kind: str, group: str) -> np.ndarray | None:
        """All that was put, [K, T, units], or None if nothing was."""
        ...


@dataclass(frozen=True)
class UnitSeries:
    """One group, unit by unit. u is the previous checkpoint's unit, v this one's; arrays are [T, units], float64.

    `vv` = Σ v², `dd` = Σ (v−u)², `dv` = Σ (v−u)·v; row 0 of dd and dv is NaN. NaN where a checkpoint lacks the tensor.
    `uu`, `wu`: Σ d² and Σ w·d of the saved optimizer direction d (momentum buffer, or Adam's m̂/(√v̂+ε)), else None:
    the update that led to this checkpoint was −η·d (besides decoupled decay). `ss`: Σ √v̂, of Adam's second moment.
    """

    group: str
    steps: np.ndarray
    vv: np.ndarray
    dd: np.ndarray
    dv: np.ndarray
    uu: np.ndarray | None = None
    wu: np.ndarray | None = None
    ss: np.ndarray | None = None


def no_table() -> pl.DataFrame:
    """A table without rows and columns: of what was not measured, or of a report from before there was such a table."""
    import polars as pl  # heavy

    return pl.DataFrame()


@dataclass(frozen=True)
class Normalizer:
    """The batch normalization behind a group: its `gain` γ and running `variance` [T, units] at every checkpoint.

    `gain_name` is γ's tensor; `epsilon` what is added to the variance, the framework's default if `assumed`.
    """

    gain_name: str
    gain: np.ndarray
    variance: np.ndarray
    epsilon: float
    assumed: bool


@dataclass(frozen=True)
class Statistics:
    """The `statistics` table, and the per-unit series behind it.

    `table` has the columns group, step, weight_norm, rms_weight, angle, angle_from_first, nonfinite.
    `units(name)` returns the UnitSeries of a group, `device` says where the sums were made. `dtypes`: of each group the
    types in which checkpoints hold its weights (torch's names); groups that are not named are taken as exact.
    `candidates`: directions that may feel no gradient, from which decay clocks are read. `shapes`: of each tensor that
    a group is made of, as saved. `lags`: angles and retention between checkpoints that are further apart as well, with
    the columns group, step_from, step_to, lag, elements, angle, retention. `normalizers`: of each group the batch
    normalization behind it, where its numbers are saved.
    """

    steps: tuple[int, ...]
    groups: tuple[Group, ...]
    table: pl.DataFrame
    units: Callable[[str], UnitSeries] = field(repr=False)
    findings: tuple[Finding, ...] = ()
    device: str = "cpu"
    dtypes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    candidates: Candidates = field(default_factory=Candidates)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lags: pl.DataFrame = field(default_factory=no_table)
    normalizers: Mapping[str, Normalizer] = field(default_factory=dict)

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]} to {self.steps[-1]}" if self.steps else "no step"
        head = f"Statistics: {len(self.groups)} groups at {len(self.steps)} checkpoints, {span}, on {self.device}"
        return display.with_findings(head, self.findings)
