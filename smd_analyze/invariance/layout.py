"""How degrees move with their elements: reshape, transpose, slice, concatenate, look up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smd_analyze.invariance.degrees import Degrees, renamed
from smd_analyze.invariance.lattice import ANY, GROUND, Factor, Term, Value, moved, zeros


def rename(value: Value, shape: Sequence[int], axes: Mapping[int, int]) -> Value:
    """Axis a becomes axis axes[a]; those left out have length 1."""
    return Value(tuple(shape), tuple(renamed(t, axes) for t in value.terms), value.nonnegative)


def permute(value: Value, order: Sequence[int]) -> Value:
    """Axis order[i] becomes axis i."""
    return rename(value, [value.shape[a] for a in order], {old: new for new, old in enumerate(order)})


def unsqueeze(value: Value, axis: int) -> Value:
    """A new axis of length 1 at position `axis`."""
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    return rename(value, shape, {a: a if a < axis else a + 1 for a in range(value.ndim)})


def drop(value: Value, axis: int) -> Value:
    """Without `axis`, which has length 1."""
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    return rename(value, shape, {a: a if a < axis else a - 1 for a in range(value.ndim) if a != axis})


def reshape(d: Degrees, value: Value, shape: Sequence[int]) -> Value:
    """Split and merge axes: the smallest groups of old and new axes with equal products are handled apart."""
    shape = tuple(int(n) for n in shape)
    if value.shape == shape:
        return value
    if 0 in value.shape:
        return zeros(shape)
    groups = _axis_groups(value.shape, shape)
    group_of = {a: g for g, (old, _) in enumerate(groups) for a in old}
    terms = []
    for term in value.terms:
        factors = []
        for f in d.space.canonical(term.degree):
            touched = sorted({group_of[a] for a in f.axes})
            old = [a for g in touched for a in groups[g][0]]
            new = [a for g in touched for a in groups[g][1]]
            some = [value.shape[a] if a in f.axes else 1 for a in old]
            full = [value.shape[a] for a in old]
            target = [shape[a] for a in new]
            ids = np.broadcast_to(f.ids.reshape(some), full).reshape(target)
            factors.append(Factor(tuple(new), ids, np.broadcast_to(f.coef.reshape(some), full).reshape(target)))
        vary = [a for g in {group_of[a] for a in term.vary} for a in groups[g][1] if shape[a] > 1]
        terms.append(term.but(d.space.canonical(tuple(factors)), vary))
    return Value(shape, tuple(terms), value.nonnegative)


def _axis_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right, product_left, product_right = [], [], 1, 1
        if i < len(old):
            left.append(i)
            product_left = old[i]
            i += 1
        if j < len(new):
            right.append(j)
            product_right = new[j]
            j += 1
        while product_left != product_right:
            if product_left < product_right:
                left.append(i)
                product_left *= old[i]
                i += 1
            else:
                right.append(j)
                product_right *= new[j]
                j += 1
        if (left and right) or not groups:
            groups.append((left, right))
        else:  # trailing axes of length 1
            groups[-1][0].extend(left)
            groups[-1][1].extend(right)
    return groups


def take(value: Value, axis: int, index: Any) -> Value:
    """The elements `index` (1-d, known) along `axis`: slices, flips, rolls, repeats."""
    index = np.asarray(index)
    shape = (*value.shape[:axis], len(index), *value.shape[axis + 1 :])
    terms = []
    for term in value.terms:
        factors = tuple(
            Factor(f.axes, f.ids.take(index, f.axes.index(axis)), f.coef.take(index, f.axes.index(axis)))
            if axis in f.axes
            else f
            for f in term.degree
        )
        terms.append(term.but(factors, term.vary if len(index) > 1 else term.vary - {axis}))
    return Value(shape, tuple(terms), value.nonnegative)


def select(value: Value, axis: int, index: int) -> Value:
    """One index of an axis, which goes away."""
    return drop(take(value, axis, [index]), axis)


def concatenate(d: Degrees, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
    """Parts may have different degrees along `axis`.

    The widest terms of all parts make one term; every other term is one by itself, zero outside its part.
    """
    if not any(v.terms for v in values):
        return zeros(shape)
    if sum(max(0, len(v.terms) - 1) for v in values) > d.most_terms:
        values = [d.homogeneous(v) if len(v.terms) > 1 else v for v in values]
    parts = [sorted(v.terms, key=lambda t: -len(t.vary)) for v in values]
    terms = [_joined(d, [p[0] if p else None for p in parts], values, axis)]
    for i, part in enumerate(parts):
        terms += [_joined(d, [t if j == i else None for j in range(len(parts))], values, axis) for t in part[1:]]
    return Value(tuple(shape), tuple(terms), all(v.nonnegative for v in values))


def _joined(d: Degrees, terms: Sequence[Term | None], values: Sequence[Value], axis: int) -> Term:
    """One term whose parts along `axis` are the given ones; None is a part that is zero there."""
    vary, taint, pending = {axis}, 0, ()
    for term in terms:
        if term is not None:
            vary |= term.vary
            taint |= term.taint
            pending += term.pending
    degrees = [None if t is None else d.space.canonical(t.degree) for t in terms]
    number = max((len(g) for g in degrees if g is not None), default=0)
    if not number and None in degrees:
        number = 1
    factors = []
    for position in range(number):
        axes = {axis}.union(*(g[position].axes for g in degrees if g is not None and position < len(g)))
        ids, coefs = [], []
        for value, degree in zip(values, degrees, strict=True):
            full = [value.shape[a] for a in sorted(axes)]
            if degree is None:  # zero: marked once, neutral in the further factors
                ids.append(np.full(full, GROUND if position else ANY))
                coefs.append(np.ones(full))
            elif position >= len(degree):
                ids.append(np.full(full, GROUND))
                coefs.append(np.zeros(full))
            else:
                f = degree[position]
                some = [value.shape[a] if a in f.axes else 1 for a in sorted(axes)]
                ids.append(np.broadcast_to(f.ids.reshape(some), full))
                coefs.append(np.broadcast_to(f.coef.reshape(some), full))
        along = sorted(axes).index(axis)
        factors.append(Factor(tuple(sorted(axes)), np.concatenate(ids, along), np.concatenate(coefs, along)))
    return Term(d.space.canonical(tuple(factors)), frozenset(vary), taint, pending)


def look_up(
    d: Degrees, value: Value, axis: int, shape: Sequence[int], new: Sequence[int], other: Mapping[int, int]
) -> Value:
    """Entries of `axis` chosen by data, spread over the output axes `new`; the other axes go to other[a].

    Which entry is taken is not known, so entries are taken round-robin; afterwards what holds for one that was used
    is demanded of all (`close`).
    """
    count = int(np.prod([shape[a] for a in new])) if new else 1
    index = (np.arange(count) % value.shape[axis]).reshape([shape[a] for a in new])
    terms = []
    for term in value.terms:
        factors = []
        for f in d.space.canonical(term.degree):
            rest = [other[a] for a in f.axes if a != axis]
            if axis in f.axes:
                along = f.axes.index(axis)
                d.exchangeable.append((f.ids, along))
                ids, coef = np.moveaxis(f.ids, along, 0)[index], np.moveaxis(f.coef, along, 0)[index]
                factors.append(moved(Factor((), ids, coef), [*new, *rest]))
            else:
                factors.append(moved(f, rest))
        vary = {other[a] for a in term.vary if a != axis} | {a for a in new if shape[a] > 1}
        terms.append(term.but(tuple(factors), vary))
    return Value(tuple(shape), tuple(terms), value.nonnegative)


def close(d: Degrees) -> None:
    """What holds for one exchangeable entry holds for all."""
    for ids, along in d.exchangeable:
        for column in np.moveaxis(ids, along, 0).reshape(ids.shape[along], -1).T:
            root, _ = d.space.find(column)
            if (root == GROUND).any():
                d.space.ground(column)
            elif len(set(root.tolist())) < len(root):
                first = np.full(len(column), column[0])
                d.space.tie(column, np.ones(len(column)), first, -np.ones(len(column)))
