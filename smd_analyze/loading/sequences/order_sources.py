"""Everything that could order a sequence, the most trusted first, and why the better ones could not be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from smd_analyze.errors import UsageError
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact
from smd_analyze.loading.roles.names import natural
from smd_analyze.loading.sequences.name_numbers import Number, dates, paired, serial, varying
from smd_analyze.records.finding import Finding

ORDERS = ("auto", "inside", "optimizer", "scheduler", "name", "epoch", "batches", "time")
COUNTED = "counted by num_batches_tracked"
SAVES = "saves"
BY_PATTERN = "the number that --step-pattern finds"
UNITS = {"step": STEPS, "epoch": EPOCHS, "kimg": "thousands of images", "tokens": "tokens"}
OF_OPTIMIZER = re.compile(r"\boptimizer\b|\boptax\b|\.(states|solverstate)\b")


@dataclass(frozen=True)
class Member:
    """One checkpoint as far as its order is concerned. `facts` hold numbers only; `batches` as a BatchNorm counted.

    `counts`: the number by which the names differ is a step for sure (Orbax' folders). `number` is what the caller's
    --step-pattern found in the name.
    """

    name: str
    facts: tuple[Fact, ...] = ()
    batches: int | None = None
    mtime_ns: int = 0
    folder: bool = False
    counts: bool = False
    number: Number | None = None


@dataclass(frozen=True)
class Source:
    """One way to order: its name for --order, what its numbers count, in words, and a number (or none) per member."""

    order: str
    unit: str
    words: str
    values: tuple[float | None, ...]

    @property
    def usable(self) -> bool:
        """Every member has a number, and no two the same."""
        return None not in self.values and len(set(self.values)) == len(self.values)


def sources(members: Sequence[Member]) -> list[Source]:
    """All of them, in order of trust: what the file says of itself before its name, a word before a bare number."""
    named = by_name(members)
    if named and named.words == BY_PATTERN:
        return [named]
    inside = by_facts(members, STEPS, "inside")
    out = [s for s in inside if s.order == "inside"] + [s for s in inside if s.order == "optimizer"]
    out += [named] if named and named.unit == STEPS else []
    out += by_facts(members, TICKS, "scheduler")
    out += [named] if named and named.unit != STEPS else []
    out += by_facts(members, EPOCHS, "epoch")
    out.append(Source("batches", STEPS, f"batches, {COUNTED}", tuple(m.batches for m in members)))
    return out + by_place(members) + [by_time(members)]


def by_facts(members: Sequence[Member], unit: str, order: str) -> list[Source]:
    """What the files say of themselves in this unit, in the order in which they say it."""
    words = dict.fromkeys(f.source for m in members for f in m.facts if f.unit == unit)
    out: list[Source] = []
    for word in words:
        values = tuple(next((f.value for f in m.facts if f.source == word), None) for m in members)
        numbers = tuple(float(v) if isinstance(v, int | float) else None for v in values)
        name = "optimizer" if order == "inside" and OF_OPTIMIZER.search(word) else order
        out.append(Source(name, unit, word, numbers))
    return out


def by_name(members: Sequence[Member]) -> Source | None:
    """The number in each name that tells the members apart; the caller's pattern if there is one."""
    given = [m.number for m in members if m.number is not None]
    if given and len(given) == len(members):
        unit = UNITS[given[0].word]
        return Source("name", unit, BY_PATTERN, tuple(float(n.value) for n in given))
    found = varying([m.name for m in members])
    if found is None:
        return None
    unit = UNITS.get(found[0].word) or bare_unit(members, found)
    word = found[0].word or {STEPS: "step", EPOCHS: "epoch"}.get(unit, "number")
    return Source("name", unit, f"{word} in the file name", tuple(float(n.value) for n in found))


def by_place(members: Sequence[Member]) -> list[Source]:
    """Names that give an order, but no number that could be a step: only who comes before whom is known."""
    names = [m.name for m in members]
    out: list[Source] = []
    for words, found in (
        ("epoch, then number within it, in the file name", paired(names)),
        ("date in the file name", dates(names)),
        ("number in the file name", serial(names)),
    ):
        if found is not None:
            place = {key: float(i) for i, key in enumerate(sorted(found))}
            out.append(Source("name", SAVES, words, tuple(place[key] for key in found)))
    return out


def by_time(members: Sequence[Member]) -> Source:
    """Modification times; those of one moment by number and name."""
    times = [m.mtime_ns for m in members]
    ranked = sorted(range(len(times)), key=lambda i: (times[i], natural(members[i].name)))
    place = {i: float(p) for p, i in enumerate(ranked)}
    words = "modification time" if len(set(times)) == len(times) else "modification time, then name"
    words = words if len(times) > 1 else "nothing: it is the only one"
    return Source("time", SAVES, words, tuple(place[i] for i in range(len(times))))


def bare_unit(members: Sequence[Member], name: Sequence[Number]) -> str:
    """What a number without a word counts: the epoch if the files say the same epoch, steps in checkpoint-N folders."""
    if all(m.counts for m in members):
        return STEPS
    for inside in by_facts(members, EPOCHS, "epoch"):
        if inside.usable:
            shift = {v - n.value for v, n in zip(inside.values, name, strict=True) if v is not None}
            if shift <= {0.0} or shift <= {1.0}:
                return EPOCHS
    if all(m.folder and m.name.rpartition("/")[2].startswith("checkpoint-") for m in members):
        return STEPS
    return SAVES


def pick(found: Sequence[Source], wanted: str, members: Sequence[Member]) -> Source:
    """The first usable one, or the caller's choice; UsageError if that one does not tell the members apart."""
    usable = [s for s in found if s.usable]
    if not usable:  # only the caller's pattern can fail
        raise UsageError(f"{found[0].words} {problem_of(found[0], members)}: say it more exactly")
    if wanted == "auto":
        return usable[0]
    if wanted not in ORDERS:
        raise UsageError(f"--order is one of {', '.join(ORDERS)}, not {wanted!r}")
    mine = [s for s in found if s.order == wanted]
    if fitting := next((s for s in mine if s.usable), None):
        return fitting
    known = [f"{s.words} {problem_of(s, members)}" for s in mine if any(v is not None for v in s.values)]
    possible = ", ".join(dict.fromkeys(s.order for s in usable))
    why = "; ".join(known) or "nothing of the kind stands there"
    raise UsageError(f"--order {wanted} does not order these checkpoints: {why}. Possible here: {possible}")


def problem_of(source: Source, members: Sequence[Member]) -> str:
    """Why it cannot order the sequence."""
    stated = [v for v in source.values if v is not None]
    if len(stated) < len(source.values):
        lacking = next(m.name for m, v in zip(members, source.values, strict=True) if v is None)
        return f"stands in {len(stated)} of {len(members)} checkpoints only (not in {lacking})"
    if len(set(stated)) == 1:
        return f"is {stated[0]:g} in all"
    twice = next(v for v in stated if stated.count(v) > 1)
    pair = [m.name for m, v in zip(members, source.values, strict=True) if v == twice]
    return f"is {twice:g} in {pair[0]} and in {pair[1]}"


def agrees(source: Source, chosen: Source) -> bool:
    """Wherever it says something, it says the same: the start of training has no optimizer's state yet."""
    pairs = zip(source.values, chosen.values, strict=True)
    return source.unit == chosen.unit and all(v is None or v == w for v, w in pairs)


def unused(found: Sequence[Source], chosen: Source, members: Sequence[Member]) -> list[Finding]:
    """Better sources than the chosen one that some members have: why they were passed over."""
    if len(members) < 2:
        return []
    out: list[Finding] = []
    for source in found[: found.index(chosen)]:
        stated = [v for v in source.values if v is not None]
        if not stated or source.usable or agrees(source, chosen):
            continue
        twice = len(stated) == len(members) and len(set(stated)) > 1
        words = f"{source.words} {problem_of(source, members)}: ordered by {chosen.words} instead"
        if twice and source.unit == STEPS and source.order != "batches":
            again = next(v for v in stated if stated.count(v) > 1)
            where = [m.name for m, v in zip(members, source.values, strict=True) if v == again][1]
            out.append(Finding("step-repeats", "warning", where, words, "Is one of them of another run, or a copy?"))
        elif source.order != "batches":
            out.append(Finding("order-not-used", "note", members[0].name, words, "--order chooses another source."))
    return out
