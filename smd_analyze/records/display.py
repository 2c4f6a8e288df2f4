"""Tables and numbers as a record shows them in a notebook: plain HTML, nothing computed, no record known here.

The command line's own table is in views/tables.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

SHOWN = 12
"""Rows at each end of a table before it says how many more there are."""


def number(value: Any) -> str:
    """Four significant digits of a float, nothing for null."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_findings(head: str, found: Iterable[Any]) -> str:
    """A line about a record, and a line for each of its findings (they have severity, where and message)."""
    return "\n".join([head, *(f"  {f.severity}: {f.where}: {f.message}" for f in found)])


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A plain HTML table; long ones keep their first and last rows and say what is left out."""
    if len(rows) > 2 * SHOWN:
        gap = [f"… {len(rows) - 2 * SHOWN} more …"] + [""] * (len(columns) - 1)
        rows = [*rows[:SHOWN], gap, *rows[-SHOWN:]]
    head = "".join(f"<th>{escape(str(c))}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_head(text: str) -> str:
    """The line above a table."""
    return f"<p><b>{escape(text)}</b></p>"


def html_list(found: Iterable[tuple[Any, ...]]) -> str:
    """(severity, where, message) of each finding as a list, or nothing."""
    items = "".join(f"<li><b>{escape(s)}</b> {escape(w)}: {escape(m)}</li>" for s, w, m in found)
    return f"<ul>{items}</ul>" if items else ""
