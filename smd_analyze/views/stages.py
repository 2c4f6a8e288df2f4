"""Stages of training in words: could the balance be reached at all, and what does each stage weigh?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from smd_analyze.records.report import INVARIANT, Report
from smd_analyze.views.grid import grid
from smd_analyze.views.text import MISSING, number, present

ENOUGH = "long enough"
FORMS = {"η/‖w‖²": "1/weight²", "η√d/‖w‖": "1/step"}  # of the effective learning rate, and their units
PROVED = ("proved", "proved and confirmed")
Row = dict[str, Any]


def lines_of_run(report: Report) -> Iterator[str]:
    """What the half-lives of the run explain: a line for each answer that is not "long enough", most layers first.

    Parameter groups of scale-invariant layers speak; where there are none, those of all layers.
    """
    if not report.stages.height:
        return
    layers = list(report.layers.select("parameter_group", "status").iter_rows())
    owners = Counter(name for name, status in layers if status in INVARIANT) or Counter(name for name, _ in layers)
    told: dict[str, list[str]] = {}
    for name, _ in owners.most_common():
        rows = rows_of(report, name)
        if not rows:
            continue
        whole, last = rows[0], rows[-1]
        text = ""
        if present(whole["half_lives"]) and ENOUGH not in str(whole["outcome"]):
            text = f"Time for the balance: {whole['outcome']}."
        elif present(last["half_lives"]) and ENOUGH not in str(last["outcome"]):
            text = f"Time for the balance in the last stage ({where(last)}): {last['outcome']}."
        if text:
            told.setdefault(text, []).append(name)
    for text, names in told.items():
        few = f" (parameter group {', '.join(names)})" if len(told) > 1 else ""
        yield text[:-1] + few + "."


def rows_of(report: Report, parameter_group: str) -> list[Row]:
    """The stages of a layer's parameter group, the whole run first; [] if there are none, or if several differ."""
    found: dict[str, list[Row]] = {}
    for row in report.stages.iter_rows(named=True):
        found.setdefault(row["parameter_group"], []).append(row)
    if parameter_group in found:
        return sorted(found[parameter_group], key=lambda row: row["stage"])
    several = [rows_of(report, name) for name in parameter_group.split(", ") if name in found]
    alike = {tuple(str(row["outcome"]) for row in rows) for rows in several}
    return several[0] if len(alike) == 1 else []


def where(row: Row) -> str:
    """`step 3040 to 8640, learning rate 0.02`."""
    rate = _rate(row, 4)
    return f"step {row['step_from']} to {row['step_to']}" + (f", learning rate {rate}" if rate else "")


def _rate(row: Row, digits: int) -> str:
    """`0.1`, `0.1…0.02`, or nothing if it is not known."""
    rates = [
        f"{row[f'learning_rate_{end}']:.{digits}g}" for end in ("from", "to") if present(row[f"learning_rate_{end}"])
    ]
    return "…".join(dict.fromkeys(rates))


def explain_stages(report: Report, facts: Row) -> Iterator[str]:
    """The section of `--explain`: every stage, then time scales and what is left of the beginning.

    `facts`: the layer's row of `layers` and `groups`.
    """
    rows = rows_of(report, str(facts.get("parameter_group") or ""))
    may_scale = facts["status"] in INVARIANT and facts["evidence"] in PROVED
    if not rows:
        return
    unit = _unit(report)
    whole, stages = rows[0], rows[1:]
    for row in stages if len(stages) > 1 else rows[:1]:
        share = f"; {_percent(row['share'])} of what updates added to the final weights" if len(stages) > 1 else ""
        yield f"{where(row)}: {row['outcome']}{share if present(row['share']) else ''}"
        if facts["status"] in INVARIANT:
            yield from _transient(row, unit, may_scale)
    if len(stages) > 1:
        yield f"all of it: {whole['outcome']}"
    last = rows[-1]
    if present(last["time_scale"]):
        also = [f"{steps(last[f'time_scale_{u}'])} {u}" for u in ("epochs", "tokens") if _told(last, unit, u)]
        more = f" = {' = '.join(also)}" if also else ""
        yield (
            f"at the end weights average over 1/xₑ = {steps(last['time_scale'])} {unit}{more} "
            "(x_e: decay per step, ηλ if decoupled; Wang & Aitchison 2024 advise one epoch to the whole run, for AdamW)"
        )
    if present(whole["initial_left"]):
        yield f"decay left {_percent(whole['initial_left'])} of the first checkpoint's weights"


def _transient(row: Row, unit: str, may_scale: bool) -> Iterator[str]:
    """Dip, recovery, and how to skip it: for weights whose scale invariance is proved only."""
    if not present(row["dip"]):
        return
    yield (
        f"  at its start the angular update goes to {number(row['dip'], 2)} of its new balance, and is within 5 % of "
        f"it after {steps(row['recovery_steps'])} {unit} (had it been in balance before)"
    )
    if may_scale:
        moments = row["second_moment_factor"]
        second = f", second moments × {number(moments, 3)}" if present(moments) else ""
        yield (
            f"  to skip that, multiply these weights by {number(row['weight_factor'], 3)} and their momentum buffers "
            f"by {number(row['buffer_factor'], 3)}{second} when the learning rate changes: the network stays the same"
        )


def _told(whole: Row, unit: str, other: str) -> bool:
    return unit != other and present(whole[f"time_scale_{other}"])


def _unit(report: Report) -> str:
    return report.provenance.get("step_unit", "") or "steps"


def effective_head(report: Report) -> str:
    """Head of the effective learning rate: the form that the report's optimizers have."""
    rows = report.fits.select("quantity", "value", "method").iter_rows()
    told = [method for quantity, value, method in rows if quantity == "effective_learning_rate" and value is not None]
    forms = {method.split(",")[0] for method in told if method and "," in method}
    if len(forms) == 1:
        form = forms.pop()
        return f"{form}\n{FORMS.get(form, '')}".rstrip()
    return "η/‖w‖² or\nη√d/‖w‖" if forms else "effective\nη"


def steps(value: Any) -> str:
    """A number of steps, epochs or tokens with three digits."""
    return number(round(float(f"{value:.3g}")) if present(value) and 10 <= value < 1e7 else value, 3)


def _percent(share: Any) -> str:
    """Per cent with two digits; a dash if unknown."""
    if not present(share):
        return MISSING
    value = 100 * float(share)
    if 99.5 < value < 99.99:
        return "> 99 %"
    return f"{value:.0f} %" if value >= 9.5 else f"{value:.1g} %" if value >= 0.01 else "0 %"


def print_stages(report: Report, console: Console) -> None:
    """The table of stages that -v shows, one row per parameter group and stage; nothing where decay never acts."""
    rows = [row for row in report.stages.iter_rows(named=True) if row["stage"] > 0]
    if not any(present(row["half_lives"]) for row in rows):
        return
    console.print(Text("Stages of training", style="bold"))
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(HEADS)) if any(line[i] != MISSING for line in cells)]
    heads = [HEADS[i] for i in shown]
    console.print(grid(heads, heads[2:], [[line[i] for i in shown] for line in cells], heads[1:2]))
    console.print()


def _cells(row: Row) -> list[str]:
    numbers = [steps(row["time_scale"]), number(row["dip"], 3), steps(row["recovery_steps"])]
    return [
        str(row["parameter_group"]), f"{row['step_from']}–{row['step_to']}", _rate(row, 2) or MISSING,
        number(row["half_lives"], 3), _percent(row["covered"]), _percent(row["share"]), *numbers,
    ]  # fmt: skip


HEADS = (
    "parameter\ngroup", "steps", "learning\nrate", "half-\nlives", "way\ncovered", "of final\nweights", "average\nover",
    "θ₁/θ* at\nits start", "steps to\nθ*",
)  # fmt: skip
