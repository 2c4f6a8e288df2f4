"""Tables for the terminal. They show what a Report, Run or Groups holds, and compute nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from smd_analyze.records.report import Report
from smd_analyze.views.findings import print_findings
from smd_analyze.views.grid import grid
from smd_analyze.views.inventory import print_run
from smd_analyze.views.layers import BASES, SCREEN, Column, Row, columns, rows_of
from smd_analyze.views.stages import effective_head, lines_of_run, print_stages
from smd_analyze.views.text import angle_scale, counted, fold, present
from smd_analyze.views.verdicts import print_groups

if TYPE_CHECKING:
    import polars as pl

__all__ = ["console", "print_findings", "print_groups", "print_report", "print_run"]

PIPED = 100  # columns of a table that goes to a file or a pipe
STATE = 20  # columns that the words of a state get at least, if a long name asks for room
BASIS_WORDS = {"ᵗ": "from theory", "ˣ": "extrapolated from the same norms", "ᵐ": "mean while stationary"}
GUESS, IF_INVARIANT = "?", " (if invariant)"
REFERENCE = "Not scale-invariant, as far as known: theory as reference only"


def console(stderr: bool = False) -> Console:
    """A console of the terminal's width, or 100 columns (COLUMNS) if piped; NO_COLOR is respected."""
    stream = sys.stderr if stderr else sys.stdout
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    if encoding != "utf8" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # "‖" in an old locale is no reason to fail
    asked = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else int(asked) if asked.isdigit() and int(asked) else PIPED
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def print_report(report: Report, console: Console, *, stretches: pl.DataFrame | None = None, verbose: int = 0) -> None:
    """The verdict, the layers that may be compared with theory, and apart from them those that may not.

    `stretches` merges the intervals of the report's schedule: with it a line says what decay clocks tell, and another
    what was assumed. More than 30 layers are shown kind by kind (median and range) unless `verbose`.
    """
    console.print(Text(report.verdict, style="bold"))
    for line in lines_of_run(report):
        console.print(Text(line))
    if stretches is not None:
        from smd_analyze.views.basis import lines_of_basis

        for line in lines_of_basis(report, stretches):
            console.print(Text(line))
    layers = list(report.layers.iter_rows(named=True))
    invariant = [row for row in layers if row["status"] in ("invariant", "jointly invariant")]
    others = [row for row in layers if row["status"] not in ("invariant", "jointly invariant")]
    angles = [row[name] for row in layers for name in ("implied", "measured", "equilibrium")]
    scale, unit = angle_scale(angles) if any(map(present, angles)) else (1.0, "")
    step = report.provenance.get("step_unit", "optimizer steps")
    if step not in ("optimizer steps", ""):
        unit = unit.replace("step", step.removesuffix("s"))
    effective = effective_head(report)
    if invariant:
        _print_layers(console, invariant, columns(scale, unit, False, console.width, effective), bool(verbose), None)
    if others:
        _print_layers(console, others, columns(scale, unit, True, console.width, effective), bool(verbose), REFERENCE)
    if not layers:
        console.print("No layer was analysed.")
        return
    if verbose:
        print_stages(report, console)
    for line in _legend(layers, invariant, bool(verbose)):
        console.print(Text(line, style="dim"))
    _print_advice(console, layers)


def _print_layers(
    console: Console, layers: Sequence[Row], shown: Sequence[Column], every: bool, title: str | None
) -> None:
    shown = [column for column in shown if any(_told(row, column.name) for row in layers)]
    rows = rows_of(layers, shown, every)
    states = {state for _, _, state in rows}
    common = next(iter(states)) if title and len(rows) > 1 and len(states) == 1 else ""
    if title:
        console.print(Text(title, style="bold"))
    if common:
        console.print(Text(f"all: {common}"))
    widths = [
        max(len(line) for text in (column.head, *(cells[i] for _, cells, _ in rows)) for line in text.split("\n"))
        for i, column in enumerate(shown)
    ]
    room = console.width - sum(widths) - 2 * (len(widths) + 1)
    longest = 2 + max(len(group.partition("\n")[0]) for group, _, _ in rows)
    name = min(longest, max(14, room - (0 if common else STATE)))
    guessed = {row["group"] for row in layers if row["evidence"] == "guessed"}
    lines = []
    for group, cells, state in rows:
        first, _, second = group.partition("\n")
        short = fold(first, name) + (f"\n{second}" if second else "")
        if not title and (group in guessed or len(guessed) == len(layers)):
            short, state = f"{short} {GUESS}", state.replace(IF_INVARIANT, "")
        lines.append([short, *cells] if common else [short, *cells, state])
    heads = [column.head for column in shown]
    console.print(grid(["layer", *heads] + ([] if common else ["state"]), heads, lines, fixed=("layer",)))
    console.print()


def _told(row: Row, name: str) -> bool:
    """Is there a number? One checkpoint has turned by nothing since the first."""
    return present(row[name]) and not (name == "angle_from_first" and row[name] == 0)


def _legend(layers: Sequence[Row], invariant: Sequence[Row], every: bool) -> Iterable[str]:
    if not any(present(row[name]) for row in layers for name in ("implied", "measured", "equilibrium")):
        if any(_told(row, "angle_from_first") for row in layers):
            yield "change of the norm, and angle turned, from the first checkpoint to the last."
    else:
        yield (
            "θ₁ angular update: implied by the norms (an identity), or measured (independent of them); "
            "θ* its value at equilibrium; over the stationary stretch, else at the last checkpoint; ± the wider side."
        )
    if any(present(row["half_lives"]) for row in invariant):
        yield (
            "stationary: equilibrium index EI within ±0.1 (0 at equilibrium, −1 pure decay); agrees: within 10 %; "
            "half-lives of the norm's relaxation since the first checkpoint."
        )
    yield "– no number; columns without any are left out."
    used = {BASES[row["level_basis"]] for row in invariant if row["level_basis"] in BASES}
    if used:
        told = ", ".join(f"{mark} {BASIS_WORDS[mark]}" for mark in BASIS_WORDS if mark in used)
        yield f"level: the norm at equilibrium; {told}"
    if any(row["evidence"] == "guessed" for row in invariant):
        yield f"{GUESS} scale invariance is guessed from names and shapes: what is said holds if so; --model proves it."
    if not every and max(len(invariant), len(layers) - len(invariant)) > SCREEN:
        yield "Layers of one kind: median, and below it the range; -v shows every layer."


def _print_advice(console: Console, layers: Sequence[Row]) -> None:
    advised: dict[str, list[str]] = {}
    for row in layers:
        if row["advice"]:
            advised.setdefault(row["advice"], []).append(row["group"])
    if advised:
        console.print(Text("Advice", style="bold"))
    for advice, names in advised.items():
        where = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])}, … ({counted(len(names), 'layer')})"
        console.print(Text(f"  {advice}: {where}"), soft_wrap=False)
