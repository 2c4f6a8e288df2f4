"""Findings as a person reads them: one entry for each code, the gravest first, with its remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from smd_analyze.records.finding import Finding
from smd_analyze.views.text import counted

if TYPE_CHECKING:
    import polars as pl

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
Row = Mapping[str, Any]
FEW = 3  # places named of a finding that was made in many


def print_findings(
    found: pl.DataFrame | Iterable[Finding],
    console: Console,
    *,
    root: str = "",
    above: Collection[str] = (),
    verbose: int = 0,
) -> None:
    """One line of counts, then every code once: what, where, and what to do. `verbose` names every place.

    Codes that say the same share an entry. Places are shown as seen from `root`. Findings whose code is in `above` are
    said elsewhere on the screen, and only counted here.
    """
    rows = [_fields(f) for f in found] if not hasattr(found, "iter_rows") else list(found.iter_rows(named=True))  # type: ignore[union-attr]
    hidden = sum(row["code"] in above for row in rows)
    rows = [{**row, "where": _seen_from(root, row["where"])} for row in rows if row["code"] not in above]
    if not rows and not hidden:
        return
    entries = {severity: list(_entries([r for r in rows if r["severity"] == severity])) for severity in STYLES}
    told = [counted(sum(len(same) for _, same in found), what) for what, found in entries.items() if found]
    if hidden:
        told.append(f"{counted(hidden, 'note')} on what is assumed or inferred, said above (-v)")
    console.print(Text(" · ".join(told), style="bold"))
    for severity, style in STYLES.items():
        for codes, same in entries[severity]:
            _print_entry(console, severity, style, codes, same, bool(verbose))


def _entries(rows: Sequence[Row]) -> Iterator[tuple[list[str], list[Row]]]:
    """Codes and rows of each entry: those of one code, and codes whose rows are word for word the same."""
    by_code: dict[str, list[Row]] = {}
    for row in rows:
        by_code.setdefault(row["code"], []).append(row)
    alike: dict[tuple[Any, ...], list[str]] = {}
    for code, same in by_code.items():
        alike.setdefault(tuple((row["where"], row["message"], row["remedy"]) for row in same), []).append(code)
    for codes in alike.values():
        yield codes, by_code[codes[0]]


def _seen_from(root: str, where: str) -> str:
    """`run/a.pt` is `a.pt` seen from `run`; the run itself needs no name."""
    if not root or not where.startswith(root):
        return where
    rest = where[len(root) :]
    return rest.lstrip("/: ") if not rest or rest[0] in "/:" else where


def _fields(found: Finding) -> Row:
    return {name: getattr(found, name) for name in ("code", "severity", "where", "message", "remedy")}


def _print_entry(
    console: Console, severity: str, style: str, codes: Sequence[str], rows: Sequence[Row], every: bool
) -> None:
    times = f" ({len(rows)} times)" if len(rows) > 1 else ""
    console.print(Text.assemble((severity, style), f" {', '.join(codes)}{times}"))
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
