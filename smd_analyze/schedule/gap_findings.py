"""What the files and options leave open or contradict, one finding per kind, naming the groups it concerns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Run
from smd_analyze.schedule.rows import GroupRows
from smd_analyze.schedule.updates import OPTIMIZER_STEPS, Clock

REMEDY = {
    "learning_rate": "--lr, or --settings run.toml with learning_rate or a [schedule] table",
    "weight_decay": "--weight-decay, or --settings run.toml",
    "optimizer": "--optimizer sgd|sgdw|adam|adamw|lion|muon, or --settings run.toml",
    "momentum": "--momentum, or --settings run.toml",
}
NEEDED_FOR = {
    "learning_rate": "no equilibrium and no rate can be predicted",
    "weight_decay": "no equilibrium and no rate can be predicted",
    "optimizer": "which update rule acted is not known, so nothing is predicted",
    "momentum": "the angular update at equilibrium cannot be predicted",
}


def gap_findings(run: Run, named: Mapping[str, GroupRows], ticks: Clock) -> list[Finding]:
    """One finding per kind of gap or conflict, naming the groups it concerns."""
    found: list[Finding] = []
    bare = [key for key in REMEDY if named and all(key in group.missing for group in named.values())]
    for key, remedy in REMEDY.items():
        lacking = [n for n, g in named.items() if key in g.missing]
        if not lacking:
            continue
        of = "" if len(lacking) == len(named) else f" of {', '.join(n or 'some parameters' for n in lacking)}"
        unknown = [n for n in lacking if "schedule-unknown" in named[n].codes] if key == "learning_rate" else []
        why = (
            ": a learning rate and a schedule are configured, but no checkpoint says what was in force"
            if unknown
            else ""
        )
        message = f"the {key.replace('_', ' ')}{of} is not in the files{why}; {NEEDED_FOR[key]}"
        if key in bare and len(bare) > 1 and not why:  # one sentence for all, and one entry in a list of findings
            message, remedy = _nothing_known(bare)
        found.append(Finding(f"missing-{key.replace('_', '-')}", "warning", run.path, message, remedy))
    if any("configured-only" in g.codes for g in named.values()):
        message = "the learning rate is the configured one; no checkpoint says that it was in force throughout"
        found.append(Finding("configured-learning-rate", "note", run.path, message, REMEDY["learning_rate"]))
    if any("schedule-state-disagrees" in g.codes for g in named.values()):
        message = (
            "the saved scheduler's curve does not give the saved learning rates; "
            "these alone are used, joined between the checkpoints"
        )
        found.append(Finding("schedule-state-disagrees", "note", run.path, message, REMEDY["learning_rate"]))
    assumed = list(dict.fromkeys(a for g in named.values() for a in g.assumed))
    if assumed:
        message = f"not said anywhere, so torch's default is assumed: {', '.join(assumed)}"
        found.append(Finding("default-assumed", "note", run.path, message, "--momentum, --beta1, --beta2"))
    conflicts: dict[tuple[str, str], list[str]] = {}
    for name, group in named.items():
        for key, sentence in group.conflicts.items():
            conflicts.setdefault((key, sentence), []).append(name)
    for (key, sentence), names in conflicts.items():
        if not sentence.startswith("the caller") and len(names) < len(named):
            continue  # the configured value is in force in another group: [0.1, 0.0] is one decay and its exceptions
        where = run.path if len(names) == len(named) else f"{run.path}: parameter group {', '.join(names)}"
        found.append(Finding("conflict", "note", where, f"{key}: {sentence}"))
    if not ticks.known and len(run.checkpoints) > 1:
        message = (
            f"steps count {run.step_unit}, and how many {OPTIMIZER_STEPS} one has is not known: "
            "sums over the updates between checkpoints are left out"
        )
        remedy = "--steps-per-epoch N, or --step-pattern 'REGEX' if a number in the file names is the step"
        found.append(Finding("steps-unknown", "warning", run.path, message, remedy))
    return found


def _nothing_known(keys: Sequence[str]) -> tuple[str, str]:
    """Message and remedy where files and caller leave several hyperparameters of every group open."""
    names = [key.replace("_", " ") for key in keys]
    options = [REMEDY[key].partition(",")[0] for key in keys]
    message = f"{', '.join(names[:-1])} and {names[-1]} are not in the files, so that theory predicts nothing"
    return message, f"{', '.join(options)}, or --settings run.toml, which also takes a [schedule] table"


def groups_differ(name: str, origins: Sequence[str], remedy: str) -> Finding:
    """Parameters that may belong to several parameter groups whose hyperparameters differ."""
    where = f"parameters matched by {name!r}" if name else "parameters in no known parameter group"
    return Finding(
        "parameter-groups-differ", "warning", where,
        f"they may belong to {len(origins)} parameter groups ({', '.join(origins)}) whose hyperparameters differ; "
        "what differs is left out",
        remedy,
    )  # fmt: skip
