"""How long the balance of one layer takes: relaxation rate, half-lives passed, steps left, stages of training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from smd_analyze.views.explain_facts import Facts
from smd_analyze.views.explain_laws import ADAM_L2, SMD, Law, law_of
from smd_analyze.views.explain_second_moment import second_moment_rate
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.stages import explain_stages
from smd_analyze.views.text import number, present

NEAR = 0.1
"""Of ‖w‖: what counts as having arrived."""


def time_ways(f: Facts) -> Iterator[Way | str]:
    """Rates and half-lives of theory, then what every stage of training allows."""
    law = law_of(f.row, f.decay)
    if isinstance(law, Law):
        yield from _rate(f, law)
        yield from _half_lives(f, law)
    yield from _left(f, law)
    yield from explain_stages(f.report, f.layer)


def _rate(f: Facts, law: Law) -> Iterator[Way | str]:
    """r of the last update."""
    held = f.last.get("relaxation_rate")
    steps, result = second_moment_rate(f) if law.name == ADAM_L2 else law.rate()
    if not present(held):
        if law.family and not present(result):
            yield f"r = –: {steps[0]}"
        return
    linear = "‖w‖⁴ relaxes as e^−rt" if law.power == 4 else "‖w‖² relaxes as e^−rt"
    yield Way(
        "predictions.relaxation_rate", "r", f"{linear} after the last update", held, steps, result,
        unit="1/step", notes=(SMD if law.family else "slow eigenvalue of the update rule's mean map",),
    )  # fmt: skip


def _half_lives(f: Facts, law: Law) -> Iterator[Way | str]:
    """Σ r k/ln 2 from the first checkpoint on."""
    held = f.last.get("half_lives")
    if not present(held):
        return
    passed, decay = 0.0, 0.0
    for row in f.schedule:
        k, total = f.updates([row]), row["sum_decay"]
        one = law_of(row, f.decay_of(row))
        if isinstance(one, str) or not present(total) or law.name == ADAM_L2:
            passed = math.nan
            break
        damped = total * (1 - (row.get("dampening") or 0.0)) if one.coupled else total
        decay += damped * one.gain
        passed += one.rate(damped / k)[1] * k if total else 0.0
    lead = {ADAM_L2: "r = 3xₑ with √v̂ of every checkpoint (not redone here)"}.get(
        law.name, f"about {law.power}Σxₑ/ln 2, Σxₑ = {number(decay)}"
    )  # fmt: skip
    counted = "optimizer steps" if f.per_step else "recorded steps"
    yield Way(
        "half_lives", "half-lives", f"of the norm's relaxation since step {f.predicted[0]['step']}", held,
        (f"Σ r·k/ln 2 over {len(f.schedule)} intervals of k {counted}, {lead}",),
        passed / math.log(2) if present(passed) else None, digits=3, within=0.02 if _moves(f) else 0.0,
        why="each interval at its mean decay" if _moves(f) and present(passed) else "",
    )  # fmt: skip


def _moves(f: Facts) -> bool:
    """Whether the learning rate changes within an interval."""
    return any(r.get("learning_rate_changes") for r in f.schedule)


def _left(f: Facts, law: Law | str) -> Iterator[Way | str]:
    """Steps until the norm is within 10 % of its equilibrium."""
    row = f.fit("steps_to_equilibrium")
    if not row:
        return
    if not present(row["value"]):
        yield f"steps to equilibrium = –: {row['outcome']}"
        return
    words = str(row["method"])
    if words.startswith("stationary"):
        yield f"0 {f.unit}s to equilibrium: {words}"
        return
    steps, result = _one_norm(f, law)
    units = words.startswith("median")
    yield Way(
        "steps_to_equilibrium", f"{f.unit}s to equilibrium", row["outcome"], row["value"], steps, result,
        row["low"], row["high"], within=math.inf if units else 0.0,
        why="of the whole layer; the report's is the median over the units, each with an equilibrium of its own"
        if units and result is not None else "",
        notes=("± from that of ‖w‖*, no coverage claimed" if present(row["low"]) else "",),
    )  # fmt: skip


def _one_norm(f: Facts, law: Law | str) -> tuple[tuple[str, ...], float | None]:
    """The time that the layer's own norm takes to its equilibrium one."""
    level, rate = f.last.get("equilibrium_norm"), None
    if len(f.predicted) > 1:
        before, last = f.predicted[-2:]
        if present(before["half_lives"]) and present(last["half_lives"]):
            rate = (last["half_lives"] - before["half_lives"]) * math.log(2) / (last["step"] - before["step"])
    form = "t = ln(|sᵖ − 1|/ε)/r, s = ‖w‖/‖w‖*"
    if isinstance(law, str) or not rate or not present(level) or not f.norms:
        return (form,), None
    power = law.power
    start = f.norms[-1]["weight_norm"] / level
    away = start**power - 1
    near = (1 + NEAR) ** power - 1 if away > 0 else 1 - (1 - NEAR) ** power
    put = f"{form} = {number(start)}, p = {power}, ε = {number(near)} (10 % of ‖w‖), r = {number(rate)}/{f.unit}"
    return (put,), max(math.log(abs(away) / near), 0.0) / rate if away else 0.0
