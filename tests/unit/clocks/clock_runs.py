"""Small runs with planted clocks: a classifier whose gradients add up to zero, embedding rows that are never used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from clock_candidates import collect

from smd_analyze.clocks.search import find_clocks
from smd_analyze.records.clocks import Clocks

UNUSED = (3, 4)
Saved = list[dict[str, np.ndarray]]


def train(
    steps: Sequence[int], decay: float | Callable[[int], float], seed: int = 0, noise: float = 3e-3, width: int = 32
) -> Saved:
    """Weights at `steps` of a run whose decay per step is `decay` (of the step's number), in fp32.

    "head": its gradients' sum over units is zero. "emb": two rows have no gradient. "hidden": like all other weights.
    Decay multiplies by fp32(1 − x), as decoupled decay does.
    """
    rng = np.random.default_rng(seed)
    shapes = {"head": (10, width), "emb": (16, width), "hidden": (24, width)}
    w = {n: (0.1 * rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()}
    saved: Saved = []
    for t in range(steps[0], steps[-1] + 1):
        if t in steps:
            saved.append({n: v.copy() for n, v in w.items()})
        factor = np.float32(1 - (decay(t) if callable(decay) else decay))
        for n, v in w.items():
            g = (noise * rng.standard_normal(v.shape)).astype(np.float32)
            if n == "head":
                g -= g.mean(0)
            if n == "emb":
                g[list(UNUSED)] = 0
            w[n] = v * factor - g
    return saved


def clocks_of(saved: Saved, steps: Sequence[int], unit: str = "optimizer steps", **more: object) -> Clocks:
    """What is found in such a run."""
    return find_clocks(collect(saved), steps, unit, **more)  # pyright: ignore[reportArgumentType]


def codes(found: Clocks) -> list[str]:
    """The findings' codes."""
    return [f.code for f in found.findings]
