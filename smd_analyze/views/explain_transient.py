"""The angular update of one layer after a change of the learning rate, measured over predicted; batches of updates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import SMD, Law, law_of
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.stages import rows_of
from smd_analyze.views.text import number, present

OVER = 0.05
"""The transient ends where theory is within this of the new equilibrium."""


def transient_ways(f: Facts) -> Iterator[Way]:
    """One for every change of the learning rate in whose transient there are measurements."""
    stages = [r for r in rows_of(f.report, str(f.layer.get("parameter_group") or "")) if present(r.get("level_ratio"))]
    for row in f.fits:
        if row["quantity"] != "angle_after_change" or not present(row["value"]):
            continue
        words = str(row["method"])
        stage = next((s for s in stages if f"at step {s['step_from']}" in words), None)
        steps, result = _followed(f, stage)
        yield Way(
            "angle_after_change", "θ₁/θ₁(t)", f"measured over predicted after the change: {row['outcome']}",
            row["value"], steps, result, row["low"], row["high"], within=0.03,
            why="the change taken as a jump right there" if result else "",
            notes=("± t interval over the batches" if present(row["low"]) else "", words.partition(", ")[2], SMD),
        )  # fmt: skip


def _followed(f: Facts, stage: Row | None) -> tuple[tuple[str, ...], float | None]:
    """Formula with the change's numbers, and the ratio worked out over the measurements in its transient."""
    form = "θ₁(t) = θ*/√(1 + (q−1)2^−h), h half-lives since the change, q = (η/λ)/(η′/λ′)"
    law = law_of(f.row, f.decay)
    if stage is None or isinstance(law, str):
        return (form,), None
    begin, until, q = stage["step_from"], stage["step_to"], stage["level_ratio"]
    halves = [(p["step"], p["half_lives"]) for p in f.predicted if present(p["half_lives"])]
    halves = [(step, h) for step, h in halves if begin <= step <= until]
    if len(halves) < 2:
        return (form,), None
    pace = (halves[-1][1] - halves[0][1]) / (halves[-1][0] - halves[0][0])
    theory = {p["step"]: p["equilibrium_angular_update"] for p in f.predicted}
    rows = [r for r in f.angles if r["independent"] and present(r["angular_update"]) and r["steps_covered"] == 1]
    most = max(("consecutive", "buffer"), key=lambda m: sum(r["method"] == m for r in rows))
    found = []
    for r in rows:
        step, rest = r["step_to"], theory.get(r["step_to"])
        part = 1 / math.sqrt(1 + (q - 1) * 2 ** (-pace * (step - 1 - begin)))
        late = begin + 2 / (1 - law.a) <= step - 1 < until
        if r["method"] == most and late and rest and abs(part - 1) > OVER:
            found.append((step, r["angular_update"] / (part * rest)))
    means = batches(f, found)
    put = f"{form} = {number(q)}, h = {number(pace)} per {f.unit}: root mean square of {len(found)} ratios"
    return (put,), math.sqrt(sum(means) / len(means)) if means else None


def batches(f: Facts, ratios: Sequence[tuple[int, float]]) -> list[float]:
    """Mean squares of batches of (step, ratio): those less than two memories of the momentum apart are one."""
    law = law_of(f.row, f.decay)
    reach = 2 / (1 - law.a) if isinstance(law, Law) else 0.0
    found: list[list[float]] = []
    begin = -math.inf
    for step, ratio in ratios:
        if step - begin >= reach * (1 - 1e-9):
            found.append([])
            begin = step
        found[-1].append(ratio * ratio)
    return [sum(batch) / len(batch) for batch in found]
