"""The rows of the schedule table for one parameter group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from smd_analyze.schedule import names
from smd_analyze.schedule.decay_rules import CAUTIOUS, RULES, decay_series, largest_rate, rule_of
from smd_analyze.schedule.found import Found, GroupFacts
from smd_analyze.schedule.logs import Logged
from smd_analyze.schedule.rate import learning_rate
from smd_analyze.schedule.series import SAME, Series, constant, through
from smd_analyze.schedule.settings import ScheduleTable, Value
from smd_analyze.schedule.updates import Clock
from smd_analyze.schedule.velocity import rate_in_velocity

Row = dict[str, Any]
COLUMNS: dict[str, type] = {
    "parameter_group": str, "step_from": int, "step_to": int, "optimizer": str,
    "sum_learning_rate": float, "sum_learning_rate_low": float, "sum_learning_rate_high": float,
    "sum_decay": float, "sum_decay_low": float, "sum_decay_high": float,
    "learning_rate_first": float, "learning_rate_last": float, "learning_rate_last_low": float,
    "learning_rate_last_high": float, "learning_rate_changes": bool,
    "weight_decay": float, "momentum": float, "dampening": float, "nesterov": bool,
    "beta1": float, "beta2": float, "eps": float, "decoupled": bool, "decay_rule": str, "rate_in_velocity": bool,
    "momentum_assumed": bool, "adjust_lr": str, "source": str,
}  # fmt: skip
LONE = "; learning rate saved for the next update, assumed of the last one"


@dataclass(frozen=True)
class GroupRows:
    """Rows without a name yet, what is missing or was assumed (words), and conflicts (key → sentence).

    `under_rules()`: rule → Σ decay of each interval if that rule were in force, with the same λ (1 where unknown); NaN
    where the learning rate is not known.
    """

    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    under_rules: Callable[[], Mapping[str, Sequence[float]]] = dict


def group_rows(
    steps: Sequence[int],
    clock: Clock,
    facts: GroupFacts,
    values: Mapping[str, Value],
    own_rate: bool,
    table: ScheduleTable | None,
    has_momentum_buffer: bool,
    logged: Mapping[str, Logged] | None = None,
    framework: str = "",
) -> GroupRows:
    """One row per interval between consecutive `steps`; `values` are the caller's words for this group.

    A lone checkpoint has a row from its step to its step, of the update that made it.

    `logged`: hyperparameter → what the trainer logged of it. `framework`: the trainer that wrote the checkpoints.
    """
    logged = logged or {}
    optimizer, decoupled, optimizer_source = _optimizer(facts, values)
    rate = learning_rate(values, own_rate, table, facts, clock, logged.get("learning_rate"))
    numbers: dict[str, Series | None] = {}
    sources = {"learning_rate": rate.source, "optimizer": optimizer_source}
    assumed: list[str] = []
    for key in ("weight_decay", "momentum", "dampening", "beta1", "beta2", "eps"):
        numbers[key], sources[key] = _number(key, facts, values, logged.get(key))
        if numbers[key] is None and key in names.DEFAULTS.get(optimizer or "", {}):
            if key == "momentum" and (has_momentum_buffer or optimizer_source != "caller"):
                continue  # momentum acted and its value is not known, or may have
            default = names.DEFAULTS[optimizer or ""][key]
            numbers[key] = constant(default)
            if key in names.ASSUMED:
                assumed.append(f"{key} = {default:g}")
    nesterov = _switch("nesterov", facts, values)
    if nesterov is None and optimizer is not None:
        nesterov = optimizer == "muon"  # torch's defaults
    said = facts.words.get("optimizer", ("", ""))[0]  # in the framework's own words
    rule = str(values.get("decay_rule") or rule_of(framework, names.normal(said)))
    inside = values.get("rate_in_velocity", rate_in_velocity(framework, said))
    words = {
        "optimizer": optimizer, "decoupled": decoupled, "nesterov": nesterov, "source": _origin(sources),
        "decay_rule": rule, "momentum_assumed": False, "adjust_lr": facts.words.get("adjust_lr", (None, ""))[0],
        "rate_in_velocity": None if optimizer not in (None, "sgd", "sgdw") else inside,
    }  # fmt: skip
    spans = list(zip(steps, steps[1:], strict=False)) or [(t, t) for t in steps]
    begun = max((v for v, s in facts.configured.get("learning_rate", ()) if s.endswith("initial_lr")), default=0.0)
    largest = largest_rate(rate.series, clock.made(steps[-1]), begun) if steps else float("nan")
    decay = decay_series(rule, rate.series, numbers["weight_decay"], largest)
    rate_found = facts.numbers.get("learning_rate")
    if len(steps) == 1 and rate.series is not None and rate_found is not None and rate_found.meant[-1]:
        words["source"] += LONE
    rows = tuple(_row(a, b, clock, rate.series, numbers, decay) | words for a, b in spans)

    def under_rules() -> dict[str, list[float]]:
        lam = numbers["weight_decay"] or constant(1.0)
        made = {r: decay_series(r, rate.series, lam, largest) for r in RULES if r != CAUTIOUS}
        return {r: [s.total(*_span(clock, a, b))[0] for a, b in spans] for r, s in made.items() if s is not None}

    known = {"learning_rate": rate.series, "weight_decay": numbers["weight_decay"], "optimizer": optimizer}
    if optimizer in ("sgd", "sgdw", "muon"):
        known["momentum"] = numbers["momentum"]
    missing = tuple(key for key, value in known.items() if value is None)
    return GroupRows(rows, missing, rate.codes, tuple(assumed), _conflicts(facts, values, table), under_rules)


def _optimizer(facts: GroupFacts, values: Mapping[str, Value]) -> tuple[str | None, bool | None, str]:
    """Name, whether decay is decoupled, source."""
    switch = values.get("decoupled")
    if "optimizer" in values:
        name, decoupled = names.with_decay(
            names.normal(str(values["optimizer"])), None if switch is None else bool(switch)
        )
        return name, decoupled, "caller"
    said, source = facts.words.get("optimizer", ("", ""))
    if switch is None and "decoupled_weight_decay" in facts.switches:
        switch = facts.switches["decoupled_weight_decay"][0]
    if not said:
        return None, None if switch is None else bool(switch), ""
    name, decoupled = names.with_decay(names.normal(said), None if switch is None else bool(switch))
    return name, decoupled, source


def _number(
    key: str, facts: GroupFacts, values: Mapping[str, Value], logged: Logged | None
) -> tuple[Series | None, str]:
    if key in values:
        return constant(float(values[key])), "caller"
    found = facts.numbers.get(key)
    if logged is not None and (found is None or found.varies or found.kind == "configured"):
        return logged.series, f"{logged.source} (logged)"
    if found is None:
        return None, ""
    return through(found.updates, found.values, found.meant), found.source


def _switch(key: str, facts: GroupFacts, values: Mapping[str, Value]) -> bool | None:
    if key in values:
        return bool(values[key])
    return facts.switches[key][0] if key in facts.switches else None


def _origin(sources: Mapping[str, str]) -> str:
    """Where learning rate and decay come from; what the caller and a file share is said of both."""
    used = [sources[k] for k in ("learning_rate", "weight_decay", "momentum", "beta1", "optimizer") if sources.get(k)]
    if not sources.get("learning_rate") and not sources.get("weight_decay"):
        return "unknown"
    return "; ".join(dict.fromkeys(part for source in used for part in source.split("; ")))


def _span(clock: Clock, a: int, b: int) -> tuple[int, int]:
    """First and last update between two checkpoints; of a lone one the update that made it."""
    if a == b:
        return max(clock.made(a), 1), max(clock.made(a), 1)
    return clock.made(a) + 1, max(clock.made(b), clock.made(a) + 1)


def _row(
    a: int, b: int, clock: Clock, rate: Series | None, numbers: Mapping[str, Series | None], decay: Series | None
) -> Row:
    """The numbers of one interval; null where they are not known. `decay`: of each update."""
    first, last = _span(clock, a, b)
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"step_from": a, "step_to": b}
    for key, series in numbers.items():
        row[key] = None if series is None else _known(0.5 * (series.at(first) + series.at(last)))
    countable = clock.known and b > a
    if decay is not None and countable:
        row |= dict(zip(("sum_decay", "sum_decay_low", "sum_decay_high"), _ends(decay, first, last), strict=True))
    total = None if rate is None else rate.total(first, last)
    if rate is None or total is None or not isfinite(sum(total)):  # a log that does not reach as far
        return row
    eta_first, eta_last = rate.at(first), rate.at(last)
    row |= {"learning_rate_first": eta_first, "learning_rate_last": eta_last}
    row |= dict(zip(("learning_rate_last_low", "learning_rate_last_high"), rate.ends(last), strict=True))
    changes = abs(eta_first - eta_last) > SAME * max(eta_first, eta_last)
    if countable:
        row |= dict(zip(("sum_learning_rate", "sum_learning_rate_low", "sum_learning_rate_high"), total, strict=True))
        flat = (last - first + 1) * eta_first
        changes = changes or max(abs(t - flat) for t in total) > SAME * max(flat, total[0])
    row["learning_rate_changes"] = changes
    return row


def _ends(series: Series, first: int, last: int) -> tuple[float | None, float | None, float | None]:
    """Σ with its ends, null where unknown; a Σ that is only bounded has its ends alone."""
    best, low, high = series.total(first, last)
    if not isfinite(best):
        low, high = (Series(end, end, end).total(first, last)[0] for end in (series.low, series.high))
    return _known(best), _known(low), _known(high)


def _known(value: float) -> float | None:
    """The number, None for NaN."""
    return value if isfinite(value) else None


def _conflicts(facts: GroupFacts, values: Mapping[str, Value], table: ScheduleTable | None) -> dict[str, str]:
    """Sentences on where the caller and the files, or configured and in force, say different things."""
    said: dict[str, str] = {}
    for key, found in facts.numbers.items():
        spread = (min(found.values), max(found.values))
        shown = f"{spread[0]:g}" if not found.varies else f"{spread[0]:g} to {spread[1]:g}"
        if key in values:
            value = float(values[key])
            if any(abs(v - value) > SAME * max(abs(v), abs(value)) for v in found.values):
                said[key] = f"the caller says {value:g}, {found.source} says {shown}; the caller's word is used"
        elif key == "learning_rate" and table is not None:
            continue
        elif found.kind == "in force":
            apart = [_apart(key, found, c, facts) for c in facts.configured.get(key, ())]
            sentence = next((a for a in apart if a), "")
            if sentence:
                said[key] = sentence
    if "optimizer" in values and "optimizer" in facts.words:
        caller, file = names.normal(str(values["optimizer"])), names.normal(facts.words["optimizer"][0])
        if names.DECOUPLED.get(caller, caller) != names.DECOUPLED.get(file, file):
            said["optimizer"] = (
                f"the caller says {caller}, {facts.words['optimizer'][1]} says {file}; the caller's word is used"
            )
    return said


def _apart(key: str, found: Found, configured: tuple[float, str], facts: GroupFacts) -> str:
    """The sentence for a configured value that was never in force; "" if a schedule explains the difference."""
    value, source = configured
    held = (min(found.values), max(found.values))
    if key == "learning_rate" and found.varies:
        begins = next((v for v, s in facts.configured[key] if s.endswith("initial_lr")), None)
        cycles = facts.words.get("schedule", ("", ""))[0] in ("OneCycleLR", "CyclicLR")
        if begins is None or cycles or abs(value - begins) <= SAME * value or held[0] <= value <= held[1]:
            return ""
        return f"{source} says {value:g}, the optimizer began with {begins:g} ({found.source}); the state is used"
    if any(abs(v - value) <= SAME * max(abs(v), abs(value)) for v in found.values):
        return ""
    shown = f"{held[0]:g}" if not found.varies else f"{held[0]:g} to {held[1]:g}"
    return f"{source} says {value:g}, in force was {shown} ({found.source}); what was in force is used"
