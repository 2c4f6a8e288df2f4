"""Which number in the names of a sequence's files is their step: names are compared, none is read by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from math import gcd, inf

from smd_analyze.loading.sequences.name_tokens import Number, Token, template, tokens, with_tokens

__all__ = [
    "Number",
    "common_pattern",
    "dates",
    "numbers",
    "paired",
    "place_of",
    "serial",
    "split_runs",
    "template",
    "varying",
]

SERIAL = ("v", "ver", "version", "run", "exp", "part", "id", "model", "ckpt", "checkpoint", "")


def numbers(name: str) -> tuple[Number, ...]:
    """The candidates in a path relative to the run's folder, from left to right."""
    return tuple(t.number for t in tokens(name) if t.number is not None)


def common_pattern(names: Sequence[str]) -> str:
    """Names of one template as one, with '#' for what differs."""
    if len({template(n) for n in names}) > 1:  # --step-pattern has put them together
        return template(names[0])
    columns = zip(*(tokens(n) for n in names), strict=True)
    return with_tokens(names[0], [c[0].text if len({t.text for t in c}) == 1 else "#" for c in columns])


def varying(names: Sequence[str]) -> list[Number] | None:
    """For each name, the number that tells its members apart: a step before a bare number before an epoch.

    A bare number that cannot be the step of those epochs is a metric.
    """
    columns = columns_of(names)
    if columns is None:
        return None
    by = {word: [c for c in columns if c[0].word == word and distinct(c)] for word in ("step", "", "epoch", "kimg", "tokens")}  # noqa: E501  # fmt: skip
    step, epoch, bare = last(by["step"]), last(by["epoch"]), by[""]
    if epoch is not None:
        bare = [c for c in bare if ranks(c) == ranks(epoch) and steps_of_epochs(c, epoch)]
    return step or most_regular(bare) or epoch or last(by["kimg"]) or last(by["tokens"])


def columns_of(names: Sequence[str]) -> list[list[Number]] | None:
    """The candidates column by column; None if the names are not built alike."""
    found = [tokens(n) for n in names]
    if len({template(n) for n in names}) == 1:  # a number that counts nothing in one name counts nothing in any
        columns = [[t.number for t in c if t.number is not None] for c in zip(*found, strict=True)]
        return [c for c in columns if len(c) == len(names) and len({n.word for n in c}) == 1]
    rows = [[t.number for t in f if t.number is not None] for f in found]
    if len({tuple(n.word for n in r) for r in rows}) != 1:
        return None
    return [list(c) for c in zip(*rows, strict=True)]


def distinct(column: Sequence[Number]) -> bool:
    """No value stands twice."""
    return len({n.value for n in column}) == len(column)


def last(columns: Sequence[list[Number]]) -> list[Number] | None:
    """The rightmost column, if there is any."""
    return columns[-1] if columns else None


def most_regular(columns: Sequence[list[Number]]) -> list[Number] | None:
    """The rightmost; where columns order the names differently, one whose gaps are all alike is no metric."""
    if len({tuple(ranks(c)) for c in columns}) > 1:
        return last([c for c in columns if even(c)]) or last(columns)
    return last(columns)


def even(column: Sequence[Number]) -> bool:
    """All gaps between neighbours are multiples of one that is among them."""
    values = sorted(n.value for n in column)
    gaps = [b - a for a, b in pairwise(values)]
    return len(gaps) > 1 and min(gaps) == reduce(gcd, gaps)


def steps_of_epochs(steps: Sequence[Number], epochs: Sequence[Number]) -> bool:
    """Some number of steps per epoch explains all, wherever in the epochs the saves were made."""
    least = max(s.value / (e.value + 1) for s, e in zip(steps, epochs, strict=True))
    most = min(s.value / (e.value - 1) if e.value > 1 else inf for s, e in zip(steps, epochs, strict=True))
    return least <= most


def ranks(column: Sequence[Number]) -> list[int]:
    """The order of the names by this number."""
    return sorted(range(len(column)), key=lambda i: column[i].value)


def paired(names: Sequence[str]) -> list[tuple[int, int]] | None:
    """For each name (epoch, number within the epoch), where only both together tell the names apart."""
    columns = columns_of(names) or []
    for i, major in enumerate(columns):
        for minor in columns[i + 1 :]:
            if major[0].word in ("epoch", "") and minor[0].word in ("step", ""):
                found = [(a.value, b.value) for a, b in zip(major, minor, strict=True)]
                if len(set(found)) == len(found):
                    return found
    return None


def dates(names: Sequence[str]) -> list[str] | None:
    """For each name, the moment in it, as digits that sort; None unless all have one and all differ."""
    found = [[t.text for t in tokens(n) if t.moment] for n in names]
    if not all(found) or len({len(f) for f in found}) != 1:
        return None
    joined = ["".join(f) for f in found]
    return joined if len(set(joined)) == len(names) and all(j[:1].isdigit() for j in joined) else None


def split_runs(names: Sequence[str], given: Sequence[int] = ()) -> list[list[int]]:
    """Indices of names that are one run each: `run1/step_10, run2/step_10` are two, and so are two seeds or versions.

    One part if a number tells all names apart, or if no number that counts nothing divides them into such parts.
    `given` are the numbers that the caller's --step-pattern found in the names, if there is one.
    """
    whole = list(range(len(names)))
    parts = divided(whole, names, given)
    return parts if all(told_apart(p, names, given) for p in parts) else [whole]


def told_apart(part: Sequence[int], names: Sequence[str], given: Sequence[int]) -> bool:
    """One number of the names is different in all of them."""
    if len(given) == len(names):
        return len({given[i] for i in part}) == len(part)
    return len(part) == 1 or varying([names[i] for i in part]) is not None


def divided(part: list[int], names: Sequence[str], given: Sequence[int]) -> list[list[int]]:
    """The part by the values of its first number that is a seed, a version, …, then of a bare one, until they fit."""
    if told_apart(part, names, given):
        return [part]
    rows = [tokens(names[i]) for i in part]
    if len({len(r) for r in rows}) != 1:
        return [part]
    for column in sorted(zip(*rows, strict=True), key=order_of_cuts):
        by: dict[str, list[int]] = {}
        for i, token in zip(part, column, strict=True):
            by.setdefault(token.text, []).append(i)
        if 1 < len(by) < len(part):
            return [whole for piece in by.values() for whole in divided(piece, names, given)]
    return [part]


def order_of_cuts(column: tuple[Token, ...]) -> tuple[bool, bool]:
    """What counts nothing first, then what no word stands beside; a step never, an epoch last."""
    return (any(t.number is not None for t in column), any(t.number is not None and t.number.word for t in column))


def place_of(name: str, step: int | None, moments: bool) -> tuple[str, ...]:
    """Where a file lies among runs: the seeds, versions, … in its path, and all numbers (and `moments`) of its folder.

    Not the step itself, nor epochs, dates and metrics of the file.
    """
    folder = name.rfind("/")
    out: list[str] = []
    for token in tokens(name):
        number = token.number
        if token.moment and not (moments and token.start < folder):
            continue
        if number is not None and (number.word or number.value == step):
            continue
        if token.start < folder or (number is None and token.text.isdigit()):
            out.append(token.text)
    return tuple(out)


def serial(names: Sequence[str]) -> list[int] | None:
    """A whole number that tells the names apart although its word says that it is no step (v2, run3), if there is one.

    Not ranks, shards and seeds: those are not one after the other.
    """
    if len({template(n) for n in names}) != 1:
        return None
    for column in reversed(list(zip(*(tokens(n) for n in names), strict=True))):
        texts_of = [t.text for t in column]
        word = re.search(r"([a-z]*)[=_\-. ]?$", names[0][: column[0].start], re.IGNORECASE)
        if all(t.isdigit() and len(t) < 7 for t in texts_of) and word and word[1].lower() in SERIAL:
            values = [int(t) for t in texts_of]
            if len(set(values)) == len(values):
                return values
    return None
