"""What our figures have in common: a figure without pyplot, panels of layers or of kinds of layers, axes with units."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from smd_analyze.records.quantity import quantity
from smd_analyze.records.report import Report
from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.layers import Row
from smd_analyze.views.text import abbreviate, counted

MOST_SINGLE = 20  # layers that get a panel each
MOST_PANELS = 12  # panels where layers share one
FEW_REFERENCE = 3  # of them for layers that are not invariant, where both sorts want room
INVARIANT = ("invariant", "jointly invariant")

MEASURED, IMPLIED, THEORY, EQUILIBRIUM, GREY = "#1f4e79", "#5b9bd5", "#d1603d", "#4f8a3c", "#8c8c8c"


class Picture(Figure):
    """A matplotlib Figure that a notebook shows even if pyplot was never asked for a backend."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=110)
        return target.getvalue()


@dataclass(frozen=True)
class Panel:
    """The layers that one pair of axes shows. `reference`: they are not invariant, theory is no measure for them."""

    title: str
    groups: tuple[str, ...]
    reference: bool
    note: str = ""

    @property
    def single(self) -> bool:
        """Does it show one layer?"""
        return len(self.groups) == 1


@contextmanager
def style() -> Iterator[None]:
    """Our look, for the time of drawing: the user's own settings stay as they are."""
    look = {"axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "font.sans-serif": ["DejaVu Sans"]}
    with sns.axes_style("ticks", look), sns.plotting_context("paper", rc={"axes.titlesize": 9}):
        yield


def panels(report: Report) -> list[Panel]:
    """One panel for each of up to 20 layers; more layers share at most 12, by kind and by whether theory applies."""
    rows = list(report.groups.iter_rows(named=True))
    if len(rows) <= MOST_SINGLE:
        return [_panel(abbreviate(row["group"], 30), [row]) for row in rows]
    invariant = [row for row in rows if row["status"] in INVARIANT]
    others = [row for row in rows if row["status"] not in INVARIANT]
    few = min(FEW_REFERENCE, len(others)) if invariant else MOST_PANELS
    return _shared(invariant, MOST_PANELS - few) + _shared(others, few)


def _shared(rows: Sequence[Row], most: int) -> list[Panel]:
    """At most `most` panels: by kind of layer if that is enough, else by role."""
    place = {row["group"]: row for row in rows}
    by_kind = kinds(place, most)
    if len(by_kind) <= most:
        named = [(label(names), [place[name] for name in names]) for names in by_kind.values()]
    else:
        roles: dict[str, list[Row]] = {}
        for row in rows:
            roles.setdefault(row["role"], []).append(row)
        ranked = sorted(roles.items(), key=lambda item: -len(item[1]))
        named, rest = ranked[: most - 1], ranked[most - 1 :]
        if rest:
            named.append((", ".join(role for role, _ in rest), [row for _, members in rest for row in members]))
    return [_panel(abbreviate(name, 30), members) for name, members in named]


def _panel(name: str, rows: Sequence[Row]) -> Panel:
    """A panel whose second line of title says how many layers it shows, and what is special about all of them."""
    reference = rows[0]["status"] not in INVARIANT
    notes = [counted(len(rows), "layer")] if len(rows) > 1 else []
    notes += sorted({row["status"] for row in rows}) if reference else []
    if all(row["evidence"] == "guessed" for row in rows):
        notes.append("guessed")
    return Panel(name, tuple(row["group"] for row in rows), reference, ", ".join(notes))


def figure(shown: Sequence[Panel], title: str, x: str, y: str, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with a pair of axes for each panel; without panels, one that says so."""
    count = len(shown)
    across = min(4, count) if count != 5 else 3
    down = math.ceil(count / across) if count else 1
    drawn = Picture(figsize=(max(6.4, 3.1 * across), 1.3 + 2.05 * down), layout="constrained")
    drawn.suptitle(title, fontsize=11)
    if not count:
        nothing(drawn, "no layer was analysed")
        return drawn, []
    found: list[Axes] = []
    for index, panel in enumerate(shown):
        first = found[0] if found else None
        ax = drawn.add_subplot(down, across, index + 1, sharex=first, sharey=first if sharey else None)
        ax.set_title(panel.title, fontsize=9, loc="left", pad=11 if panel.note else 3)
        if panel.note:
            ax.annotate(panel.note, (0, 1), (0, 3), "axes fraction", "offset points", fontsize=7, color="#606060")
        if index >= count - across:
            ax.set_xlabel(x, fontsize=9)
        ax.tick_params(labelsize=8, length=2.5, labelbottom=index >= count - across)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(_steps))
        sns.despine(ax=ax)
        found.append(ax)
    drawn.supylabel(y, fontsize=9)
    return drawn, found


def nothing(drawn: Figure, text: str) -> None:
    """Say in the middle of a figure why it is empty."""
    drawn.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color=GREY)


def legend(drawn: Figure, used: dict[str, Artist]) -> None:
    """One legend for all panels, below them."""
    if used:
        widest = 0.6 + 0.075 * max(len(name) for name in used)  # inches, at 8 points
        columns = max(1, min(len(used), int(drawn.get_size_inches()[0] / widest)))
        drawn.legend(used.values(), used.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def axis_label(column: str, power: int = 0, step_unit: str = "") -> str:
    """`angle θₖ [rad]`: the quantity's words, symbol and unit (times 10^power, where ticks are scaled)."""
    known = quantity(column)
    if known is None:
        return column.replace("_", " ")
    unit = known.unit.replace("step", step_unit) if step_unit else known.unit
    factor = "10⁻³ " if power == -3 else ""
    name = f"{known.name.replace('_', ' ')} {known.symbol}".strip()
    return name if unit in ("1", "weight") else f"{name} [{factor}{unit}]"


def step_name(report: Report) -> str:
    """What one step of this run is: "step", "epoch", "save"."""
    unit = report.provenance.get("step_unit", "")
    return "step" if unit in ("", "optimizer steps") else unit.removesuffix("s")


def milli(ax: Axes, limits: tuple[float, float] | None) -> None:
    """Show the y axis in thousandths: the data stay in radians. `limits` make it logarithmic."""
    if limits:
        ax.set_yscale("log")
        ax.set_ylim(*limits)
        log_ticks(ax.yaxis, *limits)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 1e3:.6g}"))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 of each decade, or at decades alone where there are more than two."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,), numticks=8))
    axis.set_minor_formatter(NullFormatter())


def values(frame: pl.DataFrame, column: str) -> np.ndarray:
    """The column as floats, NaN where it is missing: a line then has a gap, which is the truth."""
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _steps(value: float, _: int | None) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"
