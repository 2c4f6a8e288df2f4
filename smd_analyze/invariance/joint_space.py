"""Constraints when all parameters may change together: the linear system is kept whole and solved exactly.

Rows of one or two variables go into the union-find at once; longer ones are kept, reduced again when more is known, and
eliminated with rational numbers at the end. The solutions are all rescalings, tensor by tensor, that change no output.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.lattice import ANY, GROUND, Degree, Factor, connected, sizes, spread

MOST_NUMBERS = 2_000_000  # coefficients that the elimination may hold: beyond, nothing is said jointly
LARGEST_DENOMINATOR = 10_000
Form = dict[int, Fraction]  # variable → coefficient


class TooLarge(Exception):
    """The system needs more memory than it may have."""


class JointSpace(Space):
    """Variables of all owners together; `long` holds the rows of three and more variables."""

    def __init__(self) -> None:
        super().__init__()
        self.long: list[tuple[np.ndarray, np.ndarray]] = []

    def _strangers(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.zeros(a.shape, bool)

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
            rows = spread([*factors, *_lined_up(first, factors)], sorted(along), sizes(factors))
            signs = np.repeat([1.0, -1.0], len(factors))
            self._rows(rows[0], rows[1] * signs)
            out += first
        return tuple(out)

    def _rows(self, ids: np.ndarray, coef: np.ndarray) -> None:
        root, coef = self._reduced(ids, coef)
        if not len(root):
            return
        count = (root != GROUND).sum(1)
        order = np.argsort(root == GROUND, axis=1, kind="stable")
        root, coef = np.take_along_axis(root, order, 1), np.take_along_axis(coef, order, 1)
        self.ground(root[count == 1, 0])
        pair = count == 2
        if pair.any():
            self.tie(root[pair, 0], coef[pair, 0], root[pair, 1], coef[pair, 1])
        for width in range(3, root.shape[1] + 1):
            chosen = count == width
            if chosen.any():
                both = np.unique(np.concatenate([root[chosen, :width], coef[chosen, :width]], 1), axis=0)
                self.long.append((both[:, :width].astype(int), both[:, width:]))

    def solve(self) -> dict[int, Form]:
        """Every variable that depends on others, by root: its form in the free ones. Others are free (or GROUND).

        The variable met last in the graph is the one that is expressed, so that free ones stand early.
        Raises TooLarge.
        """
        while True:  # what was learnt since may shorten a row
            rows, self.long = self.long, []
            for ids, coef in rows:
                self._rows(ids, coef)
            if sum(len(r) for r, _ in self.long) == sum(len(r) for r, _ in rows):
                break
        return eliminate(_rational(ids, coef) for rows in self.long for ids, coef in zip(*rows, strict=True))


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


def eliminate(rows: Iterable[Form]) -> dict[int, Form]:
    """Solve Σ c·x = 0 for all rows: dependent variable → its form in free variables ({} where it is zero)."""
    solved: dict[int, Form] = {}
    users: dict[int, set[int]] = {}  # free variable → the solved ones whose form holds it
    held = 0
    for row in rows:
        form: Form = {}
        for i, c in row.items():
            _add(form, solved.get(i, {i: Fraction(1)}), c)
        if not form:
            continue
        pivot = max(form)
        c = form.pop(pivot)
        form = {i: -x / c for i, x in form.items()}
        for other in users.pop(pivot, set()):
            factor = solved[other].pop(pivot)
            held -= len(solved[other])
            before = set(solved[other])
            _add(solved[other], form, factor)
            held += len(solved[other])
            for i in solved[other].keys() ^ before:
                users.setdefault(i, set()).symmetric_difference_update({other})
        solved[pivot] = form
        held += len(form)
        for i in form:
            users.setdefault(i, set()).add(pivot)
        if held > MOST_NUMBERS:
            raise TooLarge
    return solved


def _add(form: Form, more: Form, factor: Fraction) -> None:
    for i, c in more.items():
        total = form.get(i, Fraction(0)) + c * factor
        if total:
            form[i] = total
        else:
            form.pop(i, None)
