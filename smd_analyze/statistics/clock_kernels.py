"""The loops behind the search for decay clocks, compiled by numba: sums over and within units, turns of slices."""

import numpy as np

from smd_analyze.statistics.kernels import compiled


@compiled
def fold(table: np.ndarray, now: np.ndarray, out: np.ndarray) -> None:
    """Sums over units and within units of one chunk at one checkpoint, in float64, side by side in `out` [columns].

    table: [looks, 11] int64, a piece of a tensor each: where it begins in the chunk, its first element in the tensor
    and the one after its last; count and after of the units' axis (see AxisView; 0 for a vector, which is copied);
    then, for the sum over units and for those within: first column, number of the first kept element, every how manieth
    is kept. now: [elements] of a float dtype.
    """
    out[:] = 0.0
    for p in range(table.shape[0]):
        at, begin, end, count, after = table[p, 0], table[p, 1], table[p, 2], table[p, 3], table[p, 4]
        over, over_step = table[p, 5] - table[p, 6], table[p, 7]  # kept element q stands in column over + q
        within, within_step = table[p, 8] - table[p, 9], table[p, 10]
        if count == 0:
            for f in range(-(-begin // over_step) * over_step, end, over_step):
                out[over + f // over_step] = now[at + f - begin]
        elif after == 1:  # units lie side by side
            b = begin // count
            i = begin - b * count
            f = begin
            while f < end:
                n = min(count - i, end - f)
                x = now[at + f - begin : at + f - begin + n]
                s = 0.0
                if within_step == 1:
                    w = out[within + i : within + i + n]
                    for j in range(n):
                        v = np.float64(x[j])
                        w[j] += v
                        s += v
                else:
                    for j in range(n):
                        s += np.float64(x[j])
                    for j in range(-(-i // within_step) * within_step - i, n, within_step):
                        out[within + (i + j) // within_step] += x[j]
                if b % over_step == 0:
                    out[over + b // over_step] += s
                f += n
                i = 0
                b += 1
        else:
            r = begin // after
            c = begin - r * after
            b = r // count
            i = r - b * count
            f = begin
            while f < end:
                o = b * after + c
                if c == 0 and over_step == 1 and within_step == 1 and i + 4 <= count and f + 4 * after <= end:
                    g = at + f - begin  # four units at a time: the sums over units go through the cache once
                    x0, x1 = now[g : g + after], now[g + after : g + 2 * after]
                    x2, x3 = now[g + 2 * after : g + 3 * after], now[g + 3 * after : g + 4 * after]
                    w = out[over + o : over + o + after]
                    s0 = 0.0
                    s1 = 0.0
                    s2 = 0.0
                    s3 = 0.0
                    for j in range(after):
                        v0, v1, v2, v3 = np.float64(x0[j]), np.float64(x1[j]), np.float64(x2[j]), np.float64(x3[j])
                        w[j] += (v0 + v1) + (v2 + v3)
                        s0 += v0
                        s1 += v1
                        s2 += v2
                        s3 += v3
                    out[within + i] += s0
                    out[within + i + 1] += s1
                    out[within + i + 2] += s2
                    out[within + i + 3] += s3
                    f += 4 * after
                    i += 4
                else:
                    n = min(after - c, end - f)
                    x = now[at + f - begin : at + f - begin + n]
                    s = 0.0
                    if over_step == 1:
                        w = out[over + o : over + o + n]
                        for j in range(n):
                            v = np.float64(x[j])
                            w[j] += v
                            s += v
                    else:
                        for j in range(n):
                            s += np.float64(x[j])
                        for j in range(-(-o // over_step) * over_step - o, n, over_step):
                            out[over + (o + j) // over_step] += x[j]
                    if i % within_step == 0:
                        out[within + i // within_step] += s
                    f += n
                    c = 0
                    i += 1
                if i == count:
                    i = 0
                    b += 1


@compiled
def turn(index: np.ndarray, slot: np.ndarray, now: np.ndarray, kept: np.ndarray, sums: np.ndarray) -> None:
    """Compare sampled elements with those of an earlier checkpoint, slice by slice, and keep them for the next.

    index, slot: [Q] which element of `now`, and whose. kept: [Q] float64, the earlier values, overwritten. Overwritten:
    sums [3, slots] = Σ now², Σ (now−kept)², Σ (now−kept)·now.
    """
    sums[:] = 0.0
    for q in range(index.size):
        v = np.float64(now[index[q]])
        d = v - kept[q]
        s = slot[q]
        sums[0, s] += v * v
        sums[1, s] += d * d
        sums[2, s] += d * v
        kept[q] = v


@compiled
def sample(
    base: np.ndarray,
    numbers: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    after: int,
    shift: int,
    column: int,
    index: np.ndarray,
    slot: np.ndarray,
    used: int,
) -> int:
    """Write which elements of a chunk are sampled into index and slot [Q], from place `used` on.

    base: elements of slice 0 in the tensor; those of slice j are j·after on, and in the chunk all are `shift` on.
    numbers: the slices, in slots from `column` on; of these low[k] … high[k] have their element k in the chunk.
    Returns the place after the last.
    """
    for k in range(base.size):
        for n in range(low[k], high[k]):
            index[used] = base[k] + numbers[n] * after + shift
            slot[used] = column + n
            used += 1
    return used
