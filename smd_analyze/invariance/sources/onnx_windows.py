"""ONNX' convolutions, pools and resizing as torch computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from smd_analyze.invariance.sources.onnx_calls import Call, NotFollowed
from smd_analyze.invariance.sources.onnx_shapes import SHAPES

Tensor = torch.Tensor


def borders(c: Call, x: Tensor, size: Sequence[int], stride: Sequence[int], spread: Sequence[int]) -> list[int]:
    """Zeros before every spatial axis, then after each: from `pads` or `auto_pad`."""
    n, auto = x.ndim - 2, c.word("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return c.sizes("pads", 2 * n, 0) if auto == "NOTSET" else [0] * 2 * n
    need = [
        max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        for length, k, s, d in zip(x.shape[2:], size, stride, spread, strict=True)
    ]
    small, large = [p // 2 for p in need], [p - p // 2 for p in need]
    return small + large if auto == "SAME_UPPER" else large + small


def around(x: Tensor, pads: Sequence[int]) -> tuple[Tensor, list[int]]:
    """(x, padding) where both ends of every axis get the same; else (x with zeros around, no padding)."""
    n = len(pads) // 2
    if list(pads[:n]) == list(pads[n:]):
        return x, list(pads[:n])
    flat = [p for axis in reversed(range(n)) for p in (pads[axis], pads[axis + n])]
    return F.pad(x, flat), [0] * n


def convolution(c: Call, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv."""
    n = x.ndim - 2
    run: Any = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    stride, spread = c.sizes("strides", n, 1), c.sizes("dilations", n, 1)
    x, padding = around(x, borders(c, x, kernel.shape[2:], stride, spread))
    return run(x, kernel, bias, stride, padding, spread, c.integer("group", 1))


def transposed(c: Call, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """ConvTranspose; what `pads` takes off is cut afterwards, `output_shape` and `auto_pad` cut at the end."""
    n = x.ndim - 2
    run: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
    stride, spread = c.sizes("strides", n, 1), c.sizes("dilations", n, 1)
    pads, extra = c.sizes("pads", 2 * n, 0), c.sizes("output_padding", n, 0)
    out = run(x, kernel, bias, stride, 0, 0, c.integer("group", 1), spread)
    wanted = c.sizes("output_shape", 0, 0)
    if not wanted and c.word("auto_pad", "NOTSET").startswith("SAME"):
        wanted = [length * s for length, s in zip(x.shape[2:], stride, strict=True)]
    for axis in range(n):
        length = out.shape[axis + 2]
        size = wanted[axis] if wanted else length - pads[axis] - pads[axis + n] + extra[axis]
        start = 0 if wanted else pads[axis]
        if start + size > length:
            out = F.pad(out, [*[0] * (2 * (n - 1 - axis)), 0, start + size - length])
        out = out.narrow(axis + 2, start, size)
    return out


def pool(c: Call, x: Tensor) -> Tensor:
    """MaxPool and AveragePool."""
    n = x.ndim - 2
    size, stride = c.sizes("kernel_shape", n, 1), c.sizes("strides", n, 1)
    spread = c.sizes("dilations", n, 1)
    if c.results > 1:
        raise NotFollowed(f"{c.op} whose indices are used")
    x, padding = around(x, borders(c, x, size, stride, spread))
    if any(2 * p > k for p, k in zip(padding, size, strict=True)):
        x, padding = F.pad(x, [p for p in reversed(padding) for _ in (0, 1)]), [0] * n
    ceil = bool(c.integer("ceil_mode", 0))
    if c.op == "MaxPool":
        run: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
        return run(x, size, stride, padding, spread, ceil)
    if any(d != 1 for d in spread):
        raise NotFollowed("AveragePool with dilations")
    run = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
    return run(x, size, stride, padding, ceil, bool(c.integer("count_include_pad", 0)))


def resize(c: Call, x: Tensor, *_: Tensor | None) -> Tensor:
    """Resize and Upsample of the spatial axes; every way of interpolating is linear with weights that sum to one."""
    if c.op == "Upsample":
        found, told = c.known(1), c.attributes.get("scales")
        scales, sizes = found.tolist() if told is None and found is not None else told, None
    else:
        place = 1 if c.opset < 11 else 2
        known = c.known(place)
        scales, sizes = known.tolist() if known is not None and known.size else None, c.ints(3)
    if not sizes:
        if not scales:
            raise NotFollowed(f"{c.op} whose sizes depend on data")
        sizes = [int(n * s) for n, s in zip(x.shape[-len(scales) :], scales, strict=True)]
    if x.ndim == len(sizes) and list(x.shape[:2]) == list(sizes[:2]):
        sizes = sizes[2:]
    if len(sizes) != x.ndim - 2:
        raise NotFollowed(f"{c.op} of the channels")
    return F.interpolate(x, sizes, mode="nearest")


def everywhere(run: Callable[[Tensor, list[int]], Tensor]) -> Callable[..., Tensor]:
    """A pool over all places."""
    return lambda c, x: run(x, list(range(2, x.ndim)))


def recurrent(c: Call, x: Tensor, *others: Tensor | None) -> Any:
    """LSTM, GRU, RNN: their gates let no scale through, so only the shapes of the results matter."""
    hidden, sides = c.integer("hidden_size", 1), 2 if c.word("direction") == "bidirectional" else 1
    first = c.integer("layout", 0) == 1
    length, batch = (x.shape[1], x.shape[0]) if first else (x.shape[0], x.shape[1])
    inputs = [x, *(o for o in others if o is not None and o.is_floating_point())]
    shapes = [(batch, length, sides, hidden) if first else (length, sides, batch, hidden)]
    shapes += [(batch, sides, hidden) if first else (sides, batch, hidden)] * 2
    found = tuple(opaque(inputs, shape) for shape in shapes[: c.results])
    return found if c.results > 1 else found[0]


def opaque(inputs: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """A tensor of which every number may depend in any way on every number of the inputs, and which nothing deletes."""
    numbers = [x if x.is_floating_point() else x.float() for x in inputs]
    mixed = sum((torch.exp(x.sum()) for x in numbers), torch.zeros((), device=inputs[0].device))
    return mixed * torch.linspace(1.0, 2.0, max(prod(shape), 2), device=inputs[0].device)[: prod(shape)].reshape(
        tuple(shape)
    )


WINDOWS: dict[str, Callable[..., Any]] = {
    "Conv": convolution, "ConvTranspose": transposed, "MaxPool": pool, "AveragePool": pool, "Resize": resize,
    "Upsample": resize, "GlobalAveragePool": everywhere(lambda x, a: x.mean(a, True)),
    "GlobalMaxPool": everywhere(lambda x, a: x.amax(a, True)), "LSTM": recurrent, "GRU": recurrent, "RNN": recurrent,
    **SHAPES,
}  # fmt: skip
