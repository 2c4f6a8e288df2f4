"""Translations: sums over a tensor's axes that feel no gradient, because some operation deletes what they add.

Replace W by W + 1 ⊗ u, the same u for every index of some axes. That adds a term that does not vary along these axes.
Linear maps carry it, a mean subtraction or softmax over an axis along which it does not vary deletes it, and all else
would have to treat it like the rest of W. If no such term reaches an output, the loss does not depend on Σ W over these
axes: weight decay alone moves the sum, which makes it a clock (Kunin et al. 2021, arXiv:2012.04728).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.degrees import Degrees
from smd_analyze.invariance.lattice import GROUND, Factor, Term, Value, plain
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.group import Translation

MOST_TERMS = 200  # a residual stream carries a term of every layer that writes to it
SUM_OVER_UNITS, WITHIN_UNIT, WHOLE = "sum over units", "within unit", "whole"  # as in the `clocks` table
ASSUMED = "if the loss is a softmax over the outputs' classes"


@dataclass(frozen=True)
class Question:
    """Does the output feel a shift of the parameter that is the same along `axes`? `variable` is its degree."""

    parameter: str
    functional: str
    axes: tuple[int, ...]
    variable: int


class Shifts(Degrees):
    """Degrees of shifts: a parameter is fixed, and each question adds a term to it whose scale is unknown."""

    def __init__(self, output_axis: Mapping[str, int]) -> None:
        super().__init__(Space(), most_terms=MOST_TERMS)
        self.output_axis = output_axis
        self.questions: list[Question] = []

    def parameter(
        self, name: str, shape: Sequence[int], owner: int, blocks: Sequence[tuple[tuple[int, ...], Any]]
    ) -> Value:
        """The parameter, with a shift along the units' axis and one along all others."""
        del owner, blocks
        shape = tuple(shape)
        terms = [plain(shape).terms[0]]
        out = self.output_axis[name]
        rest = tuple(a for a in range(len(shape)) if a != out)
        asked = [(SUM_OVER_UNITS, (out,)), (WITHIN_UNIT, rest)] if len(shape) > 1 else [(SUM_OVER_UNITS, (0,))]
        for functional, axes in asked if shape else []:
            number = len(self.questions)
            ids = self.space.fresh((), number, number)
            self.questions.append(Question(name, functional, axes, int(ids)))
            vary = frozenset(a for a, n in enumerate(shape) if n > 1 and a not in axes)
            terms.append(Term((Factor((), ids, np.ones(())),), vary, 1 << number))
        self.leaves[name] = Value(shape, tuple(terms))
        return self.leaves[name]


def with_translations(
    verdicts: Mapping[str, list[Verdict]],
    carry: Callable[[Degrees], Sequence[tuple[Any, Value]]],
    output_axis: Mapping[str, int],
    classes: Callable[[Value], int | None] | None,
    where: Callable[[Any], str],
) -> dict[str, list[Verdict]]:
    """The verdicts with the sums of each parameter that feel no gradient; a dead one feels none at all.

    `carry` takes degrees through the graph and returns the outputs' nodes and values; `classes` tells the axis of an
    output over which a softmax may follow (None: no output is a classifier's).
    """
    dead = {n for n, rows in verdicts.items() if all(v.status == "dead" for v in rows)}
    sums: dict[str, list[Translation]] = {}
    for t in translations(carry, output_axis, classes, where):
        if t.parameter not in dead:
            sums.setdefault(t.parameter, []).append(t)
    for name in dead:
        sums[name] = [Translation(name, WHOLE, (), verdicts[name][0].reason)]
    return {
        n: [replace(rows[0], translations=tuple(sums[n])), *rows[1:]] if n in sums else rows
        for n, rows in verdicts.items()
    }


def class_axis(output: Value) -> int | None:
    """Where the classes of logits stand: [N, C], [N, T, C], [N, C, H, W]; None if it cannot be logits."""
    axis = 1 if output.ndim == 4 else output.ndim - 1
    return axis if output.ndim >= 2 and output.shape[axis] > 1 else None


def translations(
    carry: Callable[[Degrees], Sequence[tuple[Any, Value]]],
    output_axis: Mapping[str, int],
    classes: Callable[[Value], int | None] | None,
    where: Callable[[Any], str],
) -> list[Translation]:
    """All sums that feel no gradient, and which operation sees to it; arguments as above."""
    d = Shifts(output_axis)
    spared: list[int] = []
    outputs = carry(d)
    for node, value in outputs:
        d.space.place = node
        axis = classes(value) if classes and len(outputs) == 1 else None
        for term in value.terms:
            if axis is not None and axis not in term.vary:
                spared += [int(i) for f in term.degree for i in f.ids.ravel()]
            else:
                _refute(d, term)
    passed = {q.variable for q in d.questions if not _refuted(d, q.variable)}
    for variable in spared:
        d.space.ground(np.array([variable]))
    found = []
    for number, q in enumerate(d.questions):
        if q.variable not in passed:
            continue
        assumed = ASSUMED if _refuted(d, q.variable) else ""
        place = d.deleted.get(number)
        reason = f"{where(place)} subtracts it" if place is not None else "it cancels on every path"
        if assumed:
            reason = "a softmax ignores what is added to all classes"
        found.append(Translation(q.parameter, q.functional, q.axes, reason, assumed))
    return found


def _refute(d: Degrees, term: Term) -> None:
    d.flush(term)
    d.space.zero(term.degree)


def _refuted(d: Degrees, variable: int) -> bool:
    return bool(d.space.find(np.array([variable]))[0][0] == GROUND)
