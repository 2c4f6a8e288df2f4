"""What the analysis knows of a tensor in the graph: a sum of terms, each with a degree of homogeneity per element.

Give every element of a parameter its own unknown degree: under w → aˢw an intermediate element is multiplied by
a^(degree·s). Degrees of products add, a sum needs equal degrees, and what must not change at all needs degree zero.
This is type inference for units of measure (Kennedy, POPL 1997) with channels as indices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

GROUND = 0  # variable 0: degree zero
ANY = 1  # variable 1: the element is exactly zero (or masked), so any degree fits


@dataclass(frozen=True, eq=False)
class Factor:
    """A part of a degree: `coef[i]` × variable `ids[i]`, over the tensor's `axes` (sorted) only."""

    axes: tuple[int, ...]
    ids: np.ndarray
    coef: np.ndarray


Degree = tuple[Factor, ...]  # summed; () is degree zero
Pending = tuple[tuple[Degree, frozenset[int]], ...]  # "this degree must not depend on these axes"


@dataclass(frozen=True, eq=False)
class Term:
    """One addend of a value.

    `vary`: axes along which its value may change (a bias varies along the channels only). `taint`: bit set of the
    parameters that it depends on. `pending`: constraints that count only if no later mean subtraction or softmax
    deletes the term.
    """

    degree: Degree
    vary: frozenset[int]
    taint: int = 0
    pending: Pending = ()

    def but(
        self,
        degree: Degree | None = None,
        vary: Iterable[int] | None = None,
        taint: int = 0,
        pending: Pending = (),
    ) -> Term:
        """The same term with another degree or other axes, more taint, more pending constraints."""
        news = tuple(p for p in pending if not any(p is q for q in self.pending))
        return replace(
            self,
            degree=self.degree if degree is None else degree,
            vary=self.vary if vary is None else frozenset(vary),
            taint=self.taint | taint,
            pending=self.pending + news,
        )


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph: its shape and its terms; no terms means exactly zero. `nonnegative`: provably ≥ 0."""

    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    nonnegative: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def vary(self) -> frozenset[int]:
        """Axes along which any term may change."""
        return frozenset().union(*(t.vary for t in self.terms))

    @property
    def taint(self) -> int:
        """Parameters that it depends on."""
        bits = 0
        for term in self.terms:
            bits |= term.taint
        return bits


def plain(shape: Iterable[int], taint: int = 0, nonnegative: bool = False) -> Value:
    """A value of degree zero that may vary along every axis: data, or what a function of fixed scale returns."""
    shape = tuple(int(n) for n in shape)
    vary = frozenset(a for a, n in enumerate(shape) if n > 1)
    return Value(shape, (Term((), vary, taint),), nonnegative)


def constant(shape: Iterable[int] = (), nonnegative: bool = False) -> Value:
    """A number of degree zero, the same everywhere."""
    return Value(tuple(int(n) for n in shape), (Term((), frozenset()),), nonnegative)


def zeros(shape: Iterable[int] = ()) -> Value:
    """Exactly zero: fits any degree."""
    return Value(tuple(int(n) for n in shape), ())


def negated(degree: Degree) -> Degree:
    """Minus a degree."""
    return times(degree, -1.0)


def times(degree: Degree, k: float) -> Degree:
    """k times a degree."""
    return tuple(Factor(f.axes, f.ids, f.coef * k) for f in degree)


def moved(factor: Factor, axes: Iterable[int]) -> Factor:
    """The factor with its axes renamed to `axes` (in the order of the old ones), sorted again."""
    new = list(axes)
    order = sorted(range(len(new)), key=new.__getitem__)
    if order == list(range(len(new))):
        return Factor(tuple(new), factor.ids, factor.coef)
    return Factor(tuple(new[i] for i in order), factor.ids.transpose(order), factor.coef.transpose(order))


def sizes(factors: Iterable[Factor]) -> dict[int, int]:
    """Length of every axis that the factors have."""
    return {a: n for f in factors for a, n in zip(f.axes, f.ids.shape, strict=True)}


def spread(factors: Iterable[Factor], axes: list[int], length: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Element-wise rows: ids and coefs [n, number of factors] over the product of `axes`."""
    full = [length[a] for a in axes]
    ids, coefs = [], []
    for f in factors:
        shape = [length[a] if a in f.axes else 1 for a in axes]
        ids.append(np.broadcast_to(f.ids.reshape(shape), full).ravel())
        coefs.append(np.broadcast_to(f.coef.reshape(shape), full).ravel())
    return np.stack(ids, 1), np.stack(coefs, 1)


def connected(factors: Iterable[Factor]) -> list[tuple[set[int], list[Factor]]]:
    """Factors that share axes, together: (axes, factors) per component."""
    groups: list[tuple[set[int], list[Factor]]] = []
    for f in factors:
        axes, members = set(f.axes), [f]
        apart = []
        for other, theirs in groups:
            if other & axes:
                axes |= other
                members += theirs
            else:
                apart.append((other, theirs))
        groups = [*apart, (axes, members)]
    return groups
