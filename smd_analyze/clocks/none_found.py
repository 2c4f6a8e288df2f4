"""Why there is no clock, as far as the weights tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured
from smd_analyze.records.clocks import Candidates

SHOWN = 3  # names of tensors


def why_none(
    candidates: Candidates,
    measured: Sequence[Measured],
    lone: Sequence[str],
    checkpoints: int,
    dtypes: Collection[str] = (),
    grid: str = "",
) -> str:
    """What was looked for, and why nothing of it is a clock.

    `lone`: what would be one, had another tensor confirmed it; `dtypes`: types in which weights are saved; `grid`: that
    of 16 bits on which their numbers lie nevertheless.
    """
    looked = candidates.looked_at
    if checkpoints < 2:
        return "a decay clock is read between two checkpoints: there is one"
    kinds = [f"{looked[kind]:,} {kind}" for kind in ("sums", "slices", "vectors") if looked.get(kind)]
    if not kinds:
        return "no direction of the weights was looked at"
    told = [f"no direction surely shrinks by decay alone, of {_listed(kinds)}"]
    if grid:
        told.append(f"the weights lie on {grid}'s grid, although they are saved wider")
    if lone:
        why = "with two checkpoints" if checkpoints == 2 else "where all elements are equal"
        told.append(f"{', '.join(lone[:SHOWN])} may, but {why} another tensor must show the same rate")
    else:
        told += [*_sums(candidates, measured), *_slices(candidates, measured)]
    coarse = sorted({t for t in {*dtypes, *(m.candidate.dtype for m in measured)} if _is_coarse(t)})
    if coarse:
        told.append(f"{' and '.join(coarse)} weights hide slow decay")
    return "; ".join(told)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_coarse(dtype: str) -> bool:
    precision = at.PRECISIONS.get(dtype)
    return precision is None or precision.copy


def _sums(candidates: Candidates, measured: Sequence[Measured]) -> list[str]:
    if not candidates.looked_at.get("sums"):
        return []
    spent = [m.candidate.parameter for m in measured if m.candidate.kind == "sum" and _is_spent(m)]
    if spent:
        return [f"sums that are only rounding by now: {', '.join(spent[:SHOWN])}"]
    return [
        "sums feel a gradient, as they do under Adam-like optimizers, with losses other than softmax, and where the "
        "last layer began at zero"
    ]


def _is_spent(m: Measured) -> bool:
    c = m.candidate
    with np.errstate(all="ignore"):
        size = np.sqrt((c.values**2).sum(1) / c.tensor_vv)
    return bool(np.isfinite(size).any() and np.nanmin(size) < at.SPENT)


def _slices(candidates: Candidates, measured: Sequence[Measured]) -> list[str]:
    if not candidates.looked_at.get("slices"):
        return []
    slices = [m for m in measured if m.candidate.kind == "slice" and m.present.any()]
    same = sum(1 + m.candidate.alike for m in slices if m.same[m.present].all())
    if same:
        what = "1 unused slice keeps its bits" if same == 1 else f"{same} unused slices keep their bits"
        return [f"{what}: decay is off, or below what fp32 resolves (3e-8 per step)"]
    return ["no row, column or tap is without gradient"]
