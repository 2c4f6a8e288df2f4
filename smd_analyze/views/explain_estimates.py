"""What is estimated from one layer's norms and angles, and for what has no number, why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_lags import QUANTITIES as LAGS
from smd_analyze.views.explain_lags import lag_way
from smd_analyze.views.explain_laws import Law, law_of
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import given, number, present

ELSEWHERE = (
    "equilibrium_index", "stationary_since", "level", "level_ratio", "agreement", "angle_after_change",
    "steps_to_equilibrium", "intrinsic_learning_rate",
)  # fmt: skip
"""Quantities of `fits` that other sections explain."""
ONE = "the last interval alone, median over units; the report fits all of them"


def estimate_ways(f: Facts) -> Iterator[Way | str]:
    """One way for every quantity of `fits` that no other section has."""
    made = {
        "effective_learning_rate": _effective, "norm_fluctuation": _fluctuation, "gradient_scale": _scale,
        "decay_from_data": _decay, "relaxation_rate": _rate, "relaxation_rate_ratio": _ratio,
    }  # fmt: skip
    for row in f.fits:
        name = row["quantity"]
        if name in ELSEWHERE:
            continue
        if not present(row["value"]):
            yield f"{name} = –: {row['outcome']}" + (f" ({row['advice']})" if row["advice"] else "")
        elif name in LAGS:
            yield lag_way(f, row)
        elif name in made:
            yield made[name](f, row)
        else:
            yield Way(name, name, str(row["method"] or ""), row["value"], (), None, row["low"], row["high"])


def _effective(f: Facts, row: Row) -> Way:
    """η/‖w‖² or η√d/‖w‖, median over the units."""
    rate, series = f.row.get("learning_rate_last"), f.series
    squared = str(row["method"]).startswith("η/‖w‖²")
    form = "η/‖w‖²" if squared else "η√d/‖w‖, d elements of a unit"
    steps, result = (form,), None
    if present(rate) and series is not None and len(series.vv):
        import numpy as np  # heavy

        norms = series.vv[-1][np.isfinite(series.vv[-1]) & (series.vv[-1] > 0)]
        if len(norms):
            each = f.numel / series.vv.shape[1]
            result = float(np.median(rate / norms if squared else rate * np.sqrt(each / norms)))
            middle = float(np.median(np.sqrt(norms)))
            extra = "" if squared else f", d = {each:g}"
            steps = (f"{form}: η = {given(rate)}, median ‖w‖ of {len(norms)} units = {number(middle)}{extra}",)
    spread = f"10th to 90th percentile of the units {number(row['p10'])} to {number(row['p90'])}"
    return Way(
        "effective_learning_rate", "effective learning rate", f"median over units, step {f.norms[-1]['step']}"
        if f.norms else "median over units",
        row["value"], steps, result, unit="1/weight²" if squared else "1/step",
        notes=(spread, "van Laarhoven 2017" if squared else "Kosson et al. 2023"),
    )  # fmt: skip


def _fluctuation(f: Facts, row: Row) -> Way:
    """½√(xₑ/2) at CV = 1."""
    law = law_of(f.row, f.decay)
    slow = law.x * law.gain if isinstance(law, Law) else None
    return Way(
        "norm_fluctuation", "sd(‖w‖)/‖w‖*", "scatter of one unit's norm at equilibrium", row["value"],
        (f"½·CV·√(xₑ/2), xₑ = {number(slow)}, CV = 1 (of the gradient's square; filters have about 1 to 1.4)",),
        0.5 * math.sqrt(slow / 2) if slow else None,
        notes=("of the linear equation of ‖w‖⁴",),
    )  # fmt: skip


def _scale(f: Facts, row: Row) -> Way:
    """L of the last interval: (S₂ − ΦS₁)/B."""
    law, series, last = law_of(f.row, f.decay), f.series, f.row
    form = "L = (S₂ − ΦS₁)/B of every interval, S = ‖w‖⁴ of a unit"
    steps, result = (form,), None
    if isinstance(law, Law) and series is not None and last["sum_decay"] and last["sum_learning_rate"]:
        import numpy as np  # heavy

        i, j, k = f.at(last["step_from"]), f.at(last["step_to"]), f.updates([last])
        damped = 1 - (last.get("dampening") or 0.0) if law.coupled else 1.0
        slow = last["sum_decay"] * damped * law.gain / k
        rate = last["sum_learning_rate"] / k * (1 - (last.get("dampening") or 0.0)) / (1 - law.a)
        q = (1 - slow) ** 2
        phi = q ** (2 * k)
        source = rate**2 * (1 + q) * (1 - phi) / (1 - q * q)
        if i is not None and j is not None:
            result = float(np.nanmedian((series.vv[j] ** 2 - phi * series.vv[i] ** 2) / source))
            put = (
                f"{form}, Φ = (1−xₑ)^4k = {number(phi)}, B = ηₑ²(1+q)(1−Φ)/(1−q²) = {number(source)}, q = (1−xₑ)², "
                f"ηₑ = η/(1−α) = {number(rate)}, steps {last['step_from']} to {last['step_to']}: L"
            )
            steps = (put,)
    rests = "± " + str(row["method"]).partition(",")[0] + ("" if row["level"] else ", no coverage claimed")
    return Way(
        "gradient_scale", "L", f"squared gradient at unit norm, E‖w‖²‖g‖²; {row['outcome']}", row["value"], steps,
        result, row["low"], row["high"], unit="loss²", within=math.inf, why=ONE if result is not None else "",
        notes=(rests if present(row["low"]) else "",),
    )  # fmt: skip


def _decay(f: Facts, row: Row) -> Way:
    """ηλ from measured angles: the mean of many updates, shown at their root mean square and the run's slope."""
    law = law_of(f.row, f.decay)
    coupled = isinstance(law, Law) and law.coupled
    saved = str(row["method"]).startswith("saved updates")
    form = (
        "ηλ = [(1+α)θ₁² − (1−α)d ln‖w‖²/dt]/2 of every measured update" if coupled else
        "ln‖w′‖²/‖w‖² = 2 ln(1−ηλ) − ln[1 + (2ηw′·d + η²d²)/‖w′‖²] of every saved update d" if saved else
        "ηλ = [(1+α)/(1−α)·θ₁² − d ln‖w‖²/dt]/2 of every measured update, α = β₁ under AdamW"
    )  # fmt: skip
    steps, result = (form,), None
    values = [] if isinstance(law, str) else _updates(f, law, saved)
    if values:
        result = sum(values) / len(values) * (f.decay or 1.0)
        steps = (f"{form}, slope of the norms 10/(1−α) steps around: mean of {len(values)}",)
    configured = f"configured {number(f.decay)}" if present(f.decay) else ""
    return Way(
        "decay_from_data", "ηλ from the data", f"{row['outcome']}; {configured}", row["value"], steps, result,
        row["low"], row["high"], unit=f"1/{f.unit}", within=math.inf,
        why="the report lets the slope bend, and leaves out where it bends too much" if result else "",
        notes=("± " + str(row["method"]) if present(row["low"]) else str(row["method"]),),
    )  # fmt: skip


def _updates(f: Facts, law: Law, saved: bool) -> list[float]:
    """ηλ of every measured update over the configured one (over 1 if that is unknown)."""
    rows = [r for r in f.angles if r["independent"] and present(r["angular_update"]) and r["steps_covered"] == 1]
    most = max(("consecutive", "buffer"), key=lambda m: sum(r["method"] == m for r in rows))
    found, reach = [], 10 / (1 - law.a) / (f.per_step or 1.0)
    for r in (r for r in rows if r["method"] == most):
        middle = 0.5 * (r["step_from"] + r["step_to"])
        before = [n for n in f.norms if middle - n["step"] >= reach]
        after = [n for n in f.norms if n["step"] - middle >= reach]
        if not before or not after:
            continue
        spans = f.between(before[-1]["step"], after[0]["step"])
        rates = {s[key] for s in spans for key in ("learning_rate_first", "learning_rate_last")}
        if not spans or any(s["learning_rate_changes"] for s in spans) or len(rates) > 1:
            continue
        slope = 2 * math.log(after[0]["weight_norm"] / before[-1]["weight_norm"]) / f.updates(spans)
        square = (1 + law.a) * r["angular_update"] ** 2
        x = (square - (1 - law.a) * slope) / 2 if law.coupled else (square / (1 - law.a) - slope) / 2
        if saved:
            x = _of_saved(f, r["step_to"], slope, rates.pop())
        configured = f.decay_of(next((s for s in spans if s["step_to"] >= middle), spans[-1])) or 1.0
        found.append(x / configured)
    return [x for x in found if math.isfinite(x)]


def _of_saved(f: Facts, step: int, slope: float, rate: float) -> float:
    """ηλ of the update saved at a checkpoint, the norm's slope standing in for ln‖w′‖²/‖w‖²."""
    i, series = f.at(step), f.series
    if i is None or series is None or series.uu is None or series.wu is None:
        return math.nan
    added = (2 * rate * series.wu[i].sum() + rate**2 * series.uu[i].sum()) / series.vv[i].sum()
    return -math.expm1(0.5 * (slope + math.log1p(float(added))))


def _theory(f: Facts) -> tuple[str, float] | None:
    """Theory's rate at the last learning rate as the fit takes it."""
    law = law_of(f.row, f.decay)
    if isinstance(law, str) or not law.x > 0:
        return None
    if not law.family:
        return f"r* = 2ηλ = {number(2 * law.x)}", 2 * law.x
    slow, number_ = law.x * law.gain, law.a * law.x / (1 - law.a) ** 2 if law.coupled else 0.0
    value = 4 * slow * (1 + 4 * number_ + 1.5 * slow)
    return f"r* = 4xₑ(1 + 4A + 1.5xₑ) = {number(value)}, xₑ = {number(slow)}, A = {number(number_, 3)}", value


def _ratio(f: Facts, row: Row) -> Way:
    """ρ: the fit itself, which no line can redo."""
    return Way(
        "relaxation_rate_ratio", "ρ = r/r*", f"relaxation rate over theory's: {row['outcome']}", row["value"],
        (f"fitted, no closed form: {row['method']}",), None, row["low"], row["high"], digits=3,
        notes=("checked: " + str(row.get("checks") or "nothing").replace("; ", ", "),),
    )  # fmt: skip


def _rate(f: Facts, row: Row) -> Way:
    """r = ρ r*."""
    ratio: Any = f.fit("relaxation_rate_ratio").get("value")
    theory = _theory(f)
    known = present(ratio) and theory is not None
    step = f"r = ρ·r*, ρ = {number(ratio)} fitted (next)" + (f", {theory[0]}" if theory else "")
    return Way(
        "relaxation_rate", "r", "relaxation rate that the norms show", row["value"], (step,),
        ratio * theory[1] if known and theory else None, row["low"], row["high"], unit=f"1/{f.unit}", digits=3,
        notes=("± that of ρ" if present(row["low"]) else "",),
    )  # fmt: skip
