"""One source of order for a whole sequence, and what its numbers count.

The first source that every member has and in which all differ wins; members are never ordered by different sources.
Where a BatchNorm counts batches, that count turns epochs (or whatever the order counts) into optimizer steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from math import gcd, inf

from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS
from smd_analyze.loading.sequences.name_numbers import Number, varying
from smd_analyze.loading.sequences.order_sources import (
    BY_PATTERN,
    COUNTED,
    Member,
    Source,
    by_facts,
    pick,
    sources,
    unused,
)
from smd_analyze.records.finding import Finding

__all__ = ["Member", "Order", "order"]

ROUND = 10  # steps from zero: 1999, 3999 are one less than multiples of at least this


@dataclass(frozen=True)
class Order:
    """A step for every member, in the order the members were given.

    `suspects` are the members whose steps do not fit the numbers in their names as those of the others do.
    """

    steps: tuple[int, ...]
    unit: str
    ordered_by: str
    findings: tuple[Finding, ...] = ()
    suspects: frozenset[int] = frozenset()


@dataclass
class _Choice:
    values: list[float]
    unit: str
    source: str
    findings: list[Finding] = field(default_factory=list)


def order(members: Sequence[Member], where: str, steps_per_epoch: float | None = None, wanted: str = "auto") -> Order:
    """Choose the source of order, convert to optimizer steps where that is possible, and say what is doubtful.

    `wanted` is one of order_sources.ORDERS; UsageError if that source does not tell the members apart.
    """
    found = sources(members)
    source = pick(found, wanted, members)
    name = varying([m.name for m in members])
    told = wanted != "auto" or source.words == BY_PATTERN
    source, multiples = (source, []) if told else counted_by_optimizer(found, source, where)
    choice = _Choice([v or 0.0 for v in source.values], source.unit, source.words)
    if not told:
        choice.findings += unused(found, source, members) + by_time_only(source, members)
    choice.findings += [] if told else disagreements(members, name, source, where)
    choice.findings += multiples
    choice.findings += uneven(members, name, choice)
    suspects, odd = out_of_proportion(members, name, choice)
    choice.findings += odd if not any(f.code == "epochs-uneven" for f in choice.findings) else []
    bare = choice.source == "number in the file name" and choice.unit != STEPS
    if steps_per_epoch is not None and (choice.unit == EPOCHS or bare):
        choice.values = [v * steps_per_epoch for v in choice.values]
        choice.source += f" × {steps_per_epoch:g} steps per epoch, as the caller says"
        choice.unit = STEPS
    elif choice.unit != STEPS:
        count_batches(choice, [m.batches for m in members], where)
    choice.findings += from_zero(choice, source.order, members, where)
    if wanted != "auto":
        choice.source += f" (--order {wanted})"
    steps = tuple(round(v) for v in choice.values)
    return Order(steps, choice.unit, choice.source, tuple(choice.findings), suspects)


def counted_by_optimizer(found: Sequence[Source], source: Source, where: str) -> tuple[Source, list[Finding]]:
    """The optimizer's own count of updates, where the step that the files state is a fixed multiple of it.

    Such a step counts frames, samples, micro-batches, or the updates of several optimizers.
    """
    own = next((s for s in found if s.order == "optimizer" and s.usable), None)
    if own is None or source.order != "inside" or source.unit != STEPS or len(source.values) < 3:
        return source, []
    pairs = [(a or 0.0, b or 0.0) for a, b in zip(source.values, own.values, strict=True)]
    per = {Fraction(a) / Fraction(b) for a, b in pairs if b}
    if len(per) != 1 or per == {Fraction(1)} or any(a for a, b in pairs if not b):
        return source, []
    words = f"{source.words} goes on by {float(per.pop()):g} with every update that the optimizer counted: it counts something else (frames, samples, batches), so the optimizer's count is taken"  # noqa: E501
    return own, [Finding("step-is-no-update", "note", where, words, "--order inside takes the other one.")]


def by_time_only(source: Source, members: Sequence[Member]) -> list[Finding]:
    """A warning where nothing better than the time of the files is left."""
    if source.order != "time" or len(members) < 2:
        return []
    words = "no step stands in the files or their names: ordered by modification time, which copying changes"
    remedy = "Put the step into the file names, or say where it stands with --step-pattern."
    return [Finding("ordered-by-time", "warning", members[0].name, words, remedy)]


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
    words = "steps are batches seen by BatchNorm: with gradient accumulation there were fewer optimizer steps"
    remedy = "If gradients were accumulated, give --steps-per-epoch."
    choice.findings.append(Finding("steps-are-batches", "note", where, words, remedy))


def from_zero(choice: _Choice, kind: str, members: Sequence[Member], where: str) -> list[Finding]:
    """A counter that starts at zero (detectron2's iteration): 1999 is the state after 2000 updates."""
    values = [int(v) for v in choice.values]
    if choice.unit == STEPS and all(m.batches == v + 1 for m, v in zip(members, values, strict=True)):
        words = f"{choice.source} counts from zero: one more batch was seen than it says"
        return [Finding("steps-from-zero", "note", where, words)]
    common = reduce(gcd, (v + 1 for v in values), 0)
    if (
        kind in ("inside", "name")
        and choice.unit not in (EPOCHS, TICKS)
        and len(values) > 1
        and common >= ROUND
        and common % ROUND == 0
    ):
        words = f"{choice.source} seems to count from zero: {values[0]} is the state after {values[0] + 1} updates"
        return [Finding("steps-from-zero", "note", where, words)]
    return []


def epochs_of(members: Sequence[Member], name: Sequence[Number] | None) -> list[float] | None:
    """The epoch of every member, in the names or inside."""
    if name is not None and name[0].word == "epoch":
        return [float(n.value) for n in name]
    inside = next((s for s in by_facts(members, EPOCHS, "epoch") if s.usable), None)
    return [v or 0.0 for v in inside.values] if inside else None


def uneven(members: Sequence[Member], name: Sequence[Number] | None, choice: _Choice) -> list[Finding]:
    """Steps per epoch that cannot be the same throughout, even if the epochs are cut off: is it one run?"""
    epochs = epochs_of(members, name)
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


def out_of_proportion(
    members: Sequence[Member], name: Sequence[Number] | None, choice: _Choice
) -> tuple[frozenset[int], list[Finding]]:
    """Members whose step is not as many times the number in their name as in most others, by more than one of those.

    `cp-0010` at 35250, `cp-0040` at 141000, `cp-0070` at 246750, and `cp-0005` at 285.
    """
    if name is None or choice.unit != STEPS or "name" in choice.source or name[0].word not in ("", "epoch"):
        return frozenset(), []
    for shift in (0, 1):  # numbers from one, or from zero
        places = [n.value + shift for n in name]
        per = [Fraction(v) / p if p else None for v, p in zip(choice.values, places, strict=True)]
        usual, count = Counter(p for p in per if p).most_common(1)[0] if any(per) else (Fraction(0), 0)
        if count < 3 or 2 * count <= len(members) or usual <= 1:
            continue
        odd = [i for i, (v, p) in enumerate(zip(choice.values, places, strict=True)) if abs(v - usual * p) > usual]
        if not odd:
            return frozenset(), []
        first = odd[0]
        words = f"states step {choice.values[first]:g} at number {name[first].value}; {count} others have {float(usual):g} steps per number"  # noqa: E501  # fmt: skip
        more = f"; so do {len(odd) - 1} more" if len(odd) > 1 else ""
        remedy = "Was another run mixed in? If so, put each into a folder of its own."
        found = Finding("steps-out-of-proportion", "warning", members[first].name, words + more, remedy)
        return frozenset(odd), [found]
    return frozenset(), []


def disagreements(
    members: Sequence[Member], name: Sequence[Number] | None, source: Source, where: str
) -> list[Finding]:
    """A step in the name that is not the step inside."""
    if name is None or source.order not in ("inside", "optimizer") or len(members) < 2 or name[0].word != "step":
        return []
    differing = [(m, n, v) for m, n, v in zip(members, name, source.values, strict=True) if n.value != v]
    if not differing:
        return []
    member, number, value = differing[0]
    words = f"{member.name} says step {number.value}, {source.words} says {value:g}; the file's own is taken"
    ranked = sorted(zip(source.values, (n.value for n in name), strict=True), key=lambda pair: pair[0] or 0.0)
    gaps = [(b[1] - a[1], (b[0] or 0.0) - (a[0] or 0.0)) for a, b in pairwise(ranked)]
    steady = len(gaps) > 1 and len({Fraction(n) / Fraction(v) for n, v in gaps if v}) == 1
    if steady and source.order == "optimizer":  # steps of an environment, samples, micro-batches
        words = f"{words}; the names count something else (frames, samples, batches)"
    severity = "note" if steady and source.order == "optimizer" else "warning"
    return [Finding("step-disagreement", severity, where, words, "--order name takes the names' instead.")]
