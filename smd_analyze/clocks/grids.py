"""Weights that are saved in 32 bits but came from 16: every number lies on bfloat16's or float16's grid.

Trained in 16 bits, or saved so and widened later: what rounding does to a vector is then that of the coarse type,
whatever the file calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.records.clocks import Candidate

WIDE = ("float32", "float64")


def true_types(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, those on a 16-bit grid with the type of that grid.

    Slices and vectors show their own numbers; a sum is of the type that those show, or else its smallest binary digit
    tells: a sum of numbers of p bits holds none below 2^-p of the smallest of them.
    """
    own = [_own(c) if c.dtype in WIDE and c.kind != "sum" else "" for c in candidates]
    shown = sorted(set(filter(None, own)))
    out = []
    for c, dtype in zip(candidates, own, strict=True):
        if c.kind == "sum" and c.dtype in WIDE:
            coarse = _of_sum(c)
            dtype = shown[0] if coarse and len(shown) == 1 else coarse
        out.append(replace(c, dtype=dtype) if dtype else c)
    return tuple(out)


def _own(candidate: Candidate) -> str:
    """The 16-bit type whose grid holds all numbers of a slice or a vector; "" if none does."""
    v = candidate.values[np.isfinite(candidate.values) & (candidate.values != 0)]
    if np.unique(v).size < at.DIRECTIONS:  # zeros, ones, …: they lie on every grid
        return ""
    if (v != np.float32(v)).any():
        return ""
    if not (np.float32(v).view(np.uint32) & 0xFFFF).any():
        return "bfloat16"
    with np.errstate(over="ignore"):
        return "float16" if np.array_equal(np.float16(v), v) else ""


def _of_sum(candidate: Candidate) -> str:
    """The same of the terms of a sum. The smallest of n terms is about the n-th part of their root mean square."""
    v = candidate.values[np.isfinite(candidate.values) & (candidate.values != 0)]
    typical = np.sqrt(np.nanmedian(candidate.tensor_vv) / np.prod(candidate.shape))
    if v.size < at.DIRECTIONS or not typical > 0:
        return ""
    mantissa, exponent = np.frexp(v)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    digit = np.log2((whole & -whole).astype(np.float64)) + exponent - 53  # of the lowest bit that is set
    bits = float(np.log2(typical / candidate.parts) - np.median(digit))
    if bits > at.GRID_BITS:
        return ""
    return "float16" if bits > at.GRID_BITS_COARSE else "bfloat16"
