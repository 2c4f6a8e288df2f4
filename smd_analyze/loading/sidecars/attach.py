"""The hook: a run with what lies beside its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smd_analyze.loading.frameworks.base import EPOCHS
from smd_analyze.loading.reading import Reading
from smd_analyze.loading.sequences.name_numbers import Number
from smd_analyze.loading.sequences.order_sources import Member
from smd_analyze.loading.settings.key_words import is_rate, words
from smd_analyze.loading.sidecars.gathering import gather
from smd_analyze.loading.sidecars.pace import steps_per_epoch as counted_per_epoch
from smd_analyze.loading.sidecars.pace import tokens_per_step
from smd_analyze.loading.sidecars.timeline import Timeline, log_settings, on_time, optimizer_in, steps_in_epoch
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Applies, Checkpoint, Log, Run, Setting

HISTORY = "trainer_state.json log_history"


def with_sidecars(
    run: Run,
    readings: Sequence[Reading],
    members: Sequence[Member],
    epochs: Sequence[float] | None,
    named: Sequence[Number] | None,
    steps_per_epoch: float | None,
    others: Sequence[str] = (),
) -> Run:
    """The run with settings and logs from the files beside it.

    `readings[i]` and `members[i]` are those of run.checkpoints[i]; `epochs[i]` where the files tell them, `named[i]`
    the numbers in their names. `others` are the paths of other runs' checkpoints, as seen from the run's folder.
    """
    if not run.checkpoints:
        return run
    last = run.checkpoints[-1]
    logs = history(run.checkpoints, readings)
    findings = run.findings
    found = gather(last, members[-1].folder, run.path, bool(logs), [m.name for m in members], others)
    counted = [float(c.step) for c in run.checkpoints]
    sure = steps_per_epoch or steps_in_epoch(counted, epochs)
    bare = [float(n.value) for n in named] if named and not named[0].word else None
    keras = last.framework.startswith(("keras", "tensorflow")) and run.step_unit == EPOCHS
    run = replace(
        run,
        steps_per_epoch=sure or counted_per_epoch(run.step_unit, counted, members),
        tokens_per_step=tokens_per_step(run.step_unit, counted, members),
    )
    time = Timeline(run.step_unit, last.step, sure or steps_in_epoch(counted, bare), not sure, keras)
    more, notes = on_time(found.logs, time, run.path)
    logs += more
    configured = (*found.settings, *optimizer_in(more))
    findings += (*found.findings, *notes)
    findings += several_rates((*last.settings, *configured), run.path)
    if not logs and not configured:
        return replace(run, findings=tuple(dict.fromkeys(findings)))
    checkpoints = tuple(
        replace(c, settings=(*c.settings, *new(configured, c.settings), *log_settings(logs, c.step)))
        for c in run.checkpoints
    )
    return replace(run, checkpoints=checkpoints, logs=logs, findings=tuple(dict.fromkeys(findings)))


def several_rates(settings: Sequence[Setting], where: str) -> tuple[Finding, ...]:
    """A note where several learning rates are configured and nothing says which is that of these weights."""
    rates = [s for s in settings if s.kind == "configured" and s.value is not None and is_rate(words(s.name))]
    if any(s.name == "learning_rate" for s in settings) or len(rates) < 2:
        return ()
    named = ", ".join(f"{s.name} = {s.value:g}" for s in rates[:4]) + (", …" if len(rates) > 4 else "")
    message = f"several learning rates are configured, and which trained these weights is not said: {named}"
    return (Finding("several-learning-rates", "note", where, message, "--lr, or --settings run.toml"),)


def new(configured: Sequence[Setting], own: Sequence[Setting]) -> list[Setting]:
    """Settings of files that the checkpoint does not state itself, with the same value, as configured."""
    stated = {(s.name, s.value, s.text) for s in own if s.kind == "configured" and s.parameter_group == ""}
    known = any(s.name == "optimizer" and s.kind != "configured" for s in own)
    return [s for s in configured if (s.name, s.value, s.text) not in stated and not (known and s.kind == "inferred")]


def history(checkpoints: Sequence[Checkpoint], readings: Sequence[Reading]) -> tuple[Log, ...]:
    """Learning rates that the checkpoints' own logs hold, each since the checkpoint before it."""
    pairs: dict[float, float] = {}
    conventions: set[Applies] = set()
    after = -1
    for checkpoint, reading in zip(checkpoints, readings, strict=True):
        own = {at: rate for at, rate in reading.logged if after < at <= checkpoint.step}
        pairs |= own
        if checkpoint.step in own:
            conventions.add(applies(checkpoint.settings, own[checkpoint.step]))
        after = checkpoint.step
    if not pairs:
        return ()
    convention: Applies = "next update" if conventions == {"next update"} else "last update"
    at = sorted(pairs)
    values = tuple(pairs[a] for a in at)
    return (Log("learning_rate", "learning_rate", tuple(at), values, HISTORY, convention),)


def applies(settings: Sequence[Setting], entry: float) -> Applies:
    """Whether the log's entry at the save holds the next update's learning rate (older trainers) or the last one's."""
    force = next((s.value for s in settings if s.name == "learning_rate" and s.kind == "in force"), None)
    same = force is not None and abs(force - entry) <= 1e-9 * abs(force)
    return "next update" if same else "last update"
