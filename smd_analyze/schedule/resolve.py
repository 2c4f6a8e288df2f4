"""resolve_schedule: who wins where, and which gaps and conflicts are findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.errors import UsageError
from smd_analyze.records.clocks import Clocks
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Run
from smd_analyze.records.schedule import Schedule
from smd_analyze.schedule.clock_apply import Facts, Shrinkage, apply_clocks
from smd_analyze.schedule.clock_findings import clock_findings, no_longer_missing
from smd_analyze.schedule.clock_readings import readings
from smd_analyze.schedule.found import facts, group_names
from smd_analyze.schedule.gap_findings import gap_findings, groups_differ
from smd_analyze.schedule.logs import Logged, logged_for
from smd_analyze.schedule.rows import COLUMNS, GroupRows, Row, group_rows
from smd_analyze.schedule.settings import CallerSettings, read_settings
from smd_analyze.schedule.updates import clock

ALL = "all"
POLARS = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}


def resolve_schedule(
    run: Run,
    clocks: Clocks | pl.DataFrame | None = None,
    settings: Mapping[str, Any] | str | Path | None = None,
    *,
    shrinkage: Shrinkage | None = None,
    untrained: Callable[[], bool] | None = None,
) -> Schedule:
    """Learning rate and decay that acted between checkpoints, per parameter group.

    The caller's `settings` (a mapping, or the path of a TOML file) win over what the checkpoints say; of the
    checkpoints, values in force win over configured ones. Σ η over an interval is that of the saved scheduler where its
    curve gives every saved learning rate; else what was logged; else the saved values are joined (`series.through`) and
    the interval's low and high say how far that may be off. `sum_decay` is the decay that acted, by the rule in
    `decay_rule`, summed update by update.

    `clocks` (or their table) win over both for Σηλ of their own tensor and its parameter group, fill what is open
    elsewhere by assumption, and infer SGD, with a momentum that is read off the first intervals or assumed, where no
    file says anything (`clock_apply`).
    `shrinkage`: scale-invariant parameter → −½ Δ ln‖w‖² over each interval [I], of its median unit; it
    refutes assumptions under which a tensor would shrink faster than weight decay can. `untrained` tells whether
    training began at the first checkpoint, hence with empty buffers; it is asked only where that matters.

    Raises UsageError where `settings` cannot mean anything; gaps and conflicts are findings.
    """
    caller = read_settings(settings)
    steps = [c.step for c in run.checkpoints]
    framework = run.checkpoints[-1].framework if run.checkpoints else ""
    ticks = clock(run.step_unit, caller.steps_per_epoch)
    _check_start(caller, steps)
    raw = list(dict.fromkeys([*run.parameter_groups, *group_names(run.checkpoints)])) or [ALL]
    kept = ("momentum_buffer", "velocity")
    buffers = any(k in state for k in kept for c in run.checkpoints for state in c.optimizer_state.values())
    known = {name: facts(run.checkpoints, name, ticks) for name in raw}
    logged: dict[str, dict[str, Logged]] = {name: {} for name in raw}
    findings: list[Finding] = []
    for key in dict.fromkeys(log.name for log in run.logs):
        of_group, refused = logged_for(run.logs, key, raw, {n: f.numbers.get(key) for n, f in known.items()}, ticks)
        findings += [Finding("log-not-used", "note", run.path, f"{key}: {words}") for words in refused]
        for name, log in of_group.items():
            logged[name][key] = log

    def rows_of(name: str, glob: str | None) -> GroupRows:
        own = caller.groups.get(glob, {}) if glob is not None else {}
        values = {**caller.values, **own}
        rate = "learning_rate" in own
        table = caller.schedule
        return group_rows(steps, ticks, known[name], values, rate, table, buffers, logged[name], framework)

    members, of_parameter = _assign(run, raw, caller, findings)
    plain = {name: rows_of(name, None) for name in raw}
    named: dict[str, GroupRows] = {}
    named |= {name: plain[name] for name in raw if name in run.parameter_groups or name in members or not members}
    for name, origins in members.items():
        if name in caller.groups:
            parts = [rows_of(origin, name) for origin in origins]
            named[name] = _merged(parts)
            if len({_key(p) for p in parts}) > 1:
                findings.append(groups_differ(name, origins, "give the keys that differ in its [groups] table"))
        elif name == "":
            agree = len({_key(p) for p in plain.values()}) == 1
            target = ALL if agree else ""
            named[target] = next(iter(plain.values())) if agree else _merged(list(plain.values()))
            of_parameter = {p: target if g == "" else g for p, g in of_parameter.items()}
            if not agree:
                findings.append(
                    groups_differ("", raw, 'say which is which with [groups."GLOB"] tables in --settings run.toml')
                )
    rows = [row | {"parameter_group": name} for name, group in named.items() for row in group.rows]
    told = {n: g for n, g in named.items() if n in of_parameter.values()} or named
    found = readings(run, clocks)
    if found and rows:
        made = np.array([ticks.made(t) for t in steps], np.float64)
        updates = np.diff(made) if ticks.known else np.full(len(steps) - 1, np.nan)
        known_groups = frozenset({*run.parameter_groups, *caller.groups})
        nobody_said = any(row["momentum"] is None for row in rows) or bool(_defaulted(named))
        fresh = untrained is not None and made[0] == 0 and nobody_said and untrained()
        told_of = Facts(known_groups, updates, float(made[0]), shrinkage or {}, fresh, _defaulted(named))
        applied = apply_clocks({name: group.rows for name, group in named.items()}, of_parameter, found, told_of)
        rows = [row | {"parameter_group": name} for name, group in applied.rows.items() for row in group]
        of_parameter = applied.of_parameter
        findings += clock_findings(applied, named, found, steps, updates)
        told = {n: _without(g, no_longer_missing(applied.spoken, n)) for n, g in told.items()}
        read_off = {
            s.group for s in applied.spoken if s.filled.momentum_read is not None or s.filled.rows[0]["momentum"]
        }
        told = {n: replace(g, assumed=()) if n in read_off & _defaulted(told) else g for n, g in told.items()}
    findings += gap_findings(run, told, ticks)
    schema = {column: POLARS[kind] for column, kind in COLUMNS.items()}
    return Schedule(pl.DataFrame(rows, schema=schema), of_parameter, run.step_unit, tuple(findings))


def _defaulted(groups: Mapping[str, GroupRows]) -> frozenset[str]:
    """Groups of SGD whose momentum nobody said."""
    return frozenset(n for n, g in groups.items() if any(a.startswith("momentum") for a in g.assumed))


def _without(group: GroupRows, keys: Sequence[str]) -> GroupRows:
    """The same rows with `keys` no longer counted as missing."""
    return replace(group, missing=tuple(m for m in group.missing if m not in keys))


def _check_start(caller: CallerSettings, steps: Sequence[int]) -> None:
    table = caller.schedule
    if table is not None and table.kind == "steps" and steps and table.steps[0] > steps[0]:
        raise UsageError(
            f"settings: schedule: steps begin at {table.steps[0]:g}, after the first checkpoint ({steps[0]}); "
            "begin at or before it, or give one learning rate more than steps"
        )


def _assign(
    run: Run, raw: Sequence[str], caller: CallerSettings, findings: list[Finding]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Group name → raw groups that its parameters come from; parameter → group name ("" where the files do not say)."""
    parameters = dict.fromkeys(p for c in run.checkpoints for p in c.parameters)
    home = {p: name for name, listed in run.parameter_groups.items() for p in listed}
    only = ALL if raw == [ALL] else None
    members: dict[str, list[str]] = {}
    of_parameter: dict[str, str] = {}
    for parameter in [*parameters, *(p for p in home if p not in parameters)]:
        origin = home.get(parameter, only)
        glob = next((g for g in caller.groups if fnmatchcase(parameter, g)), None)
        name = glob if glob is not None else (origin if origin is not None else "")
        of_parameter[parameter] = name
        origins = members.setdefault(name, [])
        for o in [origin] if origin is not None else raw:
            if o not in origins:
                origins.append(o)
    for glob in caller.groups:
        if parameters and glob not in members:
            findings.append(
                Finding(
                    "group-matches-nothing", "warning", f"settings: groups.{glob!r}",
                    "no parameter is matched (or an earlier glob took them all)",
                    "compare the glob with the names that `smd-analyze groups` lists",
                )
            )  # fmt: skip
    return members, of_parameter


def _key(group: GroupRows) -> tuple[tuple[tuple[str, Any], ...], ...]:
    """What must agree for two groups to be one: everything but the words on where it was read."""
    return tuple(tuple((k, v) for k, v in row.items() if k != "source") for row in group.rows)


def _merged(parts: Sequence[GroupRows]) -> GroupRows:
    """One group from several: columns that differ become null."""
    rows: list[Row] = []
    for same_interval in zip(*(p.rows for p in parts), strict=True):
        row = {k: v if all(r[k] == v for r in same_interval) else None for k, v in same_interval[0].items()}
        row["source"] = row["source"] or "; ".join(dict.fromkeys(str(r["source"]) for r in same_interval))
        rows.append(row)
    first = parts[0]
    missing = tuple(dict.fromkeys(m for p in parts for m in p.missing))
    codes = tuple(dict.fromkeys(c for p in parts for c in p.codes))
    assumed = tuple(dict.fromkeys(a for p in parts for a in p.assumed))
    return GroupRows(tuple(rows), missing, codes, assumed, first.conflicts)
