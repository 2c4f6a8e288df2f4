"""Where learning rate and decay of one layer come from: files, caller, decay clocks; the rule, and what is assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from smd_analyze.decay_formulas.settled import decay_of
from smd_analyze.views.explain_angles import assumed
from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import Law, law_of
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import MISSING, counted, given, interval, number, present

SYMBOLS = {
    "learning_rate_last": "η", "weight_decay": "λ", "momentum": "α", "dampening": "τ", "beta1": "β₁", "beta2": "β₂",
    "eps": "ε",
}  # fmt: skip
USUAL = "learning rate × weight decay"
MOST = 2
"""Clocks that are shown; more are counted."""


def source_ways(f: Facts) -> Iterator[Way | str]:
    """Numbers of the last interval with their sources, ηλ, the rule, and the clocks that the schedule rests on."""
    row = f.row
    if not row:
        yield "schedule unknown: no learning rate and weight decay for this layer's parameter group"
        return
    yield _numbers(row)
    yield f"read in: {_places(str(row['source'] or MISSING))}"
    rule = row.get("decay_rule")
    if rule and rule != USUAL:
        yield f"decay rule: {rule}"
    if row.get("rate_in_velocity"):
        yield "the velocity holds the learning rate (Keras, Caffe): after a change the old one lingers 1/(1−α) steps"
    if row.get("momentum_assumed") and not any("momentum" in part for part in assumed(f)):
        yield f"momentum {given(row['momentum'])} is assumed, nothing says it"
    yield from _decay(f)
    ends = row.get("sum_decay_low"), row.get("sum_decay_high")
    sums = f"Ση = {number(row['sum_learning_rate'])}, Σηλ = {interval(row['sum_decay'], *ends, digits=4)}"
    shape = f"; over the run: {row['shape']}" if row.get("shape") else ""
    if shape or present(row["sum_learning_rate"]) or present(row["sum_decay"]):
        yield f"{sums} over steps {row['step_from']} to {row['step_to']}{shape}"
    yield from _clocks(f)


def _places(source: str) -> str:
    """`param_groups[0] of the optimizer: lr, weight_decay; MultiStepLR`: what was read, place by place."""
    found: dict[str, list[str]] = {}
    for part in source.split("; "):
        place, _, name = part.partition(", ")
        names = found.setdefault(place, [])
        if name and name not in names:
            names.append(name)
    return "; ".join(f"{place}: {', '.join(names)}" if names else place for place, names in found.items())


def _numbers(row: Row) -> str:
    """`sgd, η = 0.02, λ = 0.001, α = 0.9, Nesterov: steps 8550 to 8640, parameter group '0'`."""
    words = [str(row["optimizer"] or "optimizer unknown")]
    words += [f"{symbol} = {given(row[key])}" for key, symbol in SYMBOLS.items() if row.get(key)]
    if not row["weight_decay"] and row["weight_decay"] is not None:
        words.append("λ = 0")
    if not present(row.get("learning_rate_last")):
        words.append("η unknown")
    flags = ("nesterov", "Nesterov"), ("decoupled", "decoupled decay")
    words += [word for key, word in flags if row.get(key)]
    where = f"steps {row['step_from']} to {row['step_to']}, parameter group {row['parameter_group']!r}"
    return f"{', '.join(words)}: {where}"


def _decay(f: Facts) -> Iterator[Way | str]:
    """ηλ of the last update."""
    row, fit = f.row, f.fit("intrinsic_learning_rate")
    held: Any = fit.get("value")
    if not present(held):
        why = fit.get("outcome") or "learning rate or weight decay unknown"
        yield f"ηλ = –: {why}"
        return
    rate: Any = row.get("learning_rate_last")
    decay: Any = row["weight_decay"]
    usual = present(rate) and present(decay) and (row.get("decay_rule") or USUAL) == USUAL
    if usual and abs(rate * decay - held) <= 1e-4 * held:
        step = f"{given(rate)} × {given(decay)}"
    elif usual and row["sum_learning_rate"] and present(row["sum_decay"]):
        step = (
            f"η·Σηλ/Ση = {given(rate)} × {given(row['sum_decay'])}/{given(row['sum_learning_rate'])}, what acted; "
            f"configured {given(rate)} × {given(decay)}"
        )
    elif present(rate) and row["sum_learning_rate"]:
        step = f"Σηλ over the interval for the last of its {f.updates([row]):g} updates, by the decay rule"
    else:
        step = f"Σηλ/k = {number(row['sum_decay'])}/{f.updates([row]):g}"
    meaning = str(fit["method"]).replace(" of the last update", ", last update")
    yield Way(
        "intrinsic_learning_rate", "ηλ", meaning, held, (step,), f.decay,
        unit=f"1/{f.unit}", notes=("Li, Lyu & Arora 2020",),
    )  # fmt: skip


def _clocks(f: Facts) -> Iterator[Way | str]:
    """The decay clocks that the schedule's rows name, the last interval of each."""
    table = f.report.clocks
    if not table.height:
        return
    named = "; ".join(str(r.get("read_off") or r["source"] or "") for r in f.schedule)
    owned = f.report.parameters.filter(pl.col("group") == f.name)["parameter"].to_list()
    rows: list[Row] = []
    for clock in table["clock"].unique(maintain_order=True).to_list():
        mine = table.filter(pl.col("clock") == clock).sort("step_from").to_dicts()
        if mine and (clock in named or mine[0]["parameter"] in named or mine[0]["parameter"] in owned):
            rows.append(mine[-1])
    kinds: dict[tuple[str, str], Row] = {}
    for row in rows:
        kinds.setdefault((row["parameter"], row["functional"].partition(" ")[0]), row)
    shown = list(kinds.values())[:MOST]
    for row in shown:
        yield _clock(f, row)
    if len(rows) > len(shown):
        yield f"{counted(len(rows) - len(shown), 'more clock')}: smd-analyze schedule lists them"


def _clock(f: Facts, row: Row) -> Way | str:
    """The rate of one clock, and which ηλ it says."""
    law = law_of(f.row, f.decay)
    value, low, high = (row[f"decay_per_step{end}"] for end in ("", "_low", "_high"))
    about = (
        f"decay clock {row['functional']} of {row['parameter']}, steps {row['step_from']} to {row['step_to']}: "
        "no gradient, weight decay alone shrinks c to c′"
    )
    if row.get("kind") == "at most":
        return f"{about.partition(': ')[0]}: at most {number(high, 3)} 1/{f.unit} ({row.get('evidence') or ''})"
    form = "−ln(c′/c)/k, c its length at the two checkpoints"
    if isinstance(law, Law) and present(value) and value:
        found = float(decay_of(value, law.a if law.coupled else 0.0, law.name == "Nesterov", not law.coupled))
        if present(found):
            inverse = "ηλ = u(1−α−u)/(1−u) ≈ rate·(1−α)" if law.coupled and law.a else "ηλ = u"
            if law.name == "Nesterov":
                inverse = "ηλ = u(1−α−u)/(1−(1+α)u) ≈ rate·(1−α)"
            told: Any = f.decay_of(next((r for r in f.schedule if r["step_to"] == row["step_to"]), f.row))
            form += f"; {inverse}, u = 1 − e^−rate: {number(found, 6)}"
            form += f", the schedule has {number(told, 6)}" if present(told) else ""
    return Way(
        "decay_per_step", "rate", about, value, (form,), None, low, high, unit=f"1/{f.unit}", digits=6,
        notes=(str(row.get("evidence") or ""), "Kunin et al. 2021"),
    )  # fmt: skip
