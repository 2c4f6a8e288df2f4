"""The cells of the table of layers: one layer a row, or one kind of layers a row where a screen cannot hold them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.text import MISSING, compact, counted, number, present

SCREEN = 30
"""Rows that a screen holds; more layers than this are shown kind by kind."""

TINY, SMALL, NARROW, WIDE = 68, 76, 96, 150
"""Columns of a terminal below which the implied update is left out (an identity), below which intervals are, below
which fewer numbers stand, and from which on more do."""

BASES = {"theory": "ᵗ", "extrapolated": "ˣ", "measured": "ᵐ"}
NUMBERS = re.compile(
    r"(?:[,:] EI =| since step|:)? [-−]?\d[\d.e+−-]*(?: ± [\d.]+| to [-−]?[\d.]+)?(?: half-lives| % over the run)?"
    r"|, EI = \?"
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table: where it stands in `layers`, its head, and the scale it is shown in."""

    name: str
    head: str
    scale: float = 1.0
    digits: int = 4
    interval: bool = True


def columns(scale: float, unit: str, reference: bool, width: int, effective: str = "η/‖w‖²\n1/weight²") -> list[Column]:
    """The numbers of each layer that `width` columns have room for. `reference`: the layers are not invariant.

    `effective`: head of the effective learning rate, whose form depends on the optimizer. Without a `unit` there is no
    angular update to show, and what the weights did over the run stands instead.
    """
    found = [Column("weight_norm", "‖w‖")]
    if not unit:
        return [*found, Column("norm_change", "change\n%", 1.0, 3), Column("angle_from_first", "turned\nrad", 1.0, 3)]
    if not reference and width >= NARROW:
        found.append(Column("level", "level\n‖w‖*"))
    equilibrium = "θ* refer.\n" if reference else "θ* equil.\n"
    found += [
        Column("implied", "θ₁\nimplied" if width < SMALL else f"θ₁ implied\n{unit}", scale, 3, width >= SMALL),
        Column("measured", "θ₁ meas-\nured" if width < SMALL else f"θ₁ measured\n{unit}", scale, 3, width >= SMALL),
        Column("equilibrium", equilibrium + unit, scale, 3),
    ][width < TINY :]
    if width >= WIDE:
        found += [
            Column("ratio", "θ₁/θ*", 1.0, 3),
            Column("equilibrium_index", "EI", 1.0, 3),
            Column("relaxation_rate_ratio", "r/r*", 1.0, 3),
            Column("effective_learning_rate", effective, 1.0, 3),
        ]
    if not reference and width >= NARROW:
        found.append(Column("half_lives", "half-\nlives", 1.0, 3))
    return found


def rows_of(layers: Sequence[Row], shown: Sequence[Column], every: bool) -> list[tuple[str, list[str], str]]:
    """Name, cells and state of each row: layers, or kinds of layers if there are more than SCREEN and not `every`."""
    if every or len(layers) <= SCREEN:
        return [(row["group"], [_cell(row, c) for c in shown], words(row["state"])) for row in layers]
    place = {row["group"]: row for row in layers}
    found = []
    for names in kinds(place, SCREEN).values():
        members = [place[name] for name in names]
        if len(members) == 1:
            found.append((names[0], [_cell(members[0], c) for c in shown], words(members[0]["state"])))
        else:
            title = f"{label(names)}\n({counted(len(names), 'layer')})"
            found.append((title, [_summary(members, c) for c in shown], _states(members)))
    return found


def words(value: Any) -> str:
    """A text, or a dash where there is none."""
    return value if value else MISSING


def _cell(row: Row, column: Column) -> str:
    value = row.get(column.name)
    low, high = row.get(f"{column.name}_low"), row.get(f"{column.name}_high")
    text = (
        compact(value, low, high, column.scale, column.digits)
        if column.interval
        else number(value, column.digits, column.scale)
    )
    return text + BASES.get(row.get("level_basis") or "", "") if column.name == "level" and present(value) else text


def _summary(rows: Sequence[Row], column: Column) -> str:
    """Median, and below it the range where there is one."""
    values: list[float] = [row[column.name] for row in rows if present(row.get(column.name))]
    if not values:
        return MISSING
    middle = number(median(values), column.digits, column.scale)
    ends = [number(end, 3, column.scale) for end in (min(values), max(values))]
    bases = {row.get("level_basis") for row in rows if present(row.get(column.name))}
    mark = BASES.get(next(iter(bases)) or "", "") if column.name == "level" and len(bases) == 1 else ""
    return middle + mark if ends[0] == ends[1] else f"{middle}{mark}\n{ends[0]}…{ends[1]}"


def _states(rows: Sequence[Row]) -> str:
    """How many are in which state; numbers within a state are left to the single layers' rows."""
    counts = Counter(NUMBERS.sub("", words(row["state"])) for row in rows)
    if len(counts) == 1:
        return next(iter(counts))
    return "\n".join(f"{count} {state}" for state, count in counts.most_common())
