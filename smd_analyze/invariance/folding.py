"""Axes of one kind that stand side by side, seen as one: a unit of a query's kernel (in, heads, size) is a pair.

Rules and units then see the matrix that such a tensor is: "IOO" (64, 4, 16) as "IO" (64, 64).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

from smd_analyze.records.group import Group, Groups
from smd_analyze.records.run import LazyTensor


def folded(tensor: LazyTensor) -> LazyTensor:
    """The same tensor with runs of outputs, and of inputs, as one axis each; itself if there are none."""
    layout = tensor.layout or ""
    if len(layout) != len(tensor.shape) or not ("OO" in layout or "II" in layout):
        return tensor
    shape: list[int] = []
    letters = ""
    at = 0
    for letter, run in groupby(layout):
        count = len(list(run))
        part = tensor.shape[at : at + count]
        at += count
        if letter in "IO":
            size = 1
            for n in part:
                size *= n
            part = (size,)
        shape += part
        letters += letter if letter in "IO" else letter * count
    return replace(tensor, shape=tuple(shape), layout=letters)


def as_saved(groups: Groups, tensors: Mapping[str, LazyTensor], seen: Mapping[str, LazyTensor]) -> Groups:
    """Groups that were formed of folded tensors: shapes as saved, members with the shape that their axis is one of."""
    changed = {n: t.shape for n, t in seen.items() if t.shape != tensors[n].shape}

    def told(group: Group) -> Group:
        members = tuple(replace(m, shape=changed.get(m.parameter, ())) for m in group.members)
        return replace(group, members=members) if members != group.members else group

    rows = tuple(replace(r, shape=tensors[r.parameter].shape) for r in groups.parameters)
    return replace(groups, parameters=rows, groups=tuple(told(g) for g in groups.groups))
