"""The one look of our terminal tables. Every cell is plain text: a "[" in a name is no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def grid(
    heads: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str | Text]], fixed: Sequence[str] = ()
) -> Table:
    """A table with a line under its heads. Columns in `numbers` are set to the right; they and `fixed` never wrap."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        right = head in numbers
        still = right or head in fixed
        table.add_column(Text(head), justify="right" if right else "left", no_wrap=still, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table
