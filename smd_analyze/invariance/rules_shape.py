"""Rules of operations that move, select or join elements: operation → where each degree goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from smd_analyze.invariance import layout
from smd_analyze.invariance.lattice import Value, plain, zeros
from smd_analyze.invariance.rules_elementwise import axes_of
from smd_analyze.invariance.walking import NoRule, Outcome, Walk, operation


def reshape(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    """Any view that keeps the order of the elements."""
    return layout.reshape(w.degrees, w.value(x), w.shape(node))


def unsqueeze(w: Walk, node: Node, x: Any, dim: int) -> Value:
    """A new axis of length 1."""
    value = w.value(x)
    return layout.unsqueeze(value, dim % (value.ndim + 1))


def permute(w: Walk, node: Node, x: Any, order: Any) -> Value:
    """Axes in another order."""
    value = w.value(x)
    return layout.permute(value, [a % value.ndim for a in order])


def transpose(w: Walk, node: Node, x: Any, a: int = -2, b: int = -1) -> Value:
    """Two axes swapped."""
    value = w.value(x)
    order = list(range(value.ndim))
    if value.ndim > 1:
        order[a], order[b] = order[b], order[a]
    return layout.permute(value, order)


def move_axes(w: Walk, node: Node, x: Any, source: Any, target: Any) -> Value:
    """Axes moved to given places, the others in order."""
    value = w.value(x)
    placed = dict(zip(axes_of(value, target), axes_of(value, source), strict=True))
    rest = (a for a in range(value.ndim) if a not in placed.values())
    return layout.permute(value, [placed[i] if i in placed else next(rest) for i in range(value.ndim)])


def expand(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    """Broadcast."""
    value = w.value(x)
    return Value(w.shape(node), w.degrees.broadcast(value, w.shape(node)), value.nonnegative)


def cut(w: Walk, node: Node, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    """A slice."""
    value = w.value(x)
    axis = dim % value.ndim
    return layout.take(value, axis, np.arange(value.shape[axis])[_slice(value.shape[axis], start, end, step)])


def _slice(length: int, start: Any, end: Any, step: int) -> slice:
    return slice(start, None if end is not None and end > length else end, step)


def narrow(w: Walk, node: Node, x: Any, dim: int, start: int, length: int) -> Value:
    """`length` entries from `start` on."""
    value = w.value(x)
    return layout.take(value, dim % value.ndim, range(start, start + length))


def select(w: Walk, node: Node, x: Any, dim: int, index: int) -> Value:
    """One index of an axis."""
    value = w.value(x)
    axis = dim % value.ndim
    return layout.select(value, axis, index % value.shape[axis])


def split(w: Walk, node: Node, x: Any, _: Any, dim: int = 0) -> Outcome:
    """Consecutive parts of an axis."""
    value = w.value(x)
    axis, start, parts = dim % value.ndim, 0, []
    for shape in w.shapes(node):
        length = shape[axis] if shape else 0
        parts.append(layout.take(value, axis, range(start, start + length)))
        start += length
    return parts


def unbind(w: Walk, node: Node, x: Any, dim: int = 0) -> Outcome:
    """Every index of an axis by itself."""
    value = w.value(x)
    axis = dim % value.ndim
    return [layout.select(value, axis, i) for i in range(value.shape[axis])]


def flip(w: Walk, node: Node, x: Any, dims: Any) -> Value:
    """Axes read backwards."""
    value = w.value(x)
    for axis in axes_of(value, dims):
        value = layout.take(value, axis, np.arange(value.shape[axis])[::-1])
    return value


def roll(w: Walk, node: Node, x: Any, shifts: Any, dims: Any = ()) -> Value:
    """Axes turned round."""
    value = w.value(x)
    if not dims:
        raise NoRule("roll of the flattened tensor")
    for shift, axis in zip(
        shifts if isinstance(shifts, (list, tuple)) else [shifts], axes_of(value, dims), strict=True
    ):
        value = layout.take(value, axis, np.roll(np.arange(value.shape[axis]), shift))
    return value


def repeat(w: Walk, node: Node, x: Any, repeats: Any) -> Value:
    """The whole tensor several times along each axis."""
    value = w.value(x)
    value = layout.reshape(w.degrees, value, (1,) * (len(repeats) - value.ndim) + value.shape)
    for axis, times in enumerate(repeats):
        if times != 1:
            single = value.shape[axis] == 1
            value = layout.take(value, axis, np.tile(np.arange(value.shape[axis]), times))
            if single:
                terms = tuple(t.but(None, t.vary - {axis}) for t in value.terms)
                value = Value(value.shape, terms, value.nonnegative)
    return value


def repeat_interleave(w: Walk, node: Node, x: Any, repeats: Any, dim: int | None = None, **_: Any) -> Value:
    """Each entry several times."""
    if dim is None or not isinstance(repeats, int):
        raise NoRule("repeat_interleave by data")
    value = w.value(x)
    axis = dim % value.ndim
    return layout.take(value, axis, np.repeat(np.arange(value.shape[axis]), repeats))


def concatenate(w: Walk, node: Node, parts: Any, dim: int = 0) -> Value:
    """Parts side by side; torch allows an empty vector among them."""
    shape = w.shape(node)
    values = [v for v in map(w.value, parts) if v.ndim == len(shape)]
    return layout.concatenate(w.degrees, values, dim % len(shape), shape)


def stack(w: Walk, node: Node, parts: Any, dim: int = 0) -> Value:
    """Parts along a new axis."""
    shape = w.shape(node)
    axis = dim % len(shape)
    return layout.concatenate(w.degrees, [layout.unsqueeze(w.value(p), axis) for p in parts], axis, shape)


def slice_scatter(
    w: Walk, node: Node, x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    """x with a slice written over."""
    value, new = w.value(x), w.value(source)
    axis = dim % value.ndim
    return _overwritten(w, value, new, axis, np.arange(value.shape[axis])[_slice(value.shape[axis], start, end, step)])


def select_scatter(w: Walk, node: Node, x: Any, source: Any, dim: int, index: int) -> Value:
    """x with one index of an axis written over."""
    value = w.value(x)
    axis = dim % value.ndim
    new = layout.unsqueeze(w.value(source), axis)
    return _overwritten(w, value, new, axis, np.array([index % value.shape[axis]]))


def _overwritten(w: Walk, value: Value, new: Value, axis: int, index: np.ndarray) -> Value:
    length = value.shape[axis]
    order = np.arange(length)
    order[index] = length + np.arange(len(index))
    wide = (*value.shape[:axis], length + len(index), *value.shape[axis + 1 :])
    return layout.take(layout.concatenate(w.degrees, [value, new], axis, wide), axis, order)


def pad(w: Walk, node: Node, x: Any, pads: Any, *rest: Any, **named: Any) -> Value:
    """Zeros (or copies of the border) around: a shift varies along a padded axis."""
    value = w.value(x)
    mode = rest[0] if rest and isinstance(rest[0], str) else named.get("mode", "constant")
    fill = rest[-1] if rest and not isinstance(rest[-1], str) else named.get("value", 0)
    if operation(node) in ("pad", "constant_pad_nd") and mode == "constant" and fill not in (None, 0, 0.0):
        raise NoRule("padding with another value than zero")
    for position in range(len(pads) // 2):
        axis, (left, right) = value.ndim - 1 - position, pads[2 * position : 2 * position + 2]
        if left < 0 or right < 0:
            value = layout.take(value, axis, range(max(0, -left), value.shape[axis] - max(0, -right)))
            left, right = max(left, 0), max(right, 0)
        if left == right == 0:
            continue
        head, tail = value.shape[:axis], value.shape[axis + 1 :]
        shape = (*head, value.shape[axis] + left + right, *tail)
        if any(axis in f.axes for t in value.terms for f in w.degrees.space.canonical(t.degree)):
            if operation(node) not in ("pad", "constant_pad_nd") or mode != "constant":
                raise NoRule("padding of an axis of different scales with copies")
            parts = [zeros((*head, n, *tail)) for n in (left, right)]
            kept = [p for p in (parts[0], value, parts[1]) if p.shape[axis]]
            value = layout.concatenate(w.degrees, kept, axis, shape)
        else:
            value = Value(shape, tuple(t.but(None, t.vary | {axis}) for t in value.terms), value.nonnegative)
    return value


def pixel_shuffle(w: Walk, node: Node, x: Any, factor: int) -> Value:
    """Channels to space."""
    value = w.value(x)
    *batch, c, height, width = value.shape
    if len(batch) != 1:
        raise NoRule("pixel_shuffle without one batch axis")
    n = batch[0]
    value = layout.reshape(w.degrees, value, (n, c // factor**2, factor, factor, height, width))
    return layout.reshape(w.degrees, layout.permute(value, [0, 1, 4, 2, 5, 3]), w.shape(node))


def pixel_unshuffle(w: Walk, node: Node, x: Any, factor: int) -> Value:
    """Space to channels."""
    value = w.value(x)
    *batch, c, height, width = value.shape
    if len(batch) != 1:
        raise NoRule("pixel_unshuffle without one batch axis")
    value = layout.reshape(w.degrees, value, (batch[0], c, height // factor, factor, width // factor, factor))
    return layout.reshape(w.degrees, layout.permute(value, [0, 1, 3, 5, 2, 4]), w.shape(node))


def unfold(w: Walk, node: Node, x: Any, dim: int, size: int, step: int) -> Value:
    """Overlapping windows of an axis."""
    value = w.value(x)
    axis = dim % value.ndim
    terms = tuple(
        t.but(w.degrees.space.uniform(t.degree, {axis}), t.vary | ({value.ndim} if axis in t.vary else set()))
        for t in value.terms
    )
    return Value(w.shape(node), terms, value.nonnegative)


def embedding(w: Walk, node: Node, weight: Any, index: Any, *_: Any, **__: Any) -> Value:
    """Rows chosen by data; rows are exchangeable."""
    table, shape = w.value(weight), w.shape(node)
    last = len(shape) - 1
    value = layout.look_up(w.degrees, table, 0, shape, tuple(range(last)), {1: last})
    taint = w.value(index).taint
    return Value(shape, tuple(t.but(None, None, taint) for t in value.terms))


def index(w: Walk, node: Node, x: Any, indices: Any) -> Value:
    """Fancy indexing of one axis, by known numbers or by data."""
    value, shape = w.value(x), w.shape(node)
    used = [a for a, i in enumerate(indices) if i is not None]
    taint = 0
    for axis in used:
        taint |= w.value(indices[axis]).taint
    if all(not w.degrees.space.canonical(t.degree) for t in value.terms):
        terms = tuple(t.but((), range(len(shape)), taint) for t in value.terms)
        return Value(shape, terms, value.nonnegative)
    if len(used) == 1:
        axis, chosen = used[0], indices[used[0]]
        known = w.known.get(chosen)
        if known is not None and known.dtype != torch.bool:
            picked = layout.take(value, axis, known.reshape(-1).numpy())
            return layout.reshape(w.degrees, picked, shape)
        extra = w.value(chosen).ndim
        if extra and len(shape) == value.ndim - 1 + extra:
            other = {a: a if a < axis else a - 1 + extra for a in range(value.ndim) if a != axis}
            out = layout.look_up(w.degrees, value, axis, shape, tuple(range(axis, axis + extra)), other)
            return Value(shape, tuple(t.but(None, None, taint) for t in out.terms), out.nonnegative)
    raise NoRule("index along several axes")


def index_select(w: Walk, node: Node, x: Any, dim: int, chosen: Any) -> Value:
    """Entries of an axis."""
    value = w.value(x)
    axis = dim % value.ndim
    if chosen in w.known:
        return layout.take(value, axis, w.known[chosen].reshape(-1).numpy())
    other = {a: a for a in range(value.ndim) if a != axis}
    out = layout.look_up(w.degrees, value, axis, w.shape(node), (axis,), other)
    return Value(out.shape, tuple(t.but(None, None, w.value(chosen).taint) for t in out.terms), out.nonnegative)


def gather(w: Walk, node: Node, x: Any, dim: int, chosen: Any, **_: Any) -> Value:
    """Elements along an axis: one degree along it."""
    value, shape = w.value(x), w.shape(node)
    axis = dim % max(value.ndim, 1)
    cropped = any(a != b for i, (a, b) in enumerate(zip(value.shape, shape, strict=True)) if i != axis)
    if cropped and any(w.degrees.space.canonical(t.degree) for t in value.terms):
        raise NoRule("gather that also crops")
    taint = w.value(chosen).taint
    terms = tuple(t.but(w.degrees.space.uniform(t.degree, {axis}), range(len(shape)), taint) for t in value.terms)
    return Value(shape, terms, value.nonnegative)


def scatter(w: Walk, node: Node, x: Any, dim: int, chosen: Any, source: Any, **_: Any) -> Value:
    """Elements written along an axis: one degree along it, for both."""
    value, new, shape = w.value(x), w.value(source), w.shape(node)
    axis = dim % max(value.ndim, 1)
    if new.shape not in (shape, ()) and any(w.degrees.space.canonical(t.degree) for t in new.terms):
        raise NoRule("scatter of a smaller tensor")
    taint = w.value(chosen).taint
    terms = [
        t.but(w.degrees.space.uniform(t.degree, {axis}), range(len(shape)), taint)
        for v in (value, new)
        for t in (v.terms if v.ndim else w.degrees.broadcast(v, shape))
    ]
    return Value(shape, w.degrees.simplified(terms), value.nonnegative and new.nonnegative)


def metadata(w: Walk, node: Node, *_: Any, **__: Any) -> Value:
    """Checks and sizes: no tensor of the model."""
    return plain(w.shape(node))


RULES = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "view_copy", "_reshape_alias", "ravel"),
        reshape,
    ),
    **dict.fromkeys(("permute", "permute_copy"), permute),
    **dict.fromkeys(("transpose", "swapaxes", "t", "numpy_T", "mT"), transpose),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to", "expand_copy"), expand),
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk"), split),
    **dict.fromkeys(("cat", "concat"), concatenate),
    **dict.fromkeys(
        ("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
        pad,
    ),
    **dict.fromkeys(("scatter", "scatter_add"), scatter),
    **dict.fromkeys(
        ("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_size", "item", "_local_scalar_dense"),
        metadata,
    ),
    "unsqueeze": unsqueeze, "movedim": move_axes, "slice": cut, "narrow": narrow, "select": select, "unbind": unbind,
    "flip": flip, "roll": roll, "repeat": repeat, "repeat_interleave": repeat_interleave, "stack": stack,
    "slice_scatter": slice_scatter, "select_scatter": select_scatter, "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle, "unfold": unfold, "embedding": embedding, "index": index,
    "index_select": index_select, "gather": gather,
}  # fmt: skip
