"""Records to tables: one row per checkpoint, setting, parameter, group and finding (docs/report-format.md)."""

from collections.abc import Iterable, Mapping

import polars as pl

from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Groups
from smd_analyze.records.run import Run

CLOCKS = {
    "clock": pl.String, "parameter": pl.String, "functional": pl.String, "step_from": pl.Int64, "step_to": pl.Int64,
    "decay_per_step": pl.Float64, "decay_per_step_low": pl.Float64, "decay_per_step_high": pl.Float64,
    "kind": pl.String, "directions": pl.Int64, "evidence": pl.String,
}  # fmt: skip
CHECKPOINTS = {
    "step": pl.Int64, "path": pl.String, "format": pl.String, "framework": pl.String, "nbytes": pl.Int64,
    "identity": pl.String,
}  # fmt: skip
SETTINGS = {
    "step": pl.Int64, "parameter_group": pl.String, "name": pl.String, "value": pl.Float64, "text": pl.String,
    "kind": pl.String, "source": pl.String, "applies": pl.String,
}  # fmt: skip
PARAMETERS = {
    "parameter": pl.String, "slice": pl.String, "shape": pl.String, "role": pl.String, "parameter_group": pl.String,
    "status": pl.String, "granularity": pl.String, "group": pl.String, "evidence": pl.String, "reason": pl.String,
}  # fmt: skip
GROUPS = {
    "group": pl.String, "status": pl.String, "granularity": pl.String, "units": pl.Int64, "numel": pl.Int64,
    "parameter_group": pl.String, "members": pl.String, "evidence": pl.String, "role": pl.String, "reason": pl.String,
}  # fmt: skip
FINDINGS = {
    "code": pl.String, "severity": pl.String, "where": pl.String, "message": pl.String, "remedy": pl.String,
    "stage": pl.String,
}  # fmt: skip


def checkpoints(run: Run) -> pl.DataFrame:
    """One row per checkpoint, in the order of training. `identity`: size and modification time of every file."""
    rows = [
        (c.step, c.path, c.format, c.framework, c.nbytes, identity_text(c.identity)) for c in run.checkpoints
    ]  # fmt: skip
    return pl.DataFrame(rows, CHECKPOINTS, orient="row")


def identity_text(identity: Mapping[str, tuple[int, int]]) -> str:
    """`name:size:mtime_ns` of each file, joined by blanks: equal text means that the files did not change."""
    return " ".join(f"{name.rsplit('/', 1)[-1]}:{size}:{mtime}" for name, (size, mtime) in sorted(identity.items()))


def settings(run: Run) -> pl.DataFrame:
    """One row per checkpoint, parameter group and hyperparameter."""
    rows = [
        (c.step, s.parameter_group, s.name, s.value, s.text, s.kind, s.source, s.applies)
        for c in run.checkpoints
        for s in c.settings
    ]
    return pl.DataFrame(rows, SETTINGS, orient="row")


def parameters(groups: Groups) -> pl.DataFrame:
    """One row per tensor, or slice of a fused one."""
    rows = [
        (p.parameter, p.slice, "×".join(map(str, p.shape)), p.role, p.parameter_group, p.status, p.granularity, p.group,
         p.evidence, p.reason)
        for p in groups.parameters
    ]  # fmt: skip
    return pl.DataFrame(rows, PARAMETERS, orient="row")


def groups(found: Groups) -> pl.DataFrame:
    """One row per thing that is analysed; `members` lists the parameters of a joint group."""
    rows = [
        (g.name, g.status, g.granularity, g.units, g.numel, g.parameter_group,
         ", ".join(m.parameter for m in g.members), g.evidence, g.role, g.reason)
        for g in found.groups
    ]  # fmt: skip
    return pl.DataFrame(rows, GROUPS, orient="row")


def findings(found: Mapping[str, Iterable[Finding]]) -> pl.DataFrame:
    """One row per finding of each stage, the gravest first; one that two stages report stands once."""
    order = {"error": 0, "warning": 1, "note": 2}
    stages: dict[Finding, str] = {}
    for stage, of_stage in found.items():
        for finding in of_stage:
            stages.setdefault(finding, stage)
    rows = sorted(stages, key=lambda f: order[f.severity])
    values = [(f.code, f.severity, f.where, f.message, f.remedy, stages[f]) for f in rows]
    return pl.DataFrame(values, FINDINGS, orient="row")


def findings_of(table: pl.DataFrame, stage: str) -> tuple[Finding, ...]:
    """The findings of one stage, as records again."""
    rows = table.filter(pl.col("stage") == stage).drop("stage").iter_rows(named=True)
    return tuple(Finding(**row) for row in rows)
