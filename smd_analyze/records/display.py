"""How a Run and a Report show themselves in a terminal and in a notebook: from what they hold, nothing computed.

The command line's own table is in views/tables.py; this is the short form that a record prints by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smd_analyze.records.report import Report
    from smd_analyze.records.run import Run

SHOWN = 12  # rows of a notebook's table before it says how many more there are


def run_text(run: Run) -> str:
    """One paragraph: how many checkpoints, which steps, and what to know about them."""
    if not run.checkpoints:
        return f"Run({run.path!r}: no checkpoints)"
    first, last = run.checkpoints[0], run.checkpoints[-1]
    lines = [
        f"Run {run.path}: {len(run.checkpoints)} checkpoints, {run.step_unit} {first.step} to {last.step}, "
        f"{len(last.parameters)} parameters, {last.format}, ordered by {run.ordered_by}"
    ]
    lines += [f"  {f.severity}: {f.where}: {f.message}" for f in run.findings]
    return "\n".join(lines)


def run_html(run: Run) -> str:
    """A table of checkpoints, shortened in the middle, and the findings."""
    rows = [(c.step, c.path, c.format, c.framework, f"{c.nbytes:,}", len(c.parameters)) for c in run.checkpoints]
    table = html_table(("step", "path", "format", "framework", "bytes", "parameters"), rows)
    head = f"<p><b>{escape(run.path)}</b>: {len(run.checkpoints)} checkpoints, ordered by {escape(run.ordered_by)}</p>"
    return head + table + findings_html((f.severity, f.where, f.message) for f in run.findings)


def report_text(report: Report) -> str:
    """The verdict, then one line per layer."""
    lines = [report.verdict]
    rows = list(report.layers.iter_rows(named=True))
    lines += [f"  {r['group']}: {r['state']}" for r in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(f"  … {len(rows) - SHOWN} more in report.layers")
    return "\n".join(lines)


def report_html(report: Report) -> str:
    """The verdict, the layers as a table, the findings."""
    columns = report.layers.columns
    rows = [tuple(number(v) for v in row) for row in report.layers.iter_rows()]
    found = ((r["severity"], r["where"], r["message"]) for r in report.findings.iter_rows(named=True))
    return f"<p><b>{escape(report.verdict)}</b></p>" + html_table(columns, rows) + findings_html(found)


def number(value: Any) -> str:
    """Four significant digits of a float, nothing for null."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A plain HTML table; long ones keep their first and last rows and say what is left out."""
    if len(rows) > 2 * SHOWN:
        gap = [f"… {len(rows) - 2 * SHOWN} more …"] + [""] * (len(columns) - 1)
        rows = [*rows[:SHOWN], gap, *rows[-SHOWN:]]
    head = "".join(f"<th>{escape(str(c))}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def findings_html(found: Iterable[tuple[str, str, str]]) -> str:
    """Findings as a list, or nothing."""
    items = "".join(f"<li><b>{escape(s)}</b> {escape(w)}: {escape(m)}</li>" for s, w, m in found)
    return f"<ul>{items}</ul>" if items else ""
