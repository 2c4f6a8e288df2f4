"""What is to be said about clocks and schedule: conflicts with their likely cause, assumptions, refuted transfers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smd_analyze.records.finding import Finding
from smd_analyze.schedule.clock_apply import Applied, Spoken
from smd_analyze.schedule.clock_causes import in_words, likely_cause, one_ratio, stale_since
from smd_analyze.schedule.clock_pools import Pool
from smd_analyze.schedule.clock_readings import Floats, Reading
from smd_analyze.schedule.decay_rules import ALIASES
from smd_analyze.schedule.momentum_findings import momentum_findings
from smd_analyze.schedule.rows import GroupRows
from smd_analyze.schedule.rule_fit import Better, better_rule

ELEMENTWISE = ("adam", "adamw", "nadam", "radam", "adamax", "lion", "rmsprop", "adagrad", "adafactor", "lamb")
SHRUNK = 0.1  # of its first length, below which a clock that is read no more has probably shrunk too far
OPTIONS = "--optimizer, --momentum, --weight-decay, --lr, or --settings run.toml"


def clock_findings(
    applied: Applied, named: Mapping[str, GroupRows], found: Sequence[Reading], steps: Sequence[int], updates: Floats
) -> list[Finding]:
    """All findings about clocks, conflicts first."""
    out: list[Finding] = []
    for spoken in applied.spoken:
        origin = applied.origin.get(spoken.group, spoken.group)
        if spoken.assumed and origin not in _homes(applied, spoken):
            continue  # the files say nothing of this group
        group = named.get(origin)
        better = None
        f = spoken.filled
        # one that agreed, and went on as before when the files' number changed, follows no rule but an old number
        contested = f.differs.any() or not np.isfinite(f.files).any()
        if group is not None and contested and stale_since(f.decay, f.files, f.differs, updates) is None:
            better = better_rule(f.decay, f.low, f.high, group.under_rules(), str(f.rows[0]["decay_rule"]))
        if better is not None:
            out.append(_rule(spoken, better))
        if spoken.filled.differs.any():
            out.append(_disagrees(spoken, steps, updates, better))
    out += [_disagrees(s, steps, updates, None) for s in applied.rested if s.filled.differs.any()]
    out += [_apart(group, [p.terms for p in parts], _rates(parts, updates)) for group, parts in applied.apart]
    out += _against_optimizer(applied) + _ends(applied, steps)
    out += _bounds(applied, found, updates)
    out += [
        Finding(
            "clock-transfer-refuted", "warning", f"parameter group {group or 'unknown'}",
            f"{_few(guilty)} shrank faster than the decay of {pool.name} allows; a scale-invariant tensor under SGD "
            "never shrinks faster than its own weight decay, so it has another one: none is given",
            'give its own with [groups."GLOB"] tables in --settings run.toml',
        )
        for group, pool, guilty in applied.refuted
    ]  # fmt: skip
    return out + _assumptions(applied)


def _homes(applied: Applied, spoken: Spoken) -> set[str]:
    """Groups that the pool's own tensors are in, as they were before any was split off."""
    names = {applied.of_parameter.get(p, "") for p in spoken.pool.parameters}
    return names | {applied.origin.get(n, n) for n in names}


def _disagrees(spoken: Spoken, steps: Sequence[int], updates: Floats, better: Better | None) -> Finding:
    f = spoken.filled
    row = f.rows[int(np.argmax(f.differs))]
    ratio = one_ratio(np.where(f.differs, f.decay, np.nan), f.files)
    read = f.differs & np.isfinite(f.decay)
    clock, files = float(f.decay[read].sum()), float(f.files[read].sum())
    times = f" ({clock / files:.3g} times that)" if files > 0 else ""
    cause = likely_cause(ratio, row) if ratio is not None else ""
    if better is not None:
        cause = f"the decay follows another rule: {better.rule}"
    elif (since := stale_since(f.decay, f.files, f.differs, updates)) is not None:
        cause = (
            f"from step {steps[since]} on it goes on as before while the learning rate or decay that was saved changed:"
            " stale after a resume?"
        )
    message = (
        f"{in_words(f.differs.tolist(), steps)}: files or options give Σηλ = {files:.4g}, but {spoken.pool.terms}, "
        f"which feels no gradient, says {clock:.4g}{times}; the clock's word is used"
        f"{' for the others too, by assumption' if spoken.assumed else ''}{f'. Likely: {cause}' if cause else ''}"
    )
    remedy = "check weight decay, learning rate and momentum of this group, and whether the steps are optimizer steps"
    return Finding("clock-disagrees", "warning", f"parameter group {spoken.group}", message, remedy)


def _rule(spoken: Spoken, better: Better) -> Finding:
    short = next((word for word, rule in ALIASES.items() if rule == better.rule), better.rule)
    amount = f", with {better.factor:.3g} times the configured λ" if abs(better.factor - 1) > 0.02 else ""
    return Finding(
        "decay-rule", "warning", f"parameter group {spoken.group}",
        f"{spoken.pool.terms} follows the rule “{better.rule}”{amount} to {max(better.misfit, 1e-3):.1%} over "
        f"{better.intervals} intervals, and misses “{spoken.filled.rows[0]['decay_rule']}” by "
        f"{better.configured_misfit:.0%}",
        f'decay_rule = "{short}" in --settings run.toml',
    )  # fmt: skip


def _apart(group: str, names: Sequence[str], rates: Sequence[float]) -> Finding:
    told = ", ".join(f"{n} {r:.4g}" for n, r in zip(names, rates, strict=True))
    where = f"parameter group {group}" if group else "parameter groups"
    return Finding(
        "clocks-apart", "warning", where,
        f"tensors that feel no gradient decay at different rates per step ({told}): they are in different parameter "
        "groups; each speaks for its own tensor, and none for the others",
        'say which tensors belong together with [groups."GLOB"] tables in --settings run.toml',
    )  # fmt: skip


def _rates(parts: Sequence[Pool], updates: Floats) -> list[float]:
    """Mean rate per step of each pool over the intervals that all have, or that it has."""
    per = np.where(np.isfinite(updates), updates, 1.0)
    shared = np.all([np.isfinite(p.total) for p in parts], axis=0)
    use = [shared if shared.any() else np.isfinite(p.total) for p in parts]
    return [float(p.total[u].sum() / per[u].sum()) for p, u in zip(parts, use, strict=True)]


def _against_optimizer(applied: Applied) -> list[Finding]:
    """Clocks that move as they cannot under the optimizer that files or options name."""
    out = []
    for spoken in applied.spoken:
        row = spoken.filled.rows[0]
        own = [m for m in spoken.pool.members if applied.of_parameter.get(m.parameter) == spoken.group]
        summed = next((m.name for m in own if m.proves_sgd), None)
        replayed = next((m.name for m in own if m.decoupled), None)
        if row["optimizer"] in ELEMENTWISE and summed is not None:
            why = f"{summed} shrinks without any noise, as a sum does under SGD (elementwise rules break it)"
        elif row["optimizer"] is not None and not row["decoupled"] and replayed is not None:
            why = f"{replayed} is reproduced in every bit by decoupled decay"
        else:
            continue
        message = f"files or options say {row['optimizer']}, but {why}: was this tensor trained so?"
        out.append(Finding("clock-against-optimizer", "warning", f"parameter group {spoken.group}", message, OPTIONS))
    return out


def _ends(applied: Applied, steps: Sequence[int]) -> list[Finding]:
    """Groups whose decay is known only for as long as their clocks are read."""
    out = []
    for spoken in applied.spoken:
        known = [row["sum_decay"] is not None or row["weight_decay"] == 0 for row in spoken.filled.rows]
        if known[-1] or not any(known):
            continue
        last = len(known) - known[::-1].index(True)
        left = float(np.exp(-np.nansum(spoken.pool.total)))
        why = (
            f"by then {spoken.pool.terms}, which feels no gradient, has shrunk to {left:.2g} of what it was, and "
            "rounding hides what it does further"
            if left < SHRUNK
            else f"from then on {spoken.pool.terms} is not seen to shrink by decay alone"
        )
        message = (
            f"learning rate × weight decay is known only until step {steps[last]}: {why}. Whether it went on as before "
            "cannot be told, and no balance is claimed for later steps"
        )
        remedy = f"--steps {steps[known.index(True)]}:{steps[last]}, or --lr and --weight-decay"
        out.append(Finding("clock-ends", "warning", f"parameter group {spoken.group}", message, remedy))
    return out


def _bounds(applied: Applied, found: Sequence[Reading], updates: Floats) -> list[Finding]:
    """Slices that did not move at all although their group's decay would have moved them."""
    out: dict[str, Finding] = {}
    for reading in found:
        name = applied.of_parameter.get(reading.parameter, "")
        rows = applied.rows.get(name, ())
        files = np.array([np.nan if r["sum_decay"] is None else r["sum_decay"] for r in rows])
        bound = reading.bound
        if not len(files) or not np.isfinite(bound).any():
            continue
        with np.errstate(invalid="ignore"):
            over = files > 4 * bound
        if over.any():
            message = (
                f"{reading.name} did not shrink at all (at most {float(bound[over].sum()):.2g}) where the schedule's "
                f"Σηλ is {float(files[over].sum()):.2g}: frozen, masked, or decayed only where its update is not zero"
            )
            out.setdefault(name, Finding("clock-at-rest", "note", f"parameter group {name}", message, ""))
    return list(out.values())


def _assumptions(applied: Applied) -> list[Finding]:
    """Once each: what was assumed to make the clocks speak for more than their own tensors."""
    out: list[Finding] = []
    assumed = [s for s in applied.spoken if s.assumed and s.filled.used.any()]
    if assumed:
        pool = assumed[0].pool
        groups = ", ".join(s.group or "unknown" for s in assumed)
        resting = [p for s in applied.rested for p in s.pool.parameters]
        others = f"; not for {_few(resting)}, on which no decay acted" if resting else ""
        message = (
            f"the decay of {pool.name}, read off {pool.terms}, which feels no gradient, is assumed to hold for the "
            f"other tensors of parameter group {groups} as well{others}: the files do not say which share its group"
        )
        remedy = 'other tensors with another decay: [groups."GLOB"] tables in --settings run.toml'
        out.append(Finding("clock-transfer-assumed", "note", f"parameter group {groups}", message, remedy))
    inferred = [s for s in applied.spoken if s.filled.sgd_inferred]
    if inferred:
        message = (
            f"no file says so, but {inferred[0].pool.proof} shrinks without noise, as such a sum does under SGD only "
            "(any momentum): SGD is inferred"
        )
        out.append(Finding("optimizer-inferred", "note", f"parameter group {inferred[0].group}", message, OPTIONS))
    out += momentum_findings(applied.spoken)
    unknown = [s for s in applied.spoken if s.filled.rows[0]["optimizer"] is None]
    if unknown:
        if unknown[0].filled.rows[0]["decoupled"]:
            why = "shows decoupled decay, as AdamW, SGDW, Lion and Muon have: Σηλ holds for each"
        else:
            why = (
                "decays alike under SGD and any decoupled decay: Σηλ is given as the decay that acted on the weights "
                "(SGD with momentum α: divided by 1−α already)"
            )
        message = f"the optimizer is not known, and {unknown[0].pool.terms} {why}"
        out.append(Finding("optimizer-unknown", "note", f"parameter group {unknown[0].group}", message, OPTIONS))
    return out


def no_longer_missing(spoken: Sequence[Spoken], group: str) -> tuple[str, ...]:
    """What a group need not be told any more now that a clock speaks for it."""
    mine = next((s.filled for s in spoken if s.group == group), None)
    if mine is None:
        return ()
    row = mine.rows[0]
    told = [key for key in ("optimizer", "momentum") if row[key] is not None]
    if mine.used.any():
        told += ["weight_decay"] if np.isfinite(mine.files).any() else ["weight_decay", "learning_rate"]
    return tuple(told)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
