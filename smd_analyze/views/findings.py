"""Findings as a person reads them: one entry for each code, the gravest first, with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from smd_analyze.records.finding import Finding
from smd_analyze.views.text import counted

if TYPE_CHECKING:
    import polars as pl

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
FEW = 3  # places named of a finding that was made in many


def print_findings(found: pl.DataFrame | Iterable[Finding], console: Console, *, verbose: int = 0) -> None:
    """One line of counts, then every code once: what, where, and what to do. `verbose` names every place."""
    rows = [_fields(f) for f in found] if not hasattr(found, "iter_rows") else list(found.iter_rows(named=True))  # type: ignore[union-attr]
    if not rows:
        return
    counts = [(severity, sum(row["severity"] == severity for row in rows)) for severity in STYLES]
    console.print(Text(" · ".join(counted(n, severity) for severity, n in counts if n), style="bold"))
    for severity, style in STYLES.items():
        codes: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["severity"] == severity:
                codes.setdefault(row["code"], []).append(row)
        for code, same in codes.items():
            _print_code(console, severity, style, code, same, bool(verbose))


def _fields(found: Finding) -> Mapping[str, Any]:
    return {name: getattr(found, name) for name in ("code", "severity", "where", "message", "remedy")}


def _print_code(
    console: Console, severity: str, style: str, code: str, rows: list[Mapping[str, Any]], every: bool
) -> None:
    head = Text.assemble((severity, style), f" {code}", f" ({len(rows)} times)" if len(rows) > 1 else "")
    console.print(head)
    shown = rows if every else rows[:FEW]
    before = None
    for row in shown:
        same = row["message"] == before
        text = row["where"] or "" if same else f"{row['where']}: {row['message']}" if row["where"] else row["message"]
        console.print(Padding(Text(text), (0, 0, 0, 2), expand=False))
        before = row["message"]
    if len(rows) > len(shown):
        console.print(
            Padding(Text(f"… {len(rows) - len(shown)} more; -v names all", style="dim"), (0, 0, 0, 2), expand=False)
        )
    for remedy in dict.fromkeys(row["remedy"] for row in shown if row["remedy"]):
        console.print(Padding(Text(f"→ {remedy}"), (0, 0, 0, 2), expand=False))
