"""How one layer's weights move between checkpoints further and further apart, against gradients of zero mean."""

from __future__ import annotations

import math
import re

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import counted, number, present


def lag_way(f: Facts, row: Row) -> Way:
    """The way to one of the quantities that compare far checkpoints."""
    made = {
        "excess_retention": _excess, "displacement_exponent": _exponent, "displacement_exponent_zero_mean": _exponent,
        "drift_fraction": _drift,
    }  # fmt: skip
    return made[row["quantity"]](f, row)


QUANTITIES = ("excess_retention", "displacement_exponent", "displacement_exponent_zero_mean", "drift_fraction")


def _furthest(f: Facts, row: Row) -> list[Row]:
    """The pairs of checkpoints whose mean the report's row is: the last ones of about the distance that it says."""
    count, far = (re.search(pattern, str(row["method"])) for pattern in (r"\((\d+) pairs?\)", r"over ([\d.e+]+) steps"))
    if not f.report.lags.width or count is None or far is None:
        return []
    octave = round(math.log2(float(far[1])))
    rows = [r for r in f.report.lags.iter_rows(named=True) if r["group"] == f.name and present(r["ratio"])]
    rows = [r for r in rows if r["steps"] and r["diffusion_angle"]]
    rows = [r for r in rows if present(r["excess_retention"]) and round(math.log2(r["steps"])) == octave]
    return sorted(rows, key=lambda r: r["step_from"])[-int(count[1]) :]


def _excess(f: Facts, row: Row) -> Way:
    """Eₖ at the longest distance, mean of its pairs, one of them shown."""
    form, result = "ln(aₖ/aₖ⁰), aₖ = ⟨w_to, w_from⟩/‖w_from‖²", None
    pairs = _furthest(f, row)
    if pairs:
        one, result = pairs[-1], sum(r["excess_retention"] for r in pairs) / len(pairs)
        form += (
            f", mean of {counted(len(pairs), 'pair')}; the last: steps {one['step_from']} to {one['step_to']}, aₖ = "
            f"{number(one['retention'])} measured, aₖ⁰ = {number(one['diffusion_retention'])} for zero-mean gradients"
        )
    return Way(
        "fit.excess_retention", "Eₖ far", f"at the longest distance: {row['outcome']}", row["value"], (form,), result,
        notes=("" if "no verdict" in str(row["outcome"]) else "no verdict",),
    )  # fmt: skip


def _exponent(f: Facts, row: Row) -> Way:
    """d ln(1−cos θ)/d ln k over the longest distances: a fit over many pairs, which no line can redo."""
    free = row["quantity"].endswith("zero_mean")
    about = "of zero-mean gradients at the same distances" if free else f"1 random walk, 2 straight: {row['outcome']}"
    form = f"least squares over many pairs of checkpoints, not redone here: {str(row['method']).partition(',')[0]}"
    return Way(
        f"fit.{row['quantity']}", "exponent⁰" if free else "exponent", about, row["value"], (form.partition(";")[0],),
        None, digits=3,
    )  # fmt: skip


def _drift(f: Facts, row: Row) -> Way:
    """f: a fit that no line can redo."""
    return Way(
        "fit.drift_fraction", "f", f"share of the squared gradient in one fixed direction: {row['outcome']}",
        row["value"], (f"θₖ² = D[(1−f)κₖ + fk²], κₖ of zero-mean gradients; fitted: {row['method']}",), None,
        row["low"], row["high"], digits=3, notes=("± jackknife over blocks" if present(row["low"]) else "",),
    )  # fmt: skip
