"""Could this run equilibrate at all? Half-lives, time scales and shares of every stage of training (table `stages`).

Nothing is fitted, no norm is read: learning rate, decay and momentum alone decide how far a norm can have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.records.schedule import Schedule
from smd_analyze.theory import timescales
from smd_analyze.theory.course import Course, course_of
from smd_analyze.theory.laws import Law
from smd_analyze.theory.rescaling import rescaling
from smd_analyze.theory.stage_cuts import JUMP, STILL, Stage, stages_of
from smd_analyze.theory.stage_flows import Flow, flow_of, joined, lag, law_of_parts, stage_shares, tail
from smd_analyze.theory.stage_words import outcome, tail_words

NUMBERS = (
    "updates", "learning_rate_from", "learning_rate_to", "effective_decay", "half_lives", "half_lives_low",
    "half_lives_high", "covered", "start_lowest", "start_highest", "steps_needed", "lag", "tail_from", "time_scale",
    "time_scale_epochs", "time_scale_tokens", "share", "initial_left", "level_ratio", "dip", "recovery_steps",
    "weight_factor", "buffer_factor", "second_moment_factor",
)  # fmt: skip
SCHEMA: dict[str, Any] = {
    "parameter_group": pl.String, "stage": pl.Int64, "step_from": pl.Int64, "step_to": pl.Int64,
    **dict.fromkeys(NUMBERS, pl.Float64), "outcome": pl.String, "source": pl.String,
}  # fmt: skip
WHOLE = 0  # the row of the whole run
MATRIX = (64, 64)  # Muon's rates do not depend on the shape, and its levels only by a factor that cancels
Row = dict[str, Any]


def stages(
    schedule: Schedule, steps: Sequence[int], steps_per_epoch: float | None = None,
    tokens_per_step: float | None = None,
) -> pl.DataFrame:  # fmt: skip
    """The `stages` table: one row per parameter group and stage between changes of the learning rate, stage 0 the run.

    Steps are those of the run (`step_unit`); per-step numbers are per that unit. Columns: parameter_group, stage,
    step_from, step_to; updates (optimizer steps); learning_rate_from, _to; effective_decay Σx_e; half_lives, _low,
    _high; covered (share of the way in ‖w‖⁴ or ‖w‖²); start_lowest, start_highest (starting norms over equilibrium from
    which it ends within 10 %); steps_needed (from twice the equilibrium norm, or any norm below, to within 10 %); lag
    (‖w‖ at the end over its equilibrium value there, where the start no longer matters); tail_from (step from which on
    the norm can cover at most 10 % of any way); time_scale 1/x_e, in epochs and tokens too; share (of what updates
    added to the final weights); initial_left (factor left of the first checkpoint's weights); level_ratio, dip,
    recovery_steps (to 5 %), weight_factor, buffer_factor, second_moment_factor of the change that begins the stage;
    outcome in words; source. Unknown numbers are null, with the reason in `outcome`.

    `steps_per_epoch`, `tokens_per_step`: per optimizer step, where they are known.
    """
    rows: list[Row] = []
    for name in schedule.table["parameter_group"].unique(maintain_order=True) if len(steps) > 1 else ():
        course = course_of(schedule, str(name), tuple(steps), MATRIX)
        table = schedule.table.filter(pl.col("parameter_group") == name)
        velocity = "rate_in_velocity" in table.columns and bool(table["rate_in_velocity"][-1])
        basis = {"parameter_group": str(name), "source": str(table["source"][-1] or "")}
        units = (schedule.step_unit, steps_per_epoch, tokens_per_step)
        rows += [basis | row for row in _group_rows(course, velocity, units)]
    return pl.DataFrame(rows, schema=SCHEMA)


def _group_rows(course: Course, velocity: bool, units: tuple[str, float | None, float | None]) -> list[Row]:
    """The run as one, then its stages."""
    found = stages_of(course)
    flows = [flow_of(course, stage.parts) for stage in found]
    share, left = stage_shares(flows)
    one = Stage(tuple(part for stage in found for part in stage.parts), found[0].moves if len(found) == 1 else STILL)
    steady = len(found) == 1 or all(stage.moves == STILL for stage in found)
    rows = [_row(course, one, joined(flows), joined(flows), units) | {"stage": WHOLE, "initial_left": left}]
    rows[0] |= {"share": 1.0 if isfinite(left) else np.nan}
    if len(found) > 1:
        rows[0] |= {"steps_needed": np.nan}
    for i, stage in enumerate(found):
        row = _row(course, stage, flows[i], joined(flows[: i + 1]), units) | {"stage": i + 1, "share": share[i]}
        rows.append(row | (_change(course, found[i - 1], stage, row, velocity) if i else {}))
    for row, stage in zip(rows, [one, *found], strict=True):
        law, trouble = law_of_parts(course, stage.parts)
        row["outcome"] = outcome(row, trouble, stage.moves != STILL or (stage is one and not steady), units[0])
    rows[0]["outcome"] += tail_words(rows[0])
    return [{k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()} for row in rows]


def _row(course: Course, stage: Stage, flow: Flow, so_far: Flow, units: tuple[str, float | None, float | None]) -> Row:
    """A stage's numbers; `so_far`: what flowed from the start of the run to the stage's end."""
    law, _ = law_of_parts(course, stage.parts)
    row: Row = {
        "step_from": round(stage.start), "step_to": round(stage.stop), "updates": float(flow.updates.sum()),
        "learning_rate_from": stage.parts[0].rates[0] if course.rate_known else np.nan,
        "learning_rate_to": stage.parts[-1].rates[1] if course.rate_known else np.nan, "effective_decay": flow.decay,
    }  # fmt: skip
    halves, span = float(flow.half_lives.sum()), stage.stop - stage.start
    if law is not None and isfinite(halves):
        row |= _progress(course, stage, halves, law) | {"lag": lag(so_far, law.power)}
        row["tail_from"] = stage.stop - tail(flow)
    if flow.decay > 0:
        unit, per_epoch, tokens = units
        updates = row["updates"] / flow.decay
        epochs = span / flow.decay if unit == "epochs" else updates / per_epoch if per_epoch else np.nan
        row |= {"time_scale": span / flow.decay, "time_scale_epochs": epochs}
        row |= {"time_scale_tokens": updates * tokens if tokens else np.nan}
    return row


def _progress(course: Course, stage: Stage, halves: float, law: Law) -> Row:
    """How far the norm can have come in so many half-lives."""
    intervals = list(dict.fromkeys(p.first for p in stage.parts))
    total, low, high = (float(v[intervals].sum()) for v in (course.decay, course.decay_low, course.decay_high))
    lowest, highest = timescales.starting_norms(halves, law.power)
    needed = float(timescales.half_lives_needed(timescales.FAR, law.power))
    return {
        "half_lives": halves, "half_lives_low": halves * low / total if total > 0 else np.nan,
        "half_lives_high": halves * high / total if total > 0 else np.nan,
        "covered": float(timescales.covered(halves)), "start_lowest": lowest, "start_highest": highest,
        "steps_needed": (stage.stop - stage.start) * needed / halves if halves > 0 else np.nan,
    }  # fmt: skip


def _change(course: Course, old: Stage, new: Stage, row: Row, velocity: bool) -> Row:
    """The transient that the change from one constant stage to the next begins, and how to skip it."""
    law, _ = law_of_parts(course, (*old.parts, *new.parts))
    if law is None or old.moves or new.moves or not row.get("half_lives", 0.0) > 0:
        return {}
    before, after = (float(np.mean([p.decays[0] for p in stage.parts])) for stage in (old, new))  # clocks are noisy
    decay = after / before if before > 0 else np.nan
    first, last = new.parts[0].rates[0], old.parts[-1].rates[1]
    rate = first / last if course.rate_known and last > 0 else decay
    ratio = decay / rate**2  # of η²/x, so (η/λ)/(η'/λ'), whatever rule ties λ to η
    if not (isfinite(ratio) and ratio > 0) or max(ratio, 1 / ratio) < JUMP:
        return {}
    per_step = row["half_lives"] * log(2) / (new.stop - new.start)
    factors = rescaling(ratio, law.power, rate if velocity else 1.0)
    return {
        "level_ratio": ratio, "dip": float(timescales.angle_after_change(0.0, ratio, per_step)),
        "recovery_steps": float(timescales.recovery_time(ratio, per_step)),
        "weight_factor": factors.weights, "buffer_factor": factors.buffers,
        "second_moment_factor": factors.second_moments if law.name.startswith("Adam") else np.nan,
    }  # fmt: skip
