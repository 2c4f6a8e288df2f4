"""One row of `angular_updates` worked out anew from the sums of every unit, for display."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import HEAVY, LION, MUON, SGDW, Law, law_of
from smd_analyze.views.text import given, number, present

Recomputed = tuple[tuple[str, ...], float | None, float, str]


def implied(f: Facts, row: Row) -> Recomputed:
    """θ₁² = ζ(2xₑ + d ln n/dt), mean over the units; Lion and Muon from the size of their update."""
    start, stop = row["step_from"], row["step_to"]
    rows = f.between(start, stop)
    law, total = law_of(rows[-1] if rows else {}, f.decay_of(rows[-1]) if rows else None), f.total(rows)
    i, j = f.at(start), f.at(stop)
    if isinstance(law, str) or total is None or f.series is None or i is None or j is None:
        return ("θ₁² = ζ(2xₑ + ln(n₂/n₁)/k), n = ‖w‖², k steps",), None, 0.0, ""
    import numpy as np  # heavy

    k, series = f.updates(rows), f.series
    good = (series.vv[i] > 0) & (series.vv[j] > 0)
    damping = 1 - (rows[-1].get("dampening") or 0.0) if law.coupled else 1.0
    growth = np.log(series.vv[j, good] / series.vv[i, good]) / k
    x, slope = total * damping / k, float(growth.mean())
    mean = f"mean of ln(n₂/n₁)/k over {int(good.sum())} units = {number(slope)}, k = {k:g}"
    rates = f.total(rows, "sum_learning_rate")
    if law.name in (LION, MUON) and rates and (size := update_size(f)):
        inverse = float(np.mean(0.5 / series.vv[i, good] + 0.5 / series.vv[j, good])) / series.vv.shape[1]
        square = (rates / k) ** 2 * size * inverse - (x + slope / 2) ** 2
        words = (
            "θ₁² ≈ η²‖u‖²/n − (x + ½ ln(n₂/n₁)/k)², whatever the gradients",
            f"η = Ση/k = {number(rates / k)}, ‖u‖² = {number(size, 4)} ({size_words(f)}), mean of 1/n over the "
            f"units = {number(inverse)}, x = Σηλ/k = {number(x)}, {mean}: θ₁",
        )
        rough = "between the ends n is taken as steady" if law.name == LION else "‖u‖² in round numbers"
        return words, math.sqrt(square) if square > 0 else None, 0.05 if law.name == LION else 0.1, rough
    words, share = law.share()
    squares = share * (2 * law.gain * x + growth)
    if law.name in (HEAVY, SGDW):
        radial, outside = (growth - squares) / 2, 0.0 if law.coupled else x
        squares = (
            squares + radial**2 + 2 * law.a / (1 + law.a) * (radial * outside + squares * (radial + outside + squares))
        )
    lead = f"θ₁² = ζ(2xₑ + ln(n₂/n₁)/k), n = ‖w‖², ζ = {words[0]} = {number(share)}"
    amplified = f"Σηλ/k/(1−{law.alpha})" if law.coupled and law.a else "Σηλ/k"
    put = f"xₑ = {amplified} = {number(law.gain * x)}, {mean}"
    if "saved momentum at both ends" in str(row.get("note") or "") and series.wu is not None:
        part = _remembered(f, rows, i, j, law, good)
        squares = squares + part / k
        put += f", saved momentum at both ends adds {number(float(part.mean()) / k)}"
    square = float(squares.mean())
    return (lead, f"{put}: θ₁"), math.sqrt(square) if square > 0 else None, 0.0, ""


def _remembered(f: Facts, rows: Sequence[Row], i: int, j: int, law: Law, good: Any) -> Any:
    """2α/(1+α)·(b₂/n₂ − b₁/n₁) of the units, b = −η⟨w, v⟩ of the saved momentum v."""
    series = f.series
    if series is None or series.wu is None:
        return 0.0
    rate = rows[0]["learning_rate_first"]
    before = rate
    if rows[-1].get("rate_in_velocity"):
        earlier = [r for r in f.schedule if r["step_to"] == rows[0]["step_from"]]
        before = earlier[-1]["learning_rate_last"] if earlier else rate
    first = 0.0 if series.steps[i] == 0 else -before * series.wu[i] / series.vv[i]
    change = -rate * series.wu[j] / series.vv[j] - first
    return 2 * law.a / (1 + law.a) * change[good]


def measured(f: Facts, row: Row) -> Recomputed:
    """The angle of one update from the sums of every unit."""
    i, series = f.at(row["step_to"]), f.series
    if series is None or i is None:
        return (), None, 0.0, ""
    rounded = "rounding" in str(row.get("note") or "")
    why = "before the rounding of the saved copies is taken off" if rounded else ""
    if row["method"] == "consecutive":
        result = _root_mean(series.vv[i], series.dd[i], series.dv[i])
        words = "cos θ₁ = ⟨w, w′⟩/(‖w‖‖w′‖) of each unit, root mean square over them"
        return (words,), result, 0.5 if rounded else 0.0, why
    made = next((r for r in f.schedule if r["step_to"] == row["step_to"]), None)
    first = f.schedule[0] if f.schedule else {}
    rate: Any = made["learning_rate_last"] if made else first.get("learning_rate_first")
    if series.uu is None or series.wu is None or not present(rate):
        return (), None, 0.0, ""
    result = _root_mean(series.vv[i], rate * rate * series.uu[i], -rate * series.wu[i])
    saved = (
        "momentum buffer" if str((made or first)["optimizer"]).startswith("sgd") else "m̂/(√v̂+ε) of the saved moments"
    )
    words = f"angle between w and w + ηd of each unit, d the {saved}, η = {given(rate)}; root mean square"
    return (words,), result, 0.0, ""


def _root_mean(after: Any, squared: Any, along: Any) -> float | None:
    """Root mean square angle over the units, from Σv², Σ(v−u)², Σ(v−u)v."""
    import numpy as np  # heavy

    with np.errstate(invalid="ignore", divide="ignore"):
        gained = 2 * along - squared
        low, high = np.sqrt(np.maximum(after - gained, 0)), np.sqrt(after)
        radial = gained / (low + high)
        half = np.maximum(squared - radial * radial, 0) / (4 * low * high)
        squares = (2 * np.arcsin(np.sqrt(np.minimum(half, 1)))) ** 2
    squares = squares[np.isfinite(squares) & (low > 0) & (high > 0)]
    return float(np.sqrt(squares.mean())) if len(squares) else None


def update_size(f: Facts) -> float | None:
    """‖u‖² of an update u of Lion (±1 everywhere) or Muon (about 0.8 of min(rows, columns), times the adjustment)."""
    name = str(f.row.get("optimizer") or "").lower()
    if name == "lion":
        return float(f.numel)
    shape = _matrix(f)
    if name != "muon" or shape is None:
        return None
    rows, columns = shape
    if "match_rms" in str(f.row.get("adjust_lr") or ""):
        return 0.8 * min(shape) * 0.04 * max(shape)
    return 0.8 * min(shape) * max(1.0, rows / columns)


def size_words(f: Facts) -> str:
    """Where ‖u‖² comes from."""
    shape = _matrix(f)
    if str(f.row.get("optimizer") or "").lower() == "lion" or shape is None:
        return "updates of ±1 in every element"
    by_size = "match_rms" in str(f.row.get("adjust_lr") or "")
    adjusted = "0.04·max(rows, columns)" if by_size else "max(1, rows/columns)"
    return f"0.8·min(rows, columns)·{adjusted} for {shape[0]} × {shape[1]}"


def _matrix(f: Facts) -> tuple[int, int] | None:
    """Rows and columns of the layer's tensor, seen as a matrix."""
    import polars as pl  # heavy

    shapes = f.report.parameters.filter(pl.col("group") == f.name)["shape"].to_list()
    found = {tuple(int(n) for n in re.findall(r"\d+", str(shape))) for shape in shapes}
    if len(found) != 1 or len(shape := found.pop()) < 2:
        return None
    return shape[0], math.prod(shape[1:])
