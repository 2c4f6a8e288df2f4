"""Numbers in file names that may be steps, by the words around them. Metrics, ranks, dates, hashes, seeds are none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

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
    r"\d+-of-\d+|shard[_-]?\d+|rank[_-]?\d+|mp_rank_\d+|version_\d+|seed[_-]?\d+|fold[_-]?\d+|(?<![a-z])(?:lr|wd|bs)[=_-]?\d+"
    r"|(?<![a-z])(?:(?:val|test|train|best)?(?:acc(?:uracy)?|loss)|top[_-]?[15]|mi?ou|m?ap|psnr|ssim|auc|f1|fid|bleu|wer|cer|ppl)[=_-]\d+"
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


@lru_cache(maxsize=1 << 16)  # names are asked for again by every question about their sequence
def numbers(name: str) -> tuple[Number, ...]:
    """The candidates in a path relative to the run's folder, from left to right."""
    return tuple(located(name).values())


def located(name: str) -> dict[int, Number]:
    """Where in the path each candidate begins, from left to right."""
    stem = ENDING.sub("", name)
    noise = [m.span() for m in NOISE.finditer(stem)]
    out: dict[int, Number] = {}
    for match in TOKEN.finditer(stem):
        word = (match["before"] or match["after"] or "").lower()
        kind = "" if not word else "epoch" if re.fullmatch(EPOCH_WORDS, word) else "step"
        at = match.start("number")
        if not kind and any(a <= at < b for a, b in noise):
            continue
        if len(match["number"]) > 15:
            continue
        out[at] = Number(kind, round(float(match["number"]) * FACTORS[(match["factor"] or "").lower()]))
    return out


def template(name: str) -> str:
    """The path with every number as '#': files of one template are one sequence."""
    return re.sub(r"\d+(\.\d+)?", "#", name)


def common_pattern(names: list[str]) -> str:
    """Names of one template as one, with '#' for the numbers that differ."""
    columns = zip(*(re.split(r"(\d+(?:\.\d+)?)", n) for n in names), strict=True)
    return "".join(c[0] if len(set(c)) == 1 else "#" for c in columns)


def varying(names: list[str]) -> list[Number] | None:
    """For each name, the number that tells its members apart: a step before a bare number before an epoch.

    A bare number that runs against the epochs is a metric, not a step.
    """
    found = [numbers(n) for n in names]
    step, bare, epoch = (distinct([[n for n in f if n.word == word] for f in found]) for word in ("step", "", "epoch"))
    if bare and epoch and ranks(bare) != ranks(epoch):
        bare = None
    return step or bare or epoch


def distinct(rows: list[list[Number]]) -> list[Number] | None:
    """The last column whose values all differ, if all rows have the same number of columns."""
    if len({len(r) for r in rows}) != 1:
        return None
    columns = [list(c) for c in zip(*rows, strict=True)]
    return next((c for c in reversed(columns) if len({n.value for n in c}) == len(c)), None)


def ranks(column: list[Number]) -> list[int]:
    """The order of the names by this number."""
    return sorted(range(len(column)), key=lambda i: column[i].value)


def split_runs(names: list[str]) -> list[list[int]]:
    """Indices of names that are one run each: `run1/step_10, run2/step_10` are two, and so are two seeds or versions.

    One part if a number tells all names apart, or if no number that counts nothing divides them into such parts.
    """
    parts = divided(list(range(len(names))), names)
    return parts if len(parts) < len(names) and all(told_apart(p, names) for p in parts) else [list(range(len(names)))]


def told_apart(part: list[int], names: list[str]) -> bool:
    """One number of the names is different in all of them."""
    return len(part) == 1 or varying([names[i] for i in part]) is not None


def divided(part: list[int], names: list[str]) -> list[list[int]]:
    """The part by the values of its first number that is a seed, a version, …, then of a bare one, until they fit."""
    if told_apart(part, names):
        return [part]
    rows = [[(m[0], located(names[i]).get(m.start())) for m in re.finditer(r"\d+(?:\.\d+)?", names[i])] for i in part]
    if len({len(r) for r in rows}) != 1:
        return [part]
    columns = list(zip(*rows, strict=True))
    noise = [c for c in columns if all(number is None for _, number in c)]
    plain = [c for c in columns if all(number is not None and not number.word for _, number in c)]
    for column in (*noise, *plain):
        by: dict[str, list[int]] = {}
        for i, (text, _) in zip(part, column, strict=True):
            by.setdefault(text, []).append(i)
        if 1 < len(by) < len(part):
            return [whole for piece in by.values() for whole in divided(piece, names)]
    return [part]
