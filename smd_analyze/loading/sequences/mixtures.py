"""Two runs in one sequence: checkpoints whose neighbours in time are far away while others, beyond them, are near.

A run moves on: the angle between two of its checkpoints does not shrink when more training lies between them. Where the
checkpoints before and after some others are much closer to each other than to what lies between, those are of another
run. Runs whose checkpoints have nothing in common with each other cannot be told apart in this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST = 256  # checkpoints compared with each other
CLEARLY = 0.6  # the way around is shorter than the way through by this factor
LEAST, LEAST_OF_ONE = 0.05, 0.5  # rad: smaller angles prove nothing; a single checkpoint must be further off
MOST_CUTS = 8


def separate(directions: Sequence[Sequence[np.ndarray]]) -> list[list[int]]:
    """Indices of checkpoints that belong together, the largest part first; one part if there is no sign of more.

    `directions`: a few unit vectors (or zeros) of each checkpoint, in the order of training.
    """
    if not 3 <= len(directions) <= MOST:
        return [list(range(len(directions)))]
    angles = angles_between(directions)
    parts, waiting = [], [list(range(len(directions)))]
    while waiting:
        part = waiting.pop()
        cut = cut_in_two(part, angles) if len(part) > 2 else None
        if cut is None:
            parts.append(part)
        else:
            waiting += cut
    return sorted(parts, key=lambda p: (-len(p), p[0]))


def angles_between(directions: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """[T, T] the largest angle, over the tensors that have a direction in both, in radians."""
    cosines = np.ones((len(directions), len(directions)))
    for vectors in zip(*directions, strict=True):
        table = np.stack(vectors)
        there = np.any(table != 0, axis=1)
        cosines = np.where(np.outer(there, there), np.minimum(cosines, np.clip(table @ table.T, -1, 1)), cosines)
    return np.arccos(cosines)


def cut_in_two(part: list[int], angles: np.ndarray) -> list[list[int]] | None:
    """The part without its longest link, if the two halves then run through each other in time."""
    links = spanning_tree(part, angles)
    for cut in sorted(range(len(links)), key=lambda i: -angles[links[i]])[:MOST_CUTS]:
        one = reached(part[0], [link for i, link in enumerate(links) if i != cut])
        other = [i for i in part if i not in one]
        halves = sorted(([i for i in part if i in one], other), key=len)
        if through_each_other(halves[0], halves[1], angles):
            return halves
    return None


def spanning_tree(part: list[int], angles: np.ndarray) -> list[tuple[int, int]]:
    """The shortest links that connect all (Prim)."""
    table = angles[np.ix_(part, part)]
    nearest, where = table[0].copy(), np.zeros(len(part), int)
    open_ = np.ones(len(part), bool)
    open_[0] = False
    links: list[tuple[int, int]] = []
    for _ in range(len(part) - 1):
        at = int(np.argmin(np.where(open_, nearest, np.inf)))
        links.append((part[where[at]], part[at]))
        open_[at] = False
        closer = table[at] < nearest
        nearest[closer], where[closer] = table[at][closer], at
    return links


def reached(start: int, links: Sequence[tuple[int, int]]) -> set[int]:
    """Everything that the links connect with the start."""
    found, grew = {start}, True
    while grew:
        more = {b for a, b in links if a in found} | {a for a, b in links if b in found}
        grew = not more <= found
        found |= more
    return found


def through_each_other(few: list[int], many: list[int], angles: np.ndarray) -> bool:
    """Most of the one half lie between two of the other that are clearly nearer to each other than to them."""
    enough = LEAST if len(few) > 1 else LEAST_OF_ONE
    return between(few, many, angles, enough) or between(many, few, angles, enough)


def between(inner: list[int], outer: list[int], angles: np.ndarray, enough: float) -> bool:
    """The same for one half within the other; `enough` is the least angle between them that counts."""
    found: list[bool] = []
    for i in inner:
        before, after = [m for m in outer if m < i], [m for m in outer if m > i]
        if before and after:
            off = min(angles[before[-1], i], angles[i, after[0]])
            found.append(off > enough and angles[before[-1], after[0]] < CLEARLY * off)
    return 2 * sum(found) > len(found)
