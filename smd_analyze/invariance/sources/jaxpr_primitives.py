"""jax' primitives as torch computes them, as far as scales go. A literal arrives as a Python number or a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F

from smd_analyze.invariance.sources.jaxpr_equations import Equation

Tensor = torch.Tensor
DTYPES = {"bool": torch.bool, "int8": torch.int8, "int16": torch.int16, "int32": torch.int64, "int64": torch.int64,
          "uint8": torch.uint8, "uint16": torch.int64, "uint32": torch.int64, "uint64": torch.int64}  # fmt: skip


class NotFollowed(Exception):
    """The primitive, or this use of it, is not one of those that are interpreted."""


def dtype_of(name: str) -> torch.dtype:
    """Whole numbers as torch counts with them; every floating-point type is the default one."""
    return DTYPES.get(name) or torch.get_default_dtype()


def tensor(x: Any) -> Tensor:
    """A number as a tensor."""
    return x if isinstance(x, Tensor) else torch.as_tensor(x)


def convert(e: Equation, x: Any) -> Any:
    """Floating-point numbers stay what they are."""
    wanted = e.dtypes[0]
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point() and wanted not in DTYPES:
        return x
    return x.to(dtype_of(wanted))


def larger(e: Equation, x: Any, y: Any) -> Any:
    """Maximum or minimum; with zero it is a ReLU."""
    for a, b in ((x, y), (y, x)):
        if isinstance(a, Tensor) and not isinstance(b, Tensor):
            if e.name == "max":
                return F.relu(a) if b == 0 else a if b == float("-inf") else torch.clamp(a, min=b)
            return -F.relu(-a) if b == 0 else a if b == float("inf") else torch.clamp(a, max=b)
    run = torch.maximum if e.name == "max" else torch.minimum
    return run(tensor(x), tensor(y))


def power(e: Equation, x: Any, y: Any = None) -> Any:
    """With the exponent as a number where it is known."""
    return torch.pow(x, int(e.params["y"]) if e.name == "integer_pow" else y)


def clamp(e: Equation, low: Any, x: Tensor, high: Any) -> Tensor:
    """lax.clamp."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return torch.minimum(torch.maximum(tensor(low), x), tensor(high))
    return torch.clamp(x, low, high)


def choice(e: Equation, which: Tensor, *cases: Any) -> Any:
    """select_n of one or two."""
    if len(cases) == 1:
        return cases[0]
    if len(cases) != 2:
        raise NotFollowed("select_n of several")
    return torch.where(tensor(which).bool(), tensor(cases[1]), tensor(cases[0]))


def divided(e: Equation, x: Any, y: Any) -> Any:
    """Whole numbers divide to whole numbers."""
    if e.dtypes[0] in DTYPES:
        return torch.div(tensor(x), tensor(y), rounding_mode="trunc")
    return x / y if isinstance(x, Tensor) else tensor(x) / y


def shaped(e: Equation, x: Any) -> Tensor:
    """reshape, squeeze, expand_dims."""
    return tensor(x).reshape(e.shapes[0])


def spread(e: Equation, x: Any, *_: Any) -> Tensor:
    """broadcast_in_dim: axis i of x becomes axis broadcast_dimensions[i]."""
    shape = e.shapes[0]
    if not isinstance(x, Tensor):
        return torch.full(shape, x, dtype=dtype_of(e.dtypes[0]))
    onto = [int(a) for a in e.params["broadcast_dimensions"]]
    wide = [1] * len(shape)
    for axis, place in enumerate(onto):
        wide[place] = x.shape[axis]
    return x.reshape(wide).expand(shape)


def cut(e: Equation, x: Tensor) -> Tensor:
    """slice."""
    steps = e.params["strides"] or [1] * x.ndim
    for axis, (start, stop, step) in enumerate(
        zip(e.params["start_indices"], e.params["limit_indices"], steps, strict=True)
    ):
        if (start, stop, step) != (0, x.shape[axis], 1):
            x = x[(slice(None),) * axis + (slice(int(start), int(stop), int(step)),)]
    return x


def cut_at(e: Equation, x: Tensor, *starts: Any) -> Tensor:
    """dynamic_slice at known places."""
    if any(isinstance(s, Tensor) for s in starts):
        raise NotFollowed("dynamic_slice at places that depend on data")
    for axis, (start, size) in enumerate(zip(starts, e.params["slice_sizes"], strict=True)):
        if size != x.shape[axis]:
            x = x.narrow(axis, max(0, min(int(start), x.shape[axis] - int(size))), int(size))
    return x


def pad(e: Equation, x: Tensor, fill: Any) -> Tensor:
    """Around, negative ones cut; between the elements only zeros."""
    told = [(int(a), int(b), int(c)) for a, b, c in e.params["padding_config"]]
    number = None if isinstance(fill, Tensor) else float(fill)
    if number is None:
        raise NotFollowed("pad with a number that depends on data")
    for axis, (_, _, between) in enumerate(told):
        x = between_zeros(x, axis, between + 1) if between else x
    flat = [n for low, high, _ in reversed(told) for n in (low, high)]
    return F.pad(x, flat, value=number) if any(flat) else x


def between_zeros(x: Tensor, axis: int, step: int) -> Tensor:
    """step − 1 zeros between the elements of an axis."""
    length = x.shape[axis]
    wide = F.pad(x.unsqueeze(axis + 1), [*[0, 0] * (x.ndim - axis - 1), 0, step - 1])
    return wide.reshape(*x.shape[:axis], length * step, *x.shape[axis + 1 :]).narrow(axis, 0, (length - 1) * step + 1)


def product(e: Equation, x: Any, y: Any) -> Tensor:
    """dot_general: batch axes first, then what is left of x, then of y."""
    x, y = tensor(x), tensor(y)
    (of_x, of_y), (batch_x, batch_y) = e.params["dimension_numbers"]
    if not batch_x and tuple(of_x) == (x.ndim - 1,) and tuple(of_y) == (0,) and y.ndim >= 2:
        flat = y if y.ndim == 2 else y.reshape(y.shape[0], -1)
        return torch.matmul(x, flat).reshape(e.shapes[0])
    letters = iter(ascii_letters)
    left: dict[int, str] = {}
    right: dict[int, str] = {}
    out = ""
    for a, b in zip(batch_x, batch_y, strict=True):
        left[a] = right[b] = letter = next(letters)
        out += letter
    for a, b in zip(of_x, of_y, strict=True):
        left[a] = right[b] = next(letters)
    for sides, value in ((left, x), (right, y)):
        for axis in range(value.ndim):
            if axis not in sides:
                sides[axis] = next(letters)
                out += sides[axis]
    first = "".join(left[a] for a in range(x.ndim))
    second = "".join(right[a] for a in range(y.ndim))
    return torch.einsum(f"{first},{second}->{out}", x, y)


def convolution(e: Equation, x: Tensor, kernel: Tensor) -> Tensor:
    """conv_general_dilated; the kernel comes with its outputs first, then its inputs."""
    p = e.params
    if int(p.get("batch_group_count", 1)) != 1:
        raise NotFollowed("convolution of groups of the batch")
    spec = p["dimension_numbers"]
    x = x.permute([int(a) for a in spec[0]])
    for axis, step in enumerate(p["lhs_dilation"], start=2):
        x = between_zeros(x, axis, int(step)) if int(step) > 1 else x
    flat = [int(n) for low, high in reversed(list(p["padding"])) for n in (low, high)]
    equal = all(low == high >= 0 for low, high in p["padding"])
    padding: list[int] = [int(low) for low, _ in p["padding"]] if equal else [0] * (x.ndim - 2)
    x = x if equal else F.pad(x, flat)
    run: Any = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}.get(x.ndim)
    if run is None:
        raise NotFollowed("convolution of this many axes")
    stride, dilation = [int(n) for n in p["window_strides"]], [int(n) for n in p["rhs_dilation"]]
    out = run(x, kernel, None, stride, padding, dilation, int(p["feature_group_count"]))
    order = [int(a) for a in spec[2]]
    return out.permute([order.index(a) for a in range(out.ndim)])


def window(e: Equation, x: Tensor) -> Tensor:
    """reduce_window_max, reduce_window_sum over up to three axes."""
    p = e.params
    size, stride, padding = p["window_dimensions"], p["window_strides"], p["padding"]
    axes = [a for a in range(x.ndim) if size[a] != 1 or stride[a] != 1 or tuple(padding[a]) != (0, 0)]
    if not axes:
        return x
    if len(axes) > 3 or any(d != 1 for d in (*p.get("window_dilation", ()), *p.get("base_dilation", ()))):
        raise NotFollowed(f"{e.name} of this kind")
    rest = [a for a in range(x.ndim) if a not in axes]
    moved = x.permute([*rest, *axes])
    moved = F.pad(moved, [int(n) for a in reversed(axes) for n in padding[a]])
    kept = moved.shape[: len(rest)]
    flat = moved if len(rest) == 2 else moved.reshape(prod(kept), 1, *moved.shape[len(rest) :])
    sizes, steps = [int(size[a]) for a in axes], [int(stride[a]) for a in axes]
    if e.name == "reduce_window_max":
        out = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(axes) - 1](flat, sizes, steps)
    else:
        pools: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
        out = pools[len(axes) - 1](flat, sizes, steps) * prod(sizes)
    out = out.reshape(*kept, *out.shape[2:])
    order = [*rest, *axes]
    return out.permute([order.index(a) for a in range(x.ndim)])


def gather(e: Equation, x: Tensor, index: Any) -> Tensor:
    """Whole rows of one axis, which goes away."""
    numbers = e.params["dimension_numbers"]
    gone = tuple(int(a) for a in numbers.collapsed_slice_dims)
    sizes = tuple(int(n) for n in e.params["slice_sizes"])
    axis = gone[0] if len(gone) == 1 else -1
    whole = all(n == (1 if a == axis else x.shape[a]) for a, n in enumerate(sizes))
    index = tensor(index)
    if (
        axis < 0
        or not whole
        or tuple(numbers.start_index_map) != (axis,)
        or getattr(numbers, "operand_batching_dims", ())
    ):
        raise NotFollowed("gather of parts")
    rows = torch.remainder(index.squeeze(-1).long(), x.shape[axis])
    offset = [int(a) for a in numbers.offset_dims]
    if axis == 0 and x.ndim == 2 and offset == [rows.ndim]:
        return F.embedding(rows, x)
    out = torch.index_select(x, axis, rows.reshape(-1))
    out = out.movedim(axis, 0).reshape(*rows.shape, *(n for a, n in enumerate(x.shape) if a != axis))
    batch = iter(range(rows.ndim))
    rest = iter(range(rows.ndim, out.ndim))
    return out.permute([next(rest) if a in offset else next(batch) for a in range(out.ndim)])


def counted(e: Equation) -> Tensor:
    """iota."""
    axis, shape = int(e.params["dimension"]), e.shapes[0]
    wide = [1] * len(shape)
    wide[axis] = shape[axis]
    return torch.arange(shape[axis], dtype=dtype_of(e.dtypes[0])).reshape(wide).expand(shape)


def summed(run: Callable[[Tensor, list[int]], Tensor]) -> Callable[..., Tensor]:
    """A reduction over the axes in the parameters."""
    return lambda e, x: run(x, [int(a) for a in e.params["axes"]]) if e.params["axes"] else x


def cumulative(e: Equation, x: Tensor) -> Tensor:
    """cumsum, possibly from the end."""
    axis = int(e.params["axis"])
    return torch.cumsum(x.flip(axis), axis).flip(axis) if e.params.get("reverse") else torch.cumsum(x, axis)


def position(e: Equation, x: Tensor) -> Tensor:
    """argmax, argmin of one axis."""
    run = torch.argmax if e.name == "argmax" else torch.argmin
    return run(x, int(e.params["axes"][0]))


def parts(e: Equation, x: Tensor) -> Any:
    """split."""
    return torch.split(x, [int(n) for n in e.params["sizes"]], int(e.params["axis"]))


def largest(e: Equation, x: Tensor) -> Any:
    """top_k of the last axis."""
    found = torch.topk(x, int(e.params["k"]))
    return found.values, found.indices


def ordered(e: Equation, *x: Tensor) -> Any:
    """sort of one array."""
    if len(x) != 1:
        raise NotFollowed("sort of several arrays")
    return (torch.sort(x[0], int(e.params["dimension"])).values,)


def chance(e: Equation, *_: Any) -> Any:
    """Random numbers, whatever is made of them."""
    kinds = [dtype_of(d) for d in e.dtypes]
    made = [torch.rand(s) for s in e.shapes]
    return tuple(
        n > 0.5 if k == torch.bool else n if k.is_floating_point else n.long() for n, k in zip(made, kinds, strict=True)
    )


def simple(run: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its inputs alone."""
    return lambda e, *x: run(*x)


def unary(run: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A function of one tensor."""
    return lambda e, x, *_: run(tensor(x))


def binary(run: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A function of two, of which one may be a number."""
    return lambda e, x, y: run(x if isinstance(x, Tensor) or isinstance(y, Tensor) else tensor(x), y)


PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("copy", "copy_p", "reduce_precision", "sharding_constraint", "device_put"), lambda e, x, *_: x),
    "optimization_barrier": lambda e, *x: x, "convert_element_type": convert, "stop_gradient": unary(torch.detach),
    "add": binary(lambda x, y: x + y), "add_any": binary(lambda x, y: x + y), "sub": binary(lambda x, y: x - y),
    "mul": binary(lambda x, y: x * y), "div": divided, "neg": unary(torch.neg), "max": larger, "min": larger,
    "integer_pow": power, "pow": power, "square": unary(lambda x: x * x), "sqrt": unary(torch.sqrt),
    "rsqrt": unary(torch.rsqrt), "exp": unary(torch.exp), "exp2": unary(torch.exp2), "log": unary(torch.log),
    "log1p": unary(torch.log1p), "expm1": unary(torch.expm1), "tanh": unary(torch.tanh), "sin": unary(torch.sin),
    "cos": unary(torch.cos), "tan": unary(torch.tan), "logistic": unary(torch.sigmoid), "erf": unary(torch.erf),
    "erfc": unary(torch.erfc), "abs": unary(torch.abs), "sign": unary(torch.sign), "floor": unary(torch.floor),
    "ceil": unary(torch.ceil), "round": unary(torch.round), "is_finite": unary(torch.isfinite), "clamp": clamp,
    "select_n": choice, "eq": binary(lambda x, y: x == y), "ne": binary(lambda x, y: x != y),
    "lt": binary(lambda x, y: x < y), "le": binary(lambda x, y: x <= y), "gt": binary(lambda x, y: x > y),
    "ge": binary(lambda x, y: x >= y), "and": binary(lambda x, y: x & y), "or": binary(lambda x, y: x | y),
    "xor": binary(lambda x, y: x ^ y), "not": unary(torch.logical_not), "rem": binary(torch.remainder),
    "reshape": shaped, "squeeze": shaped, "expand_dims": shaped, "broadcast_in_dim": spread,
    "transpose": lambda e, x: tensor(x).permute([int(a) for a in e.params["permutation"]]),
    "rev": lambda e, x: x.flip([int(a) for a in e.params["dimensions"]]), "slice": cut, "dynamic_slice": cut_at,
    "concatenate": lambda e, *x: torch.cat([tensor(t) for t in x], int(e.params["dimension"])), "pad": pad,
    "stack": lambda e, *x: torch.stack([tensor(t) for t in x]), "split": parts,
    "select_one": lambda e, x: x.select(0, int(e.params["index"])), "dot_general": product,
    "conv_general_dilated": convolution, "reduce_window_max": window, "reduce_window_sum": window, "gather": gather,
    "iota": counted, "reduce_sum": summed(lambda x, a: x.sum(a)), "reduce_max": summed(lambda x, a: x.amax(a)),
    "reduce_min": summed(lambda x, a: x.amin(a)), "cumsum": cumulative, "argmax": position, "argmin": position,
    "top_k": largest, "sort": ordered, "mean": summed(lambda x, a: x.mean(a)), "random": chance,
    "centre": lambda e, x: x - x.mean([int(a) for a in e.params["axes"]], True),
    "variance": summed(lambda x, a: torch.var(x, a, correction=0)),
    "softmax": lambda e, x: torch.softmax(x, int(e.params["axis"])),
}  # fmt: skip


def listed(found: Any, count: int) -> Sequence[Any]:
    """Results one by one."""
    return found if isinstance(found, (tuple, list)) else (found,) * count
