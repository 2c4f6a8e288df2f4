"""The solved degrees of a parameter → which of its parts may be scaled alone: the granularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.invariance.constraints import TOLERANCE, Space
from smd_analyze.invariance.degrees import Parameter
from smd_analyze.invariance.lattice import GROUND
from smd_analyze.invariance.repeating import stretches

MOST_PARTS = 16  # more slices than this are no statement about a tensor


@dataclass(frozen=True)
class Part:
    """Indices `start` to `stop` of the axis; free: cut into `units` equal blocks which may each be scaled alone.

    `every` > 0: the same indices of each `every` consecutive ones, `times` times.
    """

    start: int
    stop: int
    free: bool
    units: int = 1
    every: int = 0
    times: int = 1

    @property
    def count(self) -> int:
        """Number of indices."""
        return (self.stop - self.start) * self.times

    @property
    def block(self) -> int:
        """Indices per unit."""
        return self.count // self.units


@dataclass(frozen=True)
class Reading:
    """What was found along one axis; `whole`: at least all parts together may be scaled."""

    axis: int
    parts: tuple[Part, ...]
    whole: bool

    @property
    def free(self) -> bool:
        """Every index belongs to a block that may be scaled alone."""
        return all(p.free for p in self.parts)


def read(space: Space, members: Sequence[tuple[Parameter, int]]) -> Reading:
    """Granularity along the members' axes (parameter, axis), scaled together index by index; axes of equal length.

    Indices whose variables coincide belong together. A class of indices is free if scaling it by a^1, and nothing
    else, solves all constraints. Free classes are reported if they are runs of consecutive indices, or stand at the
    same places of a pattern that repeats along the axis.
    """
    axis = members[0][1]
    length = members[0][0].shape[axis] if members[0][0].shape else 1
    if not any((space.find(f.ids)[0] != GROUND).any() for p, _ in members for f in p.factors):
        return Reading(axis, (Part(0, length, False),), False)
    whole = _solves(space, members, np.ones(length))
    classes = _classes(space, members, length)
    number = int(classes.max()) + 1
    free = _free(space, members, classes, number) if number > 1 else np.array([whole])
    parts = _parts(classes, free[classes])
    if not whole and (len(parts) > 2 or sum(p.count for p in parts if p.free) < free[classes].sum()):
        parts = repeated(classes, free[classes]) or parts
    if len(parts) > MOST_PARTS or (whole and not all(p.free for p in parts)):
        parts = (Part(0, length, whole),)
    return Reading(axis, parts, whole)


def read_best(space: Space, parameter: Parameter, output_axis: int) -> Reading:
    """The finest reading over all axes; the output axis wins where others say no more."""
    others = [a for a, n in enumerate(parameter.shape) if n > 1 and a != output_axis]
    readings = [read(space, [(parameter, a)]) for a in (output_axis, *others)]
    return max(
        readings,
        key=lambda r: (r.free, sum(p.units for p in r.parts if p.free and r.free), any(p.free for p in r.parts)),
    )


def _classes(space: Space, members: Sequence[tuple[Parameter, int]], length: int) -> np.ndarray:
    """A number per index: indices with the same roots (on all other axes) share it; numbered by first appearance."""
    columns = []
    for parameter, axis in members:
        for f in parameter.factors:
            if axis in f.axes:
                root, m = space.find(f.ids)
                coef = np.where(root == GROUND, 0.0, f.coef * m)
                along = f.axes.index(axis)
                columns += [np.moveaxis(x, along, 0).reshape(length, -1) for x in (root, coef)]
    if not columns:
        return np.zeros(length, int)
    _, first, inverse = np.unique(np.concatenate(columns, 1).round(9), axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), int)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]


def _free(space: Space, members: Sequence[tuple[Parameter, int]], classes: np.ndarray, number: int) -> np.ndarray:
    """For each class, whether scaling it alone solves all constraints.

    Where the first factor runs along the axis itself, that is so exactly if none of the class's roots is zero, shared
    with another class, or shared with a variable of another factor.
    """
    if any(p.factors[0].axes != (axis,) for p, axis in members):
        return np.array([_solves(space, members, (classes == c).astype(float)) for c in range(number)])
    found = [space.find(p.factors[0].ids) for p, _ in members]
    root, ratio = (np.concatenate(x) for x in zip(*found, strict=True))
    of = np.tile(classes, len(members))
    others = [space.find(f.ids)[0].ravel() for p, _ in members for f in p.factors[1:]]
    tied = np.isin(root, np.concatenate(others)) if others else np.zeros(len(root), bool)
    free = np.ones(number, bool)
    free[of[(root == GROUND) | tied]] = False
    order = np.argsort(root, kind="stable")
    same = root[order][1:] == root[order][:-1]
    differ = (of[order][1:] != of[order][:-1]) | (np.abs(ratio[order][1:] - ratio[order][:-1]) > TOLERANCE)
    clash = np.flatnonzero(same & differ)
    free[of[order][clash]] = False
    free[of[order][clash + 1]] = False
    return free


def _solves(space: Space, members: Sequence[tuple[Parameter, int]], weight: np.ndarray) -> bool:
    """Whether the degrees `weight` along the members' axes (the same on all other axes) satisfy every constraint."""
    rows = [
        _wanted(space, f.axes, f.ids, axis, weight, position)
        for parameter, axis in members
        for position, f in enumerate(parameter.factors)
    ]
    root, ratio, value = (np.concatenate(x) for x in zip(*rows, strict=True))
    if (np.abs(value[root == GROUND]) > TOLERANCE).any():
        return False
    order = np.argsort(root, kind="stable")
    order = order[root[order] != GROUND]
    root, wanted = root[order], value[order] / ratio[order]
    return not ((root[1:] == root[:-1]) & (np.abs(wanted[1:] - wanted[:-1]) > TOLERANCE)).any()


def _wanted(
    space: Space, axes: tuple[int, ...], ids: np.ndarray, axis: int, weight: np.ndarray, position: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots, multipliers and wanted degrees of one factor's variables.

    The first factor holds the common scale: others start at zero, so their entries are relative to their first one.
    """
    if axis in axes:
        along = axes.index(axis)
        shape = [len(weight) if i == along else 1 for i in range(len(axes))]
        value = np.broadcast_to(weight.reshape(shape), ids.shape)
        if position:
            value = value - weight[0] if axes == (axis,) else np.zeros(ids.shape)
    else:
        value = np.full(ids.shape, 0.0 if position else weight[0])
    root, ratio = space.find(ids)
    return root.ravel(), ratio.ravel(), value.ravel()


def _parts(classes: np.ndarray, free: np.ndarray) -> tuple[Part, ...]:
    """Runs of consecutive indices: equal free blocks in a row are one part, everything between is not free."""
    length = len(classes)
    cuts = np.flatnonzero(np.diff(classes)) + 1
    starts, stops = [0, *cuts.tolist()], [*cuts.tolist(), length]
    times_seen = np.bincount(classes[starts])
    parts: list[Part] = []
    for start, stop in zip(starts, stops, strict=True):
        loose = bool(free[start]) and times_seen[classes[start]] == 1
        last = parts[-1] if parts else None
        if last and last.free == loose and (not loose or last.block == stop - start):
            parts[-1] = Part(last.start, stop, loose, last.units + 1 if loose else 1)
        else:
            parts.append(Part(start, stop, loose))
    return tuple(parts)


def repeated(classes: np.ndarray, free: np.ndarray) -> tuple[Part, ...]:
    """The parts as a pattern that repeats along the axis, () if it is none."""
    return tuple(Part(s.start, s.stop, s.free, s.units, s.every, s.times) for s in stretches(classes, free))
