"""The `schedule` command's tables: decay in force, stretch by stretch, and the clocks that it was read off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from smd_analyze.records.report import Report
from smd_analyze.views.grid import grid
from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.layers import SMALL
from smd_analyze.views.schedule_words import agrees, measured, power, rate, step_word, symbol, teller, verdict
from smd_analyze.views.text import MISSING, counted, fold, given, interval, number, present

ENDS = 6  # stretches shown at each end of a long schedule
MOST = 12  # clocks, or groups without one, that are listed singly
ORDER = (
    "decay_per_step", "meant", "learning_rate", "told", "ratio", "sum_decay", "told_decay", "change_step",
)  # fmt: skip
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table of stretches: what it shows, and its head."""

    name: str
    head: str


def print_schedule(report: Report, stretches: pl.DataFrame, console: Console, *, verbose: int = 0) -> None:
    """The verdict, each parameter group's stretches of constant decay, and the clocks with their evidence.

    `stretches` merges the intervals of the report's schedule; more than a dozen of a group are shown at both ends only,
    unless `verbose`.
    """
    console.print(Text(verdict(report, stretches), style="bold"))
    console.print()
    step = step_word(report)
    silent = []
    for rows in stretches.partition_by("parameter_group", maintain_order=True):
        group = rows.to_dicts()
        if any(row["decay_per_step"] is not None for row in group):
            _print_group(console, group, step, stretches["parameter_group"].n_unique() > 1, bool(verbose))
        else:
            silent.append(group)
    _print_silent(console, silent, step, bool(verbose))
    if report.clocks.height:
        _print_clocks(console, report.clocks, step, bool(verbose))
    else:
        why = report.provenance.get("why_no_clock", "")
        if why:
            console.print(Text(f"Why none: {why}."))
            console.print()
    for line in _legend(report, stretches, step):
        console.print(Text(line, style="dim"))


def _print_group(console: Console, rows: Sequence[Row], step: str, several: bool, every: bool) -> None:
    """One group: its shape in words, then its stretches."""
    title = f"parameter group {rows[0]['parameter_group'] or '(unknown)'}" if several else "Decay in force"
    console.print(Text.assemble((title, "bold"), f": {rows[0]['shape']}" if rows[0]["shape"] else ""))
    rates = [row["decay_per_step"] for row in rows]
    exponent = power(rates)
    unit = f"1e{exponent}/{step}" if exponent else f"1/{step}"
    spans = [f"{row['step_from']} – {row['step_to']}" for row in rows]
    shown = _fitting(_columns(rows, unit, step), rows, exponent, console.width - max(map(len, spans)) - 2)
    lines = [[span, *(_cell(row, c.name, exponent) for c in shown)] for span, row in zip(spans, rows, strict=True)]
    gap = len(lines) - 2 * ENDS
    if gap > 1 and not every:
        lines[ENDS : ENDS + gap] = [["…", *[""] * len(shown)]]
    heads = [f"{step}s", *(c.head for c in shown)]
    console.print(grid(heads, heads, lines))
    if gap > 1 and not every:
        console.print(Text(f"  … {gap} more stretches; -v shows all", style="dim"))
    sources = list(
        dict.fromkeys(
            row["source"].removesuffix(" agrees") for row in rows if row["source"] not in ("", None, "unknown")
        )
    )
    for source in sources[:3]:
        console.print(Text(f"  from: {source}"))
    told = [row["told_source"] for row in rows if row["told_source"] not in ("", None, "unknown")]
    apart = [words for words in dict.fromkeys(told) if not any(source.startswith(words) for source in sources)]
    if apart or not told:
        words = "; ".join(apart) if told else "say neither learning rate nor weight decay"
        console.print(Text(f"  files: {words}"))
    console.print()


def _columns(rows: Sequence[Row], unit: str, step: str) -> list[Column]:
    """What the stretches have to say, the most important first."""
    first = rows[0]

    def any_of(key: str) -> bool:
        """Whether any stretch has this number."""
        return any(present(row[key]) for row in rows)

    who = teller(rows)
    found = [Column("decay_per_step", f"decay off\nthe weights\n{unit}")]
    if any_of("change_step"):
        found.append(Column("change_step", f"jump at\n{step}"))
    if any_of("ratio"):
        found.append(Column("ratio", f"weights\n/ {who.removeprefix('the ')}"))
    if symbol(first) == "ηλ/(1−α)" and any_of("sum_decay") and present(first["momentum"]):
        assumed = " assumed" if first["momentum_assumed"] else ""
        found.append(Column("meant", f"ηλ in force\n(α = {given(first['momentum'])}{assumed})\n1/{step}"))
    if any_of("told_decay"):
        found.append(Column("told", f"ηλ by\n{who}\n1/{step}"))
    if any_of("learning_rate"):
        found.append(Column("learning_rate", f"η in force\n(λ = {given(first['told_weight_decay'])})"))
    if any_of("told_decay"):
        found += [Column("sum_decay", "Σηλ\nin force"), Column("told_decay", f"Σηλ by\n{who}")]
    return found


def _fitting(columns: Sequence[Column], rows: Sequence[Row], exponent: int, room: int) -> list[Column]:
    """The first columns that have room, in the order in which they are read."""
    found = []
    for column in columns:
        words = [*column.head.split("\n"), *(_cell(row, column.name, exponent) for row in rows)]
        room -= max(map(len, words)) + 2
        if room < 0 and found:
            break
        found.append(column)
    if found[-1].name == "sum_decay":  # one of a pair
        found.pop()
    return sorted(found, key=lambda c: ORDER.index(c.name))


def _cell(row: Row, key: str, exponent: int) -> str:
    if key == "decay_per_step":
        if row[key] == 0:
            return f"0 (< {number(row['decay_per_step_high'], 2, 10.0**-exponent)})"
        return measured(*_three(row, key), scale=10.0**-exponent)
    if key == "meant":
        value = row["sum_decay"]
        length = max(row["step_to"] - row["step_from"], 1)
        return (
            MISSING if value is None else rate(*(v / length if present(v) else None for v in _three(row, "sum_decay")))
        )
    if key == "told":
        return (
            MISSING
            if row["told_decay"] is None
            else number(row["told_decay"] / max(row["step_to"] - row["step_from"], 1))
        )
    if key == "learning_rate":
        return rate(*_three(row, key)) if present(row[key]) else MISSING
    if key == "ratio":
        return measured(*_three(row, key), scale=1.0) if present(row[key]) else MISSING
    if key == "change_step":
        return interval(*_three(row, key), digits=4) if present(row[key]) else ""
    return number(row[key])


def _three(row: Row, key: str) -> tuple[Any, Any, Any]:
    return row[key], row[f"{key}_low"], row[f"{key}_high"]


def _print_silent(console: Console, groups: Sequence[Sequence[Row]], step: str, every: bool) -> None:
    """Groups that no clock speaks for: what the files say, one line each."""
    shown = groups if every else groups[:MOST]
    for rows in shown:
        known = [row["told_decay"] for row in rows if row["told_decay"] is not None]
        if not known:
            told = "the files do not give learning rate × weight decay either"
        elif not any(known):
            told = f"by {teller(rows)} it is not decayed"
        else:
            each = [
                row["told_decay"] / max(row["step_to"] - row["step_from"], 1)
                for row in rows
                if row["told_decay"] is not None
            ]
            ends = number(max(each)) if max(each) == min(each) else f"{number(max(each))} to {number(min(each))}"
            told = f"by {teller(rows)} ηλ = {ends} per {step}"
        name = rows[0]["parameter_group"] or "(unknown)"
        console.print(Text(f"parameter group {name}: no clock speaks for it; {told}"))
    if len(groups) > len(shown):
        console.print(Text(f"… {counted(len(groups) - len(shown), 'more group')}; -v shows all", style="dim"))
    if groups:
        console.print()


def _print_clocks(console: Console, table: pl.DataFrame, step: str, every: bool) -> None:
    """The clocks, alike ones together unless `every`: name, kind, where and how fast, how it is known."""
    clocks = {str(rows["clock"][0]): rows for rows in table.partition_by("clock", maintain_order=True)}
    alike = [[name] for name in clocks] if every else list(kinds(clocks, MOST).values())
    every_rate = [v for v in (*table["decay_per_step"], *table["decay_per_step_high"]) if present(v) and v > 0]
    exponent = power(every_rate)
    console.print(Text("Clocks: directions of the weights that feel no gradient", style="bold"))
    lines = []
    for names in alike[: None if every else 2 * MOST]:
        rows = pl.concat([clocks[name] for name in names])
        title = label(names) + (f"\n({counted(len(names), 'clock')})" if len(names) > 1 else "")
        lines.append([
            fold(title.replace(" (", "\n("), 40) if "\n" not in title else title.replace(" (", "\n(", 1),
            _kinds_of(rows),
            f"{rows['step_from'].min()} – {rows['step_to'].max()}\n{counted(rows.height, 'interval')}",
            _range(rows, 10.0**-exponent),
            *([_evidence(rows, every)] if console.width >= SMALL else []),
        ])  # fmt: skip
    heads = ["clock", "kind", "steps" if step == "step" else f"{step}s", f"decay\n1e{exponent}/{step}", "evidence"]
    console.print(grid(heads[: 5 if console.width >= SMALL else 4], (), lines, fixed=heads[1:4]))
    if len(alike) > 2 * MOST and not every:
        console.print(Text(f"… {counted(len(alike) - 2 * MOST, 'more kind')}; -v shows all", style="dim"))
    console.print()


def _kinds_of(rows: pl.DataFrame) -> str:
    if "kind" not in rows.columns:
        return ""
    return "\n".join(str(k) for k in dict.fromkeys(rows["kind"].drop_nulls().to_list()))


def _range(rows: pl.DataFrame, scale: float) -> str:
    """The clock's rate, or the ends of what it was over the intervals."""
    moving = rows.filter(pl.col("kind") == "moving") if "kind" in rows.columns else rows
    values = moving["decay_per_step"].drop_nulls().to_list()
    if not values:
        highs = rows["decay_per_step_high"].drop_nulls().to_list()
        return f"< {number(max(highs), 2, scale)}" if highs else MISSING
    ends = [number(v, 5, scale) for v in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} …\n{ends[1]}"


def _evidence(rows: pl.DataFrame, full: bool) -> str:
    """The strongest evidence: a replay in every bit, else that of the longest interval. Its details if `full`."""
    if "evidence" not in rows.columns:
        return ""
    said = rows.with_columns(length=pl.col("step_to") - pl.col("step_from")).sort("length", descending=True)["evidence"]
    words = [str(w) for w in said if w]
    best = next((w for w in words if "every bit" in w), words[0] if words else "")
    return best if full else re.sub(r" \((?:[^()]|\([^()]*\))*\)", "", best).partition(";")[0]


def _is_rounded(row: Row) -> bool:
    """Whether fp32's rounding of 1 − ηλ shows: weights and files agree, but not in their digits."""
    if not row["decoupled"] or not row["told_decay"] or not row["decay_per_step"] or not agrees(row):
        return False
    return abs(row["decay_per_step"] * (row["step_to"] - row["step_from"]) / row["told_decay"] - 1) > 2e-3


def _legend(report: Report, stretches: pl.DataFrame, step: str) -> Sequence[str]:
    lines = []
    if stretches["decay_per_step"].drop_nulls().len():
        lines.append(
            "A decay clock is a direction of the weights that feels no gradient: weight decay alone shrinks it, by "
            f"−ln(c'/c) per {step}, which saved weights record without noise. η learning rate, λ weight decay, "
            "α momentum; ± is a 95 % interval."
        )
        rounded = next((row for row in stretches.iter_rows(named=True) if _is_rounded(row)), None)
        if rounded is not None:
            says = number(rounded["told_decay"] / (rounded["step_to"] - rounded["step_from"]))
            lines.append(
                f"Decoupled decay multiplies by 1 − ηλ, which fp32 rounds to steps of 6e-8: ηλ = {says} acts as "
                f"{number(rounded['decay_per_step'])}."
            )
        assumed = stretches.filter(pl.col("source").str.contains("assumed to hold here"))
        if assumed.height:
            lines.append(
                "A clock speaks for its own tensor. That other tensors are decayed alike is an assumption: many "
                "recipes exempt some."
            )
        if stretches["optimizer"].null_count() == stretches.height:
            lines.append(
                "The optimizer is not known: --optimizer and --momentum turn the decay into ηλ (SGD with momentum α: "
                "ηλ = (1−α) × decay, AdamW: ηλ = decay)."
            )
    return lines
