"""What the weights say about learning rate × weight decay, in one or two sentences, against what the files say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from smd_analyze.records.report import Report
from smd_analyze.views.text import counted, number, present

Row = Mapping[str, Any]
AGREES = 0.02  # two clocks' worth of fp32 rounding; a decay that somebody set otherwise differs by far more
QUIET = ("constant", "too few intervals to tell its form")  # shapes that the sentence need not tell
NOT_SAID = "the files do not say learning rate × weight decay"
NOTHING_READ = "Learning rate × weight decay cannot be read off these weights: no decay clock was found."


def step_word(report: Report) -> str:
    """What one step of this run is: "step", "epoch", "save"."""
    unit = report.provenance.get("step_unit", "")
    return "step" if unit in ("", "optimizer steps") else unit.removesuffix("s")


def power(values: Sequence[Any]) -> int:
    """The exponent of ten in which the largest of these numbers has one digit before the point."""
    largest = max((abs(v) for v in values if present(v)), default=0.0)
    return math.floor(math.log10(largest)) if largest > 0 else 0


def rate(value: Any, low: Any, high: Any) -> str:
    """`(5.0002±0.0003)e-6`: with the digits that the interval supports; `2.000e-6` without one."""
    if not (present(value) and present(low) and present(high)) or value == 0:
        return number(value) if not present(high) or value else f"at most {number(high, 2)}"
    exponent = power([value])
    told = measured(value, low, high, 10.0**-exponent)
    return f"({told})e{exponent}" if "±" in told else number(value, 7)


def measured(value: Any, low: Any, high: Any, scale: float) -> str:
    """`5.00023±0.00006`: value × scale and the wider side of its interval; seven digits where that is less."""
    sides = [abs(end - value) for end in (low, high) if present(end)]
    if not sides or max(sides) < 2e-7 * abs(value):
        return number(value, 7, scale)
    side = max(sides) * scale
    places = max(0, min(8, math.ceil(-math.log10(side)) + (f"{side:.1e}"[0] in "12")))
    return f"{value * scale:.{places}f}±{side:.{places}f}"


def short(value: float) -> str:
    """Four digits, scientific where small: `1.010e-3`."""
    return number(value) if value == 0 or abs(value) >= 0.1 else f"{value:.3e}".replace("e-0", "e-")


def symbol(row: Row) -> str:
    """What the rate is in terms of η, λ and α, as far as the optimizer is known."""
    if row["decoupled"]:
        return "ηλ"
    if row["optimizer"] == "sgd":
        return "ηλ" if row["momentum"] == 0 else "ηλ/(1−α)"
    return ""


def relation(row: Row) -> str:
    """`at ηλ/(1−α) =`; ≈ where the momentum's own correction, α r/(1−α), is more than 1e-4; else `at`."""
    name = symbol(row)
    if not name:
        return "at"
    alpha = 0.0 if row["decoupled"] else row["momentum"] or 0.0
    small = abs(row["decay_per_step"]) * (alpha / (1 - alpha) if alpha else 0.5) < 1e-4
    return f"at {name} {'=' if small else '≈'}"


def verdict(report: Report, stretches: pl.DataFrame) -> str:
    """The one sentence above everything: what acted on which tensor, and whether the files say so."""
    step = step_word(report)
    read = list(stretches.filter(pl.col("decay_per_step").is_not_null()).iter_rows(named=True))
    own = [row for row in read if "assumed to hold here" not in (row["source"] or "")] or read
    if not own:
        return _none(report)
    every: dict[tuple[str, str], list[Row]] = {}
    for row in own:
        every.setdefault((row["parameter_group"], row["read_off"]), []).append(row)
    return " ".join(_sentence(rows, step, first=not i) for i, rows in enumerate(list(every.values())[:3]))


def _none(report: Report) -> str:
    if report.clocks.height:
        resting = report.clocks.filter(pl.col("kind") == "no decay") if "kind" in report.clocks.columns else None
        if resting is not None and resting.height:
            return f"No weight decay acted on {_names(resting['parameter'].to_list())}."
        most = number(report.clocks["decay_per_step_high"].max(), 2)
        names = _names(report.clocks["parameter"].to_list())
        return f"No decay that fp32 can show acted on {names} (at most {most} per {step_word(report)})."
    if len(report.checkpoints) < 2:
        return "One checkpoint says nothing of learning rate × weight decay: two or more are needed."
    return NOTHING_READ


def _names(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return distinct[0] if len(distinct) == 1 else f"{distinct[0]} and {len(distinct) - 1} more"


def _sentence(rows: Sequence[Row], step: str, first: bool) -> str:
    """What acted on the tensors of one clock, over all its stretches."""
    where = rows[0]["read_off"]
    when = f"{step}s {rows[0]['step_from']} to {rows[-1]['step_to']}"
    said = _against(rows, step)
    if all(row["decay_per_step"] == 0 for row in rows):
        most = max(row["decay_per_step_high"] or 0.0 for row in rows)
        return f"No weight decay acted on {where}, {when} (at most {number(most, 2)} per {step}); {said}."
    if len(rows) == 1 or rows[0]["shape"] == "constant":
        longest = max(rows, key=lambda r: r["step_to"] - r["step_from"])
        told = rate(*(longest[f"decay_per_step{end}"] for end in ("", "_low", "_high")))
    else:
        rates = [row["decay_per_step"] for row in rows]
        told = f"{short(max(rates))} to {short(min(rates))}"
    longest = max(rows, key=lambda r: abs(r["decay_per_step"]))
    head = f"Weight decay acted {relation(longest)} {told} per {step} on {where}, {when}"
    shape = "" if rows[0]["shape"] in QUIET else rows[0]["shape"]
    return f"{head}{f': {shape}' if shape else ''}; {said}."


def teller(rows: Sequence[Row]) -> str:
    """Who says what the weights are compared with: "the files", or "the options" where the caller's word is used."""
    return "the options" if any("caller" in (row["source"] or "") for row in rows) else "the files"


def _against(rows: Sequence[Row], step: str) -> str:
    """What files and caller say of the same stretches."""
    known = [row for row in rows if row["told_decay"] is not None]
    who = teller(rows)
    if not known:
        lacking = "no file says learning rate or weight decay" if rows[0]["told_weight_decay"] is None else NOT_SAID
        return lacking
    ratios = [row for row in known if row["ratio"] is not None]
    if all(row["told_decay"] == 0 for row in known):
        return f"{who} say none" if rows[0]["decay_per_step"] == 0 else f"{who} say that there was none"
    if all(row["decay_per_step"] == 0 for row in known):
        return f"{who} say ηλ = {number(_per_step(known[0]))} per {step}"
    if not ratios:
        return f"{who} give ηλ, but not the optimizer and momentum that would make the two comparable"
    apart = [row for row in ratios if not agrees(row)]
    if not apart:
        return f"as {who} say" + (
            "" if len(ratios) == len(rows) else f", where they do ({counted(len(ratios), 'stretch')})"
        )
    worst = max(apart, key=lambda row: abs(math.log(max(row["ratio"], 1e-300))))
    return f"{number(worst['ratio'], 3)} times what {who} say ({step}s {worst['step_from']} to {worst['step_to']})"


def _per_step(row: Row) -> float:
    return row["told_decay"] / max(row["step_to"] - row["step_from"], 1)


def agrees(row: Row) -> bool:
    """Whether the rate read off the weights may be that of the files, give or take AGREES."""
    low = row["ratio"] if row["ratio_low"] is None else row["ratio_low"]
    high = row["ratio"] if row["ratio_high"] is None else row["ratio_high"]
    return low <= 1 + AGREES and high >= 1 - AGREES
