"""Candidates from whole tensors, slowly and plainly: what the one pass over the bytes should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smd_analyze.records.clocks import Candidate, Candidates

LIMIT = 1e-2  # 1 − cos over the whole run: slices that turn more are not listed


def collect(saved: Sequence[Mapping[str, np.ndarray]], dtype: str = "float32", kept: float = LIMIT) -> Candidates:
    """Every sum over an axis, slice and vector of tensors [T] that all checkpoints have in one shape."""
    found: list[Candidate] = []
    looked = {"tensors": 0, "sums": 0, "slices": 0, "vectors": 0}
    for name, start in saved[0].items():
        if any(name not in s or s[name].shape != start.shape for s in saved) or start.dtype.kind != "f":
            continue
        looked["tensors"] += 1
        w = np.stack([np.asarray(s[name], np.float64) for s in saved])
        flat = w.reshape(len(w), -1)
        vv = (flat**2).sum(1)
        dd = np.append(np.nan, (np.diff(flat, axis=0) ** 2).sum(1))
        if not dd[1:].any():
            continue

        def add(functional: str, kind: str, axes: tuple[int, ...], v: np.ndarray, parts: int) -> None:
            v = v.reshape(len(w), -1)
            looked[kind + "s"] += 1
            ends = v[0], v[-1]
            cos = ends[0] @ ends[1] / max(np.linalg.norm(ends[0]) * np.linalg.norm(ends[1]), 1e-300)
            if v.shape[1] >= 4 and v.any() and (kind != "slice" or 1 - cos < kept):
                found.append(
                    Candidate(name, functional, kind, dtype, start.shape, axes, v, v.shape[1], vv, dd, parts)  # pyright: ignore
                )

        if start.ndim == 1:
            add("whole", "vector", (), w, 1)
            continue
        for axis in range(start.ndim):
            what = "sum over units" if axis == 0 else f"sum over axis {axis}"
            add(what, "sum", (axis,), w.sum(axis + 1), start.shape[axis])
        if start.ndim > 2:
            rest = tuple(range(1, start.ndim))
            add("within unit", "sum", rest, w.sum(tuple(a + 1 for a in rest)), int(np.prod(start.shape[1:])))
        for axis, word in ((0, "unit"), (1, "input")):
            for j in range(start.shape[axis]):
                add(f"{word} {j}", "slice", (axis,), w.take(j, axis + 1), start.shape[axis])
        for axis in range(2, start.ndim):
            for j in range(start.shape[axis]):
                add(f"index {j} of axis {axis}", "slice", (axis,), w.take(j, axis + 1), start.shape[axis])
    return Candidates(tuple(found), looked)
