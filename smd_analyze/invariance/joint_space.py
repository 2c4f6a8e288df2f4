"""Constraints when all parameters may change together: the linear system is kept whole and solved as it grows.

With one degree for each tensor there are few variables, so every row is eliminated at once, with rational numbers: a
degree that is known to be zero is seen to be zero. The solutions are all rescalings of whole tensors that change no
output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction

import numpy as np

from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.lattice import ANY, GROUND, Degree, Factor, connected, sizes, spread

MOST_NUMBERS = 1_000_000  # coefficients that the solved rows may hold: beyond, nothing is said jointly
LARGEST_DENOMINATOR = 10_000
Form = dict[int, Fraction]  # variable → coefficient


class TooLarge(Exception):
    """The system needs more memory than it may have."""


class JointSpace(Space):
    """Variables of all owners together, with the solved rows beside the union-find that shows the short ones."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()

    def ground(self, ids: np.ndarray) -> None:
        """degree(id) = 0 for all ids."""
        for i in np.unique(self.find(np.asarray(ids).ravel())[0]).tolist():
            if i not in (GROUND, ANY):
                self._add({i: Fraction(1)})

    def tie(self, a: np.ndarray, ca: np.ndarray, b: np.ndarray, cb: np.ndarray) -> None:
        """ca·degree(a) + cb·degree(b) = 0, elementwise over 1-d arrays."""
        self._rows(np.stack([a, b], 1), np.stack([ca, cb], 1))

    def _rows(self, ids: np.ndarray, coef: np.ndarray) -> None:
        root, coef = self._reduced(ids, coef)
        width = root.shape[1]
        for row in np.unique(np.concatenate([root, coef], 1), axis=0):
            self._add(_rational(row[:width].astype(int), row[width:]))

    def _add(self, row: Form) -> None:
        for i in self.rows.add(row):
            form = self.rows.solved[i]
            if len(form) < 2:
                ((root, c),) = form.items() if form else ((GROUND, Fraction(0)),)
                self.parent[i], self.multiplier[i] = root, float(c)

    def canonical(self, degree: Degree) -> Degree:
        """As for one owner; what has no axes is one form in free variables."""
        degree = super().canonical(degree)
        scalars = [f for f in degree if not f.axes]
        if not scalars or any(int(f.ids) == ANY for f in scalars):
            return degree
        ids, coef = np.stack([f.ids for f in scalars]), np.stack([f.coef for f in scalars])
        form = self.rows.reduced(_rational(ids, coef))
        single = [Factor((), np.array(i), np.array(float(c))) for i, c in sorted(form.items())]
        return (*single, *(f for f in degree if f.axes))

    def _by_owner(self, degree: Degree) -> list[list[Factor]]:
        return [list(degree)]

    def uniform(self, degree: Degree, axes: Iterable[int]) -> Degree:
        """The degree does not depend on `axes`: the factors' sum, not each of them."""
        over = set(axes)
        degree = self.canonical(degree)
        out = [f for f in degree if not over & set(f.axes)]
        for along, factors in connected(f for f in degree if over & set(f.axes)):
            free = any((self.find(f.ids)[0] == ANY).any() for f in factors)
            if len(factors) == 1 or free:
                out += [self._uniform(f, over, True) if over & set(f.axes) else f for f in factors]
                continue
            first = [_at_start(f, over) for f in factors]
            ids, coef = spread([*factors, *_lined_up(first, factors)], sorted(along), sizes(factors))
            self._rows(ids, coef * np.repeat([1.0, -1.0], len(factors)))
            out += first
        return tuple(out)

    def solve(self, last: Collection[int] = ()) -> dict[int, Form]:
        """Every variable that depends on others: its form in the free ones. All others are free (or GROUND).

        Expressed by others is the variable that was made last, of those in `last` if there are any. Raises TooLarge.
        """
        if self.rows.full:
            raise TooLarge
        again = Rows(last)
        for i, form in self.rows.solved.items():
            again.add({i: Fraction(1)} | {j: -c for j, c in form.items()})
        return again.solved


class Rows:
    """Rows Σ c·x = 0, solved one after the other: `solved` maps a dependent variable to its form in free ones."""

    def __init__(self, last: Collection[int] = ()) -> None:
        self.solved: dict[int, Form] = {}
        self.users: dict[int, set[int]] = {}  # free variable → the solved ones whose form holds it
        self.last = last
        self.held = 0

    @property
    def full(self) -> bool:
        """Rows were left out: the solution is none."""
        return self.held > MOST_NUMBERS

    def reduced(self, row: Form) -> Form:
        """The row in free variables."""
        form: Form = {}
        for i, c in row.items():
            _add(form, self.solved.get(i, {i: Fraction(1)}), c)
        return form

    def add(self, row: Form) -> Iterator[int]:
        """Take one more row in; returns the variables whose form is new."""
        form = self.reduced(row)
        if not form or self.full:
            return iter(())
        pivot = max(form, key=lambda i: (i in self.last, i))
        c = form.pop(pivot)
        form = {i: -x / c for i, x in form.items()}
        changed = self.users.pop(pivot, set())
        for other in changed:
            old = self.solved[other]
            before = set(old) - {pivot}
            factor = old.pop(pivot)
            _add(old, form, factor)
            self.held += len(old) - len(before) - 1
            for i in old.keys() ^ before:
                self.users.setdefault(i, set()).symmetric_difference_update({other})
        self.solved[pivot] = form
        self.held += len(form)
        for i in form:
            self.users.setdefault(i, set()).add(pivot)
        return iter((pivot, *changed))


def _at_start(f: Factor, over: set[int]) -> Factor:
    """The factor at the first index of the axes `over`, which go away."""
    at = tuple(0 if a in over else slice(None) for a in f.axes)
    return Factor(tuple(a for a in f.axes if a not in over), f.ids[at], f.coef[at])


def _lined_up(first: Iterable[Factor], factors: Iterable[Factor]) -> list[Factor]:
    """The same with their axes back, of length 1, so that they can be spread beside `factors`."""
    out = []
    for start, f in zip(first, factors, strict=True):
        shape = [n if a in start.axes else 1 for a, n in zip(f.axes, f.ids.shape, strict=True)]
        ids, coef = (np.broadcast_to(x.reshape(shape), f.ids.shape) for x in (start.ids, start.coef))
        out.append(Factor(f.axes, ids, coef))
    return out


def _rational(ids: np.ndarray, coef: np.ndarray) -> Form:
    form: Form = {}
    for i, c in zip(ids.tolist(), coef.tolist(), strict=True):
        if i != GROUND:
            form[i] = form.get(i, Fraction(0)) + Fraction(c).limit_denominator(LARGEST_DENOMINATOR)
    return {i: c for i, c in form.items() if c}


def _add(form: Form, more: Form, factor: Fraction) -> None:
    for i, c in more.items():
        total = form.get(i, Fraction(0)) + c * factor
        if total:
            form[i] = total
        else:
            form.pop(i, None)
