"""Decoupled decay replayed bit by bit: the same fp32 multiplications, as often as there were steps.

An optimizer that decays outside the gradient (AdamW, Lion, SGDW, Muon) and a constant learning rate do to an element
without gradient exactly this, k times:

- "factor": w ← fl32(w · f), f = fl32(1 − ηλ), a multiple of 2^-24 below 1 (PyTorch's per-tensor and foreach kernels);
- "fused": w ← fl32(w − ηλ·w), computed in float64 or with one rounding (PyTorch's fused CUDA kernels);
- "product": w ← fl32(w − fl32(fl32(ηλ)·w)), two roundings (kernels that make the product first).

Every step rounds, so the bits remember the factor and the number of steps: replaying one more or one less changes most
elements. A replay that fails says nothing: the learning rate may have moved, or decay was part of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, expm1, floor, log1p
from typing import Literal

import numpy as np

Form = Literal["factor", "fused", "product"]
ULP = 2.0**-24  # spacing of fp32 just below 1
POINTS = 16  # values of ηλ that are tried at once
ROUNDS = 6  # each leaves one part in POINTS + 1 of the range: 2e7 in all
AROUND = 1  # steps more and fewer that are tried, too


@dataclass(frozen=True)
class Replay:
    """How a vector was reproduced: by which form, with which ηλ ("factor": 1 − f), over how many steps.

    `low`, `high`: no ηλ outside gives these bits ("factor": the rates that round to f). `else_equal`: the largest share
    of elements that a step more or fewer, or the next factor, leaves equal.
    """

    form: Form
    decay: float
    low: float
    high: float
    steps: int
    else_equal: float

    @property
    def rate(self) -> float:
        """Decay per step, −ln of the factor."""
        return -log1p(-self.decay)


def replay_factor(start: np.ndarray, end: np.ndarray, steps: int, rate: float, error: float) -> Replay | None:
    """Replay `start` [d] to `end` [d] (fp32 values) with every factor that the measured rate ± error allows."""
    u, v = start.astype(np.float32), end.astype(np.float32)
    lost = -expm1(-rate)  # 1 − f
    least = max(1, floor((lost - error) / ULP) - 1)
    ulps = np.arange(least, max(least + 2, ceil((lost + error) / ULP) + 1) + 1)
    if len(ulps) > 4 * POINTS:
        return None  # the rate is too uncertain to tell factors apart
    factors = (1.0 - ulps * ULP).astype(np.float32)[:, None]
    seen = _equal(np.repeat(u[None], len(ulps), 0), v, steps, lambda w: np.multiply(w, factors, out=w))
    hit = np.flatnonzero(seen[:, AROUND] == 1.0)
    if not hit.size:
        return None
    i = int(hit[0])
    rest = np.delete(seen.ravel(), i * seen.shape[1] + AROUND)
    if rest.max() == 1.0:
        return None  # another factor, or number of steps, does it as well
    decay = float(ulps[i] * ULP)
    return Replay("factor", decay, decay - ULP / 2, decay + ULP / 2, steps, float(rest.max()))


def replay_product(
    start: np.ndarray, end: np.ndarray, steps: int, rate: float, error: float, form: Form
) -> Replay | None:
    """The same for w − ηλ·w: elements fall faster with a larger ηλ, so the one that fits is found by narrowing down."""
    u, v = start.astype(np.float32), end.astype(np.float32)
    lost = -expm1(-rate)
    low, high = max(0.0, lost - error - ULP), lost + error + ULP
    for _ in range(ROUNDS):
        tried = np.linspace(low, high, POINTS + 2)[1:-1]
        w, seen = _product(u, v, steps, tried, form)
        full = np.flatnonzero(seen[:, AROUND] == 1.0)
        if full.size:
            rest = float(np.delete(seen[full[0]], AROUND).max())
            if rest == 1.0:
                return None
            wider = np.concatenate([[low], tried, [high]])  # from the last that fails to the first that fails again
            ends = float(wider[full[0]]), float(wider[full[-1] + 2])
            return Replay(form, float(tried[full].mean()), *ends, steps, rest)
        slow = (np.abs(w) > np.abs(v)).sum(1)  # elements that this ηλ leaves too large
        fast = (np.abs(w) < np.abs(v)).sum(1)
        if not ((slow == 0) | (fast == 0)).any():
            return None  # wherever one looks, some are too large and some too small: no ηλ does it
        above, below = np.flatnonzero(slow > fast), np.flatnonzero(slow < fast)
        low = float(tried[above[-1]]) if above.size else low
        high = float(tried[below[0]]) if below.size else high
        if not low < high:
            return None
    return None


def _product(u: np.ndarray, v: np.ndarray, steps: int, decays: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """The vector after `steps` steps, one row per ηλ, and the shares of equal elements around it."""
    w = np.repeat(u[None], len(decays), 0)
    if form == "fused":
        kept = 1.0 - decays[:, None]
        wide = np.empty(w.shape)

        def step(w: np.ndarray) -> None:
            np.multiply(w, kept, out=wide)
            w[...] = wide
    else:
        x = decays.astype(np.float32)[:, None]
        part = np.empty_like(w)

        def step(w: np.ndarray) -> None:
            np.multiply(w, x, out=part)
            np.subtract(w, part, out=w)

    at_end: list[np.ndarray] = []
    seen = _equal(w, v, steps, step, at_end)
    return at_end[0], seen


def _equal(
    w: np.ndarray,
    v: np.ndarray,
    steps: int,
    step: Callable[[np.ndarray], object],
    at_end: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Share of elements of each row of `w` that equal `v` after steps − AROUND … steps + AROUND steps."""
    for _ in range(steps - AROUND):
        step(w)
    seen = [(w == v).mean(1)]
    for n in range(1 - AROUND, AROUND + 1):
        step(w)
        seen.append((w == v).mean(1))
        if n == 0 and at_end is not None:
            at_end.append(w.copy())
    return np.stack(seen, 1)


def cost(steps: int, elements: int) -> float:
    """Seconds that one replay may take, roughly: a step of 20 rows is a few calls, each over the elements."""
    return 2e-4 + steps * (4e-6 + 2e-8 * elements)
