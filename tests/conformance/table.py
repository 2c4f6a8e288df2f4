"""The table that the suite prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from .comparing import Outcome

FEW = 4
HEADS = ("sequence", "format", "framework", "ckpts", "steps", "arrays = ≠ –", "matched", "layout = ≠", "hyper = ≠ ?",
         "params", "state", "grouped")  # fmt: skip


def show(outcomes: Sequence[Outcome], summed: Counter[str], verbose: bool) -> None:
    """One row per sequence, then what differs and what is explained, then the sums."""
    console = Console(width=None if Console().is_terminal else 230)
    table = Table(*(Column(head, min_width=len(head)) for head in HEADS), pad_edge=False)
    for one in outcomes:
        table.add_row(*row(one), style=None if not one.differences else "bold")
    console.print(table)
    for one in outcomes:
        if one.refusal and not one.truth:
            console.print(f"  {one.name}: {one.refusal}", markup=False, highlight=False)
        shown = one.differences if verbose else one.differences[:FEW]
        for words in shown:
            console.print(f"≠ {one.name}: {words}", markup=False, highlight=False)
        if len(one.differences) > len(shown):
            console.print(f"≠ {one.name}: and {len(one.differences) - len(shown)} more", markup=False)
        for words in one.named:
            console.print(f"  {one.name}: {words}", markup=False, highlight=False)
        for words in one.findings if verbose else ():
            console.print(f"  {one.name}: {words}", markup=False, highlight=False)
    console.print(", ".join(f"{n} {what}" for what, n in summed.items()), markup=False)


def row(one: Outcome) -> tuple[str, ...]:
    """The cells of one sequence."""
    if one.refusal:
        return one.name, "refused" if not one.truth else "REFUSED", one.refusal[:60], "", "", "", "", "", ""
    if not one.truth:
        seen = (one.name, one.format, one.framework, one.checkpoints, f"{one.steps} {one.unit}", "no truth")
        return *seen, *[""] * 6
    n = one.counts
    steps = f"{one.steps} {one.unit}" + (" ≠" if n["steps differing"] else "")
    return (
        one.name,
        one.format,
        one.framework,
        one.checkpoints,
        steps,
        f"{n['arrays equal']} {n['arrays differing']} {n['arrays missing']}",
        ", ".join(f"{k} {v}" for k, v in one.how.items()),
        f"{n['layouts right']} {n['layouts wrong']}",
        f"{n['hyper equal']} {n['hyper differing']} {n['hyper absent']}",
        *(str(n[k]) for k in ("parameters", "with optimizer state", "in a parameter group")),
    )
