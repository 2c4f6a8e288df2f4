"""Layers of one kind: same name up to its numbers. `layer1.0.conv1`, `layer1.1.conv1`, … are `layer1.{0..5}.conv1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"\d+")
_END = re.compile(r"(?<=[A-Za-z_])\d+(\.(weight|bias|kernel|embedding|gamma|beta|scale))?$")


def skeleton(name: str) -> str:
    """The name without its numbers, except for one at the very end of a word: conv1 and conv2 are two kinds."""
    end = _END.search(name)
    if end is None:
        return _NUMBER.sub("#", name)
    return _NUMBER.sub("#", name[: end.start()]) + name[end.start() :]


def kinds(names: Iterable[str], most: int) -> dict[str, list[str]]:
    """Skeleton → its names, both in order of appearance. More than `most` of them: numbers at the end go too."""
    every = list(names)
    found: dict[str, list[str]] = {}
    for name in every:
        found.setdefault(skeleton(name), []).append(name)
    if len(found) > most:
        found = {}
        for name in every:
            found.setdefault(_NUMBER.sub("#", name), []).append(name)
    return found


def label(names: Sequence[str]) -> str:
    """One name for names of one skeleton: `{1..4}` where all of 1 to 4 are there, `*` where some are."""
    if len(names) == 1:
        return names[0]
    parts = _NUMBER.split(names[0])
    numbers = [tuple(int(n) for n in _NUMBER.findall(name)) for name in names]
    written = [_position([n[:place] for n in numbers], [n[place] for n in numbers]) for place in range(len(numbers[0]))]
    return parts[0] + "".join(text + part for text, part in zip(written, parts[1:], strict=True))


def _position(before: Sequence[tuple[int, ...]], values: Sequence[int]) -> str:
    """One number of the skeleton; a range only if it is the same wherever the earlier numbers are."""
    every = sorted(set(values))
    if len(every) == 1:
        return str(every[0])
    sets: dict[tuple[int, ...], set[int]] = {}
    for key, value in zip(before, values, strict=True):
        sets.setdefault(key, set()).add(value)
    whole = all(found == set(every) for found in sets.values()) and every[-1] - every[0] == len(every) - 1
    return f"{{{every[0]}..{every[-1]}}}" if whole else "*"
