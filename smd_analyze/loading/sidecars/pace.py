"""How much training one optimizer step is: epochs and tokens per step, where the checkpoints count both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from smd_analyze.loading.frameworks.base import EPOCHS, PARTS_OF_EPOCHS, STEPS, TOKENS
from smd_analyze.loading.sequences.order_sources import Member, by_facts

EVEN = 1e-6  # relative: epochs written as fractions of a fixed number of steps
ROUGH = 0.1  # relative: tokens per step, where texts are padded or packed


def steps_per_epoch(unit: str, steps: Sequence[float], members: Sequence[Member]) -> float | None:
    """Optimizer steps per epoch, if steps and epochs inside the files keep one ratio throughout."""
    said = [*by_facts(members, PARTS_OF_EPOCHS, "epoch"), *by_facts(members, EPOCHS, "epoch")]
    epochs = next((s.values for s in said if s.usable), None)
    ratio = None if unit != STEPS or epochs is None else slope(epochs, steps, EVEN)
    return ratio if ratio is not None and ratio > 1 else None


def tokens_per_step(unit: str, steps: Sequence[float], members: Sequence[Member]) -> float | None:
    """Tokens seen per optimizer step, if the files count them and the count keeps pace with the steps."""
    tokens = next((s.values for s in by_facts(members, TOKENS, "inside") if s.usable), None)
    return None if unit != STEPS or tokens is None else slope(steps, tokens, ROUGH)


def slope(x: Sequence[float | None], y: Sequence[float | None], tolerance: float) -> float | None:
    """Change of y over change of x, if it is above 0 and the same between all neighbours; None otherwise."""
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    changes = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(points)]
    if len(points) < len(x) or not changes or any(dx == 0 for dx, _ in changes):
        return None
    whole = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]) if points[-1][0] != points[0][0] else 0.0
    even = all(abs(dy / dx - whole) <= tolerance * abs(whole) for dx, dy in changes)
    return whole if whole > 0 and even else None
