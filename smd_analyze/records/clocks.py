"""Decay clocks: directions of one tensor that feel no gradient, so that weight decay alone moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from smd_analyze.records import display
from smd_analyze.records.finding import Finding

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

Kind = Literal["sum", "slice", "vector"]


@dataclass(frozen=True)
class Candidate:
    """A bundle of directions of one tensor that may feel no gradient: a vector with its whole history.

    `functional` names it as in the `clocks` table: "sum over units", "within unit", "unit 13", "input 7",
    "index 2 of axis 3", "whole". `kind`: "sum" (over an axis or more), "slice" (part of a tensor as it is), "vector" (a
    tensor of one dimension). `values` [T, d] float64: its elements at every checkpoint; NaN where a checkpoint lacks
    the tensor. A slice's or vector's elements are exactly those saved: cast to `dtype` they have the file's bits.
    `elements`: those that the vector has, d or more (a long one is represented by d of them, evenly chosen).
    `tensor_vv`, `tensor_dd` [T]: squared norm of the whole tensor, and of its change since the previous checkpoint (NaN
    at the first). `parts`: equal parts that the tensor is cut into along the same axis (1 for "whole"); for a sum the
    number of terms of each element. `alike`: candidates of the same tensor and kind that behave like this one and are
    not listed (told with the first of those that are). `axes`: those that index the tensor's part, or that are summed
    over.
    """

    parameter: str
    functional: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    values: np.ndarray = field(repr=False)
    elements: int
    tensor_vv: np.ndarray = field(repr=False)
    tensor_dd: np.ndarray = field(repr=False)
    parts: int
    alike: int = 0


@dataclass(frozen=True)
class Candidates:
    """All that the pass over the bytes found to be worth a closer look, and what it looked at.

    `looked_at`: how many tensors, sums, slices and vectors were compared, by these words. `set_aside`: parameter →
    why none of its directions can be a clock ("frozen: never changes", "all zero", …).
    """

    found: tuple[Candidate, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Clocks:
    """The `clocks` table, one row per clock and interval between checkpoints, and what is to be said about it.

    `looked_at`: what was looked for, in words → how many. `why_none`: why there is no clock, "" if there is one.
    """

    table: pl.DataFrame
    findings: tuple[Finding, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict)
    why_none: str = ""

    def __repr__(self) -> str:
        names = self.table["clock"].unique(maintain_order=True).to_list() if self.table.height else []
        shown = ", ".join(names[: display.SHOWN]) + (", …" if len(names) > display.SHOWN else "")
        return display.with_findings(f"Clocks: {shown or self.why_none or 'none'}", self.findings)
