"""The angular update of one layer after a change of the learning rate, measured over predicted; batches of updates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import ADAM_L2, LION, SMD, Law, law_of
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import number, present

OVER = 0.05
"""The transient ends where theory is within this of the new equilibrium."""


def transient_ways(f: Facts) -> Iterator[Way]:
    """One for every change of the learning rate in whose transient there are measurements."""
    for row in f.fits:
        if row["quantity"] != "angle_after_change" or not present(row["value"]):
            continue
        words = str(row["method"])
        steps, result = _followed(f, words)
        when = re.search(r"\d+ to \d+ steps after learning rate [^;]*", words)
        yield Way(
            "angle_after_change", "θ₁/θ₁(t)", f"measured over predicted in the transient: {row['outcome']}",
            row["value"], steps, result, row["low"], row["high"], within=0.03,
            why="the change taken as a jump right there" if result else "",
            notes=("± t interval" if present(row["low"]) else "", when[0] if when else "", SMD),
        )  # fmt: skip


def _followed(f: Facts, words: str) -> tuple[tuple[str, ...], float | None]:
    """Formula with the change's numbers, and the ratio worked out over the measurements in its transient."""
    form = "θ₁(t) = θ*/√(1 + (q−1)2^−h), h half-lives since the change, q = (η/λ)/(η′/λ′)"
    law, told = law_of(f.row, f.decay), re.search(r"at step (\d+)", words)
    steady = [r for r in f.schedule if not r["learning_rate_changes"]]
    before = [r for r in steady if told and r["step_from"] < float(told[1])]
    after = [r for r in steady if told and r["step_from"] >= float(told[1]) - 0.5]
    if isinstance(law, str) or not before or not after:
        return (form,), None
    old, new = before[-1], after[0]
    levels = [f.decay_of(r) for r in (old, new)], [r["learning_rate_last"] for r in (old, new)]
    x, eta = ([v for v in pair if present(v) and v] for pair in levels)
    if len(x) < 2 or len(eta) < 2:
        return (form,), None
    q = x[1] / x[0] * (eta[0] / eta[1]) ** 2
    begin = float(told[1]) if told else 0.0
    later = [r["step_from"] for r in f.schedule if r["step_from"] >= new["step_from"] and not _same(r, new)]
    until = min(later, default=f.schedule[-1]["step_to"])
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


def _same(row: Row, other: Row) -> bool:
    """Whether the learning rate is still the same, and constant."""
    one, two = row["learning_rate_first"], other["learning_rate_first"]
    return not row["learning_rate_changes"] and abs(one - two) <= 1e-6 * abs(two)


def batches(f: Facts, ratios: Sequence[tuple[int, float]]) -> list[float]:
    """Mean squares of batches of (step, ratio): those less than two memories of the momentum apart are one."""
    law = law_of(f.row, f.decay)
    reach = 2.0
    if isinstance(law, Law) and law.name != ADAM_L2:
        reach = 2 / (1 - (law.beta2 if law.name == LION else law.a))
    found: list[list[float]] = []
    begin = -math.inf
    for step, ratio in ratios:
        if step - begin >= reach * (1 - 1e-9):
            found.append([])
            begin = step
        found[-1].append(ratio * ratio)
    return [sum(batch) / len(batch) for batch in found]
