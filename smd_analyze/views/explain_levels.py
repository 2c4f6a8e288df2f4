"""How an equilibrium norm of the SGD family comes about, and one interval of the expected norm, as they are shown."""

from __future__ import annotations

import math
from typing import Any

from smd_analyze.views.explain_facts import Facts
from smd_analyze.views.explain_laws import ADAM_L2, HEAVY, Law, law_of
from smd_analyze.views.text import given, number, present

Recomputed = tuple[tuple[str, ...], float | None, float, str]
NEAREST = 5
"""Checkpoints, or intervals, whose gradient scale the report pools for the level at one checkpoint."""


def per_gradient(f: Facts, law: Law) -> tuple[str, float] | None:
    """s = S*/L of one unit at the last update, S = ‖w‖⁴: the formula with its numbers, and s; None if η is unknown."""
    rate: Any = f.row.get("learning_rate_last")
    a, x = law.a, law.x
    if not present(rate) or not x > 0:
        return None
    damped = rate * (1 - (f.row.get("dampening") or 0.0))
    if law.name == HEAVY:
        value = damped**2 / (x * (1 - a) * (2 - x / (1 + a)))
        return f"s = η²/(x(1−α)(2−x/(1+α))), x = ηλ = {given(x)}, η = {given(damped)}, α = {given(a)}", value
    value = damped**2 * law.variance()[0]
    lead = "η/(2λ(1−α))" if law.coupled else "η/(2λ(1−α)²)"
    return f"s = η²γ₀ ≈ {lead}, γ₀ of the process as in θ*, η = {given(damped)}, ηλ = {given(x)}, α = {given(a)}", value


def gradient_scales(f: Facts, law: Law, nearest: int | None) -> tuple[float, int] | None:
    """(Σ_u √L_u)² of saved momentum buffers at the last `nearest` checkpoints that hold them (all: None), how many."""
    series = f.series
    if series is None or series.uu is None or series.wu is None or not 0 < law.a < 1:
        return None
    import numpy as np  # heavy

    damped = np.ones(len(series.vv))
    if law.coupled:
        damped *= 1 - (f.row.get("dampening") or 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        tangent = np.maximum(series.uu - series.wu**2 / series.vv, 0)
        scale = (1 - law.a**2) * series.vv * tangent / damped[:, None] ** 2
    scale = np.where(series.vv == 0, 0.0, scale)
    usable = np.flatnonzero(np.isfinite(scale).all(axis=1) & (scale > 0).any(axis=1))
    if not len(usable):
        return None
    chosen = usable if nearest is None else usable[-nearest:]
    return float(np.sqrt(scale[chosen].mean(axis=0)).sum()) ** 2, len(chosen)


def level_from_buffers(f: Facts, law: Law) -> Recomputed:
    """‖w‖*⁴ = s(Σ√L)², L of each unit from its saved momentum."""
    form = "‖w‖*⁴ = s·(Σ√L)², L = (1−α²)‖w‖²‖v⊥‖² of each unit from its saved momentum v"
    found, size = per_gradient(f, law), gradient_scales(f, law, NEAREST)
    if found is None or size is None:
        return (form,), None, 0.0, ""
    words, s = found
    put = f"{words}: s = {number(s)}; (Σ√L)² = {number(size[0])}, mean of {size[1]}: ‖w‖*"
    return (form, put), (s * size[0]) ** 0.25, 0.0, ""


def level_from_norms(f: Facts, law: Law) -> Recomputed:
    """‖w‖*² = Σ√S*, S* = (S₂ − ΦS₁)/(1 − Φ) of each unit, mean over the last intervals."""
    form = "S* = (S₂ − ΦS₁)/(1 − Φ), S = ‖w‖⁴ of each unit, Φ = e^−4Σxₑ of an interval; ‖w‖*² = Σ√S*"
    series = f.series
    if series is None:
        return (form,), None, 0.0, ""
    import numpy as np  # heavy

    found, spans, first = [], [], 0
    for row in reversed(f.schedule[-NEAREST:]):
        i, j, total = f.at(row["step_from"]), f.at(row["step_to"]), row["sum_decay"]
        if row.get("learning_rate_changes") or i is None or j is None or not total:
            break
        damped = 1 - (row.get("dampening") or 0.0) if law.coupled else 1.0
        slow, first = total * damped * law.gain, row["step_from"]
        phi = (1 - slow / f.updates([row])) ** (4 * f.updates([row]))
        found.append((series.vv[j] ** 2 - phi * series.vv[i] ** 2) / (1 - phi))
        spans.append(slow)
    if not found or not np.isfinite(found).all():
        return (form,), None, 0.0, ""
    level = np.sqrt(np.maximum(np.average(found, axis=0, weights=spans), 0.0)).sum()
    put = f"{form}; steps {first} to {f.row['step_to']}, Σxₑ = {number(sum(spans))}: ‖w‖*"
    alone = f"the last {len(found)} intervals at this learning rate, by length; the report weighs them by their noise"
    return (put,), float(np.sqrt(level)) if level > 0 else None, 0.1, alone


def next_norm(f: Facts) -> tuple[tuple[str, ...], float | None, float]:
    """The last interval of the expected norm, from the checkpoint before: E₂ᵖ = Y* + (E₁ᵖ − Y*)e^−rk."""
    law, decay = law_of(f.row, f.decay), f.total(f.schedule[-1:])
    form = "E₂ᵖ = Y* + (E₁ᵖ − Y*)e^−rk, interval by interval from the first checkpoint on"
    if isinstance(law, str) or len(f.predicted) < 2 or not decay:
        return (form,), None, 0.0
    if law.family and f.row.get("learning_rate_changes"):
        return (form + "; the learning rate changed in the last interval",), None, 0.0
    before: Any = f.predicted[-2].get("expected_norm")
    level = None
    if law.family:
        found, size = per_gradient(f, law), gradient_scales(f, law, None)
        level = None if found is None or size is None or f.last["norm_basis"] != "theory" else found[1] * size[0]
    elif present(f.last.get("equilibrium_norm")):
        level = f.last["equilibrium_norm"] ** 2
    if law.name == ADAM_L2:
        form = "dn/dt = η²d/(nV) − 2xₑn, V what v̂ remembers of 1/n; integrated step by step: no line can redo it"
        return (form,), None, 0.0
    k = f.updates(f.schedule[-1:])
    rate = law.rate(decay * (law.x / f.decay if f.decay else 1.0) / k)[1]
    if not present(before) or level is None or not present(rate):
        fitted = f.last.get("norm_basis") == "extrapolated"
        return (form + (", with one L fitted to all intervals (no line can redo it)" if fitted else ""),), None, 0.0
    linear = level + (before**law.power - level) * math.exp(-rate * k)
    put = (
        f"{form}; the last: p = {law.power}, E₁ = {number(before)} at step {f.predicted[-2]['step']}, Y* = "
        f"{number(level ** (1 / law.power))}^{law.power}, r = {number(rate)}, k = {k:g}: E‖w‖"
    )
    return (put,), linear ** (1 / law.power), 0.03
