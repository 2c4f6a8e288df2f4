"""The unknown degrees and what is known of them: union-find with multipliers.

Each parameter is asked what it may do if all others stay fixed ("alone"): a constraint over several owners' variables
then falls apart into one per owner, and each of these ties two variables or sets one to zero. Where more than two of
one owner meet, all are set to zero: that may lose an invariance, and never invents one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from smd_analyze.invariance.lattice import ANY, GROUND, Degree, Factor, connected, sizes, spread

TOLERANCE = 1e-9


class Space:
    """Variables with their ties, and for each owner the place that first took its rows' freedom (`why`).

    `place` and `cause` are set by the walk over the graph before constraints are emitted.
    """

    def __init__(self) -> None:
        self.count = 2
        self.parent = np.arange(1024)
        self.multiplier = np.ones(1024)
        self.owner = np.full(1024, -1)
        self.slot = np.full(1024, -1)
        self.why: dict[int, tuple[Any, str]] = {}
        self.place: Any = None
        self.cause = ""

    def fresh(self, shape: Iterable[int], owner: int, slot: int = -1) -> np.ndarray:
        """New variables, one per element of `shape`. With a `slot` ≥ 0 (a tensor's number) their loss is recorded."""
        shape = tuple(shape)
        number = int(np.prod(shape))
        while self.count + number > len(self.parent):
            size = len(self.parent)
            self.parent = np.concatenate([self.parent, np.arange(size, 2 * size)])
            self.multiplier = np.concatenate([self.multiplier, np.ones(size)])
            self.owner = np.concatenate([self.owner, np.full(size, -1)])
            self.slot = np.concatenate([self.slot, np.full(size, -1)])
        ids = np.arange(self.count, self.count + number).reshape(shape)
        self.owner[ids] = owner
        self.slot[ids] = slot
        self.count += number
        return ids

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Roots and multipliers, of ids' shape: degree(id) = multiplier × degree(root)."""
        root, factor = self.parent[ids], self.multiplier[ids]
        while True:
            higher = self.parent[root]
            if (higher == root).all():
                break
            factor = factor * self.multiplier[root]
            root = higher
        self.parent[ids] = root
        self.multiplier[ids] = factor
        return root, factor

    def ground(self, ids: np.ndarray) -> None:
        """degree(id) = 0 for all ids."""
        root, _ = self.find(np.asarray(ids).ravel())
        root = np.unique(root[(root != GROUND) & (root != ANY)])
        if not len(root):
            return
        self.parent[root] = GROUND
        self.multiplier[root] = 0.0
        if self.place is not None:
            for slot in np.unique(self.slot[root]).tolist():
                self.why.setdefault(slot, (self.place, self.cause))

    def tie(self, a: np.ndarray, ca: np.ndarray, b: np.ndarray, cb: np.ndarray) -> None:
        """ca·degree(a) + cb·degree(b) = 0, elementwise over 1-d arrays."""
        for _ in range(64):
            ra, ma = self.find(a)
            rb, mb = self.find(b)
            valid = (ra != ANY) & (rb != ANY)
            xa, xb = ca * ma, cb * mb
            same = ra == rb
            contradicting = same & valid & (np.abs(xa + xb) > TOLERANCE) & (ra != GROUND)
            if contradicting.any():
                self.ground(ra[contradicting])
                continue
            todo = ~same & valid
            if not todo.any():
                return
            a, b, ca, cb, ra, rb, xa, xb = (x[todo] for x in (a, b, ca, cb, ra, rb, xa, xb))
            foreign = (ra == GROUND) | (rb == GROUND) | (self.owner[ra] != self.owner[rb])
            if foreign.any():
                self.ground(np.concatenate([ra[foreign], rb[foreign]]))
                a, b, ca, cb, ra, rb, xa, xb = (x[~foreign] for x in (a, b, ca, cb, ra, rb, xa, xb))
                if not len(a):
                    return
            high, low = np.maximum(ra, rb), np.minimum(ra, rb)
            ratio = np.where(ra > rb, -xb / xa, -xa / xb)
            unique, first = np.unique(high, return_index=True)
            self.parent[unique] = low[first]
            self.multiplier[unique] = ratio[first]
        raise AssertionError("union-find did not converge")

    def canonical(self, degree: Degree) -> Degree:
        """The degree in roots: without what is zero, without axes it does not depend on, like factors merged."""
        if not any(f.axes for f in degree):
            found = self._scalars(degree)
            if found is not None:
                return found
        kept: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
        for f in degree:
            root, m = self.find(f.ids)
            coef = f.coef * m
            root = np.where((np.abs(coef) < 1e-12) & (root != ANY), GROUND, root)
            coef = np.where(root == GROUND, 0.0, np.where(root == ANY, 1.0, coef))
            if not root.any():
                continue
            axes, root, coef = _squeezed(f.axes, root, coef)
            _merge(kept.setdefault(axes, []), root, coef)
        out = [Factor(axes, root, coef) for axes, pairs in kept.items() for root, coef in pairs if root.any()]
        if 1 < len(out) < len(degree):
            return self.canonical(tuple(out))
        scalars = None if any(f.axes for f in out) else self._scalars(tuple(out))
        if scalars is not None:
            return scalars
        return tuple(sorted(out, key=lambda f: (f.axes, f.ids.tobytes(), f.coef.tobytes())))

    def _scalars(self, degree: Degree) -> Degree | None:
        """The same for factors without axes, which need no arrays; None if one of them is a free element."""
        total: dict[int, float] = {}
        for f in degree:
            root, coef = int(f.ids), float(f.coef)
            while self.parent[root] != root:
                coef *= float(self.multiplier[root])
                root = int(self.parent[root])
            if root == ANY:
                return None
            if root != GROUND:
                total[root] = total.get(root, 0.0) + coef
        return tuple(Factor((), np.array(i), np.array(c)) for i, c in sorted(total.items()) if abs(c) >= 1e-12)

    def zero(self, degree: Degree) -> None:
        """Every element's degree is zero, for each owner by itself."""
        for factors in self._by_owner(self.canonical(degree)):
            self._zero(tuple(factors))

    def _by_owner(self, degree: Degree) -> list[list[Factor]]:
        """Factors that share an owner, together. An element that is ANY in one factor is free in all: no split then."""
        if any((f.ids == ANY).any() for f in degree):
            return [list(degree)]
        groups: list[tuple[set[int], list[Factor]]] = []
        for f in degree:
            owners, members = set(np.unique(self.owner[f.ids]).tolist()) - {-1}, [f]
            apart = []
            for other, theirs in groups:
                if other & owners:
                    owners |= other
                    members += theirs
                else:
                    apart.append((other, theirs))
            groups = [*apart, (owners, members)]
        return [members for _, members in groups]

    def _zero(self, degree: Degree) -> None:
        """Factors over disjoint axes are each constant first."""
        parts = connected(degree)
        if len(parts) == 1:
            axes, factors = parts[0]
            self._rows(*spread(factors, sorted(axes), sizes(factors)))
            return
        scalars: list[Factor] = []
        for axes, factors in parts:
            scalars += self.uniform(tuple(factors), axes) if axes else factors
        left = self.canonical(tuple(scalars))
        if left:
            self._rows(np.stack([f.ids.ravel() for f in left], 1), np.stack([f.coef.ravel() for f in left], 1))

    def uniform(self, degree: Degree, axes: Iterable[int]) -> Degree:
        """The degree does not depend on `axes`; returns what is left on the others."""
        over = set(axes)
        return tuple(self._uniform(f, over, True) if over & set(f.axes) else f for f in self.canonical(degree))

    def peek(self, degree: Degree, axes: Iterable[int]) -> Degree:
        """What `uniform` would return, without demanding it."""
        over = set(axes)
        return self.canonical(
            tuple(self._uniform(f, over, False) if over & set(f.axes) else f for f in self.canonical(degree))
        )

    def _uniform(self, f: Factor, over: set[int], demand: bool) -> Factor:
        keep = [i for i, a in enumerate(f.axes) if a not in over]
        drop = [i for i, a in enumerate(f.axes) if a in over]
        shape = tuple(f.ids.shape[i] for i in keep)
        ids = f.ids.transpose(keep + drop).reshape(int(np.prod(shape)), -1)
        coef = f.coef.transpose(keep + drop).reshape(ids.shape)
        root, _ = self.find(ids)
        row, first = np.arange(len(ids)), np.argmax(root != ANY, axis=1)
        id0, coef0 = ids[row, first], coef[row, first]
        if demand:
            width = ids.shape[1]
            self.tie(ids.ravel(), coef.ravel(), np.repeat(id0, width), -np.repeat(coef0, width))
        return Factor(tuple(f.axes[i] for i in keep), id0.reshape(shape), coef0.reshape(shape))

    def _reduced(self, ids: np.ndarray, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n, k] in roots, each root once (GROUND elsewhere); rows with a free element are left out."""
        root, m = self.find(ids)
        coef = coef * m
        live = ~(root == ANY).any(1)
        root, coef = root[live], np.where(root[live] == GROUND, 0.0, coef[live])
        for i in range(ids.shape[1]):
            for j in range(i + 1, ids.shape[1]):
                equal = (root[:, i] == root[:, j]) & (root[:, i] != GROUND)
                coef[equal, i] += coef[equal, j]
                coef[equal, j] = 0.0
                root[equal, j] = GROUND
        gone = np.abs(coef) < TOLERANCE
        root[gone], coef[gone] = GROUND, 0.0
        return root, coef

    def _rows(self, ids: np.ndarray, coef: np.ndarray) -> None:
        """Σ coef·degree(id) = 0 for every row [n, k], owner by owner."""
        k = ids.shape[1]
        root, coef = self._reduced(ids, coef)
        owner = self.owner[root]
        for i in range(k):
            mine = root[:, i] != GROUND
            kin = [(owner[:, j] == owner[:, i]) & (root[:, j] != GROUND) for j in range(k) if j != i]
            number = np.sum(kin, axis=0) if kin else np.zeros(len(root), int)
            self.ground(root[mine & (number != 1), i])
            for j in range(i + 1, k):
                pair = mine & (number == 1) & (owner[:, j] == owner[:, i]) & (root[:, j] != GROUND)
                if pair.any():
                    self.tie(root[pair, i], coef[pair, i], root[pair, j], coef[pair, j])


def _squeezed(
    axes: tuple[int, ...], root: np.ndarray, coef: np.ndarray
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Drop the axes along which nothing changes."""
    left, position = list(axes), 0
    for axis in axes:
        r0, c0 = root.take([0], position), coef.take([0], position)
        if root.shape[position] == 1 or ((root == r0).all() and (coef == c0).all()):
            root, coef = r0.squeeze(position), c0.squeeze(position)
            left.remove(axis)
        else:
            position += 1
    return tuple(left), root, coef


def _merge(pairs: list[tuple[np.ndarray, np.ndarray]], root: np.ndarray, coef: np.ndarray) -> None:
    """Add (root, coef) to the first of `pairs` over the same axes that it can be summed with elementwise."""
    for k, (other, c) in enumerate(pairs):
        free = (root == ANY) | (other == ANY)
        if ((root == GROUND) | (other == GROUND) | (root == other) | free).all():
            total = np.where(root == GROUND, c, np.where(other == GROUND, coef, coef + c))
            both = np.where(root == GROUND, other, root)
            both = np.where(free, ANY, np.where(np.abs(total) < 1e-12, GROUND, both))
            pairs[k] = (both, np.where(free, 1.0, np.where(both == GROUND, 0.0, total)))
            return
    pairs.append((root, coef))
