"""The loops that numba compiles: sums of products over rectangles, and 16-bit floats to 32 bits. No GIL is held."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}  # vector sums; NaN and infinity keep their meaning
COLUMNS = 512  # units whose sums stay in the first-level cache while rows pass by


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither __pycache__ nor the user's cache folder can be written
        return numba.njit(**options)(function)


@intrinsic  # pyright: ignore[reportArgumentType]
def _half(_context: Any, _bits: Any) -> Any:
    """The float32 of the 16 bits of an IEEE half."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@compiled
def widen_bfloat16(bits: np.ndarray, out: np.ndarray) -> None:
    """uint16 bits of bfloat16 [n] to uint32 bits of float32 [n]."""
    for i in range(bits.size):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


@compiled
def widen_float16(bits: np.ndarray, out: np.ndarray) -> None:
    """uint16 bits of float16 [n] to float32 [n]."""
    for i in range(bits.size):
        out[i] = _half(bits[i])  # pyright: ignore[reportCallIssue]


@compiled
def add_up(
    table: np.ndarray, first: np.ndarray, before: np.ndarray, now: np.ndarray, sums: np.ndarray, firsts: np.ndarray
) -> None:
    """Sums of one chunk at one checkpoint, in float64 whatever the elements are.

    table: [S, 7] int64, see Chunk. first, before, now: [elements] of one float dtype: the chunk at the first
    checkpoint, the previous one and this one. Overwritten: sums [3, slots] = Σ now², Σ (now−before)²,
    Σ (now−before)·now; firsts [2, spans] = Σ (now−first)², Σ (now−first)·now.
    """
    sums[:] = 0.0
    firsts[:] = 0.0
    for s in range(table.shape[0]):
        start, rows, stride, units = table[s, 0], table[s, 1], table[s, 2], table[s, 3]
        run, slot, span = table[s, 4], table[s, 5], table[s, 6]
        ff = 0.0
        fv = 0.0
        if run == 1 and units > 1:  # units lie side by side: add whole rows of them
            for c in range(0, units, COLUMNS):
                n = min(COLUMNS, units - c)
                a = sums[0, slot + c : slot + c + n]
                b = sums[1, slot + c : slot + c + n]
                e = sums[2, slot + c : slot + c + n]
                for i in range(rows):
                    o = start + i * stride + c
                    x, y, z = before[o : o + n], now[o : o + n], first[o : o + n]
                    for j in range(n):
                        v = np.float64(y[j])
                        d = v - np.float64(x[j])
                        f = v - np.float64(z[j])
                        a[j] += v * v
                        b[j] += d * d
                        e[j] += d * v
                        ff += f * f
                        fv += f * v
        else:
            for i in range(rows):
                for u in range(units):
                    o = start + i * stride + u * run
                    x, y, z = before[o : o + run], now[o : o + run], first[o : o + run]
                    vv = 0.0
                    dd = 0.0
                    dv = 0.0
                    for j in range(run):
                        v = np.float64(y[j])
                        d = v - np.float64(x[j])
                        f = v - np.float64(z[j])
                        vv += v * v
                        dd += d * d
                        dv += d * v
                        ff += f * f
                        fv += f * v
                    sums[0, slot + u] += vv
                    sums[1, slot + u] += dd
                    sums[2, slot + u] += dv
        firsts[0, span] += ff
        firsts[1, span] += fv


@compiled
def add_direction(
    table: np.ndarray,
    weights: np.ndarray,
    first_moment: np.ndarray,
    second_moment: np.ndarray,
    scale: float,
    root: float,
    eps: float,
    sums: np.ndarray,
) -> None:
    """Add Σ d², Σ w·d and Σ root·√v of some elements to sums [3, units], in float64.

    d = scale·m / (root·√v + eps), or scale·m if `root` is zero (then v is not looked at).
    table: [S, 6] int64: start, rows, stride, units, run, first unit. The arrays: [elements] of one float dtype.
    """
    for s in range(table.shape[0]):
        start, rows, stride, units = table[s, 0], table[s, 1], table[s, 2], table[s, 3]
        run, unit = table[s, 4], table[s, 5]
        for i in range(rows):
            for u in range(units):
                o = start + i * stride + u * run
                w, m, v = weights[o : o + run], first_moment[o : o + run], second_moment[o : o + run]
                uu = 0.0
                wu = 0.0
                ss = 0.0
                if root == 0.0:
                    for j in range(run):
                        d = scale * np.float64(m[j])
                        uu += d * d
                        wu += d * np.float64(w[j])
                else:
                    for j in range(run):
                        size = root * np.sqrt(np.float64(v[j]))
                        d = scale * np.float64(m[j]) / (size + eps)
                        ss += size
                        uu += d * d
                        wu += d * np.float64(w[j])
                sums[0, unit + u] += uu
                sums[1, unit + u] += wu
                sums[2, unit + u] += ss
