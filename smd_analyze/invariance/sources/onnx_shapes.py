"""ONNX' operators that move, select or join elements, as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from smd_analyze.invariance.sources.onnx_calls import Call, NotFollowed

Tensor = torch.Tensor


def reshape(c: Call, x: Tensor, _: Tensor | None = None) -> Tensor:
    """0 keeps the axis' length, −1 takes what is left."""
    shape = c.need(1, "shape")
    if not c.integer("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


def flatten(c: Call, x: Tensor) -> Tensor:
    """To a matrix."""
    axis = c.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def transpose(c: Call, x: Tensor) -> Tensor:
    """Without `perm` the axes are reversed."""
    return x.permute(c.sizes("perm", 0, 0) or list(reversed(range(x.ndim))))


def unsqueeze(c: Call, x: Tensor, _: Tensor | None = None) -> Tensor:
    """New axes of length 1, counted in the result."""
    axes = c.need(1, "axes")
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Axes of length 1 are dropped: the named ones, else all."""
    found = c.axes(x.ndim)
    if found is None and axes is not None:
        raise NotFollowed("Squeeze of axes that depend on data")
    kept = [n for i, n in enumerate(x.shape) if (i not in found if found is not None else n != 1)]
    return x.reshape(kept)


def expand(c: Call, x: Tensor, _: Tensor) -> Tensor:
    """Broadcast with a shape."""
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(c.need(1))))


def cut(c: Call, x: Tensor, *_: Tensor | None) -> Tensor:
    """Slice."""
    starts, ends = c.need(1, "starts"), c.need(2, "ends")
    axes = c.ints(3, "axes") or list(range(len(starts)))
    steps = c.ints(4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = axis % x.ndim
        picked = range(x.shape[axis])[slice(start, None if step < 0 and end < -x.shape[axis] else end, step)]
        if step < 0:
            x = x.flip(axis)
            picked = range(x.shape[axis] - 1 - picked.start, x.shape[axis] - 1 - picked.stop, -step)
        if len(picked) != x.shape[axis]:
            x = x[(slice(None),) * axis + (slice(picked.start, max(picked.stop, 0), picked.step),)]
    return x


def split(c: Call, x: Tensor, _: Tensor | None = None) -> Any:
    """Into parts of the given sizes, or equal ones."""
    axis = c.integer("axis", 0)
    sizes = c.ints(1, "split")
    if sizes is None:
        size = -(-x.shape[axis] // c.results)
        sizes = [size] * (c.results - 1) + [x.shape[axis] - size * (c.results - 1)]
    return torch.split(x, sizes, axis)


def sequence(c: Call, x: Tensor, _: Tensor | None = None) -> Any:
    """SplitToSequence: the parts as one list."""
    axis, sizes = c.integer("axis", 0), c.ints(1)
    if sizes is None:
        parts = torch.split(x, 1, axis)
        return [parts if c.integer("keepdims", 1) else tuple(p.squeeze(axis) for p in parts)]
    return [torch.split(x, sizes if len(sizes) > 1 or sum(sizes) == x.shape[axis] else sizes[0], axis)]


def part(c: Call, parts: Any, _: Tensor) -> Tensor:
    """SequenceAt."""
    position = c.need(1)[0]
    return parts[position]


def joined(c: Call, parts: Any) -> Tensor:
    """ConcatFromSequence."""
    run = torch.stack if c.integer("new_axis", 0) else torch.cat
    return run(list(parts), c.integer("axis", 0))


def concatenate(c: Call, *parts: Tensor) -> Tensor:
    """Parts side by side."""
    return torch.cat(parts, c.integer("axis", 1)) if len(parts) > 1 else next(iter(parts))


def gather(c: Call, x: Tensor, index: Tensor) -> Tensor:
    """Entries of an axis, by known numbers or by data."""
    axis, known = c.integer("axis", 0) % x.ndim, c.known(1)
    if known is not None and known.ndim == 0:
        return x.select(axis, int(known) % x.shape[axis])
    if axis == 0 and x.ndim == 2 and known is None:
        return F.embedding(index.long(), x)
    flat = torch.remainder(index.long().reshape(-1), x.shape[axis])
    return torch.index_select(x, axis, flat).reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gather_elements(c: Call, x: Tensor, index: Tensor) -> Tensor:
    """Elements along an axis."""
    axis = c.integer("axis", 0) % x.ndim
    return torch.gather(x, axis, torch.remainder(index.long(), x.shape[axis]))


def tile(c: Call, x: Tensor, _: Tensor) -> Tensor:
    """The whole tensor several times."""
    return x.repeat(c.need(1))


def pad(c: Call, x: Tensor, *_: Tensor | None) -> Tensor:
    """Zeros or copies around."""
    pads, mode = c.need(1, "pads"), c.word("mode", "constant")
    axes = c.ints(3) or list(range(x.ndim))
    fill = c.number(2, "value") or 0.0
    n = len(axes)
    told = {a % x.ndim: (pads[i], pads[i + n]) for i, a in enumerate(axes)}
    flat = [p for axis in reversed(range(x.ndim)) for p in told.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if mode == "constant":
        return F.pad(x, flat, value=fill) if any(flat) else x
    return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def where(c: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Choice by a condition."""
    return torch.where(condition.bool(), x, y)


def triangle(c: Call, x: Tensor, _: Tensor | None = None) -> Tensor:
    """Trilu."""
    k = (c.ints(1) or [0])[0]
    return torch.triu(x, k) if c.integer("upper", 1) else torch.tril(x, k)


def extreme_index(c: Call, x: Tensor) -> Tensor:
    """ArgMax, ArgMin."""
    run = torch.argmax if c.op == "ArgMax" else torch.argmin
    return run(x, c.integer("axis", 0), bool(c.integer("keepdims", 1)))


def top(c: Call, x: Tensor, _: Tensor | None = None) -> Any:
    """TopK."""
    found = torch.topk(x, c.need(1, "k")[0], c.integer("axis", -1), bool(c.integer("largest", 1)))
    return found.values, found.indices


def depth_to_space(c: Call, x: Tensor) -> Tensor:
    """DCR or CRD order of the channels."""
    size = c.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    if c.word("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    split = x.reshape(batch, size, size, channels // size**2, height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // size**2, height * size, width * size)


def space_to_depth(c: Call, x: Tensor) -> Tensor:
    """The inverse of DCR."""
    size = c.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    split = x.reshape(batch, channels, height // size, size, width // size, size)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * size**2, height // size, width // size)


def scatter_elements(c: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Elements written along an axis."""
    if c.word("reduction", "none") != "none":
        raise NotFollowed("ScatterElements that reduces")
    return torch.scatter(x, c.integer("axis", 0), index.long(), updates)


def scatter_nd(c: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Parts written over at given places."""
    if c.word("reduction", "none") != "none":
        raise NotFollowed("ScatterND that reduces")
    return torch.index_put(x, tuple(index.long().unbind(-1)), updates)


def filled(c: Call, shape: Tensor) -> Tensor:
    """ConstantOfShape."""
    told = c.attributes.get("value") or {}
    values = told.get("values")
    fill = torch.zeros(1) if values is None else torch.as_tensor(values).reshape(-1)
    return fill.to(shape.device).expand(prod(c.need(0))).reshape(c.need(0))


def counted(c: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Range."""
    numbers = [c.known(i) for i in range(3)]
    if any(n is None for n in numbers):
        raise NotFollowed("Range whose ends depend on data")
    return torch.arange(*(n.item() for n in numbers if n is not None), device=start.device).to(start.dtype)


def random_like(c: Call, x: Tensor) -> Tensor:
    """RandomNormalLike, RandomUniformLike, Bernoulli."""
    return torch.rand_like(x)


SHAPES: dict[str, Callable[..., Any]] = {
    "Reshape": reshape, "Flatten": flatten, "Transpose": transpose, "Unsqueeze": unsqueeze, "Squeeze": squeeze,
    "Expand": expand, "Slice": cut, "Split": split, "SplitToSequence": sequence, "SequenceAt": part,
    "ConcatFromSequence": joined, "Concat": concatenate, "Gather": gather, "GatherElements": gather_elements,
    "Tile": tile, "Pad": pad, "Where": where, "Trilu": triangle, "ArgMax": extreme_index, "ArgMin": extreme_index,
    "TopK": top, "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "Range": counted,
    "ScatterElements": scatter_elements, "ScatterND": scatter_nd, "ConstantOfShape": filled,
    "RandomNormalLike": random_like, "RandomUniformLike": random_like, "Bernoulli": random_like,
}  # fmt: skip
