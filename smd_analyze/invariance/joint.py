"""All rescalings of whole tensors that leave the output unchanged: a basis of short ones, read off the joint system."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from smd_analyze.invariance.degrees import Degrees
from smd_analyze.invariance.joint_space import JointSpace
from smd_analyze.invariance.lattice import GROUND

MOST_SWEEPS = 8  # over the basis, to shorten it: more change little
Rescaling = Mapping[str, int]  # parameter → exponent: tensor × a^exponent for all of them, any a > 0


def rescalings(d: Degrees, without: Collection[str]) -> tuple[Sequence[Rescaling], Sequence[Rescaling]]:
    """The basis as the elimination gives it, and the same shortened; `without`: parameters that are free alone.

    Every parameter is one variable of the JointSpace. Exponents are whole numbers without a common divisor; where all
    have one sign it is positive. Raises TooLarge.
    """
    assert isinstance(d.space, JointSpace)
    matrices = [p.factors[0].ids.ravel() for p in d.parameters.values() if len(p.shape) > 1]
    roots = d.space.find(np.concatenate(matrices))[0] if matrices else np.zeros(0, int)
    solved = d.space.solve(frozenset(roots.tolist()))  # a set of matrices says more than one with gains
    basis: dict[int, dict[str, Fraction]] = {}
    for name, parameter in d.parameters.items():
        if name in without:  # scaling it changes nothing, so it may be left out of every rescaling
            continue
        root, ratio = (x.ravel()[0] for x in d.space.find(parameter.factors[0].ids))
        if root == GROUND:
            continue
        multiplier = Fraction(float(ratio)).limit_denominator(10_000)
        for free, c in solved.get(int(root), {int(root): Fraction(1)}).items():
            basis.setdefault(free, {})[name] = c * multiplier
    raw = [_whole(g) for g in basis.values()]
    return raw, shortened(raw)


def _whole(exponents: Mapping[str, Fraction]) -> dict[str, int]:
    scale = lcm(*(c.denominator for c in exponents.values()))
    numbers = {n: int(c * scale) for n, c in exponents.items()}
    return _coprime(numbers)


def _coprime(numbers: Mapping[str, int]) -> dict[str, int]:
    by = gcd(*numbers.values())
    if all(c < 0 for c in numbers.values()):
        by = -by
    return {n: c // by for n, c in numbers.items()}


def shortened(raw: Iterable[Rescaling]) -> list[dict[str, int]]:
    """The same space by shorter vectors: Σ exponent² made smaller by combining two at a time."""
    basis = [dict(g) for g in raw]
    holders: dict[str, set[int]] = {}
    for i, g in enumerate(basis):
        for name in g:
            holders.setdefault(name, set()).add(i)
    for _ in range(MOST_SWEEPS):
        changed = False
        for i in sorted(range(len(basis)), key=lambda j: -_size(basis[j])):
            near = {j for name in basis[i] for j in holders[name]} - {i}
            for j in sorted(near, key=lambda j: _size(basis[j])):
                less = _shorter(basis[i], basis[j])
                if less is not None:
                    for name in basis[i].keys() ^ less.keys():
                        holders[name].symmetric_difference_update({i})
                    basis[i], changed = less, True
        if not changed:
            break
    return basis


def _shorter(g: dict[str, int], other: dict[str, int]) -> dict[str, int] | None:
    """The shortest combination of both that still holds g, if it is shorter than g."""
    small, large = (g, other) if len(g) < len(other) else (other, g)
    shared = [n for n in small if n in large]
    if len(other) - len(shared) > _size(g):
        return None
    ratios = {Fraction(g[n], other[n]) for n in shared}
    ratios.add(Fraction(round(Fraction(sum(g[n] * other[n] for n in shared), _size(other)))))
    best = None
    for ratio in ratios - {Fraction(0)}:
        a, b = ratio.denominator, ratio.numerator
        sums = {n: a * g.get(n, 0) - b * other.get(n, 0) for n in {**g, **other}}
        found = _coprime({n: c for n, c in sums.items() if c})
        if _size(found) < _size(best or g):
            best = found
    return best


def _size(g: Rescaling) -> int:
    return sum(c * c for c in g.values())


def joint_sets(*bases: Iterable[Rescaling]) -> list[tuple[str, ...]]:
    """Disjoint sets whose common scale is free: rescalings with all exponents equal; small ones, early bases first."""
    found = dict.fromkeys(tuple(g) for basis in bases for g in basis if len(g) > 1 and set(g.values()) == {1})
    taken: set[str] = set()
    sets = []
    for names in sorted(found, key=len):
        if not taken & set(names):
            taken |= set(names)
            sets.append(names)
    return sets


def shortest(basis: Iterable[Rescaling]) -> dict[str, Rescaling]:
    """For each parameter the shortest rescaling that it takes part in, its own exponent positive."""
    best: dict[str, Rescaling] = {}
    for g in sorted(basis, key=lambda g: (_size(g), len(g))):
        for name, c in g.items():
            if name not in best:
                best[name] = g if c > 0 else {n: -x for n, x in g.items()}
    return best
