"""Adam with L2 decay in the gradient: its balance from the saved second moments, unit by unit, as it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from smd_analyze.views.explain_facts import Facts
from smd_analyze.views.explain_laws import ADAM_L2, SOURCES
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import given, number, present

LARGEST = 0.05
"""Decay per step beyond which a unit has no balance: those are left out."""


@dataclass(frozen=True)
class Balance:
    """Arrays [units]: equilibrium norm, decay per step there; inputs of one unit as text."""

    norm: Any
    decay: Any
    inputs: str


def balance(f: Facts) -> Balance | None:
    """‖w‖* and xₑ of each unit at the last checkpoint; None where its second moment is not saved."""
    import numpy as np  # heavy

    series, row = f.series, f.row
    if series is None or series.ss is None or not present(row.get("learning_rate_last")) or not f.decay:
        return None
    i = len(series.steps) - 1
    each = f.numel / series.vv.shape[1]
    n, root = series.vv[i], series.ss[i]
    if not np.isfinite(n + root).all() or not (root > 0).any():
        return None
    rate = row["learning_rate_last"]
    lag = np.ones_like(n)
    if i and present(row.get("beta2")):
        b2, k, made = row["beta2"], f.updates([row]), float(series.steps[i]) * (f.per_step or 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = b2 * np.exp(np.log(n / series.vv[i - 1]) / k)
            lag = (1 - b2) / (1 - b2**made) * np.expm1(made * np.log(factor)) / (factor - 1)
        lag = np.clip(np.where(np.isfinite(lag), lag, 1.0), 1 / 3, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(root > 0, np.sqrt(n) * root / np.sqrt(lag), np.nan)  # √(dL)
        decay_rate = f.decay / rate
        norm = np.cbrt(rate * size / (2 * decay_rate))
        decay = rate * decay_rate * norm * each / size
    alive = np.flatnonzero(np.isfinite(norm))
    if not len(alive):
        return None
    u = int(alive[0])
    inputs = (
        f"unit {u}: ‖w‖ = {number(math.sqrt(n[u]))}, Σ√v̂ = {number(float(root[u]))}, v̂ behind the norm by "
        f"×{number(float(lag[u]), 3)}: ‖w‖* = {number(float(norm[u]))}, xₑ = {number(float(decay[u]))}"
    )
    return Balance(norm, np.where(decay < LARGEST, decay, np.nan), inputs)


def second_moment_angle(f: Facts, scale: float, unit: str) -> Way:
    """θ* of the units' own balance."""
    found = balance(f)
    b1: Any = f.row.get("beta1")
    result, steps = None, ["θ*² = 2xₑ(1−β₁)/(1+β₁), xₑ = ηλ·d‖w‖*/√(dL), √(dL) = ‖w‖Σ√v̂ of each unit"]
    if found is not None and present(b1):
        import numpy as np  # heavy

        halved = (1 - b1) * found.decay / (1 + b1) / 2
        result = float(np.sqrt(np.nanmean((2 * np.arcsin(np.sqrt(halved))) ** 2)))
        steps += [found.inputs, f"β₁ = {given(b1)}: root mean square over {int(np.isfinite(halved).sum())} units"]
    return Way(
        "equilibrium_angular_update", "θ*", f"angular update at equilibrium, step {f.last['step']}",
        f.last.get("equilibrium_angular_update"), tuple(steps), result, unit=unit, scale=scale,
        notes=(SOURCES[ADAM_L2], "" if f.invariant else f"a reference only: {f.layer['status']}"),
    )  # fmt: skip


def second_moment_norm(f: Facts) -> Way:
    """‖w‖* of the layer."""
    found, result = balance(f), None
    steps = ["‖w‖* = (η√(dL)/(2λ))^⅓ of each unit, √(dL) = ‖w‖Σ√v̂; of the layer √(Σ‖w‖*²)"]
    if found is not None:
        import numpy as np  # heavy

        result = float(np.sqrt(np.nansum(found.norm**2)))
        steps.append(
            f"η = {given(f.row['learning_rate_last'])}, λ = {given(f.row['weight_decay'])}, {found.inputs}; layer"
        )
    return Way(
        "equilibrium_norm", "‖w‖*", f"norm at equilibrium, step {f.last['step']} (theory)",
        f.last.get("equilibrium_norm"), tuple(steps), result, notes=(SOURCES[ADAM_L2],),
    )  # fmt: skip


def second_moment_rate(f: Facts) -> tuple[tuple[str, ...], float | None]:
    """r = 3xₑ, median over the units."""
    import numpy as np  # heavy

    found = balance(f)
    rate = None if found is None else 3 * float(np.nanmedian(found.decay))
    return ("r = 3xₑ near equilibrium, xₑ as in θ*, median over the units",), rate
