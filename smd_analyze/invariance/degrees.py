"""How degrees pass through the few operations that all others are made of: sums, products, functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.lattice import (
    ANY,
    GROUND,
    Degree,
    Factor,
    Pending,
    Term,
    Value,
    moved,
    negated,
    plain,
    times,
    zeros,
)

MOST_TERMS = 12  # sums are kept lazily up to here, then forced to one degree: sound, may lose an invariance
SUM = "on the way to {place} it is added to parts that do not scale with it"
FIXED = "it is no homogeneous function: the scale must stay as it is"
MIXED = "it mixes elements that scale differently"


@dataclass(frozen=True)
class Parameter:
    """A parameter's variables: `number` is its bit in the taints, `factors` one vector of degrees per axis."""

    number: int
    factors: tuple[Factor, ...]
    shape: tuple[int, ...]


@dataclass
class Degrees:
    """The state of one analysis.

    Constraints, parameters and their values, entries known to be exchangeable, variables ever used, and what was met
    on the way.
    """

    space: Space = field(default_factory=Space)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    exchangeable: list[tuple[np.ndarray, int]] = field(default_factory=list)
    used: list[np.ndarray] = field(default_factory=list)
    opaque_operations: dict[str, int] = field(default_factory=dict)
    absorbed: dict[int, Any] = field(default_factory=dict)
    deleted: dict[int, Any] = field(default_factory=dict)
    leaves: dict[str, Value] = field(default_factory=dict)
    most_terms: int = MOST_TERMS

    def parameter(
        self, name: str, shape: Sequence[int], owner: int, blocks: Sequence[tuple[tuple[int, ...], Any]]
    ) -> Value:
        """A parameter with a vector of degrees for each of `blocks` (axes, key): equal keys share a variable.

        The first vector is the rows'; the others have their first entry at zero, so that they hold no common scale.
        """
        shape = tuple(shape)
        number = len(self.parameters)
        factors = []
        for position, (axes, key) in enumerate(blocks or [((), None)]):
            full = tuple(shape[a] for a in axes)
            slot = number if position == 0 else -1
            if key is None:
                ids = self.space.fresh(full, owner, slot)
            else:
                values, inverse = np.unique(key, return_inverse=True)
                ids = self.space.fresh((len(values),), owner, slot)[inverse.reshape(full)]
            if position:
                place, self.space.place = self.space.place, None
                self.space.ground(ids.take(0, ids.ndim - 1))
                self.space.place = place
            factors.append(Factor(tuple(axes), ids, np.ones(full)))
        self.parameters[name] = Parameter(number, tuple(factors), shape)
        vary = frozenset(a for a, n in enumerate(shape) if n > 1)
        self.leaves[name] = Value(shape, (Term(tuple(factors), vary, 1 << number),))
        return self.leaves[name]

    # ---- one degree for the whole sum

    def use(self, degree: Degree) -> None:
        """Note that an operation reads elements of this degree (slicing alone reads nothing)."""
        self.used += [f.ids.ravel() for f in degree]

    def flush(self, term: Term) -> None:
        """The term survives: what was pending now counts."""
        for degree, axes in term.pending:
            self._because(MIXED)
            self.space.uniform(degree, axes)

    def single(self, value: Value) -> Term | None:
        """Force all terms to one degree; None if the value is zero."""
        if not value.terms:
            return None
        terms = sorted(value.terms, key=lambda t: -len(t.vary))
        for term in terms:
            self.flush(term)
            self.use(term.degree)
        degree = self.space.canonical(terms[0].degree)
        vary, taint = terms[0].vary, terms[0].taint
        for term in terms[1:]:
            degree = self.equal(degree, self.space.canonical(term.degree))
            vary |= term.vary
            taint |= term.taint
        return Term(self.space.canonical(degree), vary, taint)

    def equal(self, a: Degree, b: Degree) -> Degree:
        """Demand equal degrees; returns the common one, known wherever one of the two is."""
        self._because(SUM)
        self.space.zero(tuple(a) + negated(b))
        a, b = self.space.canonical(a), self.space.canonical(b)
        if len(a) != 1 or len(b) > 1 or not (a[0].ids == ANY).any():
            return a
        f, free = a[0], a[0].ids == ANY
        if not b:
            return (Factor(f.axes, np.where(free, GROUND, f.ids), np.where(free, 0.0, f.coef)),)
        if b[0].axes in (f.axes, ()):
            return (Factor(f.axes, np.where(free, b[0].ids, f.ids), np.where(free, b[0].coef, f.coef)),)
        return a

    def summed(self, term: Term, axes: Iterable[int], all_vary: frozenset[int]) -> tuple[Degree, Pending]:
        """Degree after a sum over `axes`: the same along them. Deferred for a shift, which may yet be deleted."""
        over = frozenset(axes)
        self.use(term.degree)
        if term.vary >= all_vary:
            self._because(MIXED)
            return self.space.uniform(term.degree, over), ()
        touched = tuple(f for f in self.space.canonical(term.degree) if over & set(f.axes))
        return self.space.peek(term.degree, over), ((touched, over),) if touched else ()

    def simplified(self, terms: Iterable[Term]) -> tuple[Term, ...]:
        """Terms of the same degree and the same axes are one."""
        seen: dict[Any, Term] = {}
        for term in terms:
            degree = self.space.canonical(term.degree)
            key = (term.vary, tuple((f.axes, f.ids.tobytes(), f.coef.tobytes()) for f in degree))
            old = seen.get(key)
            seen[key] = term.but(degree) if old is None else term.but(degree, None, old.taint, old.pending)
        return tuple(seen.values())

    # ---- elementwise

    def broadcast(self, value: Value, shape: Sequence[int]) -> tuple[Term, ...]:
        """The value's terms with their axes counted as in `shape`; broadcast axes do not vary."""
        offset = len(shape) - value.ndim
        if not offset:
            return value.terms
        return tuple(
            t.but(tuple(moved(f, (a + offset for a in f.axes)) for f in t.degree), (a + offset for a in t.vary))
            for t in value.terms
        )

    def add(self, values: Sequence[Value], shape: Sequence[int]) -> Value:
        """Sum: all terms are kept, until there are too many."""
        terms = self.simplified(t for v in values for t in self.broadcast(v, shape))
        out = Value(tuple(shape), terms, all(v.nonnegative for v in values))
        return out if len(terms) <= self.most_terms else self.homogeneous(out, out.nonnegative)

    def multiply(self, x: Value, y: Value, shape: Sequence[int], absorb: bool = False) -> Value:
        """Product: degrees add. `absorb`: a quotient; owners whose degree cancels are noted as absorbed here."""
        left, right = self.broadcast(x, shape), self.broadcast(y, shape)
        if not left or not right:
            return zeros(shape)
        if len(left) * len(right) > self.most_terms:
            longer_left = len(left) > len(right)
            left = self._forced(left, shape) if longer_left else left
            right = right if longer_left else self._forced(right, shape)
        if len(left) * len(right) > self.most_terms:
            left, right = self._forced(left, shape), self._forced(right, shape)
        terms = []
        for a in left:
            for b in right:
                degree = self.space.canonical(a.degree + b.degree)
                if absorb:
                    self.note(self.absorbed, self.slots(a.degree) - self.slots(degree))
                terms.append(a.but(degree, a.vary | b.vary, b.taint, b.pending))
        return Value(tuple(shape), self.simplified(terms), x.nonnegative and y.nonnegative)

    def _forced(self, terms: tuple[Term, ...], shape: Sequence[int]) -> tuple[Term, ...]:
        one = self.single(Value(tuple(shape), terms))
        return (one,) if one else ()

    def divide(self, x: Value, y: Value, shape: Sequence[int]) -> Value:
        """Quotient: degrees subtract."""
        return self.multiply(x, self.power(y, -1.0), shape, absorb=True)

    def power(self, x: Value, exponent: float) -> Value:
        """x to a fixed power: degree times the exponent."""
        term = self.single(x)
        even = float(exponent).is_integer() and int(exponent) % 2 == 0
        terms = (Term(times(term.degree, exponent), term.vary, term.taint),) if term else ()
        return Value(x.shape, terms, x.nonnegative or even or not float(exponent).is_integer())

    def homogeneous(self, x: Value, nonnegative: bool = False) -> Value:
        """A positively homogeneous function of each element (ReLU, absolute value): the degree stays."""
        term = self.single(x)
        return Value(x.shape, (term,) if term else (), nonnegative or x.nonnegative)

    def fixed(self, x: Value, nonnegative: bool = False, cause: str = FIXED) -> Value:
        """Any other function of each element: the degree must be zero."""
        term = self.single(x)
        if term is None:
            return constant_like(x, nonnegative)
        self._because(cause)
        self.space.zero(term.degree)
        return Value(x.shape, (Term((), term.vary, term.taint),), nonnegative)

    def sign(self, x: Value) -> Value:
        """A function of the sign alone: the result has degree zero, whatever the scale."""
        term = self.single(x)
        return Value(x.shape, (Term((), term.vary, term.taint),)) if term else constant_like(x)

    def where(self, condition: Value, a: Value, b: Value, shape: Sequence[int]) -> Value:
        """Choice: both sides' terms, varying also where the condition does."""
        chosen = Value(tuple(shape), self.broadcast(condition, shape))
        terms = [t.but(None, t.vary | chosen.vary, chosen.taint) for v in (a, b) for t in self.broadcast(v, shape)]
        nonnegative = all(v.nonnegative or not v.terms for v in (a, b))
        return Value(tuple(shape), self.simplified(terms), nonnegative)

    def opaque(self, values: Iterable[Value], shape: Sequence[int], name: str) -> Value:
        """An operation without a rule: nothing that enters may change its scale. Counted where weights enter."""
        taint = 0
        for value in values:
            taint |= value.taint
            term = self.single(value)
            if term:
                self._because(f"no rule is known for the operation {name}")
                self.space.zero(term.degree)
        if taint:
            self.opaque_operations[name] = self.opaque_operations.get(name, 0) + 1
        return plain(shape, taint)

    # ---- notes for the reasons

    def slots(self, degree: Degree) -> set[int]:
        """Numbers of the parameters whose rows' scale the degree holds."""
        found: set[int] = set()
        for f in self.space.canonical(degree):
            found |= set(self.space.slot[f.ids].ravel().tolist())
        return found - {-1}

    def note(self, book: dict[int, Any], slots: Iterable[int]) -> None:
        """Remember the place that absorbed (or deleted) these parameters; the last one counts."""
        for slot in slots:
            book[slot] = self.space.place

    def _because(self, cause: str) -> None:
        self.space.cause = cause


def constant_like(x: Value, nonnegative: bool = False) -> Value:
    """Degree zero and the same everywhere, in x's shape."""
    return Value(x.shape, (Term((), frozenset()),), nonnegative)


def bits(taint: int) -> list[int]:
    """Numbers of the bits that are set."""
    return [i for i in range(taint.bit_length()) if taint >> i & 1]


def renamed(term: Term, axes: Mapping[int, int]) -> Term:
    """The term with its axes renamed; factors' and varying axes that have no new name have length 1 and fall away."""
    factors = []
    for f in term.degree:
        gone = [i for i, a in enumerate(f.axes) if a not in axes]
        ids, coef = f.ids, f.coef
        for i in reversed(gone):
            ids, coef = ids.take(0, i), coef.take(0, i)
        kept = [a for a in f.axes if a in axes]
        factors.append(moved(Factor(tuple(kept), ids, coef), (axes[a] for a in kept)))
    return term.but(tuple(factors), (axes[a] for a in term.vary if a in axes))
