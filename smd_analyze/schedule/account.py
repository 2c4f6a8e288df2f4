"""What the weights say beside what files and caller say: further columns of the schedule table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.decay_formulas import coupled_rate, decoupled_rate
from smd_analyze.records.clocks import Clocks
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Run
from smd_analyze.records.schedule import Schedule
from smd_analyze.schedule.clock_pools import Pool, pools
from smd_analyze.schedule.clock_readings import Z95, readings
from smd_analyze.schedule.course import Rule, follow
from smd_analyze.schedule.updates import clock as ticks_of

RATE = ("decay_per_step", "decay_per_step_low", "decay_per_step_high")
TOLD = ("told_decay", "told_decay_low", "told_decay_high")
EXPECTED = ("told_per_step", "told_per_step_low", "told_per_step_high")
LEARNING_RATES = ("learning_rate_first", "learning_rate_last")
CHANGE = ("change_step", "change_step_low", "change_step_high")
NUMBERS = (*RATE, *TOLD, *EXPECTED, "told_weight_decay", *CHANGE)
COLUMNS = {
    **dict.fromkeys(NUMBERS, pl.Float64), "told_source": pl.String, "read_off": pl.String, "stretch": pl.Int64,
    "shape": pl.String,
}  # fmt: skip
CLEAR = 0.05  # relative change of the learning rate that is a jump
ROUGH = 0.05  # relative standard deviation above which a reading divides no stretches
NAMED = re.compile(r"clock of (\S+?)(?:[,;:]|\s|$)")
Row = dict[str, Any]


def account(run: Run, schedule: Schedule, told: Schedule, clocks: Clocks | pl.DataFrame | None) -> Schedule:
    """The schedule with, on each row, what was read off the weights and what files and caller alone would give.

    `told` is the schedule of the same run and settings without clocks. New columns:

    - `decay_per_step`, `_low`, `_high`: −ln(c'/c) per step of the clocks that speak for the parameter group; null
      without one. `read_off`: their names in words. Nothing is assumed about the optimizer.
    - `told_decay`, `_low`, `_high`: Σηλ by files and caller. `told_per_step`: the rate per step that a clock would have
      under it, given optimizer and momentum (`decay_formulas`). `told_weight_decay`, `told_source`.
    - `stretch`: number of the stretch of constant rate that the interval belongs to, from 0.
    - `change_step`, `_low`, `_high`: where in the interval (or at its start) the rate jumped, 95 %.
    - `shape`: the form of the group's schedule in words, the same on all its rows.
    """
    read = readings(run, clocks)
    beside = {(r["parameter_group"], r["step_from"], r["step_to"]): r for r in told.table.iter_rows(named=True)}
    groups = schedule.table.partition_by("parameter_group", maintain_order=True)
    count = ticks_of(schedule.step_unit, None)
    out: list[Row] = []
    findings: list[Finding] = []
    for table in groups:
        rows = table.to_dicts()
        name = rows[0]["parameter_group"]
        updates = np.array(
            [float(count.made(r["step_to"]) - count.made(r["step_from"])) if count.known else np.nan for r in rows]
        )
        own = [r for r in read if schedule.parameter_group.get(r.parameter) == name]
        pool = _speaking(rows, pools(own, updates), pools(read, updates) if read else [])
        said = [beside.get((name, row["step_from"], row["step_to"])) for row in rows]
        new = [_told(row, one, bool(count.known)) for row, one in zip(rows, said, strict=True)]
        out += new if pool is None else _read_off(rows, new, pool, _jumps(said), findings)
    added = pl.DataFrame(out, schema=COLUMNS) if out else pl.DataFrame(schema=COLUMNS)
    kept = schedule.table.drop([c for c in COLUMNS if c in schedule.table.columns])
    ordered = pl.concat(groups).select(kept.columns) if groups else kept
    table = pl.concat([ordered, added], how="horizontal")
    return replace(schedule, table=table, findings=(*schedule.findings, *findings))


def _jumps(said: Sequence[Row | None]) -> list[bool]:
    """Of each interval, whether files and caller say that the learning rate jumped right at its start."""
    out = [False] * len(said)
    for i, (before, after) in enumerate(zip(said, said[1:], strict=False), start=1):
        if before is None or after is None or before["learning_rate_changes"] or after["learning_rate_changes"]:
            continue
        old, new = before["learning_rate_last"], after["learning_rate_first"]
        out[i] = old is not None and new is not None and abs(old - new) > CLEAR * max(old, new)
    return out


def _speaking(rows: Sequence[Row], own: Sequence[Pool], every: Sequence[Pool]) -> Pool | None:
    """The clocks that speak for a group: those that its rows name as their source, else its own."""
    named = [m for row in rows for m in NAMED.findall(row["source"] or "")]
    for pool in (*own, *every):
        if any(name in pool.parameters for name in named):
            return pool
    return own[0] if own else None


def _told(row: Row, said: Row | None, known: bool) -> Row:
    """The columns on files and caller; the rate that a clock would have needs optimizer and momentum."""
    new: Row = dict.fromkeys(COLUMNS)
    new["stretch"] = 0
    new["shape"] = new["read_off"] = ""
    if said is None:
        return new | {"told_source": ""}
    new |= {"told_weight_decay": said["weight_decay"], "told_source": said["source"]}
    for end in ("", "_low", "_high"):
        value = 0.0 if said["weight_decay"] == 0 else said[f"sum_decay{end}"]
        new[f"told_decay{end}"] = value
        new[f"told_per_step{end}"] = None if value is None or not known else _expected(value, row, said)
    if row["decoupled"] and new["told_per_step"] is not None:  # two ways to round 1 − ηλ are in use
        exact = float(decoupled_rate(new["told_decay"] / _length(row), exact=True))
        new["told_per_step_low"] = min(new["told_per_step_low"], exact)
        new["told_per_step_high"] = max(new["told_per_step_high"], exact)
    return new


def _length(row: Row) -> int:
    return max(row["step_to"] - row["step_from"], 1)


def _expected(decay: float, row: Row, said: Row) -> float | None:
    """A settled clock's mean rate at this Σηλ; null where optimizer or momentum are unknown.

    Where the learning rate changes within the interval, both its ends' rates act in the shares that give Σηλ.
    """
    x, lam = decay / _length(row), said["weight_decay"]
    if x == 0:
        return 0.0
    ends = [said[key] * lam for key in LEARNING_RATES if lam is not None and said[key] is not None]
    if len(ends) == 2 and min(ends) < x < max(ends):
        share = (x - ends[1]) / (ends[0] - ends[1])
        first, last = (_settled_rate(end, row) for end in ends)
        return None if first is None or last is None else share * first + (1 - share) * last
    return _settled_rate(x, row)


def _settled_rate(x: float, row: Row) -> float | None:
    if row["decoupled"]:
        return float(decoupled_rate(x))
    if row["optimizer"] != "sgd" or row["momentum"] is None:
        return None
    rate = float(coupled_rate(x, row["momentum"], bool(row["nesterov"]), row["dampening"] or 0.0))
    return rate if np.isfinite(rate) else None


def _velocity(row: Row, form: str, step: int, rule: Rule) -> Finding:
    """The weights tell where the learning rate stands in momentum: something new, or against what the files mean."""
    kind = "Keras, TensorFlow and Caffe" if form == "inside" else "PyTorch"
    against = "" if rule.in_velocity is None else ", unlike what the files' framework does"
    message = (
        f"the drop of the learning rate around step {step} acts as with the learning rate {form} the velocity, as in "
        f"{kind}{against}"
    )
    severity = "note" if rule.in_velocity is None else "warning"
    where = f"parameter group {row['parameter_group']}"
    return Finding("velocity-form", severity, where, message, "rate_in_velocity in --settings run.toml")


def _read_off(
    rows: Sequence[Row], new: list[Row], pool: Pool, jumped: Sequence[bool], findings: list[Finding]
) -> list[Row]:
    """The columns on what the clocks say."""
    length = np.array([float(_length(row)) for row in rows])
    rate, sd = pool.total / length, (pool.high - pool.low) / (2 * Z95) / length
    here = np.isfinite(rate)
    for i, row in enumerate(new):
        row["read_off"] = pool.name if here[i] else ""
        if here[i]:
            ends = (pool.total[i], pool.low[i], pool.high[i])
            row |= {key: float(end / length[i]) for key, end in zip(RATE, ends, strict=True)}
    if pool.resting:
        return [row | {"shape": "no decay" if row["read_off"] else ""} for row in new]
    start, stop = (np.array([float(row[key]) for row in rows]) for key in ("step_from", "step_to"))
    here &= sd < ROUGH * np.abs(rate)
    index = np.flatnonzero(here)
    if not len(index):
        return new
    known = [n for n, i in enumerate(index) if jumped[int(i)]]
    rule = Rule.of(rows[0])
    course = follow(start[here], stop[here], rate[here], sd[here], rule, known)
    if course.form and rule.in_velocity is not (course.form == "inside"):
        findings.append(_velocity(rows[0], course.form, int(start[index[course.seen]]), rule))
    number = np.zeros(len(rows), int)
    for n, first in enumerate(course.begins):
        number[index[first] :] = n
    for i, row in enumerate(new):
        row |= {"stretch": int(number[i]), "shape": course.words}
    for i, ends in course.changes.items():
        new[index[i]] |= dict(zip(CHANGE, ends, strict=True))
    return new
