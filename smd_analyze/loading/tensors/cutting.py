"""One index of an axis of a tensor as a tensor of its own: layers that a framework stacks in one array."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.places import Place, row_major, same_where_it_matters


def can_be_cut(place: Place, axis: int) -> bool:
    """Not a tensor inside an archive; one that lies in flat pieces only along its first axis."""
    return place.find is None and (axis == 0 or not lies_flat(place))


def lies_flat(place: Place) -> bool:
    """Its pieces are stretches of the flattened tensor."""
    return place.pieces is not None and any(len(begin) != len(place.shape) for begin, _ in place.pieces)


def flat(place: Place, index: int, shape: tuple[int, ...]) -> Place:
    """Index `index` of the first axis of a tensor in flat pieces."""
    low = index * prod(shape)
    kept: list[tuple[tuple[int, ...], Place]] = []
    for (begin,), piece in place.pieces or ():
        first, last = max(low, begin), min(low + prod(shape), begin + prod(piece.shape))
        if first < last:
            start = piece.start + (first - begin) * ITEMSIZE[piece.dtype]
            kept.append(((first - low,), replace(piece, shape=(last - first,), start=start)))
    return replace(place, shape=shape, layout=None, pieces=tuple(kept))


def cut(place: Place, axis: int, index: int) -> Place:
    """Index `index` of axis `axis`. ValueError where can_be_cut() says no."""
    if not can_be_cut(place, axis):
        raise ValueError("the tensor lies in flat pieces, or inside an archive")
    shape = place.shape[:axis] + place.shape[axis + 1 :]
    layout = None
    if place.read is not None:
        return replace(place, shape=shape, layout=layout, part=(*place.part, (axis, index)))
    if place.pieces is not None:
        kept: list[tuple[tuple[int, ...], Place]] = []
        if lies_flat(place):
            return flat(place, index, shape)
        for begin, piece in place.pieces:
            if begin[axis] <= index < begin[axis] + piece.shape[axis]:
                kept.append((begin[:axis] + begin[axis + 1 :], cut(piece, axis, index - begin[axis])))
        return replace(place, shape=shape, layout=layout, pieces=tuple(kept))
    strides = place.strides or row_major(place.shape)
    first = index * strides[axis]
    left = strides[:axis] + strides[axis + 1 :]
    inline = place.inline
    start = place.start
    if inline is None:
        start += first * ITEMSIZE[place.dtype]
    else:
        span = 1 + sum((n - 1) * s for n, s in zip(shape, left, strict=True))
        inline = inline[first * ITEMSIZE[place.dtype] : (first + span) * ITEMSIZE[place.dtype]]
    plain = same_where_it_matters(shape, left, row_major(shape))
    return replace(place, shape=shape, layout=layout, start=start, strides=None if plain else left, inline=inline)
