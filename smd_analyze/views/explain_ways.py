"""The way to one number: inputs, formula in symbols, the same with numbers, result, and what it rests on; as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from smd_analyze.views.text import MISSING, interval, number, present

WIDTH = 116
PAPERS = {
    "Wan et al. 2021": "arXiv:2006.08419", "Kosson et al. 2023": "arXiv:2305.17212",
    "Kunin et al. 2021": "arXiv:2012.04728", "Li, Lyu & Arora 2020": "arXiv:2010.02916",
    "van Laarhoven 2017": "arXiv:1706.05350", "Wang & Aitchison 2024": "arXiv:2405.13698",
}  # fmt: skip
SAME = 5e-4
"""Relative difference up to which a result shown with three or four digits is the report's number."""


@dataclass(frozen=True)
class Way:
    """How one number of the report came about.

    `quantity`: the column, or the quantity of `fits`, that it explains. `held`, `low`, `high`: as the report has it.
    `steps`: the formula in symbols, and with numbers put in. `result`: what these numbers give, worked out anew for
    display. `within` 0: they give `held` itself; else the form that is shown is an approximation, or that of the layer
    as a whole where the report summarises units, off by this part of the value at most (`why` says which).
    """

    quantity: str
    symbol: str
    meaning: str
    held: float | None
    steps: tuple[str, ...] = ()
    result: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    scale: float = 1.0
    digits: int = 4
    within: float = 0.0
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether the result is the report's number, as far as the form that is shown can tell; None without one."""
        known = present(self.result) and present(self.held) and present(self.within)
        if self.result is None or self.held is None or not known:
            return None
        return abs(self.result - self.held) <= max(self.within, SAME) * abs(self.held) + 1e-12


def told(way: Way) -> Iterator[str]:
    """Its lines: the number, what it is, what the interval rests on, source and caveats; then the formula."""
    value = interval(way.held, way.low, way.high, way.scale, way.digits)
    unit = f" {way.unit}" if way.unit and value != MISSING else ""
    about = "; ".join(part for part in (way.meaning, *way.notes) if part)
    head = f"{way.symbol} = {value}{unit}: {about}"
    steps = [*way.steps[:-1], *(step + _outcome(way) for step in way.steps[-1:])]
    if len(steps) == 1 and len(head) + len(steps[0]) + 5 <= WIDTH:
        head, steps = f"{head} — {steps[0]}", []
    yield from _wrapped(head, 2, 6)
    for step in steps:
        yield from _wrapped(step, 6, 8)


def _outcome(way: Way) -> str:
    """`→ 4.588`, and why the report's number is another one, if it is."""
    if way.result is None or not present(way.result):
        return ""
    found = f" → {'about ' if way.within else ''}{number(way.result, way.digits, way.scale)}"
    if way.why:
        return f"{found} ({way.why})"
    return found if way.agrees is not False else f"{found}, not the report's number"


def lines(items: Iterable[Way | str]) -> Iterator[str]:
    """Ways and plain sentences of a section, indented and wrapped."""
    for item in items:
        if isinstance(item, Way):
            yield from told(item)
        else:
            yield from _wrapped(item, 2, 6)


def papers(text: str) -> Iterator[str]:
    """Those that a text cites, with where to find them."""
    cited = [f"{name}, {where}" for name, where in PAPERS.items() if name in text]
    if cited:
        yield from _wrapped("Papers: " + "; ".join(cited), 0, 2)


def _wrapped(text: str, first: int, rest: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * first, subsequent_indent=" " * rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
