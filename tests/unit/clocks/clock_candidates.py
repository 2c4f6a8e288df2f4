"""Candidates from whole tensors, slowly and plainly: what the one pass over the bytes should find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from smd_analyze.records.clocks import Candidate, Candidates, Kind

LIMIT = 1e-2  # 1 − cos over the whole run: slices that turn more are not listed


def collect(saved: Sequence[Mapping[str, np.ndarray]], dtype: str = "float32", kept: float = LIMIT) -> Candidates:
    """Every sum over an axis, slice and vector of tensors [T] that all checkpoints have in one shape."""
    found: list[Candidate] = []
    looked = {"tensors": 0, "sums": 0, "slices": 0, "vectors": 0}
    for name, start in saved[0].items():
        if start.dtype.kind != "f" or any(name not in s or s[name].shape != start.shape for s in saved):
            continue
        looked["tensors"] += 1
        w = np.stack([np.asarray(s[name], np.float64) for s in saved])
        flat = w.reshape(len(w), -1)
        vv = (flat**2).sum(1)
        dd = np.append(np.nan, (np.diff(flat, axis=0) ** 2).sum(1))
        if not dd[1:].any():
            continue
        for functional, kind, axes, v, parts in _parts(w):
            looked[kind + "s"] += 1
            v = v.reshape(len(w), -1)
            cos = v[0] @ v[-1] / max(np.linalg.norm(v[0]) * np.linalg.norm(v[-1]), 1e-300)
            if v.shape[1] >= 4 and v.any() and (kind != "slice" or 1 - cos < kept):
                found.append(
                    Candidate(name, functional, kind, dtype, start.shape, axes, v, v.shape[1], vv, dd, parts)
                )  # fmt: skip
    return Candidates(tuple(found), looked)


def _parts(w: np.ndarray) -> Iterator[tuple[str, Kind, tuple[int, ...], np.ndarray, int]]:
    """(functional, kind, axes, values [T, …], parts) of a tensor's history [T, *shape]."""
    shape = w.shape[1:]
    if len(shape) == 1:
        yield "whole", "vector", (0,), w, 1
        return
    for axis in range(len(shape)):
        yield ("sum over units" if axis == 0 else f"sum over axis {axis}"), "sum", (axis,), w.sum(axis + 1), shape[axis]
    if len(shape) > 2:
        rest = tuple(range(1, len(shape)))
        yield "within unit", "sum", rest, w.sum(tuple(a + 1 for a in rest)), int(np.prod(shape[1:]))
    for axis in range(len(shape)):
        for j in range(shape[axis]):
            word = ("unit", "input")[axis] + f" {j}" if axis < 2 else f"index {j} of axis {axis}"
            yield word, "slice", (axis,), w.take(j, axis + 1), shape[axis]
