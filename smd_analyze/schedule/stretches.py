"""Where a rate that is known interval by interval stays the same: the fewest stretches that explain the readings."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
COST = 20.0
"""χ² that a further stretch must win: about 4.5 standard deviations, and dear enough for a thousand intervals."""
ALIKE = 2e-4
"""Relative spread that counts as constant: no schedule in use moves by so little, and clocks' intervals hold to it."""


def stretches(rate: Array, sd: Array) -> list[tuple[int, int]]:
    """Consecutive (first, after last) indices of stretches of one rate, by exact dynamic programming.

    `rate`, `sd` [n]: readings with their standard deviations. The cost of a stretch is its χ² about its weighted mean;
    each stretch costs `COST` more (optimal partitioning, Jackson et al. 2005, arXiv:math/0309285). O(n²).
    """
    n = len(rate)
    if n == 0:
        return []
    scale = float(np.max(np.abs(rate))) or 1.0
    weight = 1 / ((sd / scale) ** 2 + (ALIKE * rate / scale) ** 2 + 1e-24)
    value = rate / scale
    w = np.r_[0.0, np.cumsum(weight)]
    first = np.r_[0.0, np.cumsum(weight * value)]
    second = np.r_[0.0, np.cumsum(weight * value**2)]
    best = np.zeros(n + 1)
    origin = np.zeros(n + 1, int)
    for j in range(1, n + 1):
        mass = w[j] - w[:j]
        spread = second[j] - second[:j] - (first[j] - first[:j]) ** 2 / mass
        total = best[:j] + np.maximum(spread, 0.0) + COST
        origin[j] = int(np.argmin(total))
        best[j] = total[origin[j]]
    found: list[tuple[int, int]] = []
    j = n
    while j > 0:
        found.append((int(origin[j]), j))
        j = int(origin[j])
    return found[::-1]


def pooled(rate: Array, sd: Array, steps: Array) -> tuple[float, float]:
    """One rate of several intervals, weighted by inverse variance, and its standard deviation.

    Where the readings spread by more than their standard deviations say, that of the result grows in proportion.
    Readings without noise count by their steps.
    """
    if np.any(sd <= 0):
        return float(np.average(rate, weights=steps)), 0.0
    weight = 1 / sd**2
    mean = float(np.average(rate, weights=weight))
    strain = float(np.sum(((rate - mean) / sd) ** 2)) / max(len(rate) - 1, 1)
    return mean, float(np.sqrt(max(strain, 1.0) / np.sum(weight)))
