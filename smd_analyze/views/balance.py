"""One picture of all layers: do they all turn as fast as equilibrium says, that is, is their rotation balanced?"""

from __future__ import annotations

from collections.abc import Sequence

import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from smd_analyze.records.report import Report
from smd_analyze.views.drawing import (
    GREY,
    IMPLIED,
    INVARIANT,
    MEASURED,
    MOST_PANELS,
    Picture,
    legend,
    log_ticks,
    nothing,
    style,
)
from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.layers import Row
from smd_analyze.views.text import abbreviate, counted, present, shorten

MOST_ROWS = 60  # layers that get a row each
REFERENCE = "not invariant: reference only"
NAMES = {"implied": "implied by the norms", "measured": "measured"}


def balance(report: Report) -> Figure:
    """Last angular update over its value at equilibrium, layer by layer, with intervals. Balanced is 1 everywhere.

    More than 60 layers share a row with the others of their kind.
    """
    rows = [row for row in report.layers.iter_rows(named=True) if _ratios(row)]
    rows.sort(key=lambda row: row["status"] not in INVARIANT)  # stable: invariant ones first
    single = len(rows) <= MOST_ROWS
    lines = len(rows) if single else len(_kinds(rows))
    path = report.provenance.get("path", "")
    with style():
        drawn = Picture(figsize=(8.5, max(2.6, 1.7 + (0.21 if single else 0.42) * lines)), layout="constrained")
        drawn.suptitle("Is rotation balanced?" + (f" · {shorten(path, 60)}" if path else ""), fontsize=11)
        if not rows:
            nothing(drawn, "no layer has both an angular update and an equilibrium value for it")
            return drawn
        ax = drawn.add_subplot()
        ax.axvline(1.0, color=GREY, lw=1.0, zorder=1)
        used = _dots(ax, rows) if single else _strips(ax, rows)
        _axis(ax, rows)
        legend(drawn, used)
    return drawn


def _ratios(row: Row) -> dict[str, tuple[float, float | None, float | None]]:
    """Name → update over equilibrium and the ends of its interval, of those that there are."""
    rest = row["equilibrium"]
    if not present(rest) or rest <= 0:
        return {}
    found = {}
    for name in NAMES:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if present(value) and value > 0:
            ends = (low / rest, high / rest) if present(low) and present(high) else (None, None)
            found[name] = (value / rest, *ends)
    return found


def _dots(ax: Axes, rows: Sequence[Row]) -> dict[str, Artist]:
    used = {}
    for place, row in enumerate(rows):
        for name, (value, low, high) in _ratios(row).items():
            color = (IMPLIED if name == "implied" else MEASURED) if row["status"] in INVARIANT else GREY
            y = place + (0.14 if name == "measured" else -0.14)
            face = color if name == "measured" else "white"
            drawn = ax.plot(value, y, "o", ms=4.5, color=color, mfc=face, mew=1.1, zorder=4)[0]
            if row["status"] in INVARIANT:
                used[NAMES[name]] = drawn
            else:
                used[f"{NAMES[name]}, {REFERENCE}"] = drawn
            if low is not None and high is not None:
                ax.hlines(y, low, high, color=color, lw=1.2, zorder=3)
    guessed = [" ?" if row["evidence"] == "guessed" and row["status"] in INVARIANT else "" for row in rows]
    names = [abbreviate(row["group"], 44) + mark for row, mark in zip(rows, guessed, strict=True)]
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    if any(guessed):
        ax.annotate("? invariance is guessed", (1.0, 1.0), xycoords="axes fraction", ha="right", va="bottom",
                    fontsize=7, color=GREY)  # fmt: skip
    return used


def _strips(ax: Axes, rows: Sequence[Row]) -> dict[str, Artist]:
    """One row for each kind of layers, a dot for each layer: implied above, measured below the row's line."""
    used = {}
    shared = _kinds(rows)
    for place, members in enumerate(shared.values()):
        invariant = members[0]["status"] in INVARIANT
        for name, color, shift in (("implied", IMPLIED, -0.18), ("measured", MEASURED, 0.18)):
            found = [ratios[name][0] for row in members if name in (ratios := _ratios(row))]
            heights = [place + shift] * len(found)
            dots = ax.scatter(found, heights, s=16, alpha=0.55, lw=0, color=color if invariant else GREY)
            if found:
                used.setdefault(NAMES[name] if invariant else f"{NAMES[name]}, {REFERENCE}", dots)
    ax.set_yticks(range(len(shared)), list(shared), fontsize=8)
    ax.set_ylim(len(shared) - 0.4, -0.6)
    return used


def _kinds(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for invariant in (True, False):
        place = {row["group"]: row for row in rows if (row["status"] in INVARIANT) is invariant}
        for names in kinds(place, 2 * MOST_PANELS).values():
            title = shorten(label(names), 40) + (f"\n{counted(len(names), 'layer')}" if len(names) > 1 else "")
            found[title + ("" if invariant else f"\n{REFERENCE}")] = [place[name] for name in names]
    return found


def _axis(ax: Axes, rows: Sequence[Row]) -> None:
    centres = [ratio[0] for row in rows for ratio in _ratios(row).values()]
    values = [number for row in rows for ratio in _ratios(row).values() for number in ratio if number]
    if max(values) > 3 or min(values) < 1 / 3:
        low, high = min(1.0, *centres) / 1.6, max(1.0, *centres) * 1.6
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        log_ticks(ax.xaxis, low, high)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        far = max(0.05, *(abs(value - 1) for value in values)) * 1.1
        ax.set_xlim(1 - far, 1 + far)
    ax.set_xlabel("angular update over its equilibrium value θ₁/θ*", fontsize=9)
    ax.set_ylabel("")
    ax.tick_params(labelsize=8, length=2.5)
    ax.grid(axis="y", visible=False)
    sns.despine(ax=ax)
