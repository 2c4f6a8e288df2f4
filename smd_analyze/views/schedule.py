"""The `schedule` command's tables: decay in force, stretch by stretch, and the clocks that it was read off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from smd_analyze.records.report import Report
from smd_analyze.views.grid import grid
from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.layers import NARROW, SMALL, WIDE
from smd_analyze.views.schedule_words import power, rate, step_word, symbol, verdict
from smd_analyze.views.text import MISSING, counted, fold, given, interval, number, present

ENDS = 6  # stretches shown at each end of a long schedule
MOST = 12  # clocks, or groups without one, that are listed singly
Row = Mapping[str, Any]


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
    shown = _columns(rows, console.width)
    heads = ["steps" if step == "step" else f"{step}s", *(head.format(unit=unit, step=step) for head, _, _ in shown)]
    lines = [
        [f"{row['step_from']} – {row['step_to']}", *(_cell(row, key, exponent) for _, key, _ in shown)] for row in rows
    ]
    gap = len(lines) - 2 * ENDS
    if gap > 1 and not every:
        lines[ENDS : ENDS + gap] = [["…", f"{gap} more; -v shows all", *[""] * (len(shown) - 1)]]
    numbers = [heads[0], *(heads[i + 1] for i, (_, _, right) in enumerate(shown) if right)]
    console.print(grid(heads, numbers, lines))
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    for source in sources[:3]:
        console.print(Text(f"  from: {source}"))
    told = list(dict.fromkeys(row["told_source"] for row in rows if row["told_source"] not in ("", None, "unknown")))
    console.print(
        Text(f"  files: {'; '.join(told)}" if told else "  files: say neither learning rate nor weight decay")
    )
    console.print()


def _columns(rows: Sequence[Row], width: int) -> list[tuple[str, str, bool]]:
    """(head, what it shows, set to the right) of the columns that have anything to say and room to say it."""
    first = rows[0]
    name = symbol(first)
    found = [(f"{name} read off\nthe weights\n{{unit}}", "decay_per_step", True)]

    def any_of(key: str) -> bool:
        return any(present(row[key]) for row in rows)

    coupled = name == "ηλ/(1−α)"
    if coupled and any_of("sum_decay") and width >= SMALL:
        assumed = " assumed" if first["momentum_assumed"] else ""
        found.append((f"ηλ that it means\n(momentum {given(first['momentum'])}{assumed})\n1/{{step}}", "meant", True))
    if any_of("learning_rate") and width >= NARROW:
        found.append((f"η\n(λ = {given(first['told_weight_decay'])})", "learning_rate", True))
    if any_of("told_decay"):
        found.append(("ηλ by the\nfiles\n1/{step}", "told", True))
    if any_of("ratio"):
        found.append(("weights /\nfiles", "ratio", True))
    if width >= WIDE:
        found += [("Σηλ", "sum_decay", True), ("Σηλ by\nthe files", "told_decay", True)]
    if any_of("change_step"):
        found.append(("jump at\n{step}", "change_step", True))
    return found


def _cell(row: Row, key: str, exponent: int) -> str:
    if key == "decay_per_step":
        if row[key] == 0:
            return f"0 (< {number(row['decay_per_step_high'], 2, 10.0**-exponent)})"
        return interval(*_three(row, key), scale=10.0**-exponent, digits=5)
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
    if key in ("ratio", "change_step"):
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
            told = "by the files it is not decayed"
        else:
            each = [
                row["told_decay"] / max(row["step_to"] - row["step_from"], 1)
                for row in rows
                if row["told_decay"] is not None
            ]
            ends = number(max(each)) if max(each) == min(each) else f"{number(max(each))} to {number(min(each))}"
            told = f"by the files ηλ = {ends} per {step}"
        name = rows[0]["parameter_group"] or "(unknown)"
        console.print(Text(f"parameter group {name}: no clock speaks for it; {told}"))
    if len(groups) > len(shown):
        console.print(Text(f"… {counted(len(groups) - len(shown), 'more group')}; -v shows all", style="dim"))
    if groups:
        console.print()


def _print_clocks(console: Console, table: pl.DataFrame, step: str, every: bool) -> None:
    """The clocks, alike ones together where there are many: name, kind, where and how fast, how it is known."""
    clocks = {str(rows["clock"][0]): rows for rows in table.partition_by("clock", maintain_order=True)}
    alike = kinds(clocks, MOST).values() if len(clocks) > MOST and not every else [[name] for name in clocks]
    rates = table["decay_per_step"].drop_nulls().to_list()
    exponent = power(rates)
    console.print(Text("Clocks: directions of the weights that feel no gradient", style="bold"))
    lines = []
    for names in list(alike)[: None if every else 2 * MOST]:
        rows = pl.concat([clocks[name] for name in names])
        title = label(names) + (f"\n({counted(len(names), 'clock')})" if len(names) > 1 else "")
        lines.append([
            fold(title.replace(" (", "\n("), 40) if "\n" not in title else title.replace(" (", "\n(", 1),
            _kinds_of(rows),
            f"{rows['step_from'].min()} – {rows['step_to'].max()}\n{counted(rows.height, 'interval')}",
            _range(rows, 10.0**-exponent),
            *([_evidence(rows)] if console.width >= SMALL else []),
        ])  # fmt: skip
    heads = ["clock", "kind", "steps" if step == "step" else f"{step}s", f"decay\n1e{exponent}/{step}", "evidence"]
    console.print(grid(heads[: 5 if console.width >= SMALL else 4], (), lines, fixed=heads[1:4]))
    if len(list(alike)) > 2 * MOST and not every:
        console.print(Text(f"… {counted(len(list(alike)) - 2 * MOST, 'more clock')}; -v shows all", style="dim"))
    console.print()


def _kinds_of(rows: pl.DataFrame) -> str:
    if "kind" not in rows.columns:
        return ""
    return "\n".join(str(k) for k in dict.fromkeys(rows["kind"].drop_nulls().to_list()))


def _range(rows: pl.DataFrame, scale: float) -> str:
    """The clock's rate, or the ends of what it was over the intervals."""
    values = rows["decay_per_step"].drop_nulls().to_list()
    if not values:
        highs = rows["decay_per_step_high"].drop_nulls().to_list()
        return f"< {number(max(highs), 2, scale)}" if highs else MISSING
    ends = [number(v, 5, scale) for v in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} …\n{ends[1]}"


def _evidence(rows: pl.DataFrame) -> str:
    """The strongest evidence: a replay in every bit, else that of the longest interval."""
    if "evidence" not in rows.columns:
        return ""
    said = rows.with_columns(length=pl.col("step_to") - pl.col("step_from")).sort("length", descending=True)["evidence"]
    words = [str(w) for w in said if w]
    return next((w for w in words if "every bit" in w), words[0] if words else "")


def _legend(report: Report, stretches: pl.DataFrame, step: str) -> Sequence[str]:
    lines = []
    if stretches["decay_per_step"].drop_nulls().len():
        lines.append(
            "A decay clock is a direction of the weights that feels no gradient: weight decay alone shrinks it, by "
            f"1 − c'/c per {step}, which saved weights record without noise. η learning rate, λ weight decay, α momentum; "
            "± is a 95 % interval."
        )
        assumed = stretches.filter(pl.col("source").str.contains("assumed to hold here"))
        if assumed.height:
            lines.append(
                "A clock speaks for its own tensor. That other tensors are decayed alike is an assumption: many recipes "
                "exempt some."
            )
        if stretches["optimizer"].null_count() == stretches.height:
            lines.append(
                "The optimizer is not known: --optimizer and --momentum turn the decay into ηλ (SGD with momentum α: ηλ = "
                "(1−α) × decay, AdamW: ηλ = decay)."
            )
    return lines
