"""One source of order for a whole sequence, and what its numbers count.

The first source that every member has and in which all differ wins; members are never ordered by different sources.
Where a BatchNorm counts batches, that count turns epochs (or whatever the order counts) into optimizer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import inf

from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact
from smd_analyze.loading.name_numbers import Number, varying
from smd_analyze.records.finding import Finding

COUNTED = "counted by num_batches_tracked"


@dataclass(frozen=True)
class Member:
    """One checkpoint as far as its order is concerned. `facts` hold numbers only; `batches` as a BatchNorm counted."""

    name: str
    facts: tuple[Fact, ...] = ()
    batches: int | None = None
    mtime_ns: int = 0
    folder: bool = False


@dataclass(frozen=True)
class Order:
    """A step for every member, in the order the members were given."""

    steps: tuple[int, ...]
    unit: str
    ordered_by: str
    findings: tuple[Finding, ...] = ()


@dataclass
class _Choice:
    values: list[float]
    unit: str
    source: str
    findings: list[Finding] = field(default_factory=list)


def order(members: Sequence[Member], where: str, steps_per_epoch: float | None = None) -> Order:
    """Choose the source of order, convert to optimizer steps where that is possible, and say what is doubtful."""
    name = from_names(members)
    choice = choose(members, name)
    choice.findings += disagreements(members, name, choice, where) + repeated(members, choice)
    choice.findings += uneven(members, name, choice)
    bare = choice.source == "number in the file name" and choice.unit != STEPS
    if steps_per_epoch is not None and (choice.unit == EPOCHS or bare):
        choice.values = [v * steps_per_epoch for v in choice.values]
        choice.source += f" × {steps_per_epoch:g} steps per epoch, as the caller says"
        choice.unit = STEPS
    elif choice.unit != STEPS:
        count_batches(choice, [m.batches for m in members], where)
    if choice.unit == STEPS and all(m.batches == v + 1 for m, v in zip(members, choice.values, strict=True)):
        words = f"{choice.source} counts from zero: one more batch was seen than it says"
        choice.findings.append(Finding("steps-from-zero", "note", where, words))
    steps = tuple(round(v) for v in choice.values)
    return Order(steps, choice.unit, choice.source, tuple(choice.findings))


def from_names(members: Sequence[Member]) -> list[Number] | None:
    """The number in each name that tells the members apart."""
    return varying([m.name for m in members])


def choose(members: Sequence[Member], name: list[Number] | None) -> _Choice:
    """Inside, optimizer, scheduler, name, epoch inside, batches, time: the first that all have, and all differ in."""
    for unit in (STEPS, TICKS):
        found = common(members, unit)
        if found:
            return found
    if name is not None:
        unit = {"step": STEPS, "epoch": EPOCHS}.get(name[0].word) or bare_unit(members, name)
        return _Choice(
            [n.value for n in name], unit, {STEPS: "step", EPOCHS: "epoch"}.get(unit, "number") + " in the file name"
        )
    found = common(members, EPOCHS)
    if found:
        return found
    counted = [m.batches for m in members]
    if all(c is not None for c in counted) and len(set(counted)) == len(counted):
        return _Choice([float(c or 0) for c in counted], STEPS, f"batches, {COUNTED}")
    times = [m.mtime_ns for m in members]
    ranks = {t: i for i, t in enumerate(sorted(set(times)))}
    note = Finding("ordered-by-time", "warning", members[0].name, "no step stands in the files or their names: ordered by modification time, which copying changes", "Put the step into the file names.")  # noqa: E501  # fmt: skip
    if len(set(times)) < len(times):
        ranked = sorted(range(len(members)), key=lambda i: (times[i], members[i].name))
        values = [float(ranked.index(i)) for i in range(len(members))]
        return _Choice(values, "saves", "modification time, then name", [note])
    return _Choice([float(ranks[t]) for t in times], "saves", "modification time", [note] if len(members) > 1 else [])


def common(members: Sequence[Member], unit: str) -> _Choice | None:
    """A fact of this unit with one source that all members have, all different."""
    for fact in members[0].facts:
        if fact.unit != unit:
            continue
        values = [next((f.value for f in m.facts if f.source == fact.source), None) for m in members]
        if all(isinstance(v, int | float) for v in values) and len(set(values)) == len(values):
            return _Choice([float(v) for v in values if isinstance(v, int | float)], unit, fact.source)
    return None


def bare_unit(members: Sequence[Member], name: list[Number]) -> str:
    """What a number without a word counts: the epoch if the files say the same epoch, steps in checkpoint-N folders."""
    inside = common(members, EPOCHS)
    if inside:
        shift = {v - n.value for v, n in zip(inside.values, name, strict=True)}
        if shift <= {0.0} or shift <= {1.0}:
            return EPOCHS
    if all(m.folder and m.name.rpartition("/")[2].startswith("checkpoint-") for m in members):
        return STEPS
    return "saves"


def count_batches(choice: _Choice, batches: Sequence[int | None], where: str) -> None:
    """Turn the order's numbers into batches if BatchNorm's count advances in exact proportion to them."""
    values = choice.values
    if any(b is None for b in batches) or len(values) < 2:
        return
    counted = [b for b in batches if b is not None]
    ranked = sorted(range(len(values)), key=lambda i: values[i])
    first, second = ranked[0], ranked[1]
    gap = Fraction(values[second]) - Fraction(values[first])
    per = Fraction(counted[second] - counted[first]) / gap if gap else Fraction(0)
    exact = all(
        Fraction(counted[i] - counted[first]) == per * (Fraction(values[i]) - Fraction(values[first])) for i in ranked
    )
    if per <= 0 or not exact or per.denominator != 1:
        return
    word = {EPOCHS: "epoch", TICKS: "scheduler step"}.get(choice.unit, "number")
    if counted[first] == per * (Fraction(values[first]) + 1):
        choice.values = [float(c) for c in counted]  # counted from zero: epoch 0 is the state after the first
        choice.source += f", from zero, × {per} batches per {word}, {COUNTED}"
    else:
        choice.values = [float(per * Fraction(v)) for v in values]
        choice.source += f" × {per} batches per {word}, {COUNTED}" if per != 1 else f", which are batches, {COUNTED}"
    choice.unit = STEPS
    choice.findings.append(
        Finding(
            "steps-are-batches",
            "note",
            where,
            "steps are batches seen by BatchNorm: with gradient accumulation there were fewer optimizer steps",
            "If gradients were accumulated, give --steps-per-epoch.",
        )
    )


def repeated(members: Sequence[Member], choice: _Choice) -> list[Finding]:
    """A step inside that several members share while the order had to come from elsewhere."""
    if len(members) < 2 or any(f.source == choice.source for f in members[0].facts):
        return []
    for fact in members[0].facts:
        if fact.unit == STEPS:
            stated = [next((f.value for f in m.facts if f.source == fact.source), None) for m in members]
            twice = next((v for v in stated if v is not None and stated.count(v) > 1), None)
            if twice is not None and None not in stated and len(set(stated)) > 1:
                pair = [m.name for m, v in zip(members, stated, strict=True) if v == twice]
                words = f"{fact.source} is {twice:g} in {pair[0]} and in {pair[1]}: ordered by {choice.source} instead"
                return [Finding("step-repeats", "warning", pair[1], words, "Is one of them of another run, or a copy?")]
    return []


def uneven(members: Sequence[Member], name: list[Number] | None, choice: _Choice) -> list[Finding]:
    """Steps per epoch that cannot be the same throughout, even if the epochs are cut off: is it one run?"""
    found = common(members, EPOCHS)
    epochs = [float(n.value) for n in name] if name is not None and name[0].word == "epoch" else found and found.values
    if choice.unit != STEPS or not epochs:
        return []
    ranked = sorted(range(len(members)), key=lambda i: choice.values[i])
    least, most = (0.0, ""), (inf, "")
    for i, j in pairwise(ranked):
        steps, passed = choice.values[j] - choice.values[i], epochs[j] - epochs[i]
        if passed < 1:
            continue
        least = max(least, (steps / (passed + 1), members[j].name))
        most = min(most, (steps / (passed - 1) if passed > 1 else inf, members[j].name))
    if least[0] <= most[0]:
        return []
    words = f"at least {least[0]:.0f} steps per epoch before this one, at most {most[0]:.0f} before {most[1]}"
    remedy = "Was another run mixed in? If so, put each into a folder of its own."
    return [Finding("epochs-uneven", "warning", least[1], words, remedy)]


def disagreements(members: Sequence[Member], name: list[Number] | None, choice: _Choice, where: str) -> list[Finding]:
    """A step in the name that is not the step inside; a name that counts from zero."""
    if name is None or choice.unit != STEPS or "name" in choice.source or len(members) < 2:
        return []
    if name[0].word == "epoch" or (name[0].word == "" and choice.source.startswith("the scheduler")):
        return []
    differing = [(m, n, v) for m, n, v in zip(members, name, choice.values, strict=True) if n.value != v]
    if not differing or name[0].word == "":
        return []
    member, number, value = differing[0]
    words = f"{member.name} says step {number.value}, {choice.source} says {value:g}; the file's own is taken"
    return [Finding("step-disagreement", "warning", where, words, "Rename the files, or say which is right.")]
