"""Numbers in file names that may be steps, by the words around them. Metrics, ranks, dates, hashes, seeds are none."""

from __future__ import annotations

import re
from dataclasses import dataclass

FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
STEP_WORDS = r"global[_-]?step|steps?|iter(?:ation)?s?|it|ba|batch(?:es)?|updates?"
EPOCH_WORDS = r"epochs?|ep|e"
TOKEN = re.compile(
    rf"(?:(?<![a-z])(?P<before>{STEP_WORDS}|{EPOCH_WORDS}))?[=_\-]?(?<!\d)(?<!\d\.)"
    rf"(?P<number>\d+(?:\.\d+(?=[kmb](?![a-z0-9])))?)(?P<factor>[kmb](?![a-z0-9]))?(?!\.?\d)"
    rf"(?:[_\-](?P<after>{STEP_WORDS}|{EPOCH_WORDS})(?![a-z])(?![=_\-]?\d))?",
    re.IGNORECASE,
)
NOISE = re.compile(
    r"\d+-of-\d+|shard[_-]?\d+|rank[_-]?\d+|mp_rank_\d+|version_\d+|seed[_-]?\d+|fold[_-]?\d+"
    r"|(?<![0-9a-z])(?=[0-9a-f]*[a-f])[0-9a-f]{8,40}(?![0-9a-z])|\d{4}-\d\d-\d\d(?:[+_T-]\d\d-\d\d-\d\d(?:[+-]\d\d)?)?"
    r"|(?<!\d)20\d{6}[-_T]\d{6}|\d+\.\d+(?![kmb])",
    re.IGNORECASE,
)
ENDING = re.compile(r"\.(pth\.tar|weights\.h5|ckpt\.index|[a-z][a-z0-9]{0,11})$", re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """A number in a name and what it counts: "step", "epoch", or "" where no word stands beside it."""

    word: str
    value: int


def numbers(name: str) -> tuple[Number, ...]:
    """The candidates in a path relative to the run's folder, from left to right."""
    stem = ENDING.sub("", name)
    noise = [m.span() for m in NOISE.finditer(stem)]
    out: list[Number] = []
    for match in TOKEN.finditer(stem):
        word = (match["before"] or match["after"] or "").lower()
        kind = "" if not word else "epoch" if re.fullmatch(EPOCH_WORDS, word) else "step"
        at = match.start("number")
        if not kind and any(a <= at < b for a, b in noise):
            continue
        if len(match["number"]) > 15:
            continue
        out.append(Number(kind, round(float(match["number"]) * FACTORS[(match["factor"] or "").lower()])))
    return tuple(out)


def template(name: str) -> str:
    """The path with every number as '#': files of one template are one sequence."""
    return re.sub(r"\d+(\.\d+)?", "#", name)


def varying(names: list[str]) -> list[Number] | None:
    """For each name, the number that tells its members apart: a step before a bare number before an epoch."""
    found = [numbers(n) for n in names]
    for word in ("step", "", "epoch"):
        rows = [[n for n in f if n.word == word] for f in found]
        if len({len(r) for r in rows}) == 1:
            columns = [list(c) for c in zip(*rows, strict=True)]
            fitting = [c for c in columns if len({n.value for n in c}) == len(c)]
            if fitting:
                return fitting[-1]
    return None
