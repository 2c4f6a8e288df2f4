"""How one layer's weights move between checkpoints further and further apart, against gradients of zero mean."""

from __future__ import annotations

import math
import re

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import number, present


def lag_way(f: Facts, row: Row) -> Way:
    """The way to one of the quantities that compare far checkpoints."""
    made = {
        "excess_retention": _excess, "displacement_exponent": _exponent, "displacement_exponent_zero_mean": _exponent,
        "drift_fraction": _drift,
    }  # fmt: skip
    return made[row["quantity"]](f, row)


QUANTITIES = ("excess_retention", "displacement_exponent", "displacement_exponent_zero_mean", "drift_fraction")


def _pairs(f: Facts) -> list[Row]:
    """The layer's rows of `lags` that can be compared, in order of distance."""
    table = f.report.lags
    if not table.width:
        return []
    rows = [r for r in table.iter_rows(named=True) if r["group"] == f.name]
    return sorted((r for r in rows if present(r["ratio"]) and present(r["diffusion_angle"])), key=lambda r: r["steps"])


def _excess(f: Facts, row: Row) -> Way:
    """Eₖ at the longest lag, shown for one pair."""
    form, result = "ln(aₖ/aₖ⁰), aₖ = ⟨w_to, w_from⟩/‖w_from‖²", None
    pairs = [r for r in _pairs(f) if present(r["excess_retention"]) and present(r["diffusion_retention"])]
    if pairs and pairs[-1]["diffusion_retention"] > 0 < pairs[-1]["retention"]:
        one = pairs[-1]
        result = math.log(one["retention"] / one["diffusion_retention"])
        form += (
            f": steps {one['step_from']} to {one['step_to']}, aₖ = {number(one['retention'])} measured, aₖ⁰ = "
            f"{number(one['diffusion_retention'])} if gradients had zero mean"
        )
    return Way(
        "fit.excess_retention", "Eₖ far", f"at the longest distance: {row['outcome']}", row["value"], (form,), result,
        within=math.inf, why="one of the pairs" if result is not None else "", notes=("no verdict",),
    )  # fmt: skip


def _exponent(f: Facts, row: Row) -> Way:
    """d ln(1−cos θ)/d ln k, shown between the ends of the distances."""
    free = row["quantity"].endswith("zero_mean")
    name, result = "diffusion_angle" if free else "angle", None
    form = "slope of ln(1 − cos θₖ) on ln k over the longest distances"
    told = re.search(r"over ([\d.e+]+) … ([\d.e+]+) steps", str(row["method"]))
    pairs = [r for r in _pairs(f) if present(r[name]) and r[name] > 0]
    ends = [[r for r in pairs if k / 1.2 <= r["steps"] <= k * 1.2] for k in map(float, told.groups())] if told else []
    if told and all(ends):
        fall = [sum(2 * math.sin(r[name] / 2) ** 2 for r in part) / len(part) for part in ends]
        steps = [sum(r["steps"] for r in part) / len(part) for part in ends]
        result = math.log(fall[1] / fall[0]) / math.log(steps[1] / steps[0])
        form += f": 1 − cos θₖ = {number(fall[0])} at k ≈ {steps[0]:.4g}, {number(fall[1])} at k ≈ {steps[1]:.4g}"
    about = "of zero-mean gradients at the same distances" if free else f"1 random walk, 2 straight: {row['outcome']}"
    return Way(
        f"fit.{row['quantity']}", "exponent⁰" if free else "exponent", about, row["value"], (form,), result, digits=3,
        within=math.inf, why="the two ends, mean over the run" if result is not None else "",
    )  # fmt: skip


def _drift(f: Facts, row: Row) -> Way:
    """f: a fit that no line can redo."""
    return Way(
        "fit.drift_fraction", "f", f"share of the squared gradient in one fixed direction: {row['outcome']}",
        row["value"], (f"θₖ² = D[(1−f)κₖ + fk²], κₖ of zero-mean gradients; fitted: {row['method']}",), None,
        row["low"], row["high"], digits=3, notes=("± jackknife over blocks" if present(row["low"]) else "",),
    )  # fmt: skip
