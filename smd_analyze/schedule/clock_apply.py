"""Which clock speaks for which tensors: its own, those of its parameter group, and others only if nothing refutes it.

A clock is what happened to its own tensor. For a parameter group that the files (or the caller's globs) tell, it speaks
for the whole group and beats both. Where the groups are not known it is *assumed* to hold for the other tensors, and so
it is for other groups whose Σηλ nothing else tells, unless

- clocks that move disagree with each other: then each speaks for its own tensor only;
- a scale-invariant tensor shrinks faster than the clock's decay allows: x_e ≥ −½ d ln‖w‖²/dt under the SGD family,
  since the gradient never shortens such a tensor;
- the other group has another optimizer.

A clock at rest speaks for its own tensor only: recipes exempt classifiers and embeddings, not whole networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smd_analyze.schedule.clock_fill import SGD_FAMILY, Filled, at_rest, fill, update_rule
from smd_analyze.schedule.clock_pools import Pool, pools
from smd_analyze.schedule.clock_readings import Floats, Reading
from smd_analyze.schedule.names import DECOUPLED

EXCESS = 0.05  # relative: a tensor must shrink so much faster than the clock allows
ROUNDED = 1e-5  # and so much of ln‖w‖ besides, which norms in fp32 have to spare
TWICE = 2  # intervals that must show it, if there are so many
Rows = tuple[dict[str, Any], ...]
Shrinkage = Mapping[str, Floats]


@dataclass(frozen=True)
class Spoken:
    """A pool of clocks and a group that it spoke for. `assumed`: not known to be the group of its tensors."""

    group: str
    pool: Pool
    filled: Filled
    assumed: bool


@dataclass(frozen=True)
class Applied:
    """The rows of every group, and what was decided.

    `of_parameter`: parameter → group, tensors that turned out to stand apart in groups of their own. `spoken` and
    `rested`: moving clocks and clocks at rest with what they did to a group; `apart`: (group, its pools) that disagree;
    `refuted`: (group, pool, tensors that shrink too fast for it); `origin`: split group → the group it was part of.
    """

    rows: dict[str, Rows]
    of_parameter: dict[str, str]
    spoken: list[Spoken] = field(default_factory=list)
    rested: list[Spoken] = field(default_factory=list)
    apart: list[tuple[str, tuple[Pool, ...]]] = field(default_factory=list)
    refuted: list[tuple[str, Pool, tuple[str, ...]]] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What the decision rests on besides rows and clocks.

    `known`: groups whose members the files or the caller tell. `updates` [I], `begins`: optimizer steps per interval
    and before the first. `shrinkage`: scale-invariant parameter → −½ Δ ln‖w‖² [I], of its median unit. `untrained`:
    training surely began at the first checkpoint. `defaulted`: groups whose momentum nobody said, so that a framework's
    default stands in their rows.
    """

    known: frozenset[str]
    updates: Floats
    begins: float
    shrinkage: Shrinkage = field(default_factory=dict)
    untrained: bool = False
    defaulted: frozenset[str] = frozenset()


def apply_clocks(
    rows: Mapping[str, Rows], of_parameter: Mapping[str, str], found: Sequence[Reading], facts: Facts
) -> Applied:
    """Let every clock speak within its right (see the module's docstring)."""
    out = Applied(dict(rows), dict(of_parameter))
    own: dict[str, list[Reading]] = {}
    for reading in found:
        name = of_parameter.get(reading.parameter)
        if name is not None and rows.get(name):
            own.setdefault(name, []).append(reading)
    for name, readings in own.items():
        _own_group(out, name, pools(readings, facts.updates), facts)
    _others(out, [r for r in found if r.parameter in of_parameter], set(own), facts)
    return out


def _own_group(out: Applied, name: str, found: Sequence[Pool], facts: Facts) -> None:
    """The clocks of one group: those at rest stand apart, one moving pool speaks for the group, several for none."""
    moving = [p for p in found if not p.resting]
    move = {p for pool in moving for p in pool.parameters}
    for pool in found:
        still = [p for p in pool.parameters if p not in move]  # what moves is not at rest, whatever another sum says
        if pool.resting and still and (moving or _contradicts_rest(out.rows[name])):
            filled = at_rest(out.rows[name], pool, facts.updates)
            home = _split(out, name, still)
            out.rows[home] = filled.rows
            out.rested.append(Spoken(home, pool, filled, False))
    if len(moving) > 1:
        out.apart.append((name, tuple(moving)))
        taken: set[str] = set()
        for pool in moving:
            mine = [p for p in pool.parameters if p not in taken]
            taken.update(mine)
            if mine:  # a tensor whose own clocks disagree is that of the larger party
                _speak(out, _split(out, name, mine), pool, facts, False)
    elif moving:
        _speak(out, name, moving[0], facts, name not in facts.known and not _alone(out, name, moving[0]))


def _contradicts_rest(rows: Rows) -> bool:
    """Whether the group's rows say anything but that there is no decay."""
    return any(row["weight_decay"] != 0 and row["sum_decay"] != 0 for row in rows)


def _alone(out: Applied, name: str, pool: Pool) -> bool:
    """Whether the pool's tensors are all that the group has."""
    return {p for p, g in out.of_parameter.items() if g == name} <= set(pool.parameters)


def _split(out: Applied, name: str, parameters: Sequence[str]) -> str:
    """Give tensors a group of their own, named after them; the group's own name if it has no others."""
    mine = [p for p in parameters if out.of_parameter.get(p) == name]
    if {p for p, g in out.of_parameter.items() if g == name} <= set(mine):
        return name
    new = mine[0] if len(mine) == 1 else f"{mine[0]} and {len(mine) - 1} more"
    while new in out.rows:
        new += "'"
    out.rows[new] = out.rows[name]
    out.origin[new] = name
    out.of_parameter.update(dict.fromkeys(mine, new))
    return new


def _speak(out: Applied, name: str, pool: Pool, facts: Facts, assumed: bool, factor: float = 1.0) -> None:
    """Fill a group from a pool. Assumed: tensors that refute it get no number; if most do, nothing but its own does."""
    rows = out.rows[name]
    told = facts.updates, facts.begins, assumed, factor, facts.untrained
    filled = fill(rows, pool, *told)
    if out.origin.get(name, name) in facts.defaulted:
        tried = fill([row | {"momentum": None, "nesterov": None} for row in rows], pool, *told)
        filled = filled if tried.momentum_assumed else tried
    if assumed:
        tested, guilty = _too_fast(out, name, filled, facts)
        if guilty:
            out.refuted.append((name, pool, guilty))
        if guilty and 2 * len(guilty) >= len(tested):
            mine = [p for p in pool.parameters if out.of_parameter.get(p) == name]
            if mine:
                _speak(out, _split(out, name, mine), pool, facts, False)
            return
        if guilty:
            rest = out.rows[name]
            out.rows[_split(out, name, guilty)] = rest
    out.rows[name] = filled.rows
    out.spoken.append(Spoken(name, pool, filled, assumed))


def _too_fast(out: Applied, name: str, filled: Filled, facts: Facts) -> tuple[list[str], tuple[str, ...]]:
    """(tensors of the group that were tested, those that shrink faster than the decay that it was filled with)."""
    members = [p for p, g in out.of_parameter.items() if g == name and p in facts.shrinkage]
    if filled.rows[0]["optimizer"] not in SGD_FAMILY:
        return [], ()
    most = filled.high / update_rule(filled.rows).share
    guilty = []
    for parameter in members:
        shrunk = np.asarray(facts.shrinkage[parameter], np.float64)
        with np.errstate(invalid="ignore"):
            over = shrunk > most * (1 + EXCESS) + ROUNDED
        if over.sum() >= min(TWICE, int(np.isfinite(most).sum())) and over.any():
            guilty.append(parameter)
    return members, tuple(guilty)


def _others(out: Applied, found: Sequence[Reading], spoken_for: set[str], facts: Facts) -> None:
    """Groups without a clock of their own whose Σηλ is unknown: the one moving pool is assumed to hold there."""
    moving = [p for p in pools(found, facts.updates) if not p.resting]
    split = {out.origin[n] for n in out.origin}
    lacking = [
        name
        for name, rows in out.rows.items()
        if (name not in spoken_for or name in split) and rows and name not in out.origin
        and any(g == name for g in out.of_parameter.values())
        and all(row["sum_decay"] is None and row["weight_decay"] != 0 for row in rows)
        and not any(g == name for g, *_ in (*out.refuted, *out.apart))
    ]  # fmt: skip
    if len(moving) > 1 and lacking and not out.apart:
        out.apart.append(("", tuple(moving)))
    if len(moving) != 1:
        return
    for name in lacking:
        donor = next((s for s in out.spoken if set(s.pool.parameters) & set(moving[0].parameters)), None)
        row = out.rows[name][0]
        theirs = donor.filled.rows[0] if donor is not None else row
        if row["optimizer"] is not None and theirs["optimizer"] not in (None, row["optimizer"]):
            continue
        factor = 1.0
        if row["weight_decay"] and theirs["weight_decay"]:
            factor = row["weight_decay"] / theirs["weight_decay"]
        if row["optimizer"] is not None and row["optimizer"] not in (*SGD_FAMILY, *DECOUPLED):
            continue
        _speak(out, name, moving[0], facts, True, factor)
